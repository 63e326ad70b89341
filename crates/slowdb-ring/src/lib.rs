//! Where things go: id → shard, shard → nodes.
//!
//! - [`shard_of`]: an id's shard, by [`murmur3_x64_128`] and equal hash ranges. Depends on nothing but the id and
//!   the number of shards, so ids never move between shards when nodes come and go.
//! - [`HashRing`]: nodes on a ring, each at several virtual points. [`HashRing::place`] gives every shard its
//!   replicas by walking the ring with bounded load, across zones where it can, leaders spread too.
//!
//! Pure functions and values: the same input gives the same placement on any machine. Nothing here knows a network,
//! a disk or the time, and nothing moves anything: a [`Placement`] is a proposal.

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
