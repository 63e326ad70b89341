//! Snapshots: all records of a store as of one moment, kept for as long as the caller likes and at the cost
//! of no copy, to be read in parts.
//!
//! Reads that are soon over have another, cheaper way ([`crate::readers`]).
#![expect(unsafe_code, reason = "lends records out of mapped files")]

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Corruption, SnapshotError};
use crate::shared::Shared;
use crate::store::Store;
use crate::types::{Digest, RecordRef};

/// How many snapshots of one store there can be at a time.
pub const SNAPSHOTS_MAX: usize = 64;

/// All records of a store as of the moment it was taken, whatever is written since.
///
/// It blocks no reads, writes or checkpoints. As long as it lives, the slots of its records are not used
/// again, so that the store's files grow by as much as is replaced of it, at most by its own size.
///
/// It may outlive the [`Store`], which cannot be opened again before it is gone
/// ([`crate::OpenError::InUse`]): it would write to slots that this snapshot may show. [`crate::remove`] does
/// it no harm.
pub struct Snapshot {
    pub(crate) shared: Arc<Shared>,
    moment: u64,
    slots: u64,
    records: u64,
    digest: Digest,
}

impl Store {
    /// All records as of now. Cheap: nothing is copied.
    ///
    /// # Errors
    /// If there are [`SNAPSHOTS_MAX`] already.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let moment = self.shared.sequence.load(Ordering::Relaxed);
        self.shared.moments.add(moment)?;
        Ok(Snapshot {
            shared: Arc::clone(&self.shared),
            moment,
            slots: self.shared.slots(),
            records: self.len(),
            digest: self.digest(),
        })
    }
}

impl Snapshot {
    /// The number of records.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The digest that the store had at the moment.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The dimension of the vectors.
    pub fn dimension(&self) -> usize {
        self.shared.geometry.dimension
    }

    /// The first slot from this one on that holds a record of the snapshot.
    pub(crate) fn next_slot(&self, from: u64) -> Option<u32> {
        self.shared.visible_slots(from, self.slots, self.moment).next()
    }

    /// Shows records to `visit`, in a fixed order, from the cursor `from` on, until it says `false` or there
    /// are no more. Gives the cursor to go on from, or `None` at the end.
    ///
    /// A record at which `visit` says `false` is not used up: it is the first of the read that goes on from
    /// the cursor. Only the first record of a read is used up in any case, so that every read gets on.
    ///
    /// Cursor 0 is the beginning. Reading again from a cursor shows the same records with the same bytes. Any
    /// number is safe as a cursor; one that no read of this snapshot gave goes on somewhere.
    ///
    /// # Errors
    /// If a record is damaged. Those before it have been visited.
    pub fn read(
        &self,
        from: u64,
        mut visit: impl FnMut(RecordRef<'_>) -> bool,
    ) -> Result<Option<u64>, Corruption> {
        let (mut first, mut stop) = (true, false);
        for slot in self.shared.visible_slots(from, self.slots, self.moment) {
            if stop {
                return Ok(Some(slot.into()));
            }
            // SAFETY: the record was alive at the moment, which is registered until the snapshot is dropped,
            // so the slot is not cleared.
            let record = unsafe { self.shared.record(slot)? };
            if !visit(record) {
                if !first {
                    return Ok(Some(slot.into()));
                }
                stop = true;
            }
            first = false;
        }
        Ok(None)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.moments.remove(self.moment);
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("dir", &self.shared.dir)
            .field("moment", &self.moment)
            .field("records", &self.records)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// The moments of all snapshots, as numbers of operations.
///
/// One is added while the store is borrowed, so that the writer, who needs the store for itself, has it on
/// its list before the next operation. One can go at any time, on any thread.
#[derive(Default)]
pub(crate) struct Moments {
    /// Ascending; once for each snapshot.
    list: Mutex<Vec<u64>>,
    /// How often the list changed.
    changes: AtomicU64,
}

impl Moments {
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(crate) fn list(&self) -> Vec<u64> {
        self.lock().clone()
    }

    fn add(&self, moment: u64) -> Result<(), SnapshotError> {
        let mut list = self.lock();
        if list.len() >= SNAPSHOTS_MAX {
            return Err(SnapshotError::TooMany);
        }
        let at = list.partition_point(|other| *other <= moment);
        list.insert(at, moment);
        self.changes.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn remove(&self, moment: u64) {
        let mut list = self.lock();
        let at = list.binary_search(&moment).expect("a snapshot is on the list until it is dropped");
        list.remove(at);
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        // Nothing that can panic leaves the list half changed.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
