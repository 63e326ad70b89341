//! The lower two levels of a hash tree over the records of a store: digests of 4,096 ranges of ids, and the hashes of the
//! records in some of them. Its root is the running digest.
//!
//! Two stores whose digests differ find what they do not have in common in two steps, however large they are: the ranges
//! whose digests differ, and then the records in those. (R. Merkle, "A digital signature based on a conventional
//! encryption function", 1987; as in Dynamo, DeCandia et al., 2007.) Nothing of it is kept: that two stores are equal is
//! known from the digests at no cost, so the tree is for the rare other case, and is computed from the hashes in the slots
//! when it is asked for, without a look at vectors.
#![expect(unsafe_code, reason = "lends ids out of mapped files")]

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::ReadError;
use crate::reader::ShortSnapshot;
use crate::types::{Digest, Version};

/// How many ranges there are.
pub const RANGES: usize = 1 << RANGES_LOG2;

const RANGES_LOG2: u32 = 12;

/// Another hash than the ones by which ids are found, or divided into shards: it spreads over all ranges what one of
/// those has brought together. The same in every store and version.
const SEED: u64 = 0x736c_6f77_6462_3132;

/// What is in one range of ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeDigest {
    /// How many records.
    pub records: u64,
    /// Their digest.
    pub digest: Digest,
}

/// A record, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHash<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Its version.
    pub version: Version,
    /// Hash of id, version, vector bits and payload: what it adds to the digest.
    pub hash: u128,
}

/// The range that an id is in, below [`RANGES`].
#[must_use]
pub fn range_of(id: &[u8]) -> usize {
    (xxh3_64_with_seed(id, SEED) >> (u64::BITS - RANGES_LOG2)) as usize
}

impl ShortSnapshot<'_> {
    /// What is in each of the [`RANGES`] ranges. The sum of their digests is that of the store.
    ///
    /// # Errors
    /// If a slot is damaged. The vectors and payloads are not looked at.
    pub fn range_digests(&self) -> Result<Vec<RangeDigest>, ReadError> {
        let mut ranges = vec![RangeDigest::default(); RANGES];
        for slot in self.visible_slots() {
            let record = self.record_hash(slot)?;
            let range = &mut ranges[range_of(record.id)];
            range.records += 1;
            range.digest.add(record.hash);
        }
        Ok(ranges)
    }

    /// The records in the ranges that are wanted, in no particular order. Each is compared with its hash; a damaged one is
    /// an error in its place.
    pub fn record_hashes(
        &self,
        is_wanted: impl Fn(usize) -> bool,
    ) -> impl Iterator<Item = Result<RecordHash<'_>, ReadError>> {
        self.visible_slots().filter_map(move |slot| {
            let record = self.record_hash(slot).and_then(|record| {
                if is_wanted(range_of(record.id)) {
                    // SAFETY: the slot is visible at the pin, which lives as long as the borrow of `self`.
                    unsafe { self.shared.recompute(slot)? };
                    return Ok(Some(record));
                }
                Ok(None)
            });
            record.transpose()
        })
    }

    fn record_hash(&self, slot: u32) -> Result<RecordHash<'_>, ReadError> {
        // SAFETY: the slot is visible at the pin, which lives as long as the borrow of `self`.
        let (meta, (id, _)) = unsafe {
            let meta = self.shared.whole_meta(slot)?;
            (meta, self.shared.heap_bytes(slot, &meta)?)
        };
        Ok(RecordHash { id, version: meta.version, hash: meta.record_hash })
    }
}
