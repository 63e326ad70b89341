//! The write-ahead log of a node, shared by all its groups.
//!
//! One append-only sequence of records in segment files. [`Wal::append`] writes, [`Wal::sync`] makes everything
//! written durable at once, a [`WalReader`] reads payloads back from any thread, [`Wal::release`] gives segments
//! back that no group needs. [`Wal::open`] finds, after any crash, everything that was synced, makes durable what
//! may not be, and refuses a log of which something synced cannot be read.
//!
//! It knows what a consensus group needs remembered, its entries, hard state, membership and compaction, and refuses
//! what no correct group would append; payloads are bytes to it. It deliberately has no threads, no clock, no
//! randomness and no cache: when to sync, to compact and to release is for its owner to decide. It does not guard
//! against being opened twice at a time either.
//!
//! The layout on the disk, and what recovery decides in each case, is in `docs/format.md`.

mod batch;
mod decide;
mod error;
mod format;
mod group;
mod groups;
mod log;
mod options;
mod reader;
mod record;
mod recover;
mod release;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

pub use error::{Corruption, CorruptionKind, InvalidRecord, WalError, WalOpenError, WalReadError};
pub use groups::Pin;
pub use log::{Wal, WalVerified};
pub use options::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, WalOptions};
pub use reader::WalReader;
pub use record::{EntryMeta, HardState, Location, Record, Recovered, RecoveredGroup};
pub use release::{GroupStats, OldestSegment, WalStats};
