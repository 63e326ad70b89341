//! Reading payloads back, from any thread, while the owner of the log goes on writing.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use slowdb_disk::DiskFile;

use super::error::WalReadError;
use super::format::{RECORD_HEADER, RecordHeader, RecordType, body_check};
use super::record::Location;

/// What the checksums of a segment's records depend on, and its file.
type Readable = (u64, Arc<dyn DiskFile>);

/// The segments of the log that can be read, by sequence number.
#[derive(Default)]
pub(super) struct Segments {
    by_sequence: RwLock<BTreeMap<u64, Readable>>,
}

impl Segments {
    pub(super) fn insert(&self, sequence: u64, seed: u64, file: Arc<dyn DiskFile>) {
        // A panic cannot leave the map half changed, so a poisoned lock says nothing.
        let mut map = self.by_sequence.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(sequence, (seed, file));
    }

    pub(super) fn remove(&self, sequence: u64) {
        self.by_sequence.write().unwrap_or_else(PoisonError::into_inner).remove(&sequence);
    }

    fn get(&self, sequence: u64) -> Option<Readable> {
        self.by_sequence.read().unwrap_or_else(PoisonError::into_inner).get(&sequence).cloned()
    }
}

/// Reads the payloads of entries. Cheap to clone, usable from any thread, and after a failure of the log too.
#[derive(Clone)]
pub struct WalReader {
    segments: Arc<Segments>,
    data_bytes_max: u64,
}

impl std::fmt::Debug for WalReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WalReader").finish_non_exhaustive()
    }
}

impl WalReader {
    pub(super) fn new(segments: Arc<Segments>, data_bytes_max: u64) -> Self {
        Self { segments, data_bytes_max }
    }

    /// The largest payload that a record of this log can have, in bytes.
    pub fn data_bytes_max(&self) -> u64 {
        self.data_bytes_max
    }

    /// The payload at `location`, its checksums verified.
    ///
    /// # Errors
    ///
    /// The segment was released, the record is damaged, or the disk failed.
    pub fn read(&self, location: Location) -> Result<Bytes, WalReadError> {
        let Location { segment, offset, len } = location;
        let (seed, file) = self.segments.get(segment).ok_or(WalReadError::Released { segment })?;
        let mut buffer = vec![0; RECORD_HEADER + len as usize];
        let read = file.read_at(&mut buffer, u64::from(offset));
        if read.is_ok() && is_entry(&buffer, seed, location) {
            return Ok(Bytes::from(buffer).slice(RECORD_HEADER..));
        }
        // The file may have been given to another segment meanwhile.
        if self.segments.get(segment).is_none() {
            return Err(WalReadError::Released { segment });
        }
        match read {
            Err(source) => Err(WalReadError::Io { segment, source }),
            Ok(()) => Err(WalReadError::Damaged { segment, offset }),
        }
    }
}

/// Whether these are the bytes of the entry at `location`.
fn is_entry(bytes: &[u8], seed: u64, location: Location) -> bool {
    let Some((header, body)) = bytes.split_first_chunk::<RECORD_HEADER>() else { return false };
    let Some((header, _)) = RecordHeader::decode(header, seed, location.offset) else { return false };
    header.kind_byte == RecordType::Entry as u8
        && header.body_bytes == location.len
        && header.body_check == body_check(body)
}
