//! The id index as of a checkpoint: a file of checksummed pages, mapped and never changed.
//!
//! A page is a checksum and 511 words. The first page says what follows; then come the pages of the hash
//! table, whose words are entries ([`Entry`]); then, twice, a bitmap of the slots that hold records. Pages of
//! the table are checked when they are first looked at, so that opening a store does not cost anything per
//! record but a bit.
//!
//! No single damaged page makes a record unreadable: what the first says the manifest says too, the bitmap is
//! there twice, and what a page of the table leads to is found by looking at all records.
#![expect(unsafe_code, reason = "reads a mapped file")]

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slowdb_disk::{Disk, DiskFile, Mapping};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::entry::Entry;
use crate::error::{Corruption, OpenError};
use crate::manifest::{FORMAT_VERSION, Manifest, in_dir, index_name};
use crate::shared::{bit, set_bit, take_bit};

const PAGE_BYTES: usize = 4096;
const PAGE_WORDS: usize = PAGE_BYTES / 8 - 1;
const BITS_PER_PAGE: u64 = PAGE_WORDS as u64 * 64;
/// Entries per page on average; the rest is room, so that probing ends soon.
const PAGE_FILL: u64 = 360;
const MAGIC: u64 = u64::from_le_bytes(*b"SLOWDBIX");
const _: () = assert!(Entry::BYTES == 8);

/// An index file, mapped.
pub(crate) struct Index {
    pub(crate) generation: u64,
    path: String,
    map: Mapping,
    table_pages: u64,
    /// Of each of the two copies.
    bitmap_pages: u64,
    slots: u64,
    /// A bit for each page of the table that was found good.
    checked: Box<[AtomicU64]>,
}

/// Where the table says that an id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Slot(u32),
    Absent,
    /// A page that had to be looked at is damaged.
    Unknown,
}

impl Index {
    /// Maps the index file of a manifest that has one. Gives its bitmap, and what was found damaged and can be
    /// done without.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &str,
        manifest: &Manifest,
    ) -> Result<(Self, Vec<u64>, Vec<Corruption>), OpenError> {
        let generation = manifest.index.expect("the manifest has an index");
        let slots = manifest.slots;
        let path = in_dir(dir, &index_name(generation));
        let file = disk.open(&path, false)?;
        let len = file.len()?;
        let corrupt = |offset, what| Corruption { file: path.clone(), offset, slot: None, what };
        if len < PAGE_BYTES as u64 || !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(corrupt(0, "not a whole number of pages").into());
        }
        let map = file.map(0, len as usize)?;
        let bitmap_pages = slots.div_ceil(BITS_PER_PAGE);
        let table_pages = (len / PAGE_BYTES as u64 - 1).saturating_sub(2 * bitmap_pages);
        if table_pages == 0 {
            return Err(corrupt(0, "shorter than the manifest says").into());
        }
        let checked = (0..table_pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let index = Self { generation, path: path.clone(), map, table_pages, bitmap_pages, slots, checked };
        let mut damage = Vec::new();
        match index.checked_page(0) {
            Ok(head) => index.check_head(head)?,
            Err(damaged) => damage.push(damaged),
        }
        let mut live = Vec::with_capacity((bitmap_pages * PAGE_WORDS as u64) as usize);
        for page in 0..bitmap_pages {
            let (words, damaged) = index.bitmap_page(page)?;
            live.extend_from_slice(words);
            damage.extend(damaged);
        }
        let records: u64 = live.iter().map(|word| u64::from(word.count_ones())).sum();
        let beyond = |(n, word): (usize, &u64)| word >> if n == 0 { slots % 64 } else { 0 } != 0;
        if records != manifest.records || live.iter().skip((slots / 64) as usize).enumerate().any(beyond) {
            return Err(index.corrupt(1 + table_pages, "the bitmap does not fit the manifest").into());
        }
        live.truncate(slots.div_ceil(64) as usize);
        Ok((index, live, damage))
    }

    fn check_head(&self, head: &[u64; PAGE_WORDS]) -> Result<(), OpenError> {
        let format = head[1] as u32;
        if head[0] == MAGIC && format != FORMAT_VERSION {
            return Err(OpenError::UnknownFormat {
                file: self.path.clone(),
                found: format,
                known: FORMAT_VERSION,
            });
        }
        if head[..5] != [MAGIC, u64::from(FORMAT_VERSION), self.generation, self.table_pages, self.slots] {
            return Err(self.corrupt(0, "the head does not fit the manifest").into());
        }
        Ok(())
    }

    /// A page of the bitmap, from the copy that is good, and what is wrong with the other.
    fn bitmap_page(&self, page: u64) -> Result<(&[u64; PAGE_WORDS], Option<Corruption>), Corruption> {
        let first = 1 + self.table_pages + page;
        match (self.checked_page(first), self.checked_page(first + self.bitmap_pages)) {
            (Ok(words), Ok(other)) if words == other => Ok((words, None)),
            (Ok(_), Ok(_)) => Err(self.corrupt(first, "the copies of the bitmap differ")),
            (Ok(words), Err(damaged)) | (Err(damaged), Ok(words)) => Ok((words, Some(damaged))),
            (Err(damaged), Err(_)) => Err(damaged),
        }
    }

    /// The slots that hold the records of the checkpoint.
    pub(crate) fn live_slots(&self) -> impl Iterator<Item = Result<u32, Corruption>> {
        (0..self.bitmap_pages).flat_map(|page| {
            let (words, failed) = match self.bitmap_page(page) {
                Ok((words, _)) => (&words[..], None),
                Err(damaged) => (&[][..], Some(Err(damaged))),
            };
            let first = page * BITS_PER_PAGE;
            let set = (0..words.len() * 64).filter(|n| bit(words, *n));
            set.map(move |n| Ok((first + n as u64) as u32)).chain(failed)
        })
    }

    /// The slot that `holds` agrees to, among those with this fingerprint.
    pub(crate) fn find(
        &self,
        fingerprint: u32,
        mut holds: impl FnMut(u32) -> Result<bool, Corruption>,
    ) -> Result<Lookup, Corruption> {
        let (mut page, first) = home(fingerprint, self.table_pages);
        for _ in 0..self.table_pages {
            let Ok(words) = self.table_page(page) else { return Ok(Lookup::Unknown) };
            // An entry is at the first place that was free: from its own on, around its page, and then
            // likewise in the pages after it. The first empty place therefore ends the search.
            for n in 0..PAGE_WORDS {
                let Some(entry) = Entry::from_bits(words[(first + n) % PAGE_WORDS]) else {
                    return Ok(Lookup::Absent);
                };
                if entry.fingerprint() != fingerprint {
                    continue;
                }
                if u64::from(entry.slot()) >= self.slots {
                    return Err(self.corrupt(1 + page, "an entry names a slot that does not exist"));
                }
                if holds(entry.slot())? {
                    return Ok(Lookup::Slot(entry.slot()));
                }
            }
            page = (page + 1) % self.table_pages;
        }
        Ok(Lookup::Absent)
    }

    /// Calls `f` with every entry of the pages that are good. Gives what is wrong with the others.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Entry)) -> Vec<Corruption> {
        let mut bad = Vec::new();
        for page in 0..self.table_pages {
            match self.table_page(page) {
                Ok(words) => words.iter().filter_map(|bits| Entry::from_bits(*bits)).for_each(&mut f),
                Err(damaged) => bad.push(damaged),
            }
        }
        bad
    }

    /// What to say of a table that does not lead to each record once.
    pub(crate) fn unfit(&self) -> Corruption {
        self.corrupt(1, "the entries do not fit the bitmap")
    }

    fn table_page(&self, page: u64) -> Result<&[u64; PAGE_WORDS], Corruption> {
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        if self.checked[word].load(Ordering::Relaxed) & bit == 0 {
            self.checked_page(1 + page)?;
            self.checked[word].fetch_or(bit, Ordering::Relaxed);
        }
        Ok(self.words(1 + page).1)
    }

    fn checked_page(&self, page: u64) -> Result<&[u64; PAGE_WORDS], Corruption> {
        let (sum, words) = self.words(page);
        let bytes = self.bytes(page);
        if sum != checksum(self.generation, page, &bytes[8..]) {
            return Err(self.corrupt(page, "the page's checksum does not fit"));
        }
        Ok(words)
    }

    fn words(&self, page: u64) -> (u64, &[u64; PAGE_WORDS]) {
        let ptr = self.bytes(page).as_ptr().cast::<u64>();
        // SAFETY: a page's bytes, aligned as pages are; a `u64` may have any bits, and the target is
        // little-endian. As in `bytes`, nobody writes them.
        unsafe { (*ptr, &*ptr.add(1).cast::<[u64; PAGE_WORDS]>()) }
    }

    fn bytes(&self, page: u64) -> &[u8; PAGE_BYTES] {
        let at = page as usize * PAGE_BYTES;
        assert!(at + PAGE_BYTES <= self.map.len(), "page {page} is beyond the file");
        // SAFETY: inside the mapping, which lives as long as `self`. An index file is complete and synced
        // before it is mapped, and written never after.
        unsafe { &*self.map.as_ptr().add(at).cast::<[u8; PAGE_BYTES]>() }
    }

    fn corrupt(&self, page: u64, what: &'static str) -> Corruption {
        Corruption { file: self.path.clone(), offset: page * PAGE_BYTES as u64, slot: None, what }
    }
}

/// A check of all pages, and that the table leads to each record once, page by page.
pub(crate) struct IndexScrub {
    index: Arc<Index>,
    /// How many pages are done: the first, both bitmaps, then the table.
    done: u64,
    /// Records that no entry was found for.
    missing: Vec<u64>,
    fits: bool,
    pub(crate) bad: Vec<Corruption>,
}

impl IndexScrub {
    /// What a step reads.
    pub(crate) const STEP_BYTES: u64 = PAGE_BYTES as u64;

    pub(crate) fn new(index: Arc<Index>) -> Self {
        let missing = vec![0; index.slots.div_ceil(64) as usize];
        Self { index, done: 0, missing, fits: true, bad: Vec::new() }
    }

    /// Checks all of it, and says what is bad.
    pub(crate) fn all(index: Arc<Index>) -> Vec<Corruption> {
        let mut scrub = Self::new(index);
        while scrub.steps_left() > 0 {
            scrub.step();
        }
        scrub.bad
    }

    pub(crate) fn steps_left(&self) -> u64 {
        (self.index.map.len() / PAGE_BYTES) as u64 - self.done
    }

    /// Checks a page; there is one left.
    pub(crate) fn step(&mut self) {
        let bitmaps = 2 * self.index.bitmap_pages;
        let page = match self.done {
            0 => 0,
            n if n <= bitmaps => self.index.table_pages + n,
            n => n - bitmaps,
        };
        self.done += 1;
        match self.index.checked_page(page) {
            Err(damaged) => self.bad.push(damaged),
            Ok(words) if self.done > bitmaps + 1 => {
                let slots = words.iter().filter_map(|bits| Entry::from_bits(*bits)).map(Entry::slot);
                slots.for_each(|slot| self.fits &= take_bit(&mut self.missing, slot as usize));
            }
            Ok(_) => {}
        }
        if self.done == bitmaps + 1 && self.bad.is_empty() {
            for slot in self.index.live_slots() {
                match slot {
                    Ok(slot) => set_bit(&mut self.missing, slot as usize),
                    Err(damaged) => self.bad.push(damaged),
                }
            }
        }
        // What is missing because of a damaged page is not missing otherwise.
        if self.steps_left() == 0
            && self.bad.is_empty()
            && (!self.fits || self.missing.iter().any(|word| *word != 0))
        {
            self.bad.push(self.index.unfit());
        }
    }
}

/// Where an entry belongs: the page, by the fingerprint's high bits so that a merge walks both tables in
/// order, and the place in it, by its low ones.
fn home(fingerprint: u32, table_pages: u64) -> (u64, usize) {
    let page = (u64::from(fingerprint) * table_pages) >> 32;
    (page, (fingerprint.wrapping_mul(0x9e37_79b1) >> 16) as usize % PAGE_WORDS)
}

fn checksum(generation: u64, page: u64, words: &[u8]) -> u64 {
    xxh3_64_with_seed(words, generation.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page))
}

/// An index file being made, in memory.
pub(crate) struct IndexBuilder {
    generation: u64,
    table_pages: u64,
    slots: u64,
    bytes: Vec<u8>,
}

impl IndexBuilder {
    /// For `entries` entries, and the bitmap `live` of `slots` slots.
    pub(crate) fn new(generation: u64, entries: u64, slots: u64, live: &[u64]) -> Self {
        let table_pages = entries.div_ceil(PAGE_FILL).max(1);
        let bitmap_pages = slots.div_ceil(BITS_PER_PAGE);
        let mut bytes = vec![0; (1 + table_pages + 2 * bitmap_pages) as usize * PAGE_BYTES];
        let head = [MAGIC, u64::from(FORMAT_VERSION), generation, table_pages, slots];
        for (n, word) in head.into_iter().enumerate() {
            put_word(&mut bytes, 0, n, word);
        }
        for (n, word) in live.iter().enumerate() {
            let page = 1 + table_pages + (n / PAGE_WORDS) as u64;
            put_word(&mut bytes, page, n % PAGE_WORDS, *word);
            put_word(&mut bytes, page + bitmap_pages, n % PAGE_WORDS, *word);
        }
        Self { generation, table_pages, slots, bytes }
    }

    /// Adds an entry. There are never more than [`IndexBuilder::new`] was told.
    pub(crate) fn add(&mut self, entry: Entry) {
        assert!(u64::from(entry.slot()) < self.slots);
        let (mut page, first) = home(entry.fingerprint(), self.table_pages);
        loop {
            for n in 0..PAGE_WORDS {
                let place = (first + n) % PAGE_WORDS;
                if get_word(&self.bytes, 1 + page, place) == 0 {
                    put_word(&mut self.bytes, 1 + page, place, entry.to_bits());
                    return;
                }
            }
            page = (page + 1) % self.table_pages;
        }
    }

    /// Writes the file. Neither it nor its name is synced.
    pub(crate) fn write(mut self, disk: &dyn Disk, dir: &str) -> io::Result<Arc<dyn DiskFile>> {
        for (page, bytes) in self.bytes.chunks_exact_mut(PAGE_BYTES).enumerate() {
            let sum = checksum(self.generation, page as u64, &bytes[8..]);
            bytes[..8].copy_from_slice(&sum.to_le_bytes());
        }
        let file = disk.open(&in_dir(dir, &index_name(self.generation)), true)?;
        file.truncate(0)?;
        file.allocate(0, self.bytes.len() as u64)?;
        file.write_at(&[IoSlice::new(&self.bytes)], 0)?;
        Ok(file)
    }
}

fn place(page: u64, n: usize) -> std::ops::Range<usize> {
    let at = page as usize * PAGE_BYTES + 8 + n * 8;
    at..at + 8
}

fn put_word(bytes: &mut [u8], page: u64, n: usize, word: u64) {
    bytes[place(page, n)].copy_from_slice(&word.to_le_bytes());
}

fn get_word(bytes: &[u8], page: u64, n: usize) -> u64 {
    u64::from_le_bytes(bytes[place(page, n)].try_into().unwrap_or_default())
}
