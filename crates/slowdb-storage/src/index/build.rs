//! Making index files, in memory.

use std::io::{self, IoSlice};
use std::sync::Arc;

use slowdb_disk::{Disk, DiskFile};

use super::page::{DeltaHead, Head, PAGE_BYTES, PAGE_WORDS, checksum, home};
use crate::bitmap::Bitmap;
use crate::entry::Entry;
use crate::manifest::{FORMAT_VERSION, in_dir, index_name};

/// Entries per page on average; the rest is room, so that probing ends soon.
const PAGE_FILL: u64 = 360;

/// An index file being made.
pub(crate) struct IndexBuilder {
    head: Head,
    bytes: Vec<u8>,
}

impl IndexBuilder {
    /// A base for `entries` entries and the slots in `live`, which are to be added.
    pub(super) fn base(number: u64, entries: u64, slots: u64, live: &Bitmap) -> Self {
        let mut new = Self::new(number, entries, slots, None);
        for n in 0..slots.div_ceil(64) as usize {
            new.put_in_tail(n, live.word(n));
        }
        new
    }

    /// A delta above the file `below` with its slots, of these entries and the slots that died, in any order.
    pub(super) fn delta(
        number: u64,
        slots: u64,
        (below, slots_below): (u64, u64),
        entries: &[Entry],
        mut died: Vec<u32>,
    ) -> Self {
        let mut listed: Vec<u32> = entries.iter().map(|entry| entry.slot()).collect();
        listed.sort_unstable();
        died.sort_unstable();
        died.dedup();
        let (puts, died_count) = (listed.len() as u64, died.len() as u64);
        let delta = DeltaHead { below, slots_below, puts, died: died_count };
        let mut new = Self::new(number, puts, slots, Some(delta));
        listed.append(&mut died);
        for (n, pair) in listed.chunks(2).enumerate() {
            let high = pair.get(1).copied().unwrap_or_default();
            new.put_in_tail(n, u64::from(high) << 32 | u64::from(pair[0]));
        }
        entries.iter().for_each(|entry| new.add(*entry));
        new
    }

    fn new(number: u64, entries: u64, slots: u64, delta: Option<DeltaHead>) -> Self {
        let head = Head { number, table_pages: entries.div_ceil(PAGE_FILL).max(1), slots, delta };
        assert!(head.is_sane(), "{head:?}");
        let mut new = Self { head, bytes: vec![0; head.pages() as usize * PAGE_BYTES] };
        for (n, word) in head.encode(FORMAT_VERSION).into_iter().enumerate() {
            (0..head.head_pages()).for_each(|page| new.put_word(page, n, word));
        }
        new
    }

    /// Adds an entry. There are never more than the builder was told.
    pub(super) fn add(&mut self, entry: Entry) {
        assert!(u64::from(entry.slot()) < self.head.slots);
        let (mut page, first) = home(entry.fingerprint(), self.head.table_pages);
        loop {
            for n in 0..PAGE_WORDS {
                let place = (first + n) % PAGE_WORDS;
                if self.word(self.head.head_pages() + page, place) == 0 {
                    self.put_word(self.head.head_pages() + page, place, entry.to_bits());
                    return;
                }
            }
            page = (page + 1) % self.head.table_pages;
        }
    }

    /// Writes the file. Neither it nor its name is synced.
    pub(crate) fn write(mut self, disk: &dyn Disk, dir: &str) -> io::Result<Arc<dyn DiskFile>> {
        for (page, bytes) in self.bytes.chunks_exact_mut(PAGE_BYTES).enumerate() {
            let sum = checksum(self.head.number, page as u64, &bytes[8..]);
            bytes[..8].copy_from_slice(&sum.to_le_bytes());
        }
        let file = disk.open(&in_dir(dir, &index_name(self.head.number)), true)?;
        file.truncate(0)?;
        file.allocate(0, self.bytes.len() as u64)?;
        file.write_at(&[IoSlice::new(&self.bytes)], 0)?;
        Ok(file)
    }

    /// Puts word `n` into both copies of the bitmap or the list.
    fn put_in_tail(&mut self, n: usize, word: u64) {
        let page = self.head.head_pages() + self.head.table_pages + (n / PAGE_WORDS) as u64;
        self.put_word(page, n % PAGE_WORDS, word);
        self.put_word(page + self.head.tail_pages(), n % PAGE_WORDS, word);
    }

    fn put_word(&mut self, page: u64, n: usize, word: u64) {
        self.bytes[place(page, n)].copy_from_slice(&word.to_le_bytes());
    }

    fn word(&self, page: u64, n: usize) -> u64 {
        u64::from_le_bytes(self.bytes[place(page, n)].try_into().unwrap_or_default())
    }
}

fn place(page: u64, n: usize) -> std::ops::Range<usize> {
    let at = page as usize * PAGE_BYTES + 8 + n * 8;
    at..at + 8
}
