//! Where things go: id → shard, shard → nodes.
//!
//! - [`shard_of`]: an id's shard, by [`murmur3_x64_128`] and equal hash ranges. Depends on nothing but the id and
//!   the number of shards, so ids never move between shards when nodes come and go.
//! - [`plan()`]: from nodes, and shards with where they are, to where they should be, with the fewest moves; first
//!   placement, healing, drain, balance. [`Plan::explain`] says why.
//! - [`HashRing`]: nodes on a ring, each at several virtual points. [`HashRing::place`] is a first placement by itself.
//!
//! Pure functions and values: the same input gives the same answer on any machine. Nothing here knows a network, a disk
//! or the time, and nothing moves anything: a [`Plan`] is a proposal.

mod error;
mod flow;
mod leaders;
mod murmur;
mod placement;
mod plan;
mod ring;
mod shard;
mod shares;
mod zones;

pub use error::RingError;
pub use murmur::murmur3_x64_128;
pub use placement::Placement;
pub use plan::{
    Explanation, Move, NodeState, Plan, PlanError, PlanNode, PlanShard, Reason, Shortfall, Step, Target,
    Transfer, Why, plan,
};
pub use ring::{HashRing, RingNode};
pub use shard::{hash_of, shard_of, shard_range};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
