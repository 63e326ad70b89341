//! What one simulated file holds: bytes as programs see them, bytes as a crash would leave them, and which
//! of the former a later sync would make durable. Names and power are not its business.
//!
//! Invariants, checked nowhere else because every method keeps them:
//! - a page is in at most one of `dirty` and a region; regions do not overlap;
//! - no page of `durable`, `dirty` or a region holds anything but zeros beyond the file's length;
//! - `cut`, if set, is below `durable_len`: durable pages from there on are gone as programs see it.
#![expect(unsafe_code, reason = "mapped memory is shared with the program under test through raw pointers")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::SECTOR_BYTES;
use crate::MAP_ALIGN;
use crate::mapping::Mapping;

const PAGE: usize = 4096;
type Page = Box<[u8; PAGE]>;
const ZEROS: [u8; PAGE] = [0; PAGE];

#[derive(Default)]
pub(super) struct Content {
    /// How many open handles there are.
    pub(super) handles: u32,
    /// Whether one of them has the file for itself.
    pub(super) locked: bool,
    len: u64,
    durable_len: u64,
    /// The lowest length since the last sync, if below `durable_len`.
    cut: Option<u64>,
    /// What survives a crash for certain. A missing page is zero.
    durable: BTreeMap<u64, Page>,
    /// Written with `write_at`, not synced.
    dirty: BTreeMap<u64, Page>,
    /// What a failed sync dropped: still read back, taken for clean as long as it stays as it is.
    phantom: BTreeMap<u64, Page>,
    regions: Vec<Region>,
    /// What was given back and not allocated or written since, by multiples of [`MAP_ALIGN`].
    holes: BTreeSet<u64>,
}

/// A mapped range, in whole pages. Stays after its mappings are gone, as a page cache does.
struct Region {
    page_first: u64,
    page_end: u64,
    memory: Arc<Memory>,
}

impl Region {
    fn holds(&self, page: u64) -> bool {
        (self.page_first..self.page_end).contains(&page)
    }

    fn page_ptr(&self, page: u64) -> *mut u8 {
        assert!(self.holds(page));
        // SAFETY: the page is one of the region's, whose memory spans all its pages.
        unsafe { self.memory.ptr.as_ptr().add((page - self.page_first) as usize * PAGE) }
    }

    fn read_page(&self, page: u64, out: &mut [u8; PAGE]) {
        // SAFETY: `page_ptr` is valid for a page and `out` is ours. The program under test may be writing
        // the page at this moment, as it may while a kernel writes it back; whatever is read then of the
        // bytes being written is one of the outcomes that the contract allows.
        unsafe { std::ptr::copy_nonoverlapping(self.page_ptr(page), out.as_mut_ptr(), PAGE) }
    }

    fn write_page(&self, page: u64, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= PAGE);
        // SAFETY: inside the page by the assertion. By the contract of `DiskFile` nobody uses these bytes
        // through a mapping and through `write_at` at the same time.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.page_ptr(page).add(at), bytes.len());
        }
    }
}

/// Zeroed memory, aligned to a page.
struct Memory {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory that is freed when the owner goes; accesses are the users' business.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn zeroed(len: usize) -> io::Result<Self> {
        let layout =
            Layout::from_size_align(len, PAGE).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        assert!(len > 0);
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).unwrap_or_else(|| handle_alloc_error(layout));
        Ok(Self { ptr, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How much of the disk it takes.
    pub(super) fn space(&self) -> u64 {
        let end = self.len / MAP_ALIGN;
        self.len - self.holes.range(..end).count() as u64 * MAP_ALIGN
    }

    fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// How much of a range was given back.
    pub(super) fn given_back(&self, offset: u64, end: u64) -> u64 {
        self.holes.range(offset / MAP_ALIGN..end.div_ceil(MAP_ALIGN)).count() as u64 * MAP_ALIGN
    }

    pub(super) fn allocate(&mut self, offset: u64, end: u64) {
        self.holes.retain(|n| !(offset / MAP_ALIGN..end.div_ceil(MAP_ALIGN)).contains(n));
        self.grow(end);
    }

    /// `offset` and `len` are multiples of [`MAP_ALIGN`].
    pub(super) fn give_back(&mut self, offset: u64, len: u64) {
        let len = len.min(self.len.saturating_sub(offset));
        for (page, at, range) in pieces(offset, len as usize) {
            self.write_page(page, at, &ZEROS[..range.len()]);
        }
        self.holes.extend(offset / MAP_ALIGN..(offset + len) / MAP_ALIGN);
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{} bytes at {offset} of a file of {}", buf.len(), self.len),
            ));
        }
        let mut page_now = ZEROS;
        for (page, at, range) in pieces(offset, buf.len()) {
            self.seen(page, &mut page_now);
            let len = range.len();
            buf[range].copy_from_slice(&page_now[at..at + len]);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, at, range) in pieces(offset, bytes.len()) {
            self.write_page(page, at, &bytes[range]);
        }
        if !bytes.is_empty() {
            self.allocate(offset, offset + bytes.len() as u64);
        }
    }

    fn write_page(&mut self, page: u64, at: usize, bytes: &[u8]) {
        if let Some(region) = self.regions.iter().find(|r| r.holds(page)) {
            region.write_page(page, at, bytes);
            return;
        }
        if !self.dirty.contains_key(&page) {
            let mut base = ZEROS;
            self.seen(page, &mut base);
            self.phantom.remove(&page);
            self.dirty.insert(page, Box::new(base));
        }
        if let Some(dirty) = self.dirty.get_mut(&page) {
            dirty[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The page as programs see it.
    fn seen(&self, page: u64, out: &mut [u8; PAGE]) {
        if let Some(region) = self.regions.iter().find(|r| r.holds(page)) {
            region.read_page(page, out);
            return;
        }
        let cut = self.cut.is_some_and(|cut| page * PAGE as u64 >= cut);
        let page_now = self
            .dirty
            .get(&page)
            .or_else(|| self.phantom.get(&page))
            .or_else(|| self.durable.get(&page).filter(|_| !cut));
        out.copy_from_slice(page_now.map_or(&ZEROS[..], |p| &p[..]));
    }

    pub(super) fn truncate(&mut self, len: u64) -> io::Result<()> {
        if len > self.len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot truncate {} bytes to {len}", self.len),
            ));
        }
        let page_end = len.div_ceil(PAGE as u64);
        self.fold_regions(page_end, u64::MAX)?;
        self.dirty.retain(|page, _| *page < page_end);
        self.phantom.retain(|page, _| *page < page_end);
        if len < self.durable_len {
            self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
        }
        let tail = (len % PAGE as u64) as usize;
        if tail > 0 && len < self.len {
            // The rest of the last page reads as zero when the file grows again.
            self.write_page(page_end - 1, tail, &ZEROS[tail..]);
        }
        self.len = len;
        self.holes.retain(|n| (n + 1) * MAP_ALIGN <= len);
        Ok(())
    }

    /// Makes everything seen durable, except what an earlier failed sync has dropped.
    pub(super) fn sync(&mut self) {
        self.apply_cut();
        self.durable.append(&mut self.dirty);
        let mut page_now = ZEROS;
        for region in &self.regions {
            for page in region.page_first..region.page_end {
                region.read_page(page, &mut page_now);
                if self.phantom.get(&page).is_some_and(|p| **p == page_now) {
                    continue;
                }
                if self.durable.get(&page).map_or(&ZEROS, |p| p) != &page_now {
                    self.durable.insert(page, Box::new(page_now));
                }
                self.phantom.remove(&page);
            }
        }
        self.durable_len = self.len;
    }

    fn apply_cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.durable.retain(|page, _| page * (PAGE as u64) < cut);
        }
    }

    /// What a failed sync does: everything unsynced now counts as clean, but is nowhere on the disk.
    pub(super) fn lose_unsynced(&mut self) {
        self.phantom.append(&mut self.dirty);
        let mut page_now = ZEROS;
        for region in &self.regions {
            for page in region.page_first..region.page_end {
                region.read_page(page, &mut page_now);
                if self.durable.get(&page).map_or(&ZEROS, |p| p) != &page_now {
                    self.phantom.insert(page, Box::new(page_now));
                }
            }
        }
    }

    /// Replaces the file by one of the states a crash can leave.
    pub(super) fn crash(&mut self, rng: &mut impl FnMut() -> u64) {
        // The folding cannot fail once nobody's mapping counts.
        let regions = std::mem::take(&mut self.regions);
        for region in &regions {
            self.fold(region);
        }
        let changed = !self.dirty.is_empty() || self.cut.is_some() || self.len != self.durable_len;
        if changed {
            let mode = Mode::draw(rng);
            if self.cut.is_some() && mode.keeps(rng) {
                self.apply_cut();
            }
            self.cut = None;
            for (page, new) in std::mem::take(&mut self.dirty) {
                let old = self.durable.entry(page).or_insert_with(|| Box::new(ZEROS));
                let kept = mode.mask(rng);
                for (n, (old, new)) in
                    old.chunks_exact_mut(SECTOR_BYTES).zip(new.chunks_exact(SECTOR_BYTES)).enumerate()
                {
                    if kept >> n & 1 == 1 {
                        old.copy_from_slice(new);
                    }
                }
            }
            self.len = mode.length(self.durable_len, self.len, rng);
            let page_end = self.len.div_ceil(PAGE as u64);
            self.durable.retain(|page, _| *page < page_end);
            let tail = (self.len % PAGE as u64) as usize;
            if tail > 0
                && let Some(last) = self.durable.get_mut(&(page_end - 1))
            {
                last[tail..].fill(0);
            }
        }
        self.phantom.clear();
        self.durable_len = self.len;
        self.handles = 0;
        self.locked = false;
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) -> io::Result<()> {
        if offset >= self.len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no byte {offset} in a file of {}", self.len),
            ));
        }
        let (page, at) = (offset / PAGE as u64, (offset % PAGE as u64) as usize);
        self.durable.entry(page).or_insert_with(|| Box::new(ZEROS))[at] ^= mask;
        for other in [&mut self.dirty, &mut self.phantom] {
            if let Some(p) = other.get_mut(&page) {
                p[at] ^= mask;
            }
        }
        if let Some(region) = self.regions.iter().find(|r| r.holds(page)) {
            let mut page_now = ZEROS;
            region.read_page(page, &mut page_now);
            region.write_page(page, at, &[page_now[at] ^ mask]);
        }
        Ok(())
    }

    pub(super) fn map(&mut self, offset: u64, len: usize) -> io::Result<Mapping> {
        let page_first = offset / PAGE as u64;
        let page_end = (offset + len as u64).div_ceil(PAGE as u64);
        let present = self.regions.iter().find(|r| r.page_first <= page_first && page_end <= r.page_end);
        if let Some(region) = present {
            if Arc::strong_count(&region.memory) == 1 {
                // Nobody has it mapped, so what a failed sync dropped may have left the cache, too. Were it
                // kept, writing the same bytes anew could not be told from not writing.
                for page in region.page_first..region.page_end {
                    if self.phantom.remove(&page).is_some() {
                        region.write_page(page, 0, self.durable.get(&page).map_or(&ZEROS[..], |p| &p[..]));
                    }
                }
            }
            return Ok(Mapping::new(region.page_ptr(page_first), len, Arc::<Memory>::clone(&region.memory)));
        }
        self.fold_regions(page_first, page_end)?;
        let memory = Arc::new(Memory::zeroed((page_end - page_first) as usize * PAGE)?);
        let region = Region { page_first, page_end, memory: Arc::clone(&memory) };
        let mut page_now = ZEROS;
        let filled: Vec<u64> = [&self.durable, &self.phantom, &self.dirty]
            .into_iter()
            .flat_map(|pages| pages.range(page_first..page_end).map(|(page, _)| *page))
            .collect();
        for page in filled {
            self.seen(page, &mut page_now);
            region.write_page(page, 0, &page_now);
        }
        self.dirty.retain(|page, _| !region.holds(*page));
        self.regions.push(region);
        Ok(Mapping::new(memory.ptr.as_ptr(), len, memory))
    }

    /// Turns the regions that touch `[first, end)` back into pages. Refused while they are mapped.
    fn fold_regions(&mut self, first: u64, end: u64) -> io::Result<()> {
        let touches = |r: &Region| r.page_first < end && first < r.page_end;
        if self.regions.iter().any(|r| touches(r) && Arc::strong_count(&r.memory) > 1) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "simulated disk: this would cut or overlap a mapping that is in use",
            ));
        }
        let regions = std::mem::take(&mut self.regions);
        let (folded, kept): (Vec<Region>, Vec<Region>) = regions.into_iter().partition(touches);
        self.regions = kept;
        for region in &folded {
            self.fold(region);
        }
        Ok(())
    }

    /// Moves the unsynced pages of a region, already taken out of `regions`, to `dirty`.
    fn fold(&mut self, region: &Region) {
        let (mut mapped, mut otherwise) = (ZEROS, ZEROS);
        for page in region.page_first..region.page_end {
            region.read_page(page, &mut mapped);
            self.seen(page, &mut otherwise);
            if mapped != otherwise {
                self.phantom.remove(&page);
                self.dirty.insert(page, Box::new(mapped));
            }
        }
    }
}

/// How a crash treats one file.
#[derive(Clone, Copy)]
enum Mode {
    LoseAll,
    KeepAll,
    Draw,
}

impl Mode {
    fn draw(rng: &mut impl FnMut() -> u64) -> Self {
        match rng() % 4 {
            0 => Self::LoseAll,
            1 => Self::KeepAll,
            _ => Self::Draw,
        }
    }

    /// For eight sectors, a bit each: whether the new content is kept.
    fn mask(self, rng: &mut impl FnMut() -> u64) -> u64 {
        match self {
            Self::LoseAll => 0,
            Self::KeepAll => u64::MAX,
            Self::Draw => rng(),
        }
    }

    fn keeps(self, rng: &mut impl FnMut() -> u64) -> bool {
        self.mask(rng) & 1 == 1
    }

    fn length(self, old: u64, new: u64, rng: &mut impl FnMut() -> u64) -> u64 {
        if old == new {
            return new;
        }
        match self {
            Self::LoseAll => old,
            Self::KeepAll => new,
            Self::Draw => match rng() % 3 {
                0 => old,
                1 => new,
                _ => old.min(new) + rng() % old.abs_diff(new),
            },
        }
    }
}

/// Cuts a range of `len` bytes at `offset` into (page, where in the page, range of the buffer).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let in_page = (at % PAGE as u64) as usize;
        let part = (PAGE - in_page).min(len - done);
        let range = done..done + part;
        done += part;
        Some((at / PAGE as u64, in_page, range))
    })
}
