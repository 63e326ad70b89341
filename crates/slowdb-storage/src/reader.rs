//! Reading: single records, and consistent views of all of them. Readers take no lock and never wait for the
//! writer.
#![expect(unsafe_code, reason = "lends records out of mapped files")]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::ReadError;
use crate::hash;
use crate::readers::Pin;
use crate::shared::Shared;
use crate::types::{ID_BYTES_MAX, Record, RecordRef, Version};

/// A reader of a store, for any thread. Clones are cheap.
///
/// They outlive the [`crate::Store`], and show what it held last. The store cannot be opened again before they
/// are gone ([`crate::OpenError::InUse`]); [`crate::remove`] does them no harm.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

/// All records as of one moment, for a read that is soon over: as long as it lives, no slot whose record was
/// replaced or deleted since is used again. What is to be kept is a [`crate::Snapshot`].
pub struct ShortSnapshot<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) pin: Pin<'a>,
    slots: u64,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A copy of the record with this id.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn get(&self, id: &[u8]) -> Result<Option<Record>, ReadError> {
        self.get_with(id, |record| record.to_record())
    }

    /// Calls `f` with the record with this id, where it lies.
    ///
    /// It is the newest record, as soon as its write is complete, which may be an instant before
    /// [`Reader::snapshot`] includes it.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn get_with<R>(&self, id: &[u8], f: impl FnOnce(RecordRef<'_>) -> R) -> Result<Option<R>, ReadError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Ok(None);
        }
        let shared = &*self.shared;
        let pin = shared.pin();
        let view = shared.view.load();
        // SAFETY: the pin is older than the view, and lives until the end.
        let Some(slot) = (unsafe { shared.find(&view, id, hash::fingerprint(id, shared.hash_seed))? }) else {
            return Ok(None);
        };
        if shared.life(slot).is_dead(pin.at) {
            return Ok(None);
        }
        // SAFETY: as above: what the view leads to is not cleared as long as the pin lives.
        let record = unsafe { shared.record(slot)? };
        Ok(Some(f(record)))
    }

    /// The version of the record with this id.
    ///
    /// # Errors
    /// If the record is damaged.
    pub fn version(&self, id: &[u8]) -> Result<Option<Version>, ReadError> {
        self.get_with(id, |record| record.version)
    }

    /// The number of records.
    pub fn len(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension of the vectors.
    pub fn dimension(&self) -> usize {
        self.shared.geometry.dimension
    }

    /// All records as of now.
    pub fn snapshot(&self) -> ShortSnapshot<'_> {
        let pin = self.shared.pin();
        ShortSnapshot { shared: &self.shared, slots: self.shared.slots(), pin }
    }
}

impl ShortSnapshot<'_> {
    /// The records, in no particular order; a damaged one is an error in its place.
    pub fn iter(&self) -> impl Iterator<Item = Result<RecordRef<'_>, ReadError>> {
        self.visible_slots().map(|slot| {
            // SAFETY: the slot is visible at the pin, which lives as long as the borrow of `self`.
            Ok(unsafe { self.shared.record(slot)? })
        })
    }

    /// One more than the highest slot that can be visible.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    pub(crate) fn visible_slots(&self) -> impl Iterator<Item = u32> {
        self.shared.visible_slots(0, self.slots, self.pin.at)
    }
}
