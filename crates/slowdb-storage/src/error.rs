//! Errors, by operation: what was wrong, with which value, and what the caller can do.

use std::io;

use thiserror::Error;

use crate::snapshot::SNAPSHOTS_MAX;
use crate::types::{DIMENSION_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX, SLOTS_MAX};

/// Bytes on the disk that are not what was written there.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("corrupt: {file} at byte {offset}: {what}")]
pub struct Corruption {
    /// The file, relative to the disk's root.
    pub file: String,
    /// Where in the file the bad record or page begins.
    pub offset: u64,
    /// The slot concerned, if it is one slot.
    pub slot: Option<u32>,
    /// What does not fit.
    pub what: &'static str,
}

/// Why a store could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The dimension asked for is outside the limits.
    #[error("dimension {0} is not between 1 and {DIMENSION_MAX}")]
    BadDimension(usize),
    /// The extent size asked for is outside the limits.
    #[error("extents of {0} bytes: not between 4096 bytes and 1 GiB")]
    BadExtent(usize),
    /// The store is open, or something of an earlier opening is left: a store, a reader, a snapshot or a
    /// checkpoint, which uses the same bytes.
    #[error(
        "the store in {dir} is in use: close it, and drop its readers, snapshots and checkpoints, before it is opened again"
    )]
    InUse {
        /// The store's directory.
        dir: String,
    },
    /// The store was created with another dimension.
    #[error("{dir} holds vectors of dimension {stored}, not {asked}: open it with {stored}")]
    DimensionMismatch {
        /// The store's directory.
        dir: String,
        /// The dimension it was created with.
        stored: usize,
        /// The dimension asked for.
        asked: usize,
    },
    /// The store was written by a version of this crate that knows another format.
    #[error("{file} has format version {found}; this build reads version {known}")]
    UnknownFormat {
        /// The file.
        file: String,
        /// The version it names.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// A file is damaged so that nothing can be served.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Data files without a manifest: part of the directory is gone.
    #[error(
        "{dir} holds {file:?} but no manifest: part of the store is missing; restore it or start anew in an empty directory"
    )]
    ManifestMissing {
        /// The store's directory.
        dir: String,
        /// A file that is there.
        file: String,
    },
    /// The disk said no.
    #[error("cannot open the store: {0}")]
    Io(#[from] io::Error),
}

/// Why a write was refused. It changed nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The vector has the wrong number of components.
    #[error("a vector of {got} components where the dimension is {expected}")]
    Dimension {
        /// The store's dimension.
        expected: usize,
        /// The vector's.
        got: usize,
    },
    /// Little-endian bytes that are not a whole number of components.
    #[error("a vector of {0} bytes: not a multiple of 4")]
    VectorBytes(usize),
    /// A component is NaN or infinite.
    #[error("component {index} of the vector is {value}: only finite numbers can be stored")]
    NotFinite {
        /// Which component, from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The id is empty.
    #[error("the id is empty: ids have 1 to {ID_BYTES_MAX} bytes")]
    IdEmpty,
    /// The id is too long.
    #[error("an id of {0} bytes: ids have 1 to {ID_BYTES_MAX} bytes")]
    IdTooLong(usize),
    /// The payload is too long.
    #[error("a payload of {0} bytes: payloads have at most {PAYLOAD_BYTES_MAX} bytes")]
    PayloadTooLong(usize),
    /// All slots are in use.
    #[error("the store is full: it has {SLOTS_MAX} slots; spread the vectors over more stores")]
    Full,
    /// The disk has no room. What is stored stays; the store takes writes again when there is room.
    #[error("no room on the disk: {0}")]
    NoSpace(#[source] io::Error),
    /// The record that the write would replace is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// An earlier failure left it open what is on the disk.
    #[error("the store refuses writes until it is reopened, since {0}")]
    Poisoned(String),
    /// The disk said no; the store is poisoned.
    #[error("cannot write: {0}")]
    Io(#[source] io::Error),
}

/// Why there is no snapshot.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// As many as are allowed are held.
    #[error("{SNAPSHOTS_MAX} snapshots of the store are held: drop one before the next is taken")]
    TooMany,
}

/// Why a read could not be answered.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The record, or something needed to find it, is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A query vector has the wrong length.
    #[error("queries of {got} numbers in all: not a multiple of the dimension {dimension}")]
    QueryDimension {
        /// The store's dimension.
        dimension: usize,
        /// The length of all queries together.
        got: usize,
    },
    /// A query has a component that is NaN or infinite.
    #[error("component {index} of query {query} is {value}: only finite numbers can be compared")]
    QueryNotFinite {
        /// Which query, from 0.
        query: usize,
        /// Which component of it, from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
}

/// Why there is no new checkpoint. The last one stands.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// One is under way: finish or drop it first.
    #[error("a checkpoint is under way: finish it or drop it before the next")]
    UnderWay,
    /// A checkpoint that was not the last begun, or of another store.
    #[error("this checkpoint was given up or belongs to another store")]
    Stale,
    /// An earlier failure left it open what is on the disk.
    #[error("the store makes no checkpoints until it is reopened, since {0}")]
    Poisoned(String),
    /// The present index is damaged, so that no new one can be made from it.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The disk has no room. The store goes on; try again when there is room.
    #[error("no room on the disk: {0}")]
    NoSpace(#[source] io::Error),
    /// The disk said no; the store is poisoned.
    #[error("cannot write the checkpoint: {0}")]
    Io(#[source] io::Error),
}
