//! What is asked of a group, and what it answers.

use crate::Position;
use crate::entry::AckLevel;
use crate::ids::{GroupId, NodeId};
use bytes::Bytes;

/// Names a request of the embedder; it comes back with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A proposal on its way in.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Comes back with the answer.
    pub token: Token,
    /// When to acknowledge.
    pub level: AckLevel,
    /// Whether an earlier attempt may have got into the log.
    pub retry: bool,
    /// How many positions it takes, at least 1.
    pub writes: u32,
    /// Who proposes.
    pub client: [u8; 16],
    /// The proposal's number at that client.
    pub sequence: u64,
    /// What the state machine applies.
    pub body: Bytes,
    /// When the proposer stops waiting, in microseconds of [`Now::micros`](crate::Now::micros).
    pub deadline: u64,
}

/// Why a proposal or a read was not answered as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This replica does not lead. Nothing happened.
    #[error("this replica does not lead the group; nothing happened")]
    NotLeader,
    /// A queue is full. Nothing happened.
    #[error("too much waits already; nothing happened")]
    Overloaded,
    /// An entry cannot hold it. Nothing happened.
    #[error("it takes {bytes} bytes of an entry, which holds {limit}; nothing happened")]
    TooLarge {
        /// The length of the entry that would hold nothing else, in bytes.
        bytes: usize,
        /// [`Limits::entry_bytes_max`](crate::Limits::entry_bytes_max).
        limit: usize,
    },
    /// Leadership was lost while the proposal was under way: it may or may not take effect.
    #[error("leadership was lost on the way: it may or may not take effect")]
    LeaderChanged,
    /// The deadline passed: it may or may not take effect.
    #[error("the deadline passed: it may or may not take effect")]
    Timeout,
    /// It stands at quorum, but these nodes have not confirmed it.
    #[error("it stands at quorum, but is not confirmed by {missing:?}")]
    LevelNotReached {
        /// Nodes that did not confirm.
        missing: Vec<NodeId>,
    },
    /// The group is halted on this node.
    #[error("the group is halted on this node")]
    Halted,
}

/// What happened to requests and groups.
#[derive(Debug)]
pub enum Event<O> {
    /// A proposal stands as asked.
    Acked {
        /// The request.
        token: Token,
        /// Position of its first write.
        first: Position,
        /// What the state machine said; not yet known when acknowledged at [`AckLevel::One`].
        outcome: Option<O>,
        /// Members on which it is known to be durable.
        durable_on: u32,
        /// All members.
        members: u32,
    },
    /// A proposal at [`AckLevel::All`] stands at [`AckLevel::Quorum`], and not everywhere in time.
    Stands {
        /// The request.
        token: Token,
        /// The group.
        group: GroupId,
        /// Position of its first write.
        first: Position,
        /// What the state machine said.
        outcome: O,
        /// Members on which it is known to be durable.
        durable_on: u32,
        /// All members.
        members: u32,
        /// Nodes that did not confirm.
        missing: Vec<NodeId>,
    },
    /// A request failed.
    Failed {
        /// The request.
        token: Token,
        /// The group.
        group: GroupId,
        /// Why.
        why: Failure,
    },
    /// A majority has confirmed the leader since the read was asked, and this replica has applied all that was
    /// committed when it did.
    ReadReady {
        /// The request.
        token: Token,
        /// The group.
        group: GroupId,
    },
    /// Who leads a group, as far as this replica knows.
    Leader {
        /// The group.
        group: GroupId,
        /// The leader.
        leader: Option<NodeId>,
        /// Its term.
        term: u64,
    },
    /// The group's members are others than before; see [`crate::Replicator::membership`].
    Members {
        /// The group.
        group: GroupId,
    },
    /// This replica leads, and another sent it this; see [`crate::Replicator::forward`].
    Forwarded {
        /// The group.
        group: GroupId,
        /// The node that the other replica is on.
        from: NodeId,
        /// What it sent.
        body: Bytes,
    },
    /// A node's replica has another digest than the leader's, here, at the same entry. One of them is wrong.
    DigestDiffers {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
        /// The entry.
        index: u64,
    },
    /// A group cannot go on here.
    Halted {
        /// The group.
        group: GroupId,
        /// Why.
        why: String,
    },
}
