//! From what is to what should be: moves with reasons, in order.

use crate::plan::input::{Cluster, NodeState, Shard};
use crate::plan::target::Goal;

use std::fmt;

/// Why a replica is made or given up. In the order in which moves are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The shard has fewer live replicas than wanted.
    UnderReplicated,
    /// The node is to be emptied.
    Drain,
    /// Two replicas share a zone, and another is free.
    Zone,
    /// The shard has more replicas than wanted.
    OverReplicated,
    /// One node holds more than its share, another less.
    Balance,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnderReplicated => "too few live replicas",
            Self::Drain => "the node is being drained",
            Self::Zone => "replicas share a zone",
            Self::OverReplicated => "more replicas than wanted",
            Self::Balance => "balance",
        })
    }
}

/// One change of one shard's replicas: first `add`, then, when that one is complete, `remove`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The shard.
    pub shard: u64,
    /// Bytes to copy: the size of a replica, 0 if none is added.
    pub bytes: u64,
    /// Why.
    pub reason: Reason,
    /// The node that gets a new replica.
    pub add: Option<String>,
    /// The node that loses its replica, or the lost one that is replaced.
    pub remove: Option<String>,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: ", self.shard)?;
        match (&self.add, &self.remove) {
            (Some(add), Some(remove)) => write!(f, "copy to `{add}`, then remove from `{remove}`")?,
            (Some(add), None) => write!(f, "copy to `{add}`")?,
            (None, Some(remove)) => write!(f, "remove from `{remove}`")?,
            (None, None) => f.write_str("nothing")?,
        }
        write!(f, " ({})", self.reason)
    }
}

/// A shard gets another leader. Cheap: nothing is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The shard.
    pub shard: u64,
    /// Who leads now, if anybody does.
    pub from: Option<String>,
    /// Who should.
    pub to: String,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Some(from) => write!(f, "shard {}: lead from `{from}` to `{}`", self.shard, self.to),
            None => write!(f, "shard {}: lead to `{}`", self.shard, self.to),
        }
    }
}

/// A plan's smallest unit, in the order in which it is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a replica, and wait until it is complete.
    Add {
        /// The shard.
        shard: u64,
        /// The node that gets it.
        node: String,
        /// Why.
        reason: Reason,
        /// Size of the replica.
        bytes: u64,
    },
    /// Hand the lead over.
    Lead(Transfer),
    /// Remove a replica.
    Remove {
        /// The shard.
        shard: u64,
        /// The node that loses it.
        node: String,
        /// Why.
        reason: Reason,
    },
}

impl Step {
    /// The shard that the step is about.
    #[must_use]
    pub fn shard(&self) -> u64 {
        match self {
            Self::Add { shard, .. } | Self::Remove { shard, .. } => *shard,
            Self::Lead(transfer) => transfer.shard,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { shard, node, reason, bytes } => {
                write!(f, "shard {shard}: copy {bytes} bytes to `{node}` ({reason})")
            }
            Self::Lead(transfer) => transfer.fmt(f),
            Self::Remove { shard, node, reason } => {
                write!(f, "shard {shard}: remove from `{node}` ({reason})")
            }
        }
    }
}

/// All moves: those of one shard follow each other.
///
/// Shards with too few live replicas come first, fewest first; then those with a replica to drain, in a shared zone,
/// or too many; then balance. Of equal ones the lowest id is first.
pub(crate) fn in_order(cluster: &Cluster, goals: &[Goal]) -> Vec<Move> {
    let mut all = Vec::new();
    for (nth, (shard, goal)) in cluster.shards.iter().zip(goals).enumerate() {
        let moves = of_shard(cluster, shard, goal);
        if let Some(first) = moves.iter().map(|(reason, ..)| *reason).min() {
            let live = if first == Reason::UnderReplicated { cluster.live(shard) } else { 0 };
            all.push((first, live, nth, moves));
        }
    }
    all.sort_by_key(|&(first, live, nth, _)| (first, live, nth));
    let name = |node: Option<u32>| node.map(|node| cluster.id(node).to_owned());
    let named = |shard: &Shard, (reason, add, remove): (Reason, Option<u32>, Option<u32>)| Move {
        shard: shard.id,
        bytes: if add.is_some() { shard.bytes } else { 0 },
        reason,
        add: name(add),
        remove: name(remove),
    };
    let shards = all.into_iter().map(|(_, _, nth, moves)| (&cluster.shards[nth], moves));
    shards.flat_map(|(shard, moves)| moves.into_iter().map(move |it| named(shard, it))).collect()
}

type Change = (Reason, Option<u32>, Option<u32>);

fn of_shard(cluster: &Cluster, shard: &Shard, goal: &Goal) -> Vec<Change> {
    if shard.replicas == goal.replicas {
        return Vec::new();
    }
    let mut adds: Vec<u32> =
        goal.replicas.iter().copied().filter(|node| !shard.replicas.contains(node)).collect();
    let gone = |states: &[NodeState]| -> Vec<u32> {
        cluster.on(shard, states).filter(|node| !goal.replicas.contains(node)).collect()
    };
    let (mut lost, mut draining) = (gone(&[NodeState::Down]), gone(&[NodeState::Draining]));
    let mut others = gone(&[NodeState::Active, NodeState::Cordoned]);
    let mut changes: Vec<Change> = Vec::new();
    // What is missing is added first, in place of what is lost.
    let missing = (shard.factor as usize).saturating_sub(cluster.live(shard)).min(adds.len());
    for add in adds.drain(..missing) {
        changes.push((Reason::UnderReplicated, Some(add), (!lost.is_empty()).then(|| lost.remove(0))));
    }
    changes.extend(lost.into_iter().map(|remove| (Reason::UnderReplicated, None, Some(remove))));
    // The rest replaces what lives: each add has a remove, and what has none is surplus.
    let mut now: Vec<u32> =
        shard.replicas.iter().copied().filter(|&node| cluster.state(node) != NodeState::Down).collect();
    now.extend(changes.iter().filter_map(|&(_, add, _)| add));
    while let Some(remove) = draining.pop() {
        let add = take_best(cluster, &now, &mut adds, remove);
        replace(&mut now, add, remove);
        changes.push((Reason::Drain, add, Some(remove)));
    }
    // Those that share zones are replaced first, so that the reason shows.
    others.sort_by_key(|&node| (shared(cluster, &now, node), node));
    while let Some(remove) = others.pop() {
        let add = take_best(cluster, &now, &mut adds, remove);
        let before = pairs(cluster, &now);
        replace(&mut now, add, remove);
        let reason = match add {
            None => Reason::OverReplicated,
            Some(_) if pairs(cluster, &now) < before => Reason::Zone,
            Some(_) => Reason::Balance,
        };
        changes.push((reason, add, Some(remove)));
    }
    // A leader that lives stays to the end, when whoever leads next is there.
    let leader = shard.leader.filter(|&leader| cluster.state(leader) != NodeState::Down);
    changes.sort_by_key(|&(reason, add, remove)| {
        (remove.is_some() && remove == leader, reason, add.is_none(), add, remove)
    });
    changes
}

/// Of the nodes to add the one that leaves the fewest pairs in one zone once `remove` is gone.
fn take_best(cluster: &Cluster, now: &[u32], adds: &mut Vec<u32>, remove: u32) -> Option<u32> {
    let rest: Vec<u32> = now.iter().copied().filter(|&node| node != remove).collect();
    let nth = (0..adds.len()).min_by_key(|&nth| (shared(cluster, &rest, adds[nth]), adds[nth]))?;
    Some(adds.remove(nth))
}

fn replace(now: &mut Vec<u32>, add: Option<u32>, remove: u32) {
    now.retain(|&node| node != remove);
    now.extend(add);
}

/// How many of the nodes share the zone of this one, itself aside.
fn shared(cluster: &Cluster, nodes: &[u32], node: u32) -> usize {
    let zone = &cluster.nodes[node as usize].zone;
    let others = nodes.iter().filter(|&&other| other != node);
    if zone.is_none() {
        0
    } else {
        others.filter(|&&other| &cluster.nodes[other as usize].zone == zone).count()
    }
}

fn pairs(cluster: &Cluster, nodes: &[u32]) -> usize {
    nodes.iter().map(|&node| shared(cluster, nodes, node)).sum()
}

/// The leaders that change.
pub(crate) fn transfers(cluster: &Cluster, goals: &[Goal]) -> Vec<Transfer> {
    let changed = cluster.shards.iter().zip(goals).filter(|(shard, goal)| shard.leader != goal.leader);
    let name = |node: u32| cluster.id(node).to_owned();
    let transfer = |(shard, goal): (&Shard, &Goal)| {
        goal.leader.map(|to| Transfer { shard: shard.id, from: shard.leader.map(name), to: name(to) })
    };
    changed.filter_map(transfer).collect()
}
