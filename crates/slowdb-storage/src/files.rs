//! The mapped data files: vectors, slot metadata, heap. They grow by extents that are allocated before they
//! are mapped and never move.
//!
//! This file hands out bytes. Which of them may be read or written when is argued where that happens.
#![expect(unsafe_code, reason = "reads and writes mapped files")]

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use slowdb_disk::{Disk, DiskFile, Mapping};

use crate::atomics::{AtomicU64, pause};
use crate::error::{Corruption, OpenError};
use crate::layout::Geometry;
use crate::manifest::{Manifest, in_dir};
use crate::shared::{HEAP, SLOTS, Shared, VECTORS};

/// What is cleared and brought into memory at a time, ahead of writes from front to back: little at first, since what is not
/// written in the end goes to the disk as zeros, and there may be a thousand shards.
const AHEAD_BYTES_MIN: usize = 64 * 1024;
/// Then this much. More at a time is no faster.
const AHEAD_BYTES_MAX: usize = 256 * 1024;

/// Part of a mapping.
pub(crate) struct Span {
    map: Mapping,
    at: usize,
    len: usize,
}

impl Span {
    /// # Safety
    /// Nobody writes these bytes as long as the slice lives.
    pub(crate) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        pause();
        // SAFETY: `ptr` checks the range, the mapping lives as long as `self`, and the caller promises that
        // there is no writer.
        unsafe { std::slice::from_raw_parts(self.ptr(at, len), len) }
    }

    /// # Safety
    /// Nobody else reads or writes these bytes now.
    pub(crate) unsafe fn write(&self, at: usize, bytes: &[u8]) {
        pause();
        // SAFETY: `ptr` checks the range; the caller promises that it is his alone. `bytes` may not overlap
        // it, since shared slices of it cannot exist while it is written.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr(at, bytes.len()), bytes.len()) }
    }

    /// To be called before each of a row of writes that follow on one another, with where it goes. Saves most page
    /// faults, which would take most of the time of a write.
    ///
    /// # Safety
    /// Nobody reads what is at `at` and behind, up to the end of the span, and only the caller writes it.
    pub(crate) unsafe fn prepare(&self, at: usize, len: usize) {
        let end = at + len;
        let next_step = |at: usize| {
            at.next_multiple_of(if at <= AHEAD_BYTES_MAX { AHEAD_BYTES_MIN } else { AHEAD_BYTES_MAX })
        };
        let from = next_step(at);
        if from < end {
            let to = next_step(end).min(self.len);
            // SAFETY: it is not before `at`, and inside the span.
            unsafe { self.map.clear(self.at + from, to - from) };
        }
    }

    /// The address of `len` bytes from `at` on.
    pub(crate) fn ptr(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len && len <= self.len - at, "{len} bytes at {at} of a span of {}", self.len);
        // SAFETY: inside the span, which is inside the mapping.
        unsafe { self.map.as_ptr().add(self.at + at) }
    }
}

/// A file that grows by extents.
struct ExtentFile {
    file: Arc<dyn DiskFile>,
    extent_bytes: usize,
    /// How many are mapped.
    extents: usize,
}

impl ExtentFile {
    fn new(file: &Arc<dyn DiskFile>, extent_bytes: usize) -> Self {
        Self { file: Arc::clone(file), extent_bytes, extents: 0 }
    }

    /// Allocates and maps `more` extents beyond the mapped ones, in one mapping.
    fn grow(&mut self, more: usize) -> io::Result<Vec<Span>> {
        self.allocate(self.extents..self.extents + more)?;
        self.map(more)
    }

    /// Maps the first extents, of which those are allocated that are needed.
    fn map_first(&mut self, extents: usize, is_needed: impl Fn(usize) -> bool) -> io::Result<Vec<Span>> {
        let mut n = 0;
        while n < extents {
            let first = n;
            while n < extents && is_needed(n) {
                n += 1;
            }
            self.allocate(first..n)?;
            n += usize::from(first == n);
        }
        self.map(extents)
    }

    fn allocate(&self, extents: Range<usize>) -> io::Result<()> {
        let bytes = self.extent_bytes as u64;
        if extents.is_empty() {
            return Ok(());
        }
        self.file.allocate(extents.start as u64 * bytes, extents.len() as u64 * bytes)
    }

    fn give_back(&self, extent: usize) -> io::Result<()> {
        let bytes = self.extent_bytes as u64;
        self.file.give_back(extent as u64 * bytes, bytes)
    }

    /// Maps `more` extents, which the file has.
    fn map(&mut self, more: usize) -> io::Result<Vec<Span>> {
        if more == 0 {
            return Ok(Vec::new());
        }
        let at = self.extents as u64 * self.extent_bytes as u64;
        let len = more * self.extent_bytes;
        let map = self.file.map(at, len)?;
        self.extents += more;
        let span = |n| Span { map: map.clone(), at: n * self.extent_bytes, len: self.extent_bytes };
        Ok((0..more).map(span).collect())
    }

    /// Takes back the last growth, whose spans are gone.
    fn forget(&mut self, extents: usize) {
        self.extents -= extents;
    }
}

/// A list that one thread appends to and all read without a lock. Items never move.
pub(crate) struct AppendList<T> {
    /// Bucket `b` has room for `2^b` items.
    buckets: [OnceLock<Box<[OnceLock<T>]>>; 40],
}

impl<T> Default for AppendList<T> {
    fn default() -> Self {
        Self { buckets: [const { OnceLock::new() }; 40] }
    }
}

impl<T> AppendList<T> {
    pub(crate) fn get(&self, n: usize) -> Option<&T> {
        let (bucket, at) = Self::locate(n);
        self.buckets.get(bucket)?.get()?.get(at)?.get()
    }

    /// Sets item `n`, which was not set before.
    pub(crate) fn set(&self, n: usize, item: T) {
        let (bucket, at) = Self::locate(n);
        let items = self.buckets[bucket].get_or_init(|| (0..1 << bucket).map(|_| OnceLock::new()).collect());
        assert!(items[at].set(item).is_ok(), "items are set once");
    }

    fn locate(n: usize) -> (usize, usize) {
        let bucket = (n + 1).ilog2();
        (bucket as usize, n + 1 - (1 << bucket))
    }
}

/// When the record in a slot became visible and when it stopped to be, as numbers of operations of this
/// opening of the store. 0: not yet.
#[derive(Default)]
pub(crate) struct Life {
    birth: AtomicU64,
    death: AtomicU64,
}

impl Life {
    /// Of a slot that held a record when the store was opened, or did not.
    pub(crate) fn at_open(live: bool) -> Self {
        Self { birth: AtomicU64::new(u64::from(live)), death: AtomicU64::new(0) }
    }

    /// Whether the record is one of those as of operation `at`.
    ///
    /// Death is looked at first. If it is 0 because the slot was just emptied, then the birth read after it
    /// is 0 too, or that of a record which is written completely: never the one that had died.
    pub(crate) fn is_visible(&self, at: u64) -> bool {
        let death = self.death.load(Ordering::Acquire);
        let birth = self.birth.load(Ordering::Acquire);
        death.wrapping_sub(1) >= at && birth.wrapping_sub(1) < at
    }

    /// Whether the record is gone as of operation `at`.
    pub(crate) fn is_dead(&self, at: u64) -> bool {
        self.death.load(Ordering::Acquire).wrapping_sub(1) < at
    }

    pub(crate) fn birth(&self) -> u64 {
        self.birth.load(Ordering::Acquire)
    }

    /// Publishes what was written to the slot.
    pub(crate) fn begin(&self, at: u64) {
        self.birth.store(at, Ordering::Release);
    }

    pub(crate) fn end(&self, at: u64) {
        self.death.store(at, Ordering::Release);
    }

    /// Empties the slot for its next record. No reader needs the last one.
    pub(crate) fn clear(&self) {
        self.birth.store(0, Ordering::Release);
        self.death.store(0, Ordering::Release);
    }
}

/// Bits that nothing but the time that a read takes depends on.
type Hint = std::sync::atomic::AtomicU64;

/// Slots that are stored side by side.
pub(crate) struct Extent {
    pub(crate) vectors: Span,
    pub(crate) metas: Span,
    /// Made when it is first needed.
    pub(crate) lives: OnceLock<Box<[Life]>>,
    /// A bit for each slot whose bytes were compared with the record's hash since the store was opened, or
    /// written since.
    verified: Box<[Hint]>,
    /// Whether everything visible was, once; what is written later is good by itself.
    all_verified: AtomicBool,
    /// Whether something that was good has been found damaged since: each slot is looked at by itself then.
    any_forgotten: AtomicBool,
}

impl Extent {
    pub(crate) fn new(vectors: Span, metas: Span, slots: usize) -> Self {
        let verified = (0..slots.div_ceil(64)).map(|_| Hint::new(0)).collect();
        let (all_verified, any_forgotten) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { vectors, metas, lives: OnceLock::new(), verified, all_verified, any_forgotten }
    }

    /// Whether nothing visible is left to be compared with its hash.
    pub(crate) fn is_all_verified(&self) -> bool {
        self.all_verified.load(Ordering::Relaxed) && !self.any_forgotten.load(Ordering::Relaxed)
    }

    pub(crate) fn set_all_verified(&self) {
        self.all_verified.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_verified(&self, at: usize) -> bool {
        self.verified[at / 64].load(Ordering::Relaxed) >> (at % 64) & 1 == 1
    }

    pub(crate) fn set_verified(&self, at: usize) {
        self.verified[at / 64].fetch_or(1 << (at % 64), Ordering::Relaxed);
    }

    pub(crate) fn forget_verified(&self, at: usize) {
        self.verified[at / 64].fetch_and(!(1 << (at % 64)), Ordering::Relaxed);
        self.any_forgotten.store(true, Ordering::Relaxed);
    }
}

/// The data files that are there, each locked: vectors, slots, heap.
///
/// What is mapped of them is read and written without asking anybody. So whoever can do that holds the locks:
/// [`Shared`], and through it store, readers, snapshots and checkpoints.
#[derive(Default)]
pub(crate) struct DataFiles([Option<Arc<dyn DiskFile>>; 3]);

impl DataFiles {
    const NAMES: [&str; 3] = [VECTORS, SLOTS, HEAP];

    /// Opens and locks what is there. Changes nothing.
    pub(crate) fn find(disk: &dyn Disk, dir: &str) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for (file, name) in found.0.iter_mut().zip(Self::NAMES) {
            match disk.open(&in_dir(dir, name), false) {
                Ok(there) => *file = Some(locked(there, dir)?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(found)
    }

    /// Whether the files have everything that the manifest refers to.
    pub(crate) fn check(&self, dir: &str, geometry: &Geometry, manifest: &Manifest) -> Result<(), OpenError> {
        let needed = needed_extents(geometry, manifest);
        for (n, (file, name)) in self.0.iter().zip(Self::NAMES).enumerate() {
            let bytes = needed[n] as u64 * extent_bytes(geometry)[n] as u64;
            let len = file.as_ref().map_or(Ok(0), |file| file.len())?;
            if len < bytes {
                let what = if file.is_some() { "shorter than the manifest says" } else { "missing" };
                return Err(Corruption { file: in_dir(dir, name), offset: 0, slot: None, what }.into());
            }
        }
        Ok(())
    }

    /// The files, if all are there.
    pub(crate) fn all(self) -> Option<[Arc<dyn DiskFile>; 3]> {
        let [vectors, slots, heap] = self.0;
        Some([vectors?, slots?, heap?])
    }

    /// The files, with those created that are not there.
    pub(crate) fn or_created(self, disk: &dyn Disk, dir: &str) -> Result<[Arc<dyn DiskFile>; 3], OpenError> {
        let open = |file: Option<_>, name| match file {
            Some(file) => Ok(file),
            None => locked(disk.open(&in_dir(dir, name), true)?, dir),
        };
        let [vectors, slots, heap] = self.0;
        Ok([open(vectors, VECTORS)?, open(slots, SLOTS)?, open(heap, HEAP)?])
    }
}

fn locked(file: Arc<dyn DiskFile>, dir: &str) -> Result<Arc<dyn DiskFile>, OpenError> {
    if file.lock()? { Ok(file) } else { Err(OpenError::InUse { dir: dir.into() }) }
}

/// Of vectors, slots, heap.
fn extent_bytes(geometry: &Geometry) -> [usize; 3] {
    [geometry.vector_extent(), geometry.meta_extent(), geometry.heap_extent()]
}

/// How many extents a checkpoint uses of vectors, slots, heap.
fn needed_extents(geometry: &Geometry, manifest: &Manifest) -> [usize; 3] {
    let slot_extents = geometry.extents_for(manifest.slots);
    [slot_extents, slot_extents, manifest.heap.len()]
}

/// The data files of an open store.
pub(crate) struct Files {
    vectors: ExtentFile,
    slots: ExtentFile,
    heap: ExtentFile,
    /// Extents of slots, and of the heap, that are mapped.
    pub(crate) slot_extents: usize,
    pub(crate) heap_extents: usize,
}

impl Files {
    /// Maps what the manifest refers to, which is there. Extents of slots and of the heap that are needed are
    /// allocated, should the file be one with holes.
    pub(crate) fn map(
        shared: &Shared,
        manifest: &Manifest,
        is_slots_needed: impl Fn(usize) -> bool,
        is_heap_needed: impl Fn(usize) -> bool,
    ) -> io::Result<Self> {
        let [vectors, slots, heap] = &shared.data_files;
        let bytes = extent_bytes(&shared.geometry);
        let mut files = Self {
            vectors: ExtentFile::new(vectors, bytes[0]),
            slots: ExtentFile::new(slots, bytes[1]),
            heap: ExtentFile::new(heap, bytes[2]),
            slot_extents: 0,
            heap_extents: 0,
        };
        let [slot_extents, _, heap_extents] = needed_extents(&shared.geometry, manifest);
        let metas = files.slots.map_first(slot_extents, &is_slots_needed)?;
        let vectors = files.vectors.map_first(slot_extents, is_slots_needed)?;
        files.add_slots(shared, vectors, metas);
        let heap = files.heap.map_first(heap_extents, is_heap_needed)?;
        files.add_heap(shared, heap);
        Ok(files)
    }

    /// As [`Files::map`], but changes nothing.
    pub(crate) fn map_as_is(shared: &Shared, manifest: &Manifest) -> io::Result<Self> {
        Self::map(shared, manifest, |_| false, |_| false)
    }

    /// Gives an extent of slots real space again.
    pub(crate) fn allocate_slots(&self, extent: usize) -> io::Result<()> {
        self.slots.allocate(extent..extent + 1)?;
        self.vectors.allocate(extent..extent + 1)
    }

    /// Gives an extent of the heap real space again.
    pub(crate) fn allocate_heap(&self, extent: usize) -> io::Result<()> {
        self.heap.allocate(extent..extent + 1)
    }

    /// Gives the space of an extent of slots back to the disk. Says how many bytes.
    pub(crate) fn give_back_slots(&self, extent: usize) -> io::Result<u64> {
        self.slots.give_back(extent)?;
        self.vectors.give_back(extent)?;
        Ok((self.slots.extent_bytes + self.vectors.extent_bytes) as u64)
    }

    /// Gives the space of an extent of the heap back to the disk. Says how many bytes.
    pub(crate) fn give_back_heap(&self, extent: usize) -> io::Result<u64> {
        self.heap.give_back(extent)?;
        Ok(self.heap.extent_bytes as u64)
    }

    pub(crate) fn ensure_slots(&mut self, shared: &Shared, extents: usize) -> io::Result<()> {
        if extents > self.slot_extents {
            self.ensure_slots_exactly(shared, extents.max(grown(self.slot_extents)))?;
        }
        Ok(())
    }

    pub(crate) fn ensure_heap(&mut self, shared: &Shared, extents: usize) -> io::Result<()> {
        if extents > self.heap_extents {
            self.ensure_heap_exactly(shared, extents.max(grown(self.heap_extents)))?;
        }
        Ok(())
    }

    fn ensure_slots_exactly(&mut self, shared: &Shared, extents: usize) -> io::Result<()> {
        let more = extents - self.slot_extents;
        let metas = self.slots.grow(more)?;
        // Should this fail, the metadata is ahead by some extents, which the next try maps again.
        let vectors = match self.vectors.grow(more) {
            Ok(vectors) => vectors,
            Err(e) => {
                self.slots.forget(more);
                return Err(e);
            }
        };
        self.add_slots(shared, vectors, metas);
        Ok(())
    }

    fn ensure_heap_exactly(&mut self, shared: &Shared, extents: usize) -> io::Result<()> {
        let spans = self.heap.grow(extents - self.heap_extents)?;
        self.add_heap(shared, spans);
        Ok(())
    }

    fn add_slots(&mut self, shared: &Shared, vectors: Vec<Span>, metas: Vec<Span>) {
        let slots = shared.geometry.slots_per_extent();
        for (vectors, metas) in vectors.into_iter().zip(metas) {
            shared.extents.set(self.slot_extents, Extent::new(vectors, metas, slots));
            self.slot_extents += 1;
        }
    }

    fn add_heap(&mut self, shared: &Shared, spans: Vec<Span>) {
        for span in spans {
            shared.heap.set(self.heap_extents, span);
            self.heap_extents += 1;
        }
    }
}

/// Growing by an eighth keeps the number of mappings small, and the room to spare too.
fn grown(extents: usize) -> usize {
    const MORE_MAX: usize = 16;
    extents + (extents / 8).min(MORE_MAX)
}
