//! The index files of a checkpoint, from the newest to the base.

use std::sync::Arc;

use slowdb_disk::Disk;

use super::file::{Index, Lookup};
use crate::bitmap::Bitmap;
use crate::error::{Corruption, OpenError};
use crate::manifest::Manifest;

/// The id index as of a checkpoint.
pub(crate) struct Chain {
    /// Each is below the one before it; the last is the base.
    files: Vec<Arc<Index>>,
    /// A bit for each slot that lives as of the checkpoint.
    pub(crate) live: Bitmap,
}

impl Chain {
    /// Maps the index files of a manifest that has some. Gives also what was found damaged and can be done without.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &str,
        manifest: &Manifest,
    ) -> Result<(Self, Vec<Corruption>), OpenError> {
        let (mut files, mut damage) = (Vec::new(), Vec::new());
        let mut next = manifest.index.map(|newest| (newest, manifest.slots));
        while let Some((number, slots)) = next {
            let (file, mut damaged) = Index::open(disk, dir, number, slots)?;
            damage.append(&mut damaged);
            next = file.below();
            files.push(Arc::new(file));
        }
        let (base, deltas) = files.split_last().expect("the manifest has an index");
        let mut live = base.bitmap(&mut damage)?;
        deltas.iter().rev().for_each(|delta| delta.apply(&mut live));
        if live.count() != manifest.records {
            return Err(files[0]
                .corrupt(0, "the slots that live are not as many as the manifest says")
                .into());
        }
        Ok((Self { files, live }, damage))
    }

    /// `newest`, which is on the disk, above these files.
    pub(crate) fn with(
        disk: &dyn Disk,
        dir: &str,
        (newest, slots): (u64, u64),
        files: Vec<Arc<Index>>,
        live: Bitmap,
    ) -> Result<Self, OpenError> {
        let (newest, _) = Index::open(disk, dir, newest, slots)?;
        Ok(Self { files: [Arc::new(newest)].into_iter().chain(files).collect(), live })
    }

    /// From the newest on.
    pub(crate) fn files(&self) -> &[Arc<Index>] {
        &self.files
    }

    /// The numbers of the files, from the newest on.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.files.iter().map(|file| file.number()).collect()
    }

    /// The slot of a live record that is the wanted one, among those that entries with this fingerprint lead to.
    /// `is_wanted` is also told whether it may find another record than the one that the entry was made for.
    pub(crate) fn find(
        &self,
        fingerprint: u32,
        mut is_wanted: impl FnMut(u32, &dyn Fn() -> bool) -> Result<bool, Corruption>,
    ) -> Result<Lookup, Corruption> {
        for (n, file) in self.files.iter().enumerate() {
            let found = file.find(fingerprint, |slot| {
                // What does not live may have been cleared, and may be written to at this moment.
                let is_stale = || self.files[..n].iter().any(|newer| newer.has_put(slot));
                Ok(self.live.get(slot as usize) && is_wanted(slot, &is_stale)?)
            })?;
            if found != Lookup::Absent {
                return Ok(found);
            }
        }
        Ok(Lookup::Absent)
    }
}
