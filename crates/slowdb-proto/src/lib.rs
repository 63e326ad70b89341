//! The words that SlowDB's nodes and clients share: ids, levels, limits, error codes, requests, replies,
//! and the byte layout of write batches.
//!
//! Nothing here does I/O. Requests and replies are rkyv archives, validated when they are decoded; bulk
//! data (writes, vectors) travels beside them as raw bytes, so that it is never re-encoded.

mod cluster;
mod codec;
mod conflicts;
mod error;
pub mod limits;
mod map;
mod ops;
mod request;
mod settings;
mod status;

pub use cluster::{
    Admin, AdminReply, AdminRequest, ClusterView, Explain, JoinReply, JoinRequest, Meant, MoveView,
    NodeState, NodeView, PlannedMove, ReplicaView, Standing, Wanted,
};
pub use codec::{
    DecodeError, KIND_REPLY, KIND_REQUEST, decode_reply, decode_request, encode_reply, encode_request,
};
pub use conflicts::{Became, ConflictEntry, ConflictPage, ConflictsRequest, LateStatus, Loser};
pub use error::{Code, ErrorReply};
pub use map::{ClusterMap, CollectionInfo, NodeInfo, ReplicaInfo, ShardInfo};
pub use ops::{Condition, Op, Ops, OpsBuilder, OpsError};
pub use request::{
    ClientId, ClusterId, Consistency, CountRequest, Freshness, GetRequest, GroupPosition, HashesRequest, Hit,
    Metric, MissingShard, NameError, PageRecord, RangeDigest, ReadLevel, RecordHash, RecordInfo, Reply,
    Request, RequestKind, ScanRequest, SearchRequest, ShardPosition, SiblingInfo, Unmet, WriteLevel,
    WriteReply, WriteRequest, check_name,
};
pub use settings::{CollectionSettings, ConflictPolicy, SettingsChange};
pub use slowdb_position::{Position, VersionVector};
pub use status::{
    FollowerStatus, GroupKind, GroupStatus, LogStatus, NodeStatus, PeerStatus, Role, ScrubStatus, SpaceStatus,
};

/// ALPN of connections from clients.
pub const ALPN_CLIENT: &[u8] = b"slowdb-client/1";
