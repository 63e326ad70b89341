//! Checkpoints: making everything up to one operation durable, in three steps of which only the middle one
//! is slow, and that one needs the store not at all.
//!
//! The order is what makes it safe. Data files and the new index are synced, with their names, before the
//! manifest that refers to them gets its name; what the old manifest refers to stays as it is until the new
//! one is durable.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use slowdb_disk::{Disk, DiskFile, is_full};

use crate::bitmap::Bitmap;
use crate::error::{CheckpointError, OpenError};
use crate::index::{Chain, Merged, merge};
use crate::manifest::{Manifest, NAME_TEMPORARY, in_dir, index_name};
use crate::overlay::Overlay;
use crate::shared::{Shared, View};
use crate::store::Store;

/// Held by the store and by the one checkpoint under way.
pub(crate) type Token = Arc<Attempt>;

/// What there is to know of a checkpoint that was begun, also if it is given up.
pub(crate) struct Attempt {
    /// The numbers of the index files that its manifest refers to; not set before they are known.
    indexes: OnceLock<Vec<u64>>,
    /// Whether its manifest may be the one on the disk.
    may_be_durable: AtomicBool,
}

/// The index files in a store's directory, by their numbers.
pub(crate) struct IndexFiles {
    /// Those that may be there.
    there: Vec<u64>,
    /// Those that the manifest on the disk refers to.
    durable: Vec<u64>,
    /// The last one begun.
    last: u64,
}

impl IndexFiles {
    /// With those that the manifest refers to, the newest first.
    pub(crate) fn at_open(durable: Vec<u64>) -> Self {
        Self { there: durable.clone(), last: durable.first().copied().unwrap_or(0), durable }
    }

    fn begin(&mut self) -> u64 {
        self.last += 1;
        self.there.push(self.last);
        self.last
    }

    /// Removes all but those of the disk's manifest and those that readers have. What cannot be removed
    /// now is left to the next checkpoint or opening.
    fn remove_others(&mut self, shared: &Shared, disk: &dyn Disk) {
        let read = numbers(shared.view.load().index.as_deref());
        self.there.retain(|number| {
            let needed = self.durable.contains(number) || read.contains(number);
            needed || !is_gone(disk.remove(&in_dir(&shared.dir, &index_name(*number))))
        });
    }
}

fn numbers(index: Option<&Chain>) -> Vec<u64> {
    index.map(Chain::numbers).unwrap_or_default()
}

fn is_gone(removed: io::Result<()>) -> bool {
    removed.map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |()| true)
}

/// A checkpoint that was begun: what it takes to make it durable, on any thread.
///
/// Dropping it gives the checkpoint up; the store goes on.
#[must_use = "a checkpoint is durable only after `run`"]
pub struct CheckpointJob {
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    token: Token,
    /// It has everything up to this operation.
    sequence: u64,
    manifest: Manifest,
    change: IndexChange,
}

enum IndexChange {
    /// Nothing was written since the last checkpoint.
    None,
    /// The overlay, and what is taken in of the present index, goes into a new file. These slots live.
    New { present: Option<Arc<Chain>>, overlay: Arc<Overlay>, live: Bitmap },
}

/// A checkpoint that is durable, to be handed to [`Store::finish_checkpoint`].
#[must_use = "the store frees what older checkpoints needed only after `finish_checkpoint`"]
pub struct CheckpointDone {
    token: Token,
    sequence: u64,
    mark: Vec<u8>,
    /// The new index, if there is one.
    index: Option<Chain>,
}

impl Store {
    /// Begins a checkpoint of everything written so far. `mark` is kept with it and given back by
    /// [`Store::mark`]. Cheap: nothing is written, and next to nothing copied.
    ///
    /// # Errors
    /// If one is under way, or the store is poisoned.
    pub fn begin_checkpoint(&mut self, mark: &[u8]) -> Result<CheckpointJob, CheckpointError> {
        if let Some(why) = self.poisoned() {
            return Err(CheckpointError::Poisoned(why.into()));
        }
        match self.token.take().map(Arc::try_unwrap) {
            Some(Err(token)) => {
                self.token = Some(token);
                return Err(CheckpointError::UnderWay);
            }
            Some(Ok(given_up)) if given_up.may_be_durable.load(Ordering::Relaxed) => {
                self.index_files.durable = given_up.indexes.into_inner().unwrap_or_default();
            }
            _ => {}
        }
        self.index_files.remove_others(&self.shared, &*self.disk);
        self.thaw()?;
        let view = self.shared.view.load_full();
        let sequence = self.shared.sequence.load(Ordering::Relaxed);
        let indexes = OnceLock::new();
        let (change, index) = if self.overlay_entries == 0 {
            let present = numbers(view.index.as_deref());
            let newest = present.first().copied();
            indexes.get_or_init(|| present);
            (IndexChange::None, newest)
        } else {
            self.shared.view.store(Arc::new(View {
                overlay: Arc::new(Overlay::with_room_for(0)),
                frozen: Some(Arc::clone(&view.overlay)),
                index: view.index.clone(),
            }));
            self.overlay_entries = 0;
            let overlay = Arc::clone(&view.overlay);
            let change = IndexChange::New { present: view.index.clone(), overlay, live: self.live.clone() };
            (change, Some(self.index_files.begin()))
        };
        self.slots_free.begun = sequence;
        let token = Arc::new(Attempt { indexes, may_be_durable: AtomicBool::new(false) });
        self.token = Some(Arc::clone(&token));
        Ok(CheckpointJob {
            disk: Arc::clone(&self.disk),
            shared: Arc::clone(&self.shared),
            token,
            sequence,
            manifest: self.manifest(index, mark),
            change,
        })
    }

    /// Takes note that a checkpoint is durable: readers get the new index, and the slots that only older
    /// checkpoints needed can be reused.
    ///
    /// # Errors
    /// [`CheckpointError::Stale`] if it is not the one that this store began last.
    pub fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<(), CheckpointError> {
        if self.token.take_if(|token| Arc::ptr_eq(token, &done.token)).is_none() {
            return Err(CheckpointError::Stale);
        }
        self.mark = done.mark;
        self.index_files.durable = done.token.indexes.get().cloned().unwrap_or_default();
        let Some(index) = done.index else { return Ok(()) };
        let view = self.shared.view.load_full();
        self.shared.view.store(Arc::new(View {
            overlay: Arc::clone(&view.overlay),
            frozen: None,
            index: Some(Arc::new(index)),
        }));
        // An operation of its own, so that reads that began before, and may hold the old view, are told
        // from those that hold the new one.
        let now = self.shared.sequence.load(Ordering::Relaxed) + 1;
        self.shared.sequence.store(now, Ordering::SeqCst);
        self.slots_free.release(done.sequence, now);
        self.index_files.remove_others(&self.shared, &*self.disk);
        Ok(())
    }

    /// Makes everything written so far durable, with `mark`, before it returns.
    ///
    /// # Errors
    /// The last checkpoint stands then. After [`CheckpointError::Io`] the store takes no more writes until
    /// it is reopened.
    pub fn checkpoint(&mut self, mark: &[u8]) -> Result<(), CheckpointError> {
        let done = self.begin_checkpoint(mark)?.run()?;
        self.finish_checkpoint(done)
    }

    /// Whether a checkpoint was begun, and neither finished nor given up.
    pub fn checkpoint_under_way(&self) -> bool {
        self.token.as_ref().is_some_and(|token| Arc::strong_count(token) > 1)
    }

    fn manifest(&self, index: Option<u64>, mark: &[u8]) -> Manifest {
        let geometry = &self.shared.geometry;
        Manifest {
            dimension: geometry.dimension as u32,
            slots_log2: geometry.slots_log2,
            heap_log2: geometry.heap_log2,
            hash_seed: self.shared.hash_seed,
            slots: self.shared.slots(),
            heap_current: self.heap.current,
            records: self.len(),
            digest: self.digest().0,
            index,
            heap: self.heap.uses(),
            mark: mark.to_vec(),
        }
    }

    /// Takes what a checkpoint that was given up had frozen back into the overlay.
    fn thaw(&mut self) -> Result<(), CheckpointError> {
        let view = self.shared.view.load_full();
        let Some(frozen) = &view.frozen else { return Ok(()) };
        let entries = frozen.entries().count() + self.overlay_entries;
        let merged = Overlay::with_room_for(entries);
        view.overlay.entries().for_each(|entry| merged.add(entry));
        let mut count = self.overlay_entries;
        for entry in frozen.entries() {
            if !self.overlay_has_id_of(&view.overlay, entry)? {
                merged.add(entry);
                count += 1;
            }
        }
        self.overlay_entries = count;
        let index = view.index.clone();
        self.shared.view.store(Arc::new(View { overlay: Arc::new(merged), frozen: None, index }));
        Ok(())
    }
}

impl CheckpointJob {
    /// Makes the checkpoint durable. Slow: it syncs files, writes an index of what changed, and now and then
    /// of all records. Writes to the store may go on meanwhile.
    ///
    /// # Errors
    /// The last checkpoint stands then. After [`CheckpointError::Io`] the store is poisoned.
    pub fn run(self) -> Result<CheckpointDone, CheckpointError> {
        if let Some(why) = self.shared.poison.get() {
            return Err(CheckpointError::Poisoned(why.clone()));
        }
        let made = self.make();
        if made.is_err() && !self.token.may_be_durable.load(Ordering::Relaxed) {
            self.remove_files();
        }
        let index = made?;
        Ok(CheckpointDone { token: self.token, sequence: self.sequence, mark: self.manifest.mark, index })
    }

    fn make(&self) -> Result<Option<Chain>, CheckpointError> {
        let index = match &self.change {
            IndexChange::None => None,
            IndexChange::New { present, overlay, live } => {
                let Manifest { slots, records, .. } = self.manifest;
                let number = self.manifest.index.expect("a new index has a number");
                let Merged { file, below } =
                    merge(&self.shared, present.as_deref(), overlay, live, (number, slots, records))?;
                let written = self.if_room(file.write(&*self.disk, &self.shared.dir))?;
                self.guard(self.sync_files(&*written))?;
                let opened = Chain::with(&*self.disk, &self.shared.dir, (number, slots), below, live.clone());
                let index = opened.or_else(|e| match e {
                    OpenError::Corrupt(corruption) => Err(corruption.into()),
                    e => self.guard(Err(io::Error::other(e))),
                })?;
                self.token.indexes.get_or_init(|| index.numbers());
                Some(index)
            }
        };
        let file = self.if_room(self.manifest.write(&*self.disk, &self.shared.dir))?;
        self.guard(file.sync())?;
        self.token.may_be_durable.store(true, Ordering::Relaxed);
        self.guard(Manifest::publish(&*self.disk, &self.shared.dir))?;
        Ok(index)
    }

    /// Makes room: nothing refers to the files. What cannot be removed now is left to the next checkpoint.
    fn remove_files(&self) {
        let remove = |name: &str| self.disk.remove(&in_dir(&self.shared.dir, name));
        if let (IndexChange::New { .. }, Some(index)) = (&self.change, self.manifest.index) {
            let _ = remove(&index_name(index));
        }
        let _ = remove(NAME_TEMPORARY);
    }

    fn sync_files(&self, index: &dyn DiskFile) -> io::Result<()> {
        index.sync()?;
        for file in &self.shared.data_files {
            file.sync()?;
        }
        // The names of the index and of data files, before a manifest refers to them.
        self.disk.sync_dir(&self.shared.dir)
    }

    /// The result of writing a new file. A full disk is no harm then: nothing refers to the file, and the
    /// next checkpoint writes another one, or this one from its beginning.
    fn if_room<T>(&self, result: io::Result<T>) -> Result<T, CheckpointError> {
        match result {
            Err(e) if is_full(&e) => Err(CheckpointError::NoSpace(e)),
            result => self.guard(result),
        }
    }

    /// Any error poisons the store. After a failed sync, whatever its reason, it is not known what of all
    /// that was written is on the disk, and no later sync makes up for it.
    fn guard<T>(&self, result: io::Result<T>) -> Result<T, CheckpointError> {
        result.map_err(|e| {
            self.shared.poison("a checkpoint", &e);
            CheckpointError::Io(e)
        })
    }
}
