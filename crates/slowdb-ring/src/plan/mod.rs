//! Rebalancing: from what is to balance with the fewest moves.
//!
//! [`plan()`] takes the nodes, and the shards with where they are, and says where they should be and how to get
//! there. It is a pure function; what it returns is a value to print, to compare, or to carry out step by step.
//!
//! The rules, strongest first:
//!
//! 1. A shard has as many replicas as wanted, on different nodes; with fewer nodes than that, one on each, and the
//!    rest is a [`Shortfall`].
//! 2. Every active node holds its share of replicas by weight, rounded down or up. No share is above one of each
//!    shard; where mixed factors or cordoned nodes leave no such placement, the excess is as small as can be.
//! 3. As few pairs of replicas of one shard as possible share a zone.
//! 4. As few replicas as possible are copied.
//! 5. Leads are spread over the active nodes by weight, rounded down or up, as far as replicas allow.
//! 6. Ties fall to the hash ring: new replicas go to the first node with room clockwise from the shard's point, and
//!    those that must go are those farthest from it.
//!
//! Rules 2 to 4 are one flow of least cost, solved exactly; the argument and its sources are in the module `flow`.

mod error;
mod explain;
mod input;
mod moves;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::PlanError;
pub use explain::{Explanation, Why};
pub use input::{NodeState, PlanNode, PlanShard};
pub use moves::{Move, Reason, Step, Transfer};

use input::Cluster;
use target::Goal;

/// Plans what to move so that `nodes` hold `shards` evenly.
///
/// The order of nodes, of shards and of their replicas does not matter. `virtual_nodes` is the number of points on
/// the ring for each unit of weight, 3 is usual. A shard without replicas is new, and placed for the first time; one
/// all of whose replicas are on nodes that are down is left as it is ([`Plan::stranded`]): there is nothing to copy.
/// Without shards the plan is empty.
///
/// ```
/// use slowdb_ring::{NodeState, PlanNode, PlanShard, plan};
///
/// let nodes = ["ada", "bob", "cyd"].map(PlanNode::new);
/// let shards: Vec<PlanShard> = (0..8).map(|id| PlanShard::new(id, 2)).collect();
/// let first = plan(&nodes, &shards, 3)?;
/// assert_eq!(first.copies(), 16);
///
/// // The same shards where the plan put them, and `bob` is to go: his 5 or 6 replicas move, nothing else.
/// let placed: Vec<PlanShard> = first.targets().map(|target| target.as_shard(2)).collect();
/// let nodes = [PlanNode::new("ada"), PlanNode::new("bob").with_state(NodeState::Draining), PlanNode::new("cyd")];
/// let drain = plan(&nodes, &placed, 3)?;
/// assert_eq!(drain.copies(), placed.iter().filter(|shard| shard.replicas.contains(&"bob".to_owned())).count());
/// println!("{drain}");
/// # Ok::<(), slowdb_ring::PlanError>(())
/// ```
///
/// # Errors
/// [`PlanError`]: no nodes, empty or duplicate ids, a weight or factor of 0, replicas on unknown nodes or twice on
/// one, a leader without a replica, no virtual nodes, or too much of something.
pub fn plan(nodes: &[PlanNode], shards: &[PlanShard], virtual_nodes: u32) -> Result<Plan, PlanError> {
    let cluster = Cluster::check(nodes, shards)?;
    let goals = target::find(&cluster, virtual_nodes)?;
    let moves = moves::in_order(&cluster, &goals.shards);
    let transfers = moves::transfers(&cluster, &goals.shards);
    Ok(Plan { cluster, goals: goals.shards, shares: goals.shares, moves, transfers })
}

/// Where everything should be, and how to get there. Made by [`plan()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    cluster: Cluster,
    goals: Vec<Goal>,
    shares: Vec<(u32, u32)>,
    moves: Vec<Move>,
    transfers: Vec<Transfer>,
}

/// A shard as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The shard.
    pub shard: u64,
    /// Size of a replica in bytes, as given.
    pub bytes: u64,
    /// The nodes that should hold it, by id.
    pub replicas: Vec<&'a str>,
    /// The one that should lead; none if no replica lives.
    pub leader: Option<&'a str>,
}

impl Target<'_> {
    /// The shard as it is when the plan has been carried out.
    #[must_use]
    pub fn as_shard(&self, factor: u32) -> PlanShard {
        PlanShard {
            id: self.shard,
            bytes: self.bytes,
            factor,
            replicas: self.replicas.iter().map(|&node| node.to_owned()).collect(),
            leader: self.leader.map(str::to_owned),
        }
    }
}

/// A shard that cannot have as many live replicas as wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// The shard.
    pub shard: u64,
    /// Replicas wanted.
    pub wanted: u32,
    /// Replicas it will have on active and cordoned nodes. Others that live are on nodes that cannot be drained yet.
    pub placed: u32,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, wanted, placed } = self;
        write!(f, "shard {shard}: {placed} of {wanted} replicas, there are no more nodes to hold them")
    }
}

impl Plan {
    /// All shards as they should be, by id.
    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        (0..self.goals.len()).map(|nth| self.target_at(nth))
    }

    /// The shard as it should be, or `None` if there is no such shard.
    #[must_use]
    pub fn target(&self, shard: u64) -> Option<Target<'_>> {
        self.find(shard).map(|nth| self.target_at(nth))
    }

    /// Changes of replicas in the order in which they are to be made. Those of one shard follow each other.
    #[must_use]
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Leaders that change, by shard.
    #[must_use]
    pub fn transfers(&self) -> &[Transfer] {
        &self.transfers
    }

    /// How many replicas are to be copied: what the planner keeps as small as it can be.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.moves.iter().filter(|it| it.add.is_some()).count()
    }

    /// Bytes to be copied in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|it| it.bytes).sum()
    }

    /// Whether all is where it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.transfers.is_empty()
    }

    /// Moves and transfers as single steps: a replica is complete before another goes, and a leader hands over before
    /// it goes. Transfers of shards that do not move come last.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::with_capacity(2 * self.moves.len() + self.transfers.len());
        let mut handed = vec![false; self.transfers.len()];
        for of_shard in self.moves.chunk_by(|a, b| a.shard == b.shard) {
            let transfer = self.transfers.binary_search_by_key(&of_shard[0].shard, |it| it.shard).ok();
            let comes = |to: &String| of_shard.iter().any(|it| it.add.as_ref() == Some(to));
            // Whoever leads next does so once it is there: the leader's own removal comes last.
            if let Some(nth) = transfer.filter(|&nth| !comes(&self.transfers[nth].to)) {
                handed[nth] = true;
                steps.push(Step::Lead(self.transfers[nth].clone()));
            }
            for Move { shard, bytes, reason, add, remove } in of_shard {
                let (shard, bytes, reason) = (*shard, *bytes, *reason);
                if let Some(node) = add.clone() {
                    steps.push(Step::Add { shard, node, reason, bytes });
                }
                if let Some(nth) = transfer.filter(|&nth| add.as_ref() == Some(&self.transfers[nth].to)) {
                    handed[nth] = true;
                    steps.push(Step::Lead(self.transfers[nth].clone()));
                }
                if let Some(node) = remove.clone() {
                    steps.push(Step::Remove { shard, node, reason });
                }
            }
        }
        let rest = self.transfers.iter().zip(handed).filter(|(_, handed)| !handed);
        steps.extend(rest.map(|(transfer, _)| Step::Lead(transfer.clone())));
        steps
    }

    /// Shards that cannot have as many replicas as wanted, by id. Stranded ones are not among them.
    pub fn shortfalls(&self) -> impl Iterator<Item = Shortfall> {
        let shards = self.cluster.shards.iter().zip(&self.goals);
        shards.filter(|(shard, _)| !self.cluster.is_stranded(shard)).filter_map(|(shard, goal)| {
            let stays =
                |node: &&u32| matches!(self.cluster.state(**node), NodeState::Active | NodeState::Cordoned);
            let placed = goal.replicas.iter().filter(stays).count() as u32;
            let (shard, wanted) = (shard.id, shard.factor);
            (placed < wanted).then_some(Shortfall { shard, wanted, placed })
        })
    }

    /// Shards all of whose replicas are on nodes that are down, by id. They are left as they are until one returns.
    pub fn stranded(&self) -> impl Iterator<Item = u64> {
        self.cluster.shards.iter().filter(|shard| self.cluster.is_stranded(shard)).map(|shard| shard.id)
    }

    /// All nodes, by id.
    #[must_use]
    pub fn nodes(&self) -> &[PlanNode] {
        &self.cluster.nodes
    }

    fn find(&self, shard: u64) -> Option<usize> {
        self.cluster.shards.binary_search_by_key(&shard, |shard| shard.id).ok()
    }

    fn target_at(&self, nth: usize) -> Target<'_> {
        let (shard, goal) = (&self.cluster.shards[nth], &self.goals[nth]);
        let id = |node: u32| self.cluster.id(node);
        let replicas = goal.replicas.iter().map(|&node| id(node)).collect();
        Target { shard: shard.id, bytes: shard.bytes, replicas, leader: goal.leader.map(id) }
    }
}

/// What a dry run shows: sums first, then every step.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (copies, bytes, leads) = (self.copies(), self.bytes(), self.transfers.len());
        writeln!(f, "{copies} replicas to copy ({bytes} bytes), {leads} leads to hand over")?;
        for shortfall in self.shortfalls() {
            writeln!(f, "{shortfall}")?;
        }
        for shard in self.stranded() {
            writeln!(f, "shard {shard}: all its replicas are on nodes that are down")?;
        }
        for step in self.steps() {
            writeln!(f, "{step}")?;
        }
        Ok(())
    }
}
