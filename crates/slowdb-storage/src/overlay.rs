//! The part of the id index that changed since the last checkpoint: a hash table in memory, with one writer
//! and readers that take no lock.
//!
//! An entry is a slot with its fingerprint. It stands for the id in that slot, which the caller compares in
//! full; an entry whose slot is dead says that the id was deleted. Entries are added and replaced, never
//! taken out: the table is thrown away as a whole.

use std::sync::atomic::Ordering;

use crate::atomics::AtomicU64;
use crate::entry::Entry;

/// The smallest table. Stores by the thousand start with it.
const CAPACITY_MIN: usize = 64;

pub(crate) struct Overlay {
    /// A power of two; 0 is an empty place.
    places: Box<[AtomicU64]>,
}

impl Overlay {
    /// A table for `entries` and some more.
    pub(crate) fn with_room_for(entries: usize) -> Self {
        let capacity = (entries * 2).next_power_of_two().max(CAPACITY_MIN);
        Self { places: (0..capacity).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether a table of `entries` is too full for another one.
    pub(crate) fn is_full(&self, entries: usize) -> bool {
        entries * 4 >= self.places.len() * 3
    }

    /// The entries with this fingerprint.
    pub(crate) fn candidates(&self, fingerprint: u32) -> impl Iterator<Item = (Place, Entry)> {
        self.probe(fingerprint)
            .map_while(|place| Some((place, self.entry(place)?)))
            .filter(move |(_, entry)| entry.fingerprint() == fingerprint)
    }

    /// Adds an entry for an id that has none. The table is not full.
    pub(crate) fn add(&self, entry: Entry) {
        let free = self.probe(entry.fingerprint()).find(|place| self.entry(*place).is_none());
        let place = free.expect("the table has room: the caller grows it before it is full");
        self.replace(place, entry);
    }

    /// Puts `entry` where another entry for the same id was.
    pub(crate) fn replace(&self, place: Place, entry: Entry) {
        self.places[place.0].store(entry.to_bits(), Ordering::Release);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.places.len()).filter_map(|n| self.entry(Place(n)))
    }

    fn entry(&self, place: Place) -> Option<Entry> {
        Entry::from_bits(self.places[place.0].load(Ordering::Acquire))
    }

    /// All places, the likeliest first.
    fn probe(&self, fingerprint: u32) -> impl Iterator<Item = Place> {
        let mask = self.places.len() - 1;
        // The low bits of a product are mixed the least, so the place comes from its middle.
        let first = (u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as usize;
        (0..=mask).map(move |n| Place((first + n) & mask))
    }
}

/// Where in a table an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(usize);
