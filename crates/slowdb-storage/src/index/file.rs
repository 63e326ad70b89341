//! One index file, mapped and never changed.
//!
//! It is pages of a checksum and 511 words: the head; the hash table, whose words are entries ([`Entry`]); and, of a
//! base, a bitmap of the slots that it leads to, of a delta, lists of the slots that were put and that died. Pages of
//! the table are checked when they are first looked at, so that opening a store does not cost anything per
//! record but a bit.
//!
//! No single damaged page makes a record unreadable: the bitmap and the lists are there twice, and so is the head of a
//! delta; what that of a base says is said elsewhere too; and what a page of the table leads to is found by looking at
//! all records.
#![expect(unsafe_code, reason = "reads a mapped file")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use slowdb_disk::{Disk, Mapping};

use super::page::{DeltaHead, Head, LISTED_PER_PAGE, MAGIC, PAGE_BYTES, PAGE_WORDS, Words, checksum, home};
use crate::bitmap::Bitmap;
use crate::entry::Entry;
use crate::error::{Corruption, OpenError};
use crate::manifest::{FORMAT_OLDEST, FORMAT_VERSION, in_dir, index_name};

const _: () = assert!(Entry::BYTES == 8);

/// An index file.
pub(crate) struct Index {
    path: String,
    map: Mapping,
    head: Head,
    /// The pages of a delta's lists, from the copy that was good when they were looked at.
    lists: Box<[u64]>,
    /// A bit for each page of the table that was found good.
    checked: Box<[AtomicU64]>,
    /// Whether anything of it was found damaged.
    damaged: AtomicBool,
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
    /// Maps the file with this number, as of which so many slots had been used. Gives also what was found damaged and can
    /// be done without.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &str,
        number: u64,
        slots: u64,
    ) -> Result<(Self, Vec<Corruption>), OpenError> {
        let path = in_dir(dir, &index_name(number));
        let corrupt = |what| Corruption { file: path.clone(), offset: 0, slot: None, what };
        let file = match disk.open(&path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(corrupt("missing").into()),
            opened => opened?,
        };
        let len = file.len()?;
        if len < PAGE_BYTES as u64 || !len.is_multiple_of(PAGE_BYTES as u64) {
            return Err(corrupt("not a whole number of pages").into());
        }
        let map = file.map(0, len as usize)?;
        let head = Head { number, table_pages: 0, slots, delta: None };
        let (lists, checked, damaged) = (Box::default(), Box::default(), AtomicBool::new(false));
        let mut index = Self { path: path.clone(), map, head, lists, checked, damaged };
        let mut damage = Vec::new();
        index.head = index.read_head(&mut damage)?;
        index.checked = (0..index.head.table_pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        index.lists = index.read_lists(&mut damage)?;
        Ok((index, damage))
    }

    /// The head, which is to be that of a file with this number and so many slots.
    fn read_head(&self, damage: &mut Vec<Corruption>) -> Result<Head, OpenError> {
        let pages = (self.map.len() / PAGE_BYTES) as u64;
        // What a base says in its head is known from elsewhere.
        let tail_pages = self.head.tail_pages();
        let base = Head { table_pages: (pages - 1).saturating_sub(2 * tail_pages), ..self.head };
        let found = match self.checked_page(0) {
            Ok(words) => Some(words),
            Err(first) => {
                // Page 1 tells a base from a delta; if that is damaged too, nothing does.
                let is_delta = pages > 1 && self.is_head(self.checked_page(1)?);
                damage.push(first);
                is_delta.then(|| self.words(1).1)
            }
        };
        let Some(words) = found else {
            return if base.table_pages == 0 {
                Err(self.corrupt(0, "its length does not fit").into())
            } else {
                Ok(base)
            };
        };
        let format = words[1] as u32;
        if words[0] == MAGIC && !(FORMAT_OLDEST..=FORMAT_VERSION).contains(&format) {
            return Err(OpenError::UnknownFormat {
                file: self.path.clone(),
                found: format,
                known: FORMAT_VERSION,
            });
        }
        let head = Head::decode(words);
        let unfit = || Err(self.corrupt(0, "the head does not fit what refers to it").into());
        if !self.is_head(words) || head.slots != self.head.slots || !head.is_sane() {
            return unfit();
        }
        if head.delta.is_none() {
            return if base.table_pages == 0 {
                Err(self.corrupt(0, "its length does not fit").into())
            } else if head == base {
                Ok(head)
            } else {
                unfit()
            };
        }
        if head.table_pages == 0 || head.table_pages >= pages || head.pages() != pages {
            return Err(self.corrupt(0, "its length does not fit").into());
        }
        if damage.is_empty() {
            match self.checked_page(1) {
                Ok(other) if other == words => {}
                Ok(_) => return Err(self.corrupt(1, "the copies of the head differ").into()),
                Err(damaged) => damage.push(damaged),
            }
        }
        Ok(head)
    }

    /// Whether a page begins as the head of this file does.
    fn is_head(&self, words: &Words) -> bool {
        words[0] == MAGIC && words[1] <= u64::from(FORMAT_VERSION) && words[2] == self.head.number
    }

    /// Which pages of a delta's lists are good.
    fn read_lists(&self, damage: &mut Vec<Corruption>) -> Result<Box<[u64]>, Corruption> {
        let Some(delta) = self.head.delta else { return Ok(Box::default()) };
        let mut pages = Vec::new();
        for page in 0..self.head.tail_pages() {
            let (good, damaged) = self.tail_page(page)?;
            pages.push(good);
            damage.extend(damaged);
        }
        let ascend = |from: u64, end: u64, slots: u64| {
            let slot = |n| u64::from(self.listed(&pages, n));
            (from..end).all(|n| slot(n) < slots && (n == from || slot(n - 1) < slot(n)))
        };
        if !ascend(0, delta.puts, self.head.slots)
            || !ascend(delta.puts, delta.puts + delta.died, delta.slots_below)
        {
            return Err(self.corrupt(self.tail(), "the lists are not in order"));
        }
        Ok(pages.into())
    }

    pub(crate) fn number(&self) -> u64 {
        self.head.number
    }

    /// Slots below this number had been used as of this file.
    pub(super) fn slots(&self) -> u64 {
        self.head.slots
    }

    /// The number of the file below, and how many slots had been used as of it.
    pub(super) fn below(&self) -> Option<(u64, u64)> {
        self.head.delta.map(|delta| (delta.below, delta.slots_below))
    }

    /// How many slots a delta says were put or died.
    pub(super) fn changes(&self) -> u64 {
        self.head.delta.map_or(0, |delta| delta.puts + delta.died)
    }

    /// Whether anything of it was found damaged since it was opened.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// The slots that a delta says were put, ascending.
    fn puts(&self) -> impl Iterator<Item = u32> {
        let puts = self.head.delta.map_or(0, |delta| delta.puts);
        (0..puts).map(|n| self.listed(&self.lists, n))
    }

    /// The slots that a delta says died, ascending.
    pub(super) fn died(&self) -> impl Iterator<Item = u32> {
        let (from, end) = self.head.delta.map_or((0, 0), |delta| (delta.puts, delta.puts + delta.died));
        (from..end).map(|n| self.listed(&self.lists, n))
    }

    /// Whether a delta put a record into this slot.
    pub(super) fn has_put(&self, slot: u32) -> bool {
        let (mut from, mut end) = (0, self.head.delta.map_or(0, |DeltaHead { puts, .. }| puts));
        while from < end {
            let middle = from + (end - from) / 2;
            match self.listed(&self.lists, middle).cmp(&slot) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        false
    }

    fn listed(&self, pages: &[u64], n: u64) -> u32 {
        let words = self.words(pages[(n / LISTED_PER_PAGE) as usize]).1;
        let at = n % LISTED_PER_PAGE;
        (words[(at / 2) as usize] >> (at % 2 * 32)) as u32
    }

    /// The slots that its table leads to: those of its bitmap, or those that it says were put.
    pub(super) fn led_to(&self) -> Result<Bitmap, Corruption> {
        if self.head.delta.is_some() {
            let mut slots = Bitmap::default();
            self.puts().for_each(|slot| slots.set(slot as usize));
            return Ok(slots);
        }
        self.bitmap(&mut Vec::new())
    }

    /// The bitmap of a base.
    pub(super) fn bitmap(&self, damage: &mut Vec<Corruption>) -> Result<Bitmap, Corruption> {
        let slots = self.head.slots;
        let mut live = Vec::with_capacity(self.head.tail_pages() as usize * PAGE_WORDS);
        for page in 0..self.head.tail_pages() {
            let (good, damaged) = self.tail_page(page)?;
            live.extend_from_slice(self.words(good).1);
            damage.extend(damaged);
        }
        let beyond = |(n, word): (usize, &u64)| word >> if n == 0 { slots % 64 } else { 0 } != 0;
        if live.iter().skip((slots / 64) as usize).enumerate().any(beyond) {
            return Err(self.corrupt(self.tail(), "the bitmap has slots that do not exist"));
        }
        live.truncate(slots.div_ceil(64) as usize);
        Ok(Bitmap::from_words(&live))
    }

    /// Makes of a bitmap as of the file below one as of this delta.
    pub(super) fn apply(&self, live: &mut Bitmap) {
        self.died().for_each(|slot| {
            live.take(slot as usize);
        });
        self.puts().for_each(|slot| live.set(slot as usize));
    }

    /// Which of the two copies of a page of bitmap or lists is good, and what is wrong with the other.
    fn tail_page(&self, page: u64) -> Result<(u64, Option<Corruption>), Corruption> {
        let first = self.tail() + page;
        let second = first + self.head.tail_pages();
        match (self.checked_page(first), self.checked_page(second)) {
            (Ok(words), Ok(other)) if words == other => Ok((first, None)),
            (Ok(_), Ok(_)) => Err(self.corrupt(first, "the copies differ")),
            (Ok(_), Err(damaged)) => Ok((first, Some(damaged))),
            (Err(damaged), Ok(_)) => Ok((second, Some(damaged))),
            (Err(damaged), Err(_)) => Err(damaged),
        }
    }

    /// The slot that `holds` agrees to, among those with this fingerprint.
    pub(crate) fn find(
        &self,
        fingerprint: u32,
        mut holds: impl FnMut(u32) -> Result<bool, Corruption>,
    ) -> Result<Lookup, Corruption> {
        let (mut page, first) = home(fingerprint, self.head.table_pages);
        for _ in 0..self.head.table_pages {
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
                if u64::from(entry.slot()) >= self.head.slots {
                    let at = self.head.head_pages() + page;
                    return Err(self.corrupt(at, "an entry names a slot that does not exist"));
                }
                if holds(entry.slot())? {
                    return Ok(Lookup::Slot(entry.slot()));
                }
            }
            page = (page + 1) % self.head.table_pages;
        }
        Ok(Lookup::Absent)
    }

    /// Calls `f` with every entry of the pages that are good. Says whether that was all of them.
    pub(super) fn for_each(&self, mut f: impl FnMut(Entry)) -> bool {
        let mut all = true;
        for page in 0..self.head.table_pages {
            match self.table_page(page) {
                Ok(words) => words.iter().filter_map(|bits| Entry::from_bits(*bits)).for_each(&mut f),
                Err(_) => all = false,
            }
        }
        all
    }

    /// What to say of a table that does not lead to each slot once.
    pub(super) fn unfit(&self) -> Corruption {
        self.damaged.store(true, Ordering::Relaxed);
        let what = "the entries do not fit the slots that the file is to lead to";
        self.corrupt(self.head.head_pages(), what)
    }

    fn table_page(&self, page: u64) -> Result<&Words, Corruption> {
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        let page = self.head.head_pages() + page;
        if self.checked[word].load(Ordering::Relaxed) & bit == 0 {
            self.checked_page(page)?;
            self.checked[word].fetch_or(bit, Ordering::Relaxed);
        }
        Ok(self.words(page).1)
    }

    /// Where bitmap or lists begin.
    fn tail(&self) -> u64 {
        self.head.head_pages() + self.head.table_pages
    }

    /// All pages: how many of them, then those of head, bitmap or lists, then those of the table.
    pub(super) fn pages(&self) -> (u64, u64) {
        (self.head.head_pages() + 2 * self.head.tail_pages(), self.head.table_pages)
    }

    /// The page at a place of that order.
    pub(super) fn page_in_order(&self, n: u64) -> u64 {
        let (others, _) = self.pages();
        match n {
            n if n < self.head.head_pages() => n,
            n if n < others => n + self.head.table_pages,
            n => n - others + self.head.head_pages(),
        }
    }

    pub(super) fn checked_page(&self, page: u64) -> Result<&Words, Corruption> {
        let (sum, words) = self.words(page);
        let bytes = self.bytes(page);
        if sum != checksum(self.head.number, page, &bytes[8..]) {
            self.damaged.store(true, Ordering::Relaxed);
            return Err(self.corrupt(page, "the page's checksum does not fit"));
        }
        Ok(words)
    }

    fn words(&self, page: u64) -> (u64, &Words) {
        let ptr = self.bytes(page).as_ptr().cast::<u64>();
        // SAFETY: a page's bytes, aligned as pages are; a `u64` may have any bits, and the target is
        // little-endian. As in `bytes`, nobody writes them.
        unsafe { (*ptr, &*ptr.add(1).cast::<Words>()) }
    }

    fn bytes(&self, page: u64) -> &[u8; PAGE_BYTES] {
        let at = page as usize * PAGE_BYTES;
        assert!(at + PAGE_BYTES <= self.map.len(), "page {page} is beyond the file");
        // SAFETY: inside the mapping, which lives as long as `self`. An index file is complete and synced
        // before it is mapped, and written never after.
        unsafe { &*self.map.as_ptr().add(at).cast::<[u8; PAGE_BYTES]>() }
    }

    pub(super) fn corrupt(&self, page: u64, what: &'static str) -> Corruption {
        Corruption { file: self.path.clone(), offset: page * PAGE_BYTES as u64, slot: None, what }
    }
}
