//! Every limit of the system in one table.

/// Longest id, in bytes. An id is UTF-8 and not empty.
pub const ID_BYTES_MAX: usize = 512;
/// Largest payload of a record, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Largest dimension of a collection.
pub const DIMENSION_MAX: u32 = 65_536;
/// Longest name of a node or collection, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most writes in one request.
pub const BATCH_WRITES_MAX: usize = 10_000;
/// Largest body of a write request, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most that the tombstones of one shard may count for, in bytes: each for its id and 64.
pub const TOMBSTONE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most that the conflicts of one shard with a value that lost may count for, in bytes: each for the value, its id and
/// 192. There is room for those of a whole batch.
pub const CONFLICT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most that the other conflicts of one shard may count for, in bytes: each for its id and 192.
pub const CONFLICT_NOTE_BYTES_MAX: usize = 1024 * 1024;
/// Most ids in one get request.
pub const GET_IDS_MAX: usize = 10_000;
/// Most queries in one search request.
pub const SEARCH_QUERIES_MAX: usize = 1_024;
/// Largest `k` of a search.
pub const SEARCH_K_MAX: usize = 10_000;
/// Most records in one page of a scan.
pub const SCAN_RECORDS_MAX: usize = 10_000;
/// Most records whose hashes are in one reply.
pub const HASHES_MAX: usize = 20_000;
/// Most entries of a conflict log in one page.
pub const CONFLICT_PAGE_MAX: usize = 1_000;
/// Largest rkyv part of a frame, in bytes.
pub const META_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest raw part of a frame, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most shards of a collection.
pub const SHARDS_MAX: u32 = 4_096;
/// Most nodes that a cluster can be founded with.
pub const INITIAL_NODES_MAX: usize = 5;
/// Largest replication factor.
pub const REPLICATION_FACTOR_MAX: u32 = 5;
/// Longest time that a request may ask to wait, in milliseconds.
pub const TIMEOUT_MS_MAX: u32 = 600_000;
