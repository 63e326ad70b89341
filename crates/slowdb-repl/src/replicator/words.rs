//! What goes into a replicator and what comes out of it.

use crate::Position;
use crate::engine::{EngineError, ReplicaRole};
use crate::group::{Arriving, Event, Job};
use crate::ids::{GroupId, NodeId, Part, ReplicaId};
use crate::wal::Record;
use bytes::Bytes;

/// [`Limits::entry_bytes_max`] unless said otherwise.
pub const ENTRY_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Bounds of what is taken in, and of what waits inside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of proposals that are not yet applied, over all groups.
    pub waiting_bytes_max: usize,
    /// Bytes of an entry of the log: what is larger is refused before it is proposed, and when another node sends it. The
    /// same on all nodes of a cluster; a log whose segments are too small for it opens no group.
    pub entry_bytes_max: usize,
    /// Proposals and entries that wait in one group; and as many reads.
    pub waiting_per_group_max: usize,
    /// Bytes of log that a group keeps for members that are behind; one that is further behind gets a snapshot.
    pub retained_bytes_per_group: u64,
    /// Segments of the log that are begun before one is let go though a group needs it for members that are behind, however
    /// little of it: those get a snapshot. What a state machine holds durably is all that is ever let go.
    pub retained_segments: u64,
    /// Bytes of snapshots that a node takes in within a second; `u64::MAX` for as many as it can.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of overtaken proposals that a node keeps before it takes no more at [`crate::AckLevel::One`].
    pub quarantine_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            waiting_bytes_max: 64 * 1024 * 1024,
            entry_bytes_max: ENTRY_BYTES_MAX,
            waiting_per_group_max: 4096,
            retained_bytes_per_group: 64 * 1024 * 1024,
            retained_segments: 16,
            snapshot_bytes_per_second: 64 * 1024 * 1024,
            quarantine_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// The connection that a message takes. Bulk data on a shared connection would starve votes and heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Heartbeats, votes, answers: small and urgent.
    Control,
    /// The log of one group, in order.
    Data(GroupId),
    /// Parts of snapshots.
    Snapshot,
}

/// A frame for another node.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The node.
    pub to: NodeId,
    /// The connection it takes.
    pub lane: Lane,
    /// The part that says what it is.
    pub meta: Bytes,
    /// Entry data, one piece after the other.
    pub body: Vec<Bytes>,
    /// Bytes in all.
    pub bytes: usize,
}

/// Records to append to the log and sync.
#[derive(Debug)]
pub struct Batch {
    /// Grows by one from batch to batch.
    pub number: u64,
    /// In the order in which they are appended.
    pub records: Vec<Record>,
}

/// What is to be done after a flush.
#[derive(Debug)]
pub struct Output<O> {
    /// To send now, in this order.
    pub messages: Vec<Outgoing>,
    /// To make durable.
    pub batch: Option<Batch>,
    /// To hear.
    pub events: Vec<Event<O>>,
    /// To run.
    pub jobs: Vec<Job>,
}

/// A group as it looks from here.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// The replica on this node.
    pub replica: ReplicaId,
    /// Its part.
    pub role: ReplicaRole,
    /// Its part in the decisions; `None` if it is no member, as far as it knows.
    pub part: Option<Part>,
    /// Its term.
    pub term: u64,
    /// Node that leads, as far as known.
    pub leader: Option<NodeId>,
    /// First entry in the log.
    pub first_index: u64,
    /// Last entry in the log.
    pub last_index: u64,
    /// Last entry known to be committed.
    pub committed: u64,
    /// Last position applied.
    pub applied: Position,
    /// The state machine holds everything up to here durably.
    pub checkpointed: u64,
    /// Why it is halted, if it is.
    pub halted: Option<String>,
    /// How far a snapshot has arrived that it waits for.
    pub arriving: Option<Arriving>,
    /// On a leader: the other members.
    pub followers: Vec<FollowerView>,
}

/// Another member as its leader sees it.
#[derive(Clone, Debug)]
pub struct FollowerView {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Its part in the decisions.
    pub part: Part,
    /// Last entry known to be durable there.
    pub matched: u64,
    /// Whether it answered lately.
    pub active: bool,
    /// Bytes of log it has not confirmed yet.
    pub pinned_bytes: u64,
    /// Last entry at which its digest was seen to be the leader's; 0 if none.
    pub equal_at: u64,
}

/// Why a group cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenGroupError {
    /// It is open already.
    #[error("{0} is open already")]
    Exists(GroupId),
    /// Its membership makes no sense.
    #[error("the membership of {0} is malformed")]
    Membership(GroupId),
    /// What the log says of its membership makes no sense.
    #[error("the log says nothing sensible of the membership of {0}: was it written by another version?")]
    Malformed(ReplicaId),
    /// The log holds nothing of this replica.
    #[error("the log holds nothing of {1} of {0}")]
    NotLogged(GroupId, ReplicaId),
    /// The log cannot hold every entry that the group may have.
    #[error(
        "{group} may have entries of {entry} bytes, and a segment of the log takes {segment}: the log has to be laid out in \
         larger segments"
    )]
    SegmentsTooSmall {
        /// The group.
        group: GroupId,
        /// [`Limits::entry_bytes_max`].
        entry: usize,
        /// The largest payload of a record of the log, in bytes.
        segment: u64,
    },
    /// What is on disk does not add up.
    #[error("{0}: {1}")]
    Engine(GroupId, EngineError),
}
