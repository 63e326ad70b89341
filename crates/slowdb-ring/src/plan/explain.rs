//! Why a replica is where it is, why it moves or does not, and what comes next.

use std::fmt;

use crate::plan::input::{NodeState, Shard};
use crate::plan::moves::{Reason, Step};
use crate::plan::{Goal, Plan};

/// A shard and a node: how they stand to each other, why, and what comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The shard.
    pub shard: u64,
    /// The node.
    pub node: String,
    /// Whether the node has a replica now.
    pub holds: bool,
    /// Whether it leads the shard now.
    pub leads: bool,
    /// Why it is so, and why that changes or does not.
    pub why: Why,
    /// What is to be done to this shard, in order. Empty if nothing.
    pub next: Vec<Step>,
}

/// Why a replica is on a node or not, and whether that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// It stays: the node's share has room for it, and moving it would make nothing better.
    Stays {
        /// Replicas that the node will hold.
        holds: u32,
        /// The least that it should hold: its share by weight, rounded down.
        least: u32,
        /// The most that it should hold: its share by weight, rounded up.
        most: u32,
    },
    /// It stays because the node is cordoned.
    Cordoned,
    /// It stays, although the node is draining or down, until there are nodes enough to hold the shard elsewhere.
    HeldBack {
        /// The node's state.
        state: NodeState,
        /// Replicas wanted.
        wanted: u32,
    },
    /// It stays because no replica of the shard lives: there is nothing to copy.
    Stranded,
    /// It goes.
    Leaves {
        /// Why.
        reason: Reason,
        /// The node that gets a replica first, if one does.
        to: Option<String>,
    },
    /// It comes.
    Arrives {
        /// Why.
        reason: Reason,
        /// The node that loses its replica then, if one does.
        from: Option<String>,
    },
    /// There is none: the node is given nothing in this state.
    TakesNothing {
        /// The node's state.
        state: NodeState,
    },
    /// There is none: another replica is in the node's zone.
    ZoneTaken {
        /// The node that holds it.
        by: String,
        /// The zone.
        zone: String,
    },
    /// There is none: others hold the shard, and a copy here would make nothing better.
    HeldElsewhere {
        /// Replicas that the node will hold.
        holds: u32,
        /// The most that it should hold.
        most: u32,
    },
}

impl Plan {
    /// Why the node holds the shard or does not, whether that changes, and what is next. `None` if there is no such
    /// shard or no such node.
    #[must_use]
    pub fn explain(&self, shard: u64, node: &str) -> Option<Explanation> {
        let place = self.find(shard)?;
        let number = self.cluster.nodes.binary_search_by(|other| other.id.as_str().cmp(node)).ok()? as u32;
        let (given, goal) = (&self.cluster.shards[place], &self.goals[place]);
        Some(Explanation {
            shard,
            node: node.to_owned(),
            holds: given.replicas.contains(&number),
            leads: given.leader == Some(number),
            why: self.why(given, goal, number),
            next: self.steps_of(shard),
        })
    }

    fn why(&self, shard: &Shard, goal: &Goal, node: u32) -> Why {
        let (holds, id) = (shard.replicas.contains(&node), self.cluster.id(node));
        let state = self.cluster.state(node);
        let own = || self.moves.iter().filter(|it| it.shard == shard.id);
        let (least, most) = self.shares[node as usize];
        match (holds, goal.replicas.contains(&node)) {
            (true, true) => {
                if self.cluster.is_stranded(shard) {
                    return Why::Stranded;
                }
                match state {
                    NodeState::Active => Why::Stays { holds: self.will_hold(node), least, most },
                    NodeState::Cordoned => Why::Cordoned,
                    NodeState::Draining | NodeState::Down => Why::HeldBack { state, wanted: shard.factor },
                }
            }
            (true, false) => {
                let its = own().find(|it| it.remove.as_deref() == Some(id));
                let reason = its.map_or(Reason::OverReplicated, |it| it.reason);
                Why::Leaves { reason, to: its.and_then(|it| it.add.clone()) }
            }
            (false, true) => {
                let its = own().find(|it| it.add.as_deref() == Some(id));
                let reason = its.map_or(Reason::UnderReplicated, |it| it.reason);
                Why::Arrives { reason, from: its.and_then(|it| it.remove.clone()) }
            }
            (false, false) if state != NodeState::Active => Why::TakesNothing { state },
            (false, false) => {
                let zone = &self.cluster.nodes[node as usize].zone;
                let same = |other: &&u32| &self.cluster.nodes[**other as usize].zone == zone;
                match (zone, goal.replicas.iter().find(same)) {
                    (Some(zone), Some(&by)) => {
                        Why::ZoneTaken { by: self.cluster.id(by).to_owned(), zone: zone.clone() }
                    }
                    _ => Why::HeldElsewhere { holds: self.will_hold(node), most },
                }
            }
        }
    }

    fn will_hold(&self, node: u32) -> u32 {
        self.goals.iter().filter(|goal| goal.replicas.contains(&node)).count() as u32
    }

    fn steps_of(&self, shard: u64) -> Vec<Step> {
        self.steps().into_iter().filter(|step| step.shard() == shard).collect()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stays { holds, least, most } => write!(
                f,
                "it stays: the node will hold {holds} replicas, its share is {least} to {most}, and no move makes it better"
            ),
            Self::Cordoned => f.write_str("it stays: the node is cordoned, it keeps what it has"),
            Self::HeldBack { state, wanted } => write!(
                f,
                "it stays although the node is {state}: there are too few nodes for {wanted} replicas elsewhere"
            ),
            Self::Stranded => {
                f.write_str("it stays: all replicas are on nodes that are down, there is none to copy")
            }
            Self::Leaves { reason, to: Some(to) } => write!(f, "it goes to `{to}`: {reason}"),
            Self::Leaves { reason, to: None } => write!(f, "it is removed: {reason}"),
            Self::Arrives { reason, from: Some(from) } => {
                write!(f, "it comes in place of `{from}`: {reason}")
            }
            Self::Arrives { reason, from: None } => write!(f, "it comes: {reason}"),
            Self::TakesNothing { state } => write!(f, "none is put here: the node is {state}"),
            Self::ZoneTaken { by, zone } => write!(f, "none is put here: `{by}` holds one in zone `{zone}`"),
            Self::HeldElsewhere { holds, most } => write!(
                f,
                "none is put here: others hold it, and this node will hold {holds} replicas of at most {most}"
            ),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, node, .. } = self;
        let has = match (self.holds, self.leads) {
            (_, true) => "leads it",
            (true, false) => "has a replica",
            (false, false) => "has no replica",
        };
        write!(f, "shard {shard}, node `{node}`: {has}; {}", self.why)?;
        match self.next.split_first() {
            None => f.write_str("; nothing is to be done"),
            Some((first, rest)) => {
                write!(f, "; next: {first}")?;
                rest.iter().try_for_each(|step| write!(f, "; then: {step}"))
            }
        }
    }
}
