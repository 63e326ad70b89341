//! Opening a store: everything is looked at before anything is changed, so that a store that is refused
//! stays as it is.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use slowdb_disk::{Disk, DiskFile};

use crate::atomics::AtomicU64;
use crate::bitmap::Bitmap;
use crate::checkpoint::IndexFiles;
use crate::directory::{Presence, clear_remains, presence};
use crate::error::{Corruption, OpenError};
use crate::files::{AppendList, DataFiles, Files};
use crate::free::FreeSlots;
use crate::heap::{ExtentState, Heap};
use crate::index::Chain;
use crate::layout::Geometry;
use crate::manifest::{Manifest, remove_remains};
use crate::overlay::Overlay;
use crate::readers::Readers;
use crate::shared::{Shared, View};
use crate::snapshot::Moments;
use crate::store::Store;
use crate::types::{DIMENSION_MAX, Digest, Options};

impl Store {
    /// Opens the store in the directory `dir` of `disk`, or creates it there if there is none, which
    /// [`presence`] tells beforehand.
    ///
    /// The caller sees to it that no other process uses the directory, and that a store is not created twice
    /// at a time.
    ///
    /// # Errors
    /// [`OpenError::InUse`] as long as there is anything of an earlier opening. An existing store of another
    /// dimension or format, or one that is damaged beyond serving, is refused and left as it is.
    pub fn open(disk: Arc<dyn Disk>, dir: &str, options: Options) -> Result<Self, OpenError> {
        if !(1..=DIMENSION_MAX).contains(&options.dimension) {
            return Err(OpenError::BadDimension(options.dimension));
        }
        if !(4096..=1 << 30).contains(&options.extent_bytes) {
            return Err(OpenError::BadExtent(options.extent_bytes));
        }
        let present = presence(&*disk, dir)?;
        let mut data = DataFiles::find(&*disk, dir)?;
        match present {
            Presence::Store => {}
            Presence::Remains => {
                clear_remains(&*disk, dir)?;
                data = DataFiles::default();
                create(&*disk, dir, &options)?;
            }
            Presence::Absent => {
                disk.create_dir_all(dir)?;
                create(&*disk, dir, &options)?;
            }
        }
        let found = Found::look(&*disk, dir, data, Some(options.dimension))?;
        // Nothing was changed until here, and from here on nothing but the disk can fail.
        if present == Presence::Store {
            // The manifest may have been renamed into place without its name being durable yet.
            disk.sync_dir(dir)?;
        }
        let Found { manifest, data, index, damage } = found;
        let numbers = index.as_ref().map(|index| index.numbers()).unwrap_or_default();
        remove_remains(&*disk, dir, &numbers)?;
        let shared = shared(dir, &manifest, data.or_created(&*disk, dir)?, index);
        let live = shared.live_at_open.clone();
        let geometry = shared.geometry;
        let slots_free = FreeSlots::at_open(&geometry, manifest.slots, &live);
        let heap = Heap::at_open(&manifest.heap, manifest.heap_current, &geometry);
        let files = Files::map(
            &shared,
            &manifest,
            |extent| slots_free.extents[extent].state == ExtentState::Open,
            |extent| heap.extents[extent].state == ExtentState::Open,
        )?;
        Ok(Self {
            files,
            live,
            digest: Digest(manifest.digest),
            heap,
            pass: None,
            overlay_entries: 0,
            slots_free,
            mark: manifest.mark,
            index_files: IndexFiles::at_open(numbers),
            token: None,
            damage,
            canary_reuse_early: options.canary_reuse_early,
            shared: Arc::new(shared),
            disk,
        })
    }
}

/// What there is of a store, as far as opening looks at it.
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    pub(crate) data: DataFiles,
    pub(crate) index: Option<Arc<Chain>>,
    /// What is damaged and can be done without.
    pub(crate) damage: Vec<Corruption>,
}

impl Found {
    /// Looks at manifest, bitmap, lists and lengths, and changes nothing.
    pub(crate) fn look(
        disk: &dyn Disk,
        dir: &str,
        data: DataFiles,
        dimension: Option<usize>,
    ) -> Result<Self, OpenError> {
        let (manifest, mut damage) = Manifest::read(disk, dir)?;
        if let Some(asked) = dimension.filter(|asked| *asked != manifest.dimension as usize) {
            let stored = manifest.dimension as usize;
            return Err(OpenError::DimensionMismatch { dir: dir.into(), stored, asked });
        }
        data.check(dir, &manifest.geometry(), &manifest)?;
        let index = match manifest.index {
            Some(_) => {
                let (index, damaged) = Chain::open(disk, dir, &manifest)?;
                damage.extend(damaged);
                Some(Arc::new(index))
            }
            None => None,
        };
        Ok(Self { manifest, data, index, damage })
    }
}

/// What writer and readers share of a store that was found sound. Nothing is mapped yet.
pub(crate) fn shared(
    dir: &str,
    manifest: &Manifest,
    data_files: [Arc<dyn DiskFile>; 3],
    index: Option<Arc<Chain>>,
) -> Shared {
    let live_at_open = index.as_ref().map_or_else(Bitmap::default, |index| index.live.clone());
    let view = View { overlay: Arc::new(Overlay::with_room_for(0)), frozen: None, index };
    Shared {
        dir: dir.into(),
        geometry: manifest.geometry(),
        hash_seed: manifest.hash_seed,
        sequence: AtomicU64::new(1),
        readers: Readers::default(),
        moments: Moments::default(),
        view: ArcSwap::from_pointee(view),
        slots: AtomicU64::new(manifest.slots),
        records: AtomicU64::new(manifest.records),
        extents: AppendList::default(),
        heap: AppendList::default(),
        live_at_open,
        poison: OnceLock::new(),
        data_files,
    }
}

fn create(disk: &dyn Disk, dir: &str, options: &Options) -> Result<(), OpenError> {
    let geometry = Geometry::new(options.dimension, options.extent_bytes);
    let manifest = Manifest {
        dimension: options.dimension as u32,
        slots_log2: geometry.slots_log2,
        heap_log2: geometry.heap_log2,
        hash_seed: options.hash_seed,
        slots: 0,
        heap_current: None,
        records: 0,
        digest: 0,
        index: None,
        heap: Vec::new(),
        mark: Vec::new(),
    };
    manifest.write(disk, dir)?.sync()?;
    Ok(Manifest::publish(disk, dir)?)
}
