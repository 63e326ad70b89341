//! Verifying a closed store: everything that counts is read and compared, and nothing is changed.
#![expect(unsafe_code, reason = "reads records of mapped files")]

use slowdb_disk::Disk;

use crate::directory::{Presence, presence};
use crate::error::{Corruption, OpenError};
use crate::files::{DataFiles, Files};
use crate::heap::HeapPlace;
use crate::index::IndexScrub;
use crate::layout::SlotMeta;
use crate::manifest::{self, Manifest, in_dir};
use crate::open::{Found, shared};
use crate::shared::Shared;
use crate::types::Digest;

/// What verifying a store found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The dimension of its vectors.
    pub dimension: usize,
    /// How many records are good.
    pub records: u64,
    /// How many bytes they have, ids, payloads and padding included.
    pub bytes: u64,
    /// Their digest, computed from the bytes.
    pub digest: Digest,
    /// What was given with its last durable checkpoint.
    pub mark: Vec<u8>,
    /// Every place that is damaged.
    pub bad: Vec<Corruption>,
}

/// How far verifying has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records that were read.
    pub records: u64,
    /// Records that there are.
    pub records_total: u64,
    /// Bytes of records that were read.
    pub bytes: u64,
}

/// After how many records the caller hears of it.
const PROGRESS_EVERY: u64 = 4096;

/// Reads everything in the store in `dir` that its last durable checkpoint refers to, and compares it: both copies
/// of the manifest and of what the index has twice, every page of the index, every byte of every record, the digest, and how much
/// of the heap is in use. Changes nothing; a directory where no store is has no records.
///
/// `progress` is called now and then.
///
/// # Errors
/// As for [`crate::Store::open`]: [`OpenError::InUse`] if the store is open, and what keeps it from being opened at
/// all. Everything else that is damaged is in the result.
pub fn verify(disk: &dyn Disk, dir: &str, mut progress: impl FnMut(Progress)) -> Result<Verified, OpenError> {
    if presence(disk, dir)? != Presence::Store {
        return Ok(Verified::default());
    }
    let Found { manifest, data, index, damage } = Found::look(disk, dir, DataFiles::find(disk, dir)?, None)?;
    let (dimension, mark) = (manifest.dimension as usize, manifest.mark.clone());
    let mut found = Verified { dimension, mark, bad: damage, ..Verified::default() };
    if let Some(index) = &index {
        let mut bad = IndexScrub::all(index);
        // Both may have found the same.
        bad.retain(|bad| !found.bad.contains(bad));
        found.bad.append(&mut bad);
    }
    // Without any of them there are no records: their lengths were looked at.
    if let Some(data_files) = data.all() {
        let shared = shared(dir, &manifest, data_files, index);
        let _mapped = Files::map_as_is(&shared, &manifest)?;
        records(&shared, &manifest, &mut found, &mut progress);
    }
    Ok(found)
}

fn records(shared: &Shared, manifest: &Manifest, found: &mut Verified, progress: &mut impl FnMut(Progress)) {
    let mut bad = Vec::new();
    let mut heap_live = vec![0_u64; manifest.heap.len()];
    let mut now = Progress { records_total: manifest.records, ..Progress::default() };
    for slot in shared.visible_slots(0, manifest.slots, 1) {
        // SAFETY: the bitmap says that the slot is written, and nobody writes to the store: its files are locked.
        let (hash, meta) = unsafe { (shared.recompute(slot), shared.meta(slot)) };
        now.records += 1;
        match hash {
            Ok(hash) => {
                let place = HeapPlace::of(&meta, &shared.geometry);
                found.digest.add(hash);
                found.records += 1;
                found.bytes += (shared.geometry.stride + SlotMeta::BYTES) as u64 + u64::from(place.len);
                heap_live[place.extent as usize] += u64::from(place.len);
            }
            Err(corruption) => bad.push(corruption),
        }
        now.bytes = found.bytes;
        if now.records.is_multiple_of(PROGRESS_EVERY) {
            progress(now);
        }
    }
    progress(now);
    if bad.is_empty() {
        let file = in_dir(&shared.dir, manifest::NAME);
        let wrong = |what| Corruption { file: file.clone(), offset: 0, slot: None, what };
        if found.digest.0 != manifest.digest {
            bad.push(wrong("the digest does not fit the records"));
        }
        if !manifest.heap.iter().map(|extent| u64::from(extent.live)).eq(heap_live) {
            bad.push(wrong("what is in use of the heap does not fit the records"));
        }
    }
    found.bad.append(&mut bad);
}
