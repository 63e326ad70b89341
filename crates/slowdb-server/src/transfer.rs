//! A shard's state on its way to another replica.
//!
//! Parts begin with a byte that says what follows:
//!
//! ```text
//! 1  the mark, or more of it: an archive, as in a checkpoint
//! 2  records, one after the other:
//!    id length u16, payload length u32, version 3 x u64, id, payload, vector (f32), all little endian
//! ```
//!
//! The mark comes first, in as many parts as it needs. What is staged is a store of its own, beside the one in use.

use crate::envelope::Envelope;
use crate::shard::digest_with_mark;
use slowdb_repl::{ApplyError, SnapshotSource, Staging};
use slowdb_storage::{RecordRef, Snapshot, Store, VectorRef, Version};

/// A part is at most this large, unless a record alone is larger.
const PART_BYTES: usize = 512 * 1024;
const MARK: u8 = 1;
const RECORDS: u8 = 2;
const RECORD_HEADER_BYTES: usize = 30;
/// Largest mark that is taken in: twice what a shard can have.
const MARK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A shard at one moment. The mark has as many cursors as parts, from 0; the store's cursor `n` follows `n` after those.
pub(crate) struct ShardSnapshot {
    pub(crate) records: Snapshot,
    pub(crate) mark: Vec<u8>,
    pub(crate) digest: [u8; 16],
}

impl SnapshotSource for ShardSnapshot {
    fn digest(&self) -> [u8; 16] {
        self.digest
    }

    fn bytes(&self) -> u64 {
        let record = RECORD_HEADER_BYTES + 16 + self.records.dimension() * 4;
        self.mark.len() as u64 + self.records.len() * record as u64
    }

    fn read(&self, cursor: u64, out: &mut Vec<u8>) -> Result<Option<u64>, ApplyError> {
        let mark_parts = self.mark.len().div_ceil(PART_BYTES).max(1) as u64;
        let Some(from) = cursor.checked_sub(mark_parts) else {
            out.push(MARK);
            let rest = &self.mark[cursor as usize * PART_BYTES..];
            out.extend_from_slice(&rest[..rest.len().min(PART_BYTES)]);
            let next = cursor + 1;
            return Ok((next < mark_parts || !self.records.is_empty()).then_some(next));
        };
        out.push(RECORDS);
        let begun = out.len();
        let next = self.records.read(from, |record| {
            let fits = out.len() == begun || out.len() + record_bytes(&record) <= PART_BYTES;
            if fits {
                push_record(out, &record);
            }
            fits
        });
        let next = next.map_err(|error| ApplyError(error.to_string()))?;
        Ok(next.map(|next| next + mark_parts))
    }
}

fn record_bytes(record: &RecordRef<'_>) -> usize {
    RECORD_HEADER_BYTES + record.id.len() + record.payload.len() + record.vector_bytes().len()
}

fn push_record(out: &mut Vec<u8>, record: &RecordRef<'_>) {
    out.extend_from_slice(&(record.id.len() as u16).to_le_bytes());
    out.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
    for word in record.version.0 {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(record.id);
    out.extend_from_slice(record.payload);
    out.extend_from_slice(record.vector_bytes());
}

/// A shard's state as it comes in.
pub(crate) struct ShardStaging {
    pub(crate) store: Store,
    /// Index that the snapshot was made at.
    pub(crate) incarnation: u64,
    pub(crate) mark: Option<Vec<u8>>,
}

impl Staging for ShardStaging {
    fn write(&mut self, part: &[u8]) -> Result<(), ApplyError> {
        match part.split_first() {
            Some((&MARK, mark)) if self.store.is_empty() => {
                let all = self.mark.get_or_insert_default();
                all.extend_from_slice(mark);
                if all.len() > MARK_BYTES_MAX {
                    return Err(ApplyError(format!("the mark of a snapshot is over {MARK_BYTES_MAX} bytes")));
                }
                Ok(())
            }
            Some((&RECORDS, mut rest)) if self.mark.is_some() => {
                while !rest.is_empty() {
                    rest = self.put_record(rest)?;
                }
                Ok(())
            }
            _ => Err(ApplyError("a part of a snapshot of another kind than was due".to_owned())),
        }
    }

    fn finish(self: Box<Self>) -> Result<[u8; 16], ApplyError> {
        let ShardStaging { mut store, incarnation, mark } = *self;
        let mark = mark.ok_or_else(|| ApplyError("a snapshot without a mark".to_owned()))?;
        let digest = digest_with_mark(&store, &mark, incarnation).map_err(ApplyError)?;
        let job = store.begin_checkpoint(&mark).map_err(|error| ApplyError(error.to_string()))?;
        let done = job.run().map_err(|error| ApplyError(error.to_string()))?;
        store.finish_checkpoint(done).map_err(|error| ApplyError(error.to_string()))?;
        Ok(digest)
    }
}

impl ShardStaging {
    /// Stores the first record of `bytes`, and gives the rest.
    fn put_record<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], ApplyError> {
        let cut = || ApplyError("a part of a snapshot ends inside a record".to_owned());
        let (head, rest) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or_else(cut)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let id_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let payload_len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let version = Version([word(6), word(14), word(22)]);
        let (id, rest) = rest.split_at_checked(id_len).ok_or_else(cut)?;
        let (payload, rest) = rest.split_at_checked(payload_len).ok_or_else(cut)?;
        let (vector, rest) = rest.split_at_checked(self.store.dimension() * 4).ok_or_else(cut)?;
        if Envelope::unwrap(payload).is_none() {
            return Err(ApplyError("a record of a snapshot does not say how it came to be".to_owned()));
        }
        let put = self.store.put(id, VectorRef::LeBytes(vector), payload, version);
        put.map_err(|error| ApplyError(format!("a record of a snapshot: {error}")))?;
        Ok(rest)
    }
}

#[cfg(test)]
mod tests;
