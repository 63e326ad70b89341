//! The planner, and what it is compared with.

use anyhow::Result;
use slowdb_ring::{HashRing, NodeState, PlanNode, PlanShard, RingNode, murmur3_x64_128, plan};

pub(super) const SHARDS: usize = 1024;
pub(super) const FACTOR: usize = 3;
pub(super) const VIRTUAL_NODES: u32 = 3;

/// The nodes of each shard.
pub(super) type Placement = Vec<Vec<usize>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// SlowDB's: starts from what is.
    Planner,
    /// The first nodes clockwise on a ring with the planner's virtual nodes.
    Ring,
    /// The nodes with the highest hashes of node and shard (Thaler and Ravishankar 1998).
    Rendezvous,
    /// Lamping and Veach 2014, with as many keys per shard as it takes to find different nodes.
    Jump,
}

impl Scheme {
    pub(super) const ALL: [Self; 4] = [Self::Planner, Self::Ring, Self::Rendezvous, Self::Jump];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Planner => "SlowDB's planner",
            Self::Ring => "consistent hashing",
            Self::Rendezvous => "rendezvous hashing",
            Self::Jump => "jump hashing",
        }
    }

    pub(super) fn colour(self) -> &'static str {
        match self {
            Self::Planner => "#0072b2",
            Self::Ring => "#d55e00",
            Self::Rendezvous => "#009e73",
            Self::Jump => "#8a6fb0",
        }
    }

    /// All shards on this many nodes. `before` is what was, and whether nodes came since or went.
    pub(super) fn place(self, nodes: usize, before: Option<(&Placement, bool)>) -> Result<Placement> {
        let shards = 0..SHARDS as u64;
        match self {
            Self::Planner => planned(nodes, before),
            Self::Ring => {
                let names: Vec<String> = (0..nodes).map(name).collect();
                let ring = HashRing::new(names.iter().map(RingNode::new), VIRTUAL_NODES)?;
                let place = |name: &str| names.iter().position(|other| other == name).unwrap_or(0);
                let first = |shard: u64| ring.walk(hash(shard, 0)).take(FACTOR).map(place).collect();
                Ok(shards.map(first).collect())
            }
            Self::Rendezvous => Ok(shards.map(|shard| rendezvous(shard, nodes)).collect()),
            Self::Jump => Ok(shards.map(|shard| jumps(shard, nodes)).collect()),
        }
    }
}

/// Two digits, so that the order of names is that of numbers.
fn name(node: usize) -> String {
    format!("node-{node:02}")
}

fn hash(shard: u64, salt: u64) -> u64 {
    murmur3_x64_128(&[shard.to_le_bytes(), salt.to_le_bytes()].concat(), 0).0
}

fn planned(nodes: usize, before: Option<(&Placement, bool)>) -> Result<Placement> {
    let went = before.is_some_and(|(_, came)| !came);
    let mut given: Vec<PlanNode> =
        (0..nodes + usize::from(went)).map(|node| PlanNode::new(name(node))).collect();
    if went {
        given[nodes].state = NodeState::Draining;
    }
    let shard = |id: usize| {
        let shard = PlanShard::new(id as u64, FACTOR as u32);
        match before {
            Some((before, _)) => shard.on(before[id].iter().map(|&node| name(node))),
            None => shard,
        }
    };
    let shards: Vec<PlanShard> = (0..SHARDS).map(shard).collect();
    let plan = plan(&given, &shards, VIRTUAL_NODES)?;
    let place = |name: &&str| given.iter().position(|node| node.id == **name).unwrap_or(0);
    Ok(plan.targets().map(|target| target.replicas.iter().map(place).collect()).collect())
}

fn rendezvous(shard: u64, nodes: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..nodes).collect();
    order.sort_by_key(|&node| std::cmp::Reverse(hash(shard, node as u64)));
    order.truncate(FACTOR);
    order
}

fn jumps(shard: u64, nodes: usize) -> Vec<usize> {
    let mut found = Vec::with_capacity(FACTOR);
    for salt in 0.. {
        let node = jump(hash(shard, salt), nodes);
        if !found.contains(&node) {
            found.push(node);
        }
        if found.len() == FACTOR.min(nodes) {
            break;
        }
    }
    found
}

/// The bucket of a key, as in the paper.
fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut at, mut next) = (0_u64, 0_u64);
    while next < buckets as u64 {
        at = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((at + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as u64;
    }
    at as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_finds_different_nodes() {
        for scheme in Scheme::ALL {
            let placement = scheme.place(7, None).unwrap();
            assert_eq!(placement.len(), SHARDS);
            for mut nodes in placement {
                nodes.sort_unstable();
                nodes.dedup();
                assert!(nodes.len() == FACTOR && nodes[FACTOR - 1] < 7, "{scheme:?}: {nodes:?}");
            }
        }
    }

    #[test]
    fn jump_hash_moves_only_to_the_new_bucket() {
        let mut moved = 0;
        for key in 0..10_000 {
            let (before, after) = (jump(hash(key, 0), 10), jump(hash(key, 0), 11));
            assert!(before == after || after == 10);
            moved += u32::from(before != after);
        }
        assert!((800..1020).contains(&moved), "about one in eleven: {moved}");
    }
}
