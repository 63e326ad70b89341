//! Hashes: of ids, for the index; of records, for the digest and against rot. All are xxh3.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

use crate::types::{ID_BYTES_MAX, Version};

/// The part of an id's hash that the index keeps, and finds its place by.
pub(crate) fn fingerprint(id: &[u8], seed: u64) -> u32 {
    (xxh3_64_with_seed(id, seed) >> 32) as u32
}

/// The hash of a whole record. Vector and payload enter by their own hashes, so that neither is copied;
/// lengths come first, so that no two different records read the same.
pub(crate) fn record(id: &[u8], version: Version, vector: &[u8], payload: &[u8]) -> u128 {
    if cfg!(feature = "unguarded") {
        return 0;
    }
    const HEAD: usize = Version::BYTES + 4 + 4 + 16 + 16;
    let mut bytes = [0; HEAD + ID_BYTES_MAX];
    bytes[..24].copy_from_slice(&version.to_bytes());
    bytes[24..28].copy_from_slice(&(id.len() as u32).to_le_bytes());
    bytes[28..32].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes[32..48].copy_from_slice(&xxh3_128(vector).to_le_bytes());
    if !payload.is_empty() {
        bytes[48..64].copy_from_slice(&xxh3_128(payload).to_le_bytes());
    }
    bytes[HEAD..HEAD + id.len()].copy_from_slice(id);
    xxh3_128(&bytes[..HEAD + id.len()])
}
