//! Memory-mapped vector files of one fixed dimension.
//!
//! A [`Store`] is a directory: put, get, delete, iterate, exact search, checkpoint, digest, snapshot. One
//! thread writes, any number read without locks. It knows nothing of networks, replicas or shards, starts
//! no threads, and keeps no log: what was written after the last checkpoint is not there after a crash, and
//! is the caller's to write again.
//!
#![doc = include_str!("../README.md")]

#[cfg(target_endian = "big")]
compile_error!("vectors are mapped as little-endian numbers");

mod atomics;
mod bitmap;
mod checkpoint;
mod compact;
mod directory;
mod entry;
mod error;
mod files;
mod free;
mod hash;
mod heap;
mod index;
mod layout;
mod manifest;
mod open;
mod overlay;
mod ranges;
mod reader;
mod readers;
mod scrub;
mod search;
mod shared;
mod snapshot;
mod store;
mod types;
mod verify;

#[cfg(feature = "model")]
#[doc(hidden)]
pub use readers::CANARY_IGNORE_READS;

pub use checkpoint::{CheckpointDone, CheckpointJob};
pub use compact::Compaction;
pub use directory::{Presence, presence, remove};
pub use error::{CheckpointError, Corruption, OpenError, ReadError, SnapshotError, WriteError};
pub use ranges::{RANGES, RangeDigest, RecordHash, range_of};
pub use reader::{Reader, ShortSnapshot};
pub use scrub::{Scrub, Scrubber};
pub use search::{Filter, Hit, Metric, SearchQuery, simd_in_use};
pub use snapshot::{SNAPSHOTS_MAX, Snapshot};
pub use store::Store;
pub use types::{
    DIMENSION_MAX, Digest, ID_BYTES_MAX, Options, PAYLOAD_BYTES_MAX, Record, RecordRef, SLOTS_MAX, VectorRef,
    Version,
};
pub use verify::{Progress, Verified, verify};
