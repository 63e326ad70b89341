//! The ring: nodes at virtual points, and the order in which a shard meets them.

use crate::error::RingError;
use crate::leaders::spread_leaders;
use crate::murmur::murmur3_x64_128;
use crate::placement::Placement;
use crate::replicas::{Quota, assign};
use crate::shard::shard_range;

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
    /// (hash, node), ascending; equal hashes are in the order of names.
    points: Vec<(u64, usize)>,
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
        let mut points = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
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
            points.extend((0..count).map(|nth| (point_of(&node.name, nth), place)));
        }
        points.sort_unstable();
        Ok(Self { nodes, points })
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
    /// rounded down or up, but at most one of each shard; each node leads its replicas divided by the factor,
    /// rounded down or up. With equal weights replicas per node and leaders per node are within one of each other.
    /// Balance goes before zones.
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
        let walks = (0..shard_count).map(|shard| {
            let start = shard_range(shard, shard_count).map_or(0, |range| *range.start());
            self.walk_places(start)
        });
        let quota = Quota::by_weight(&weights, shards, replication_factor);
        let mut replicas = assign(walks, &self.zones(), quota, replication_factor);
        spread_leaders(&mut replicas, self.nodes.len(), replication_factor);
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        Ok(Placement::new(names, replicas))
    }

    fn walk_places(&self, hash: u64) -> Vec<usize> {
        let start = self.points.partition_point(|&(point, _)| point < hash);
        let mut met = vec![false; self.nodes.len()];
        let mut order = Vec::with_capacity(self.nodes.len());
        for &(_, place) in self.points[start..].iter().chain(&self.points[..start]) {
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

    /// A number for each node's zone; nodes without one are alone.
    fn zones(&self) -> Vec<usize> {
        let labels: Vec<&str> = self.nodes.iter().filter_map(|node| node.zone.as_deref()).collect();
        let mut distinct = labels;
        distinct.sort_unstable();
        let labelled = distinct.len();
        distinct.dedup();
        if distinct.len() == labelled {
            // No two nodes share a zone: the rule is that of distinct nodes, and one zone for all is less to search.
            return vec![0; self.nodes.len()];
        }
        let mut alone = distinct.len();
        self.nodes
            .iter()
            .map(|node| match &node.zone {
                Some(label) => distinct.partition_point(|other| other < &label.as_str()),
                None => {
                    alone += 1;
                    alone - 1
                }
            })
            .collect()
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
