//! Reading everything and comparing it with its hashes: at once, or in steps of so many bytes, for whoever has time
//! for it.
#![expect(unsafe_code, reason = "reads records of mapped files")]

use crate::error::Corruption;
use crate::index::IndexScrub;
use crate::layout::SlotMeta;
use crate::reader::{Reader, ShortSnapshot};
use crate::snapshot::Snapshot;
use crate::types::Digest;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// The digest of all records whose bytes are good, computed from the bytes.
    pub digest: Digest,
    /// How many there are.
    pub records: u64,
    /// The bad slots and pages.
    pub bad: Vec<Corruption>,
}

impl Scrub {
    fn take(&mut self, record: Result<u128, Corruption>) {
        match record {
            Ok(hash) => {
                self.digest.add(hash);
                self.records += 1;
            }
            Err(corruption) => self.bad.push(corruption),
        }
    }
}

impl Reader {
    /// Reads every byte of every record and compares it with its hash; and every page of the index, which must
    /// lead to each record once. [`Scrubber`] does it in steps.
    pub fn scrub(&self) -> Scrub {
        self.snapshot().scrub()
    }
}

impl ShortSnapshot<'_> {
    /// As [`Reader::scrub`], of these records.
    pub fn scrub(&self) -> Scrub {
        let mut scrub = Scrub::default();
        for slot in self.visible_slots() {
            // SAFETY: the slot is visible at the pin.
            scrub.take(unsafe { self.shared.recompute(slot) });
        }
        if let Some(index) = &self.shared.view.load().index {
            scrub.bad.append(&mut IndexScrub::all(index));
        }
        scrub
    }
}

/// A scrub in steps, of the records of a snapshot and of the index that there was when it began. Its owner decides
/// how fast it goes; writes, reads and checkpoints go on meanwhile.
///
/// If all is well, the digest in the end is that of the snapshot, which the store kept up write by write: the bytes
/// are what was written.
pub struct Scrubber {
    snapshot: Snapshot,
    /// The slot to look at next; none when all were.
    next: Option<u64>,
    index: Option<IndexScrub>,
    found: Scrub,
    bytes_read: u64,
}

impl Scrubber {
    /// A scrub that begins.
    pub fn new(snapshot: Snapshot) -> Self {
        let index = snapshot.shared.view.load().index.as_ref().map(|index| IndexScrub::new(index));
        Self { snapshot, next: Some(0), index, found: Scrub::default(), bytes_read: 0 }
    }

    /// Reads on, about so many bytes and at least one record or page. Says whether there is more.
    ///
    /// A record that is found damaged counts as one that was not looked at since the store was opened: reads do not trust
    /// what they may have seen of it before.
    pub fn step(&mut self, budget_bytes: u64) -> bool {
        let before = self.bytes_read;
        while self.bytes_read - before < budget_bytes.max(1) {
            if let Some(from) = self.next {
                let Some(slot) = self.snapshot.next_slot(from) else {
                    self.next = None;
                    continue;
                };
                let shared = &self.snapshot.shared;
                // SAFETY: the snapshot shows the slot, so it is not cleared as long as it lives.
                let (hash, meta) = unsafe { (shared.recompute(slot), shared.whole_meta(slot)) };
                if hash.is_err() {
                    shared.forget_verified(slot);
                }
                // What is read of a damaged record costs as much; without its metadata nothing else is.
                let heap = meta.map_or(0, |meta| u64::from(meta.id_len) + u64::from(meta.payload_len));
                self.bytes_read += (shared.geometry.stride + SlotMeta::BYTES) as u64 + heap;
                self.found.take(hash);
                self.next = Some(u64::from(slot) + 1);
            } else if let Some(index) = self.index.as_mut().filter(|index| index.has_more()) {
                index.step();
                self.found.bad.append(&mut index.bad);
                self.bytes_read += IndexScrub::STEP_BYTES;
            } else {
                return false;
            }
        }
        self.next.is_some() || self.index.as_ref().is_some_and(IndexScrub::has_more)
    }

    /// What was found so far.
    pub fn found(&self) -> &Scrub {
        &self.found
    }

    /// About how many bytes were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The snapshot whose records are read.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}
