//! Pages of index files: their checksums, and where in them an entry belongs.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub(super) const PAGE_BYTES: usize = 4096;
pub(super) const PAGE_WORDS: usize = PAGE_BYTES / 8 - 1;
/// Slots to a page of a bitmap.
pub(super) const BITS_PER_PAGE: u64 = PAGE_WORDS as u64 * 64;
/// Slots to a page of a list.
pub(super) const LISTED_PER_PAGE: u64 = PAGE_WORDS as u64 * 2;
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"SLOWDBIX");

pub(super) type Words = [u64; PAGE_WORDS];

/// Where an entry belongs: the page, by the fingerprint's high bits so that a merge walks both tables in
/// order, and the place in it, by its low ones.
pub(super) fn home(fingerprint: u32, table_pages: u64) -> (u64, usize) {
    let page = (u64::from(fingerprint) * table_pages) >> 32;
    (page, (fingerprint.wrapping_mul(0x9e37_79b1) >> 16) as usize % PAGE_WORDS)
}

/// Of the words of a page, of the file with this number.
pub(super) fn checksum(number: u64, page: u64, words: &[u8]) -> u64 {
    xxh3_64_with_seed(words, number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page))
}

/// What the head of an index file says: the words behind magic and format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) table_pages: u64,
    /// Slots below this number had been used.
    pub(super) slots: u64,
    /// None of a base.
    pub(super) delta: Option<DeltaHead>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeltaHead {
    /// The number of the file below.
    pub(super) below: u64,
    /// Slots below this number had been used as of it.
    pub(super) slots_below: u64,
    /// How many slots were put since, and live.
    pub(super) puts: u64,
    /// How many do not live that may have lived then.
    pub(super) died: u64,
}

impl Head {
    const WORDS: usize = 9;

    pub(super) fn encode(&self, format: u32) -> [u64; Self::WORDS] {
        let [below, puts, died, slots_below] =
            self.delta.map_or([0; 4], |delta| [delta.below, delta.puts, delta.died, delta.slots_below]);
        let Self { number, table_pages, slots, .. } = *self;
        [MAGIC, u64::from(format), number, table_pages, slots, below, puts, died, slots_below]
    }

    /// Of a page that has the magic and a known format.
    pub(super) fn decode(words: &Words) -> Self {
        let [_, _, number, table_pages, slots, below, puts, died, slots_below] =
            *words.first_chunk::<{ Self::WORDS }>().unwrap_or(&[0; Self::WORDS]);
        let delta = (below > 0).then_some(DeltaHead { below, slots_below, puts, died });
        Self { number, table_pages, slots, delta }
    }

    /// How many pages the bitmap or the list takes, once.
    pub(super) fn tail_pages(&self) -> u64 {
        match self.delta {
            None => self.slots.div_ceil(BITS_PER_PAGE),
            Some(delta) => (delta.puts + delta.died).div_ceil(LISTED_PER_PAGE),
        }
    }

    /// How many pages the head takes: that of a delta is there twice.
    pub(super) fn head_pages(&self) -> u64 {
        1 + u64::from(self.delta.is_some())
    }

    /// How many pages the file has.
    pub(super) fn pages(&self) -> u64 {
        self.head_pages() + self.table_pages + 2 * self.tail_pages()
    }

    /// Whether a delta above which `slots` slots had been used can have such a head.
    pub(super) fn is_sane(&self) -> bool {
        self.slots <= crate::SLOTS_MAX
            && self.delta.is_none_or(|delta| {
                delta.below < self.number
                    && delta.slots_below <= self.slots
                    && delta.puts <= self.slots
                    && delta.died <= delta.slots_below
            })
    }
}
