//! What should be: nodes and leader of each shard.

use crate::flow::{Job, Problem, assign};
use crate::leaders;
use crate::murmur::murmur3_x64_128;
use crate::plan::error::PlanError;
use crate::plan::input::{Cluster, NodeState, Shard};
use crate::ring::{HashRing, Points, RingNode};
use crate::shares::Shares;
use crate::zones::Zones;

/// A shard as it should be, with numbers for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    /// Ascending.
    pub(crate) replicas: Vec<u32>,
    pub(crate) leader: Option<u32>,
}

/// The goals of all shards, and the least and the most that each node should hold of what is placed freely.
pub(crate) struct Goals {
    pub(crate) shards: Vec<Goal>,
    pub(crate) shares: Vec<(u32, u32)>,
}

pub(crate) fn find(cluster: &Cluster, virtual_nodes: u32) -> Result<Goals, PlanError> {
    let active: Vec<u32> =
        (0..cluster.nodes.len() as u32).filter(|&node| cluster.state(node) == NodeState::Active).collect();
    // A ring of all nodes finds what is wrong with any; the walk needs those that may be given something.
    let ring = ring_of(cluster, &(0..cluster.nodes.len() as u32).collect::<Vec<_>>(), virtual_nodes)?;
    let points = if active.is_empty() { Points::default() } else { ring.points().only(&active) };
    // Active nodes first, so that their numbers there are their places in `active`.
    let others = (0..cluster.nodes.len() as u32).filter(|&node| cluster.state(node) == NodeState::Cordoned);
    let in_zones: Vec<u32> = active.iter().copied().chain(others).collect();
    let zones = Zones::of(in_zones.iter().map(|&node| cluster.nodes[node as usize].zone.as_deref()));
    let mut zone_of = vec![0; cluster.nodes.len()];
    let mut place_of = vec![0; cluster.nodes.len()];
    for (place, &node) in (0..).zip(&in_zones) {
        zone_of[node as usize] = zones.of_node(place);
        place_of[node as usize] = place;
    }
    let mut kept = Vec::with_capacity(cluster.shards.len());
    let mut jobs = Vec::with_capacity(cluster.shards.len());
    for shard in &cluster.shards {
        let point = point_of(shard.id);
        let stays = if cluster.is_stranded(shard) {
            shard.replicas.clone()
        } else {
            stay(cluster, shard, &zone_of, |node| ring.points().distance(point, node))
        };
        let wanted = if cluster.is_stranded(shard) {
            0
        } else {
            (shard.factor - stays.len() as u32).min(active.len() as u32)
        };
        let live = if wanted == 0 {
            Vec::new()
        } else {
            cluster.on(shard, &[NodeState::Active]).map(|node| place_of[node as usize]).collect()
        };
        let fixed = stays.iter().map(|&node| zone_of[node as usize]).collect();
        jobs.push(Job { point, wanted, live, fixed });
        kept.push(stays);
    }
    let weights: Vec<u32> = active.iter().map(|&node| cluster.nodes[node as usize].weight).collect();
    let total = jobs.iter().map(|job| job.wanted).sum();
    let to_place = jobs.iter().filter(|job| job.wanted > 0).count() as u32;
    let shares = Shares::by_weight(&weights, &vec![to_place; weights.len()], total);
    let found = assign(&Problem { points: &points, zones: &zones, shares: &shares, jobs: &jobs });

    let mut replicas = kept;
    for ((shard, goal), found) in cluster.shards.iter().zip(&mut replicas).zip(found) {
        goal.extend(found.into_iter().map(|place| active[place as usize]));
        if !cluster.is_stranded(shard) {
            hold_back(cluster, shard, goal);
        }
        goal.sort_unstable();
    }
    let leaders = lead(cluster, &replicas, &jobs, &ring);
    let mut bounds = vec![(0, 0); cluster.nodes.len()];
    for (place, &node) in active.iter().enumerate() {
        bounds[node as usize] = (shares.floor[place], shares.ceiling(place));
    }
    let shards = replicas.into_iter().zip(leaders).map(|(replicas, leader)| Goal { replicas, leader });
    Ok(Goals { shards: shards.collect(), shares: bounds })
}

fn ring_of(cluster: &Cluster, nodes: &[u32], virtual_nodes: u32) -> Result<HashRing, PlanError> {
    let ring_node = |&node: &u32| {
        let node = &cluster.nodes[node as usize];
        RingNode::new(node.id.as_str()).with_weight(node.weight)
    };
    Ok(HashRing::new(nodes.iter().map(ring_node), virtual_nodes)?)
}

fn point_of(shard: u64) -> u64 {
    murmur3_x64_128(&shard.to_le_bytes(), 0).0
}

/// Replicas on cordoned nodes, as many as are wanted: those in zones of their own first, then the nearest on the ring.
fn stay(cluster: &Cluster, shard: &Shard, zone_of: &[u32], distance: impl Fn(u32) -> u64) -> Vec<u32> {
    let mut cordoned: Vec<u32> = cluster.on(shard, &[NodeState::Cordoned]).collect();
    let mut stays: Vec<u32> = Vec::new();
    while stays.len() < shard.factor as usize && !cordoned.is_empty() {
        let shared = |node: u32| {
            stays.iter().filter(|&&other| zone_of[other as usize] == zone_of[node as usize]).count()
        };
        let best = (0..cordoned.len()).min_by_key(|&nth| (shared(cordoned[nth]), distance(cordoned[nth])));
        if let Some(nth) = best {
            stays.push(cordoned.remove(nth));
        }
    }
    stays
}

/// While there are too few nodes, what is on draining and on lost ones stays where it is: better there than nowhere.
fn hold_back(cluster: &Cluster, shard: &Shard, goal: &mut Vec<u32>) {
    for state in [NodeState::Draining, NodeState::Down] {
        let missing = (shard.factor as usize).saturating_sub(goal.len());
        goal.extend(cluster.on(shard, &[state]).take(missing));
    }
}

/// Leaders among replicas on active nodes, evenly. Where there are none: what leads, or the first that lives.
fn lead(cluster: &Cluster, replicas: &[Vec<u32>], jobs: &[Job], ring: &HashRing) -> Vec<Option<u32>> {
    let mut leaders: Vec<Option<u32>> = vec![None; replicas.len()];
    let mut candidates: Vec<Vec<u32>> = vec![Vec::new(); replicas.len()];
    let mut present: Vec<Option<u32>> = vec![None; replicas.len()];
    for (nth, (shard, goal)) in cluster.shards.iter().zip(replicas).enumerate() {
        let stays = shard.leader.filter(|leader| goal.contains(leader));
        let active = goal.iter().copied().filter(|&node| cluster.state(node) == NodeState::Active);
        if stays.is_some_and(|leader| cluster.state(leader) == NodeState::Cordoned)
            || cluster.is_stranded(shard)
        {
            leaders[nth] = stays.filter(|&leader| cluster.state(leader) != NodeState::Down);
            continue;
        }
        candidates[nth] = active.collect();
        present[nth] = stays.filter(|&leader| cluster.state(leader) == NodeState::Active);
        if candidates[nth].is_empty() {
            let alive = |state| goal.iter().copied().find(|&node| cluster.state(node) == state);
            let alive = || alive(NodeState::Cordoned).or_else(|| alive(NodeState::Draining));
            let stays = stays.filter(|&leader| cluster.state(leader) != NodeState::Down);
            leaders[nth] = stays.or_else(alive);
        }
    }
    let weights: Vec<u32> = cluster.nodes.iter().map(|node| node.weight).collect();
    let prefer = |shard: usize, node| ring.points().distance(jobs[shard].point, node);
    let chosen = leaders::choose(&candidates, &present, &weights, prefer);
    leaders.into_iter().zip(chosen).map(|(fixed, chosen)| fixed.or(chosen)).collect()
}
