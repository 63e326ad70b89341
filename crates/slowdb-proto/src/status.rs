//! What a node says of itself.

use crate::conflicts::LateStatus;
use crate::request::ClusterId;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_position::Position;

/// A node's own view.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// Its cluster, once it is part of one.
    pub cluster: Option<ClusterId>,
    /// Version of the program.
    pub version: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Every group it has a replica of.
    pub groups: Vec<GroupStatus>,
    /// Its write-ahead log.
    pub log: LogStatus,
    /// The room on its disk.
    pub space: SpaceStatus,
    /// The scrub of its shards.
    pub scrub: ScrubStatus,
    /// The other nodes, as seen from here.
    pub peers: Vec<PeerStatus>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}

/// What a group replicates.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum GroupKind {
    /// The catalog.
    Catalog,
    /// A shard.
    Shard {
        /// Its collection.
        collection: String,
        /// Its number.
        shard: u32,
    },
}

/// A replica's part in its group.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Orders the writes.
    Leader,
    /// Follows.
    Follower,
    /// Asks for votes, or whether it would get them.
    Candidate,
    /// Follows without a vote.
    Learner,
}

impl Role {
    /// The role as it is spelt in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
        }
    }
}

/// One replica.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GroupStatus {
    /// The group.
    pub group: u64,
    /// What it replicates.
    pub kind: GroupKind,
    /// This replica's id.
    pub replica: u64,
    /// Its part.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// The node it takes for the leader.
    pub leader: Option<String>,
    /// First entry still in its log.
    pub first_index: u64,
    /// Last entry in its log.
    pub last_index: u64,
    /// Last entry known to be committed.
    pub committed: u64,
    /// Last position applied.
    pub applied: Position,
    /// Digest of all replicated state at that position.
    pub digest: [u8; 16],
    /// Records in it.
    pub records: u64,
    /// What it keeps for writes that a failover overtakes; nothing on the catalog.
    pub late: LateStatus,
    /// Entry up to which its last durable checkpoint reaches.
    pub checkpointed: u64,
    /// On a leader: how far each other replica is.
    pub followers: Vec<FollowerStatus>,
}

/// Another replica, as its leader sees it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Its node.
    pub node: String,
    /// Last entry known to be durable there.
    pub matched: u64,
    /// Whether it answered lately.
    pub active: bool,
    /// Bytes of log kept because it still needs them.
    pub pinned_bytes: u64,
}

/// A node's write-ahead log.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Bytes on disk.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes kept only because a follower still needs them.
    pub pinned_bytes: u64,
}

/// The room on the disk of a node.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStatus {
    /// Free bytes where its storage path is; `None` if that cannot be told.
    pub free_bytes: Option<u64>,
    /// Once fewer are free, writes to its shards are refused; 0: they never are.
    pub low_bytes: u64,
    /// Once so many are free again, they are taken again.
    pub enough_bytes: u64,
    /// Whether they are refused now.
    pub refuses_writes: bool,
}

/// How far a node has come with reading all its shards again and comparing them with their hashes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// How fast it goes; 0: not at all.
    pub bytes_per_second: u64,
    /// How often it has come through all shards since the node started.
    pub rounds: u64,
    /// Milliseconds since it last did.
    pub finished_ms_ago: Option<u64>,
    /// Good records that it read then.
    pub records: u64,
    /// Bytes that it read then.
    pub bytes: u64,
    /// Damaged places that it found then.
    pub bad: u64,
    /// Bytes that it has read of the round under way.
    pub bytes_this_round: u64,
    /// Damaged places, by the last scrub of each shard, that were not mended since.
    pub damaged: u64,
    /// Damaged records that were written anew from another replica since the node started.
    pub mended: u64,
}

/// A connection to another node.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The node.
    pub node: String,
    /// Where it is.
    pub address: String,
    /// Whether messages get there at present.
    pub connected: bool,
}
