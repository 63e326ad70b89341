//! Requests and replies.

use crate::cluster::{AdminReply, AdminRequest, ClusterView, Explain, JoinReply, JoinRequest};
use crate::conflicts::{ConflictPage, ConflictsRequest};
use crate::error::ErrorReply;
use crate::limits::{NAME_BYTES_MAX, TIMEOUT_MS_MAX};
use crate::map::ClusterMap;
use crate::status::NodeStatus;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_position::Position;
use std::fmt;
use std::str::FromStr;

/// Drawn when a cluster is founded; no two clusters share one.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct ClusterId(pub [u8; 16]);

/// Drawn by each client when it starts; with a sequence number it names a write for ever.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub struct ClientId(pub [u8; 16]);

fn fmt_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hex(&self.0, f)
    }
}

/// When a write is acknowledged.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum WriteLevel {
    /// Durable in the leader's log.
    One,
    /// Durable on a majority of voters, and applied at the leader.
    #[default]
    Quorum,
    /// Durable on every replica placed for the shard.
    All,
}

/// Who may answer a read.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum ReadLevel {
    /// Any replica, with committed data that may be stale.
    One,
    /// Any replica that has applied what the caller has seen.
    Session,
    /// Any replica, after a majority confirmed the leader's term: linearizable.
    #[default]
    Quorum,
}

impl WriteLevel {
    /// The level as it is spelt in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteLevel::One => "one",
            WriteLevel::Quorum => "quorum",
            WriteLevel::All => "all",
        }
    }
}

impl ReadLevel {
    /// The level as it is spelt in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadLevel::One => "one",
            ReadLevel::Session => "session",
            ReadLevel::Quorum => "quorum",
        }
    }
}

/// A level as it is spelt on the command line, before it is known whether it is for a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// `one`
    One,
    /// `session`
    Session,
    /// `quorum`
    Quorum,
    /// `all`
    All,
}

impl FromStr for Consistency {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "one" => Ok(Consistency::One),
            "session" => Ok(Consistency::Session),
            "quorum" => Ok(Consistency::Quorum),
            "all" => Ok(Consistency::All),
            other => Err(format!(
                "no level is called '{other}': writes take one, quorum or all, reads one, session or quorum"
            )),
        }
    }
}

impl Consistency {
    /// The level for a write; `session` is no write level.
    pub fn for_write(self) -> Result<WriteLevel, String> {
        match self {
            Consistency::One => Ok(WriteLevel::One),
            Consistency::Quorum => Ok(WriteLevel::Quorum),
            Consistency::All => Ok(WriteLevel::All),
            Consistency::Session => {
                Err("'session' is a level for reads: writes take one, quorum or all".into())
            }
        }
    }

    /// The level for a read; `all` is no read level.
    pub fn for_read(self) -> Result<ReadLevel, String> {
        match self {
            Consistency::One => Ok(ReadLevel::One),
            Consistency::Session => Ok(ReadLevel::Session),
            Consistency::Quorum => Ok(ReadLevel::Quorum),
            Consistency::All => Err("'all' is a level for writes: reads take one, session or quorum".into()),
        }
    }
}

/// How similarity is measured.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum Metric {
    /// Squared Euclidean distance: smaller is nearer.
    L2,
    /// Inner product: greater is nearer.
    InnerProduct,
    /// Cosine similarity: greater is nearer.
    #[default]
    Cosine,
    /// Sum of the differences' absolute values: smaller is nearer.
    L1,
}

impl Metric {
    /// The metric as it is spelt in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Metric::L2 => "l2",
            Metric::InnerProduct => "inner_product",
            Metric::Cosine => "cosine",
            Metric::L1 => "l1",
        }
    }

    /// Whether a greater score is nearer.
    pub fn greater_is_nearer(self) -> bool {
        !matches!(self, Metric::L2 | Metric::L1)
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "l2" => Ok(Metric::L2),
            "inner_product" | "ip" => Ok(Metric::InnerProduct),
            "cosine" => Ok(Metric::Cosine),
            "l1" => Ok(Metric::L1),
            other => Err(format!("no metric is called '{other}': use l2, l1, inner_product or cosine")),
        }
    }
}

/// A request with what every request carries.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Request {
    /// The cluster that the caller means, once it knows one: another one refuses.
    pub cluster: Option<ClusterId>,
    /// How long the caller waits, in milliseconds.
    pub timeout_ms: u32,
    /// What is asked.
    pub kind: RequestKind,
}

/// What is asked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum RequestKind {
    /// Where is everything? Any node answers with a [`ClusterMap`].
    Map,
    /// Write the batch in the frame's body (see [`crate::Ops`]) to one shard.
    Write(WriteRequest),
    /// Read records of one shard.
    Get(GetRequest),
    /// Nearest neighbours in some shards; the queries are the frame's body, f32 little endian.
    Search(SearchRequest),
    /// How is this node?
    Status,
    /// Let a node into the cluster. The catalog's leader answers with a [`JoinReply`].
    Join(JoinRequest),
    /// How is the cluster? The catalog's leader answers with a [`ClusterView`].
    Cluster,
    /// Change the cluster. The catalog's leader answers with an [`AdminReply`].
    Admin(AdminRequest),
    /// Why are things where they are? The catalog's leader answers with sentences.
    Explain(Explain),
    /// Read the records of one shard, page by page.
    Scan(ScanRequest),
    /// Read a shard's conflict log, page by page.
    Conflicts(ConflictsRequest),
    /// Count the records of one shard.
    Count(CountRequest),
    /// Digests and hashes of the records of one shard, to be compared with another replica's.
    Hashes(HashesRequest),
}

/// How fresh what is read has to be.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Who may answer; `None`: as the collection says.
    pub level: Option<ReadLevel>,
    /// At `session`, or if no level is given: what the caller has seen of the shards asked for, by their groups; and of groups that are not in
    /// its map, so that a node whose catalog is behind notices.
    pub seen: Vec<GroupPosition>,
    /// How long to wait at most until the shards can be read at this level, in milliseconds.
    pub wait_ms: u32,
}

impl Freshness {
    /// This level, waited for as long as the request allows, of a caller who has seen nothing.
    pub fn at(level: ReadLevel) -> Self {
        Freshness { level: Some(level), seen: Vec::new(), wait_ms: TIMEOUT_MS_MAX }
    }
}

/// A position in the log of a group.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    /// The group: never used again once it is gone, and numbered upwards.
    pub group: u64,
    /// The position.
    pub position: Position,
}

/// A batch of writes to one shard.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number.
    pub shard: u32,
    /// When to acknowledge; `None`: as the collection says.
    pub level: Option<WriteLevel>,
    /// Who writes.
    pub client: ClientId,
    /// The write's number at that client: a retry carries the same one.
    pub sequence: u64,
    /// Whether an earlier attempt may have arrived somewhere.
    pub retry: bool,
}

/// Records by id.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct GetRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number: all ids are in it.
    pub shard: u32,
    /// How fresh they have to be.
    pub fresh: Freshness,
    /// The ids.
    pub ids: Vec<String>,
}

/// Exact nearest neighbours.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct SearchRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// The shards to look in: the answering node has them all.
    pub shards: Vec<u32>,
    /// How fresh they have to be.
    pub fresh: Freshness,
    /// How many hits for each query.
    pub k: u32,
    /// How similarity is measured; the collection's own metric if not given.
    pub metric: Option<Metric>,
}

/// Some records of a shard, in the order of their ids.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ScanRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number.
    pub shard: u32,
    /// How fresh they have to be.
    pub fresh: Freshness,
    /// Only ids that begin with this; all, if it is empty.
    pub prefix: String,
    /// Only ids after this one; from the first on if not given.
    pub after: Option<String>,
    /// Most records in the reply.
    pub limit: u32,
    /// Whether vectors are wanted.
    pub vectors: bool,
    /// Whether payloads are wanted.
    pub payloads: bool,
}

/// How many records of a shard there are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CountRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number.
    pub shard: u32,
    /// How fresh the count has to be.
    pub fresh: Freshness,
    /// Only those whose ids begin with this; all, if it is empty.
    pub prefix: String,
}

/// What a replica holds of a shard, by its hashes.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HashesRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number.
    pub shard: u32,
    /// How fresh they have to be.
    pub fresh: Freshness,
    /// The ranges of ids, by number, whose records are wanted; empty: the digests of all ranges.
    pub ranges: Vec<u16>,
}

/// A reply.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Reply {
    /// To `Map`.
    Map(ClusterMap),
    /// To `Write`.
    Written(WriteReply),
    /// To `Get`: one entry for each id asked for, in that order. The frame's body holds, for each record
    /// found, its vector (f32 little endian) and its payload, one after the other; then the same of each sibling.
    Records {
        /// How far the shard was applied at least when it was read.
        at: ShardPosition,
        /// `None`: no such record.
        records: Vec<Option<RecordInfo>>,
        /// What lost against records found, and was kept, in the order of those.
        siblings: Vec<SiblingInfo>,
    },
    /// To `Search`.
    Hits {
        /// The metric that the scores are in.
        metric: Metric,
        /// How far each shard was applied at least when it was searched.
        shards: Vec<ShardPosition>,
        /// Shards that were asked for and could not be searched.
        missing: Vec<MissingShard>,
        /// For each query its hits over those shards, nearest first.
        results: Vec<Vec<Hit>>,
    },
    /// To `Status`.
    Status(Box<NodeStatus>),
    /// To `Join`.
    Joined(JoinReply),
    /// To `Cluster`.
    Cluster(Box<ClusterView>),
    /// To `Admin`.
    Admin(AdminReply),
    /// To `Explain`: sentences.
    Explained(Vec<String>),
    /// To `Scan`. The frame's body holds for each record what was wanted of vector (f32 little endian) and payload.
    Page {
        /// How far the shard was applied at least when it was read.
        at: ShardPosition,
        /// Records in the order of their ids.
        records: Vec<PageRecord>,
        /// Whether there are records after these.
        more: bool,
    },
    /// To anything.
    Error(ErrorReply),
    /// To `Conflicts`.
    Conflicts(Box<ConflictPage>),
    /// To `Count`.
    Counted {
        /// How far the shard was applied at least when they were counted.
        at: ShardPosition,
        /// How many there are.
        records: u64,
    },
    /// To `Hashes` without ranges.
    Ranges {
        /// How far the shard was applied at least when it was looked at.
        at: ShardPosition,
        /// What is in each range.
        ranges: Vec<RangeDigest>,
    },
    /// To `Hashes` with ranges.
    Hashes {
        /// How far the shard was applied at least when it was looked at.
        at: ShardPosition,
        /// The records in those ranges, in the order of their ids.
        records: Vec<RecordHash>,
    },
}

/// A batch that stands. The writes in it whose condition did not hold changed nothing.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct WriteReply {
    /// Position of the batch's first write; the others follow by offset.
    pub first: Position,
    /// Writes in the batch.
    pub writes: u32,
    /// How many of them found a record under their id. Known once the batch is applied, so not at `one`.
    pub replaced: Option<u32>,
    /// Writes that changed nothing since their condition did not hold, in order. There are none at `one`.
    pub unmet: Vec<Unmet>,
    /// Replicas on which the batch is known to be durable.
    pub durable_on: u32,
    /// Replicas placed for the shard.
    pub replicas: u32,
    /// The group that the positions are of.
    pub group: u64,
}

/// A write whose condition did not hold when it was applied.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// Which write of the batch, from 0.
    pub write: u32,
    /// The record's version at that moment; `None`: there was no record. Of a replay: where the record was written to
    /// since the conflict was decided; or, if nothing lost in it, where that was. Of a replay or discard `None`: there is
    /// no such entry.
    pub current: Option<Position>,
}

/// A record in a reply.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Position of the write that made it.
    pub position: Position,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

/// What lost against a record in a reply, and was kept.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiblingInfo {
    /// Which record of the reply it lost against, from 0.
    pub record: u32,
    /// Position that its own write had.
    pub position: Position,
    /// Bytes of its payload.
    pub payload_bytes: u32,
}

/// A hit of a search.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Hit {
    /// The record's id.
    pub id: String,
    /// In the search's metric.
    pub score: f32,
}

/// How far a shard was applied.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardPosition {
    /// Shard by number.
    pub shard: u32,
    /// Its group.
    pub group: u64,
    /// Position of the last write that was applied when the answer was begun: it shows all up to there.
    pub applied: Position,
    /// Position of the last write that may show in the answer: from `applied` on.
    pub latest: Position,
}

/// A shard that could not be read.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MissingShard {
    /// Shard by number.
    pub shard: u32,
    /// Why.
    pub error: ErrorReply,
}

/// A record in a page.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PageRecord {
    /// Its id.
    pub id: String,
    /// Position of the write that made it.
    pub position: Position,
    /// Bytes of its payload, wanted or not.
    pub payload_bytes: u32,
}

/// What is in a range of ids.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDigest {
    /// How many records.
    pub records: u64,
    /// The sum of their hashes, modulo 2^128, little endian.
    pub digest: [u8; 16],
}

/// A record, by its hash.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct RecordHash {
    /// Its id.
    pub id: String,
    /// Position of the write that made it.
    pub position: Position,
    /// Hash of id, position, vector and payload, little endian.
    pub hash: [u8; 16],
}

/// Why a name cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' cannot be a name: use 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', not starting with '.' or '-'"
)]
pub struct NameError {
    name: String,
}

/// Checks the name of a node, zone or collection. Names become parts of file names.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let starts_well = name.bytes().next().is_some_and(|b| b != b'.' && b != b'-');
    if starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(legal) {
        Ok(())
    } else {
        Err(NameError { name: name.chars().take(80).collect() })
    }
}
