//! The words of this crate: limits, versions, digests, vectors on their way in and records on their way out.

use std::fmt;

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 512;
/// The longest payload, in bytes: 64 KiB, and room for what whoever embeds the store keeps beside its users' payloads.
pub const PAYLOAD_BYTES_MAX: usize = 65_536 + 64;
/// The largest dimension.
pub const DIMENSION_MAX: usize = 65_536;
/// The largest number of slots of one store: live records, and dead ones not yet reused.
pub const SLOTS_MAX: u64 = u32::MAX as u64 - 1;

/// The version of a record: opaque to the store, given by the caller with each write, compared as a tuple.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub [u64; 3]);

impl Version {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut words = [0; 3];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().unwrap_or_default());
        }
        Self(words)
    }
}

/// A set hash over records: the sum, modulo 2^128, of the hashes of all of them (id, version, vector bits,
/// payload). Equal sets have equal digests, in whatever order and slots they were written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl Digest {
    pub(crate) fn add(&mut self, record_hash: u128) {
        self.0 = self.0.wrapping_add(record_hash);
    }

    pub(crate) fn subtract(&mut self, record_hash: u128) {
        self.0 = self.0.wrapping_sub(record_hash);
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A vector to be written, as numbers or as it arrived.
#[derive(Clone, Copy, Debug)]
pub enum VectorRef<'a> {
    /// The numbers.
    Floats(&'a [f32]),
    /// Their little-endian bytes, four each, at any alignment.
    LeBytes(&'a [u8]),
}

impl<'a> From<&'a [f32]> for VectorRef<'a> {
    fn from(floats: &'a [f32]) -> Self {
        Self::Floats(floats)
    }
}

impl<'a> From<&'a Vec<f32>> for VectorRef<'a> {
    fn from(floats: &'a Vec<f32>) -> Self {
        Self::Floats(floats)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for VectorRef<'a> {
    fn from(floats: &'a [f32; N]) -> Self {
        Self::Floats(floats)
    }
}

/// A record as it lies in the store, lent for the time of a call.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Its vector, in the mapped file.
    pub vector: &'a [f32],
    /// Its payload; empty if it was written without.
    pub payload: &'a [u8],
    /// The version it was written with.
    pub version: Version,
}

impl<'a> RecordRef<'a> {
    /// The vector's components as they are in the file, four little-endian bytes each.
    pub fn vector_bytes(&self) -> &'a [u8] {
        crate::store::vector_bytes(VectorRef::Floats(self.vector))
    }

    /// A copy to keep.
    pub fn to_record(&self) -> Record {
        Record { vector: self.vector.to_vec(), payload: self.payload.to_vec(), version: self.version }
    }
}

/// A copy of a record, without its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The vector.
    pub vector: Vec<f32>,
    /// The payload; empty if it was written without.
    pub payload: Vec<u8>,
    /// The version it was written with.
    pub version: Version,
}

/// How to open a store. Made by [`Options::new`]; the fields can be changed after.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The number of components of every vector, 1 to [`DIMENSION_MAX`]. An existing store of another
    /// dimension is refused.
    pub dimension: usize,
    /// About how many bytes the vector file grows by. A new store keeps what it is created with. Small
    /// values suit tests and stores by the thousand.
    pub extent_bytes: usize,
    /// Seeds the hash of ids, for a new store. Where ids come from strangers, pass a random number, so that
    /// nobody can choose ids that collide.
    pub hash_seed: u64,
    /// A planted bug for testing the tests: slots are reused though a durable checkpoint refers to them.
    #[doc(hidden)]
    pub canary_reuse_early: bool,
}

impl Options {
    /// The defaults: extents of 4 MiB, hash seed 0.
    pub fn new(dimension: usize) -> Self {
        Self { dimension, extent_bytes: 4 << 20, hash_seed: 0, canary_reuse_early: false }
    }
}
