//! The ring: nodes at virtual points, and the order in which a shard meets them.

use crate::error::RingError;
use crate::flow::{Job, Problem, assign};
use crate::leaders;
use crate::murmur::murmur3_x64_128;
use crate::placement::Placement;
use crate::shard::shard_range;
use crate::shares::Shares;
use crate::zones::Zones;

/// A node as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNode {
    /// Its name, unique. Decides where it stands on the ring.
    pub name: String,
    /// Its capacity relative to the others', at least 1.
    pub weight: u32,
    /// What it may fail together with: replicas of a shard avoid sharing one. Without it the node is alone in its.
    pub zone: Option<String>,
}

impl RingNode {
    /// A node of weight 1 in no zone.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), weight: 1, zone: None }
    }

    /// The same node with this weight.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// The same node in this zone.
    #[must_use]
    pub fn with_zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }
}

/// Nodes on a ring of 64-bit points.
#[derive(Clone, Debug)]
pub struct HashRing {
    /// By name, so that the order they were given in does not matter.
    nodes: Vec<RingNode>,
    points: Points,
}

/// Where nodes stand on the ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    /// (hash, node), ascending; equal hashes are in the order of names.
    all: Vec<(u64, u32)>,
    /// Hashes of each node, ascending.
    by_node: Vec<Vec<u64>>,
}

impl Points {
    fn new(by_node: Vec<Vec<u64>>) -> Self {
        let mut all: Vec<(u64, u32)> =
            (0..).zip(&by_node).flat_map(|(node, points)| points.iter().map(move |&at| (at, node))).collect();
        all.sort_unstable();
        Self { all, by_node }
    }

    /// The points of these nodes, which then have their places in the list for numbers.
    pub(crate) fn only(&self, nodes: &[u32]) -> Self {
        Self::new(nodes.iter().map(|&node| self.by_node[node as usize].clone()).collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The node of a point.
    pub(crate) fn node(&self, point: usize) -> u32 {
        self.all[point].1
    }

    /// Hashes of the node's points, ascending.
    pub(crate) fn of(&self, node: usize) -> &[u64] {
        &self.by_node[node]
    }

    /// The first point at or after the hash; their number if there is none.
    pub(crate) fn first_from(&self, hash: u64) -> usize {
        self.all.partition_point(|&(point, _)| point < hash)
    }

    /// How far it is clockwise from the hash to the node's next point.
    pub(crate) fn distance(&self, hash: u64, node: u32) -> u64 {
        let points = self.of(node as usize);
        let next = points.partition_point(|&point| point < hash);
        points.get(next).or(points.first()).map_or(u64::MAX, |point| point.wrapping_sub(hash))
    }
}

/// Points of one node at most.
const POINTS_MAX: u64 = 1 << 16;
/// Replicas in one placement at most.
const REPLICAS_MAX: usize = 1 << 24;

impl HashRing {
    /// A ring of `nodes`, each at `virtual_nodes` points times its weight. Their order does not matter.
    ///
    /// # Errors
    /// [`RingError`]: no nodes, empty or duplicate names, weight or virtual nodes of 0 or out of hand.
    pub fn new(nodes: impl IntoIterator<Item = RingNode>, virtual_nodes: u32) -> Result<Self, RingError> {
        let mut nodes: Vec<RingNode> = nodes.into_iter().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        if nodes.is_empty() {
            return Err(RingError::NoNodes);
        }
        if virtual_nodes == 0 {
            return Err(RingError::NoVirtualNodes);
        }
        if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(RingError::DuplicateName { name: pair[0].name.clone() });
        }
        let mut points = Vec::with_capacity(nodes.len());
        for node in &nodes {
            let name = node.name.clone();
            if name.is_empty() {
                return Err(RingError::EmptyName);
            }
            if node.weight == 0 {
                return Err(RingError::ZeroWeight { name });
            }
            let count = u64::from(virtual_nodes) * u64::from(node.weight);
            if count > POINTS_MAX {
                return Err(RingError::TooManyPoints { name, points: count, max: POINTS_MAX });
            }
            let mut hashes: Vec<u64> = (0..count).map(|nth| point_of(&node.name, nth)).collect();
            hashes.sort_unstable();
            points.push(hashes);
        }
        Ok(Self { nodes, points: Points::new(points) })
    }

    pub(crate) fn points(&self) -> &Points {
        &self.points
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// Node names in the order in which a walk clockwise from `hash` meets them, each once.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = &str> {
        self.walk_places(hash).into_iter().map(|place| self.nodes[place].name.as_str())
    }

    /// Gives each of `shard_count` shards `replication_factor` nodes.
    ///
    /// From the start of its hash range a shard walks clockwise and takes nodes that are not full, not taken and
    /// not in a zone it has while another zone has room. Where the walk alone would end out of balance, replicas
    /// placed before make room along the shortest chain of exchanges. Then one replica of each is named leader.
    ///
    /// Holds on return: replicas of a shard are on different nodes; each node has its share of replicas by weight,
    /// rounded down or up, but at most one of each shard; leads are spread by weight too, as far as replicas allow.
    /// With equal weights replicas per node and leaders per node are within one of each other. As few pairs of
    /// replicas as balance allows share a zone.
    ///
    /// # Errors
    /// [`RingError`]: no shards, no replicas, more replicas than nodes, or too many in all.
    pub fn place(&self, shard_count: u32, replication_factor: usize) -> Result<Placement, RingError> {
        if shard_count == 0 {
            return Err(RingError::NoShards);
        }
        if replication_factor == 0 {
            return Err(RingError::NoReplicas);
        }
        if replication_factor > self.nodes.len() {
            return Err(RingError::TooFewNodes { factor: replication_factor, nodes: self.nodes.len() });
        }
        let shards = shard_count as usize;
        if shards.checked_mul(replication_factor).is_none_or(|all| all > REPLICAS_MAX) {
            let (shards, factor, max) = (shard_count, replication_factor, REPLICAS_MAX);
            return Err(RingError::TooManyReplicas { shards, factor, max });
        }
        let weights: Vec<u32> = self.nodes.iter().map(|node| node.weight).collect();
        let caps = vec![shard_count; weights.len()];
        let shares = Shares::by_weight(&weights, &caps, (shards * replication_factor) as u32);
        let jobs: Vec<Job> = (0..shard_count)
            .map(|shard| Job {
                point: shard_range(shard, shard_count).map_or(0, |range| *range.start()),
                wanted: replication_factor as u32,
                live: Vec::new(),
                fixed: Vec::new(),
            })
            .collect();
        let zones = Zones::of(self.nodes.iter().map(|node| node.zone.as_deref()));
        let mut replicas =
            assign(&Problem { points: &self.points, zones: &zones, shares: &shares, jobs: &jobs });
        let nobody = vec![None; shards];
        let prefer = |shard: usize, node| self.points.distance(jobs[shard].point, node);
        let leaders = leaders::choose(&replicas, &nobody, &weights, prefer);
        for (nodes, leader) in replicas.iter_mut().zip(leaders) {
            if let Some(slot) = nodes.iter().position(|&node| Some(node) == leader) {
                nodes[..=slot].rotate_right(1);
            }
        }
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        let replicas =
            replicas.into_iter().map(|nodes| nodes.into_iter().map(|node| node as usize).collect());
        Ok(Placement::new(names, replicas.collect()))
    }

    fn walk_places(&self, hash: u64) -> Vec<usize> {
        let start = self.points.first_from(hash);
        let mut met = vec![false; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        for &(_, place) in self.points.all[start..].iter().chain(&self.points.all[..start]) {
            let place = place as usize;
            if !met[place] {
                met[place] = true;
                order.push(place);
                if order.len() == self.nodes.len() {
                    break;
                }
            }
        }
        order
    }
}

fn point_of(name: &str, nth: u64) -> u64 {
    let mut key = name.as_bytes().to_vec();
    key.extend_from_slice(&nth.to_le_bytes());
    murmur3_x64_128(&key, 0).0
}

#[cfg(test)]
#[path = "tests/ring.rs"]
mod tests;
