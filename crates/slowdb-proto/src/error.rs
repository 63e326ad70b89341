//! Errors as they cross the wire: a code for programs, a message for people, and where to go next.

use crate::request::ShardPosition;
use rkyv::{Archive, Deserialize, Serialize};

/// What went wrong, in the words that programs match on. Stable: codes are added, never changed.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The request makes no sense as it stands; nothing was changed.
    BadRequest,
    /// A vector's dimension is not the collection's.
    WrongDimension,
    /// A vector holds NaN or an infinity.
    NotFinite,
    /// An id is empty, too long or not UTF-8.
    BadId,
    /// A batch, payload or frame is over its limit.
    TooLarge,
    /// No record has this id; no node or shard is called so.
    NotFound,
    /// No collection has this name.
    UnknownCollection,
    /// The caller meant another cluster.
    WrongCluster,
    /// This replica does not lead the shard; the reply may say who does. Nothing was changed.
    NotLeader,
    /// This node holds no replica of the shard, or the collection is another one of that name: the caller's map is stale,
    /// or the node's. Nothing was changed.
    StaleRoute,
    /// A queue is full. Nothing was changed; try again after `retry_after_ms`.
    Overloaded,
    /// The deadline passed. A write may or may not take effect; a retry with the same tag is safe.
    Timeout,
    /// No majority can be reached, or the cluster is not formed yet.
    Unavailable,
    /// The leader changed while the write was under way: it may or may not take effect; a retry with the
    /// same tag is safe.
    LeaderChanged,
    /// The write is older than what is remembered of this client: whether it took effect cannot be told,
    /// and it was not executed again.
    UnknownOutcome,
    /// The write stands at `quorum`, but not on every replica; the message names who is missing.
    LevelNotReached,
    /// A record's bytes are damaged on this replica.
    Corrupt,
    /// The node's disk failed; it refuses work until it is restarted.
    StorageFailed,
    /// The node is stopping.
    ShuttingDown,
    /// The cluster is not in a state for it; the message says why and what to do. Nothing was changed.
    Refused,
    /// What the write was to depend on does not hold: the record has another version. Nothing was changed.
    ConditionNotMet,
    /// This replica has not applied yet what the caller has seen. The reply says how far it is; another one may be
    /// further.
    Behind,
    /// The caller has seen a write that was overtaken by a failover: no replica will ever hold it. The reply says
    /// which. The session has to forget it.
    Overtaken,
    /// An earlier attempt of this write, at level `one`, was overtaken by a failover and lost against what was there. It
    /// changed nothing, and is kept in the conflict log; the message says how many writes of a batch that is.
    Lost,
    /// A node that holds the shard is short of disk space: writes that take some are refused before the disk is full.
    /// Nothing was changed. It is worth another try once there is room; deletes, reads and searches go on.
    LowSpace,
}

impl Code {
    /// The code as it is spelt in JSON, logs and docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadRequest => "bad_request",
            Code::WrongDimension => "wrong_dimension",
            Code::NotFinite => "not_finite",
            Code::BadId => "bad_id",
            Code::TooLarge => "too_large",
            Code::NotFound => "not_found",
            Code::UnknownCollection => "unknown_collection",
            Code::WrongCluster => "wrong_cluster",
            Code::NotLeader => "not_leader",
            Code::StaleRoute => "stale_route",
            Code::Overloaded => "overloaded",
            Code::Timeout => "timeout",
            Code::Unavailable => "unavailable",
            Code::LeaderChanged => "leader_changed",
            Code::UnknownOutcome => "unknown_outcome",
            Code::LevelNotReached => "level_not_reached",
            Code::Corrupt => "corrupt",
            Code::StorageFailed => "storage_failed",
            Code::ShuttingDown => "shutting_down",
            Code::Refused => "refused",
            Code::ConditionNotMet => "condition_not_met",
            Code::Behind => "behind",
            Code::Overtaken => "overtaken",
            Code::Lost => "lost",
            Code::LowSpace => "low_space",
        }
    }

    /// Whether the same request, tag included, may be sent again: here, or to another replica.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Code::NotLeader
                | Code::StaleRoute
                | Code::Overloaded
                | Code::Timeout
                | Code::Unavailable
                | Code::LeaderChanged
                | Code::Corrupt
                | Code::StorageFailed
                | Code::ShuttingDown
                | Code::Behind
                | Code::LowSpace
        )
    }
}

/// An error reply.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct ErrorReply {
    /// For programs.
    pub code: Code,
    /// For people: what was wrong, with which value, and what to do.
    pub message: String,
    /// Who leads the shard, as far as the answering node knows.
    pub leader: Option<String>,
    /// Term of that leader.
    pub term: u64,
    /// Epoch of the answering node's map.
    pub epoch: u64,
    /// When to try again, in milliseconds (0: at once, elsewhere).
    pub retry_after_ms: u32,
    /// With `behind` how far the shard is applied here; with `overtaken` the position that was overtaken.
    pub at: Option<Box<ShardPosition>>,
}

impl ErrorReply {
    /// An error without a hint where to go.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        ErrorReply {
            code,
            message: message.into(),
            leader: None,
            term: 0,
            epoch: 0,
            retry_after_ms: 0,
            at: None,
        }
    }
}
