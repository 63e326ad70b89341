//! Who is reading, and since when: the sequence number of the oldest read under way.
//!
//! A reader announces the sequence number it saw before it looks at anything; the writer reuses what died
//! at `d` once no announced number is below `d`. Sequential consistency does the rest: a reader whose
//! announcement the writer did not see announces after the writer looked, so it then loads a number that is
//! at least the one the writer had published, and what died before that is invisible to it.
//!
//! This is epoch-based reclamation with the store's own operations as epochs. Unlike a collector shared by
//! the process it is exact, and whether a slot can be reused depends on nothing outside the store, so that a
//! simulation replays.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crossbeam_utils::CachePadded;

use crate::atomics::{AtomicU64, AtomicUsize};

#[cfg(feature = "model")]
thread_local! {
    /// A planted bug for testing the test: slots are used again under reads that can get at them.
    pub static CANARY_IGNORE_READS: Cell<bool> = const { Cell::new(false) };
}

/// How many reads at once are told apart. More are counted together and hold back all reuse.
const PLACES: usize = 64;

pub(crate) struct Readers {
    /// 0, or the sequence number announced. Sequence numbers start at 1.
    places: Box<[CachePadded<AtomicU64>]>,
    /// Reads that found no place.
    others: AtomicUsize,
}

impl Default for Readers {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| CachePadded::default()).collect(), others: AtomicUsize::new(0) }
    }
}

/// A read under way; over when dropped.
pub(crate) struct Pin<'a> {
    readers: &'a Readers,
    place: Option<usize>,
    /// The sequence number to read at.
    pub(crate) at: u64,
}

impl Readers {
    /// Announces a read at the present value of `sequence`.
    pub(crate) fn pin(&self, sequence: &AtomicU64) -> Pin<'_> {
        let seen = sequence.load(Ordering::SeqCst);
        let start = first_place();
        let place = (start..start + PLACES)
            .map(|n| n % PLACES)
            .find(|n| self.places[*n].compare_exchange(0, seen, Ordering::SeqCst, Ordering::Relaxed).is_ok());
        if place.is_none() {
            self.others.fetch_add(1, Ordering::SeqCst);
        }
        Pin { readers: self, place, at: sequence.load(Ordering::SeqCst) }
    }

    /// No read under way announced a number below this one; `u64::MAX` without reads.
    pub(crate) fn oldest(&self) -> u64 {
        #[cfg(feature = "model")]
        if CANARY_IGNORE_READS.get() {
            return u64::MAX;
        }
        if self.others.load(Ordering::SeqCst) > 0 {
            return 0;
        }
        let announced = |place: &CachePadded<AtomicU64>| place.load(Ordering::SeqCst);
        self.places.iter().map(announced).filter(|at| *at > 0).min().unwrap_or(u64::MAX)
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        match self.place {
            Some(place) => self.readers.places[place].store(0, Ordering::Release),
            None => {
                self.readers.others.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

/// Where this thread looks first, so that threads rarely meet.
fn first_place() -> usize {
    static THREADS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    thread_local! {
        static FIRST: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    FIRST.with(|first| {
        if first.get() == usize::MAX {
            first.set(THREADS.fetch_add(1, Ordering::Relaxed) % PLACES);
        }
        first.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_read_is_known_whatever_their_number() {
        let readers = Readers::default();
        let sequence = AtomicU64::new(5);
        assert_eq!(readers.oldest(), u64::MAX);
        let old = readers.pin(&sequence);
        sequence.store(9, Ordering::SeqCst);
        let new = readers.pin(&sequence);
        assert_eq!((old.at, new.at, readers.oldest()), (5, 9, 5));
        drop(old);
        assert_eq!(readers.oldest(), 9);
        let many: Vec<_> = (0..PLACES).map(|_| readers.pin(&sequence)).collect();
        assert_eq!(readers.oldest(), 0, "one found no place and holds back everything");
        drop((many, new));
        assert_eq!(readers.oldest(), u64::MAX);
    }
}
