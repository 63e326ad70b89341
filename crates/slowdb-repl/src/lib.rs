//! A replicated log for any state machine: consensus, the durable log, log shipping over QUIC.
//!
//! - [`Replicator`] is the deterministic core: all groups of a node, fed with inputs, giving outputs;
//! - [`StateMachine`] is what is replicated;
//! - [`wal`] is the log on disk, shared by all groups of a node;
//! - [`transport`] carries frames between nodes over QUIC;
//! - [`driver`] runs a core on threads and real time;
//! - [`embed`] is such a core, ready-made, for state machines that need nothing else.

pub mod driver;
pub mod embed;
mod engine;
mod entry;
#[cfg(test)]
mod fuzz;
mod group;
mod ids;
mod links;
mod machine;
mod note;
mod quarantine;
mod replicator;
mod roll;
pub mod transport;
pub mod wal;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use engine::wire::WireError;
pub use engine::{EngineError, ReplicaRole};
pub use entry::{AckLevel, EntryError, EntryView, Late, ProposalHeader, ProposalView};
pub use group::{Arriving, Event, Failure, Job, JobDone, MemberChange, MemberError, Proposal, Token};
pub use ids::{GroupId, Member, Membership, NodeId, Part, ReplicaId};
pub use machine::{ApplyError, SnapshotSource, Staging, StateMachine};
pub use quarantine::Quarantined;
pub use replicator::{
    Batch, ENTRY_BYTES_MAX, FollowerView, Glance, GroupView, Lane, Limits, OpenGroupError, Outgoing, Output,
    Replicator,
};
pub use slowdb_position::{Position, Standing, TermTable, VersionVector};

/// The time, as the core is told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since some fixed moment of this run; never falls.
    pub micros: u64,
    /// Milliseconds since 1970 by the wall clock; may jump.
    pub wall_millis: u64,
}

/// Length of a tick, in microseconds: the unit of heartbeats and elections.
pub const TICK_MICROS: u64 = 20_000;

/// Bugs that can be planted, to prove that the checks around this crate notice them.
#[cfg(feature = "canary")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// What was only written counts as durable.
    AckBeforeSync,
    /// Term and vote are not written to the log.
    VoteNotPersisted,
    /// A linearizable read does not ask a majority.
    ReadWithoutMajority,
    /// An append of a deposed leader is accepted.
    TermNotChecked,
    /// What a majority of all members has is acknowledged, whether they vote or not.
    LearnerCounted,
    /// Members change without a joint configuration.
    JointSkipped,
    /// A change of members by somebody who does not know what was decided before is not refused.
    StaleIntent,
    /// What is cut from a log, acknowledged by its leader alone, is lost.
    CutNotKept,
    /// What a snapshot replaces, acknowledged by its leader alone, is lost.
    ReplacedNotKept,
    /// What was overtaken is kept only until it was offered.
    SettledUnheard,
    /// A group is put to rest, and called as committed, whatever its members have of it.
    RestsUnsettled,
}
