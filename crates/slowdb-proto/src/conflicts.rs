//! What became of late writes, as it is read from a shard's conflict log, and how full that is.

use crate::request::{Freshness, ShardPosition, WriteLevel};
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_position::Position;

/// Some entries of a shard's conflict log, in the order of their names.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ConflictsRequest {
    /// Collection by name.
    pub collection: String,
    /// Group of its first shard, by the caller's map: it tells collections of one name apart.
    pub first_group: u64,
    /// Shard by number.
    pub shard: u32,
    /// How fresh they have to be.
    pub fresh: Freshness,
    /// The entry to begin with, or the first after it; the first of all at [`Position::START`].
    pub from: Position,
    /// Most entries in the reply.
    pub limit: u32,
    /// Whether the values that lost are wanted.
    pub losers: bool,
}

/// To a [`ConflictsRequest`]. The frame's body holds for each entry what was wanted of its loser: vector (f32 little
/// endian) and payload.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ConflictPage {
    /// How far the shard was applied when it was read.
    pub at: ShardPosition,
    /// In the order of their names.
    pub entries: Vec<ConflictEntry>,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
}

/// What became of a write that was acknowledged at `one`, overtaken by a failover, and offered again.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ConflictEntry {
    /// Its name in the shard: position that the late write had in the log of the leader that was overtaken.
    pub was: Position,
    /// Id of the record.
    pub id: String,
    /// What became of the late write.
    pub became: Became,
    /// Position at which that was decided: the late write's own, if it was applied.
    pub decided: Position,
    /// Position of the write or delete that was there, if any is known.
    pub met: Option<Position>,
    /// Level that the late write was acknowledged at.
    pub level: WriteLevel,
    /// Hybrid logical time at the leader that acknowledged it: milliseconds since 1970 in the upper 48 bits.
    pub hlc: u64,
    /// What lost, if anything did.
    pub loser: Option<Loser>,
}

/// What became of a late write.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Became {
    /// Nothing had touched the record since the histories parted, or only an earlier write of the same overtaken leader:
    /// it was applied anew.
    Applied,
    /// The record is what it had written, already.
    AlreadyThere,
    /// A later write of the same overtaken leader is there: it would have replaced this one.
    Superseded,
    /// It lost to what was there.
    Lost,
    /// It won against what was there.
    Replaced,
}

impl Became {
    /// As it is spelt in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Became::Applied => "applied",
            Became::AlreadyThere => "already_there",
            Became::Superseded => "superseded",
            Became::Lost => "lost",
            Became::Replaced => "replaced",
        }
    }
}

/// What lost in a conflict.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loser {
    /// A record with a payload of so many bytes.
    Put {
        /// Bytes of its payload.
        payload_bytes: u32,
    },
    /// That there be no record.
    Delete,
}

/// What a replica keeps beside its records for writes that a failover overtakes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LateStatus {
    /// Entries of the conflict log.
    pub conflicts: u64,
    /// Those of them in which a value lost: they stay until they are resolved.
    pub losers: u64,
    /// What those count for, of [`crate::limits::CONFLICT_BYTES_MAX`].
    pub loser_bytes: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Batches that were acknowledged at `one` by a leader on this node, were overtaken, and are kept here until they are
    /// decided.
    pub quarantined: u64,
}
