//! Slots on their way to be used again, and which slots are free.
//!
//! A slot that died waits, one after the other, until
//! 1. the last durable checkpoint does not refer to it, and nothing else leads to it;
//! 2. no read under way can still get at it ([`crate::readers`]);
//! 3. no snapshot is of a moment at which its record was alive ([`crate::snapshot`]).
//!
//! Then it is free, and so is its record's place in the heap. Reads are soon over, so one oldest read holds back all
//! that died since. Snapshots may be kept for long, so each holds back only what it shows: at most as many slots as
//! it has records, whatever is written meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use crate::bitmap::Bitmap;
use crate::files::Life;
use crate::heap::{ExtentState, Heap, HeapPlace};
use crate::layout::Geometry;
use crate::shared::{Shared, bit, set_bit, take_bit};

/// How many slots one write looks at before it takes a new one. As a write frees at most one slot, the queue
/// gets shorter all the same.
pub(crate) const LOOKS_MAX: usize = 16;

/// A slot whose record died.
#[derive(Clone, Copy)]
struct Dead {
    /// An operation: what that means says the queue.
    at: u64,
    slot: u32,
    heap: HeapPlace,
}

/// Slots side by side in the files.
#[derive(Clone, Copy)]
pub(crate) struct SlotExtent {
    pub(crate) state: ExtentState,
    /// It holds a record that cannot be moved.
    pub(crate) stuck: bool,
    /// How many of its slots are free.
    pub(crate) free: u32,
}

/// Slots on their way to be used again.
pub(crate) struct FreeSlots {
    /// Dead since the operation, and needed by a checkpoint, or to say that an id was deleted.
    waiting: VecDeque<Dead>,
    /// Out of reach once no read under way announced less than the number, which never falls along the queue.
    ready: VecDeque<Dead>,
    /// No read under way, now or later, announces less.
    oldest_read: u64,
    /// Out of reach of reads; snapshots are still to be asked.
    loose: Vec<Dead>,
    /// By the moment of a snapshot that shows them.
    held: BTreeMap<u64, Vec<Dead>>,
    /// The moments of all snapshots, ascending, and how often they had changed then.
    moments: Vec<u64>,
    moments_changes: u64,
    /// A bit for each slot that can be used.
    free: Vec<u64>,
    pub(crate) extents: Vec<SlotExtent>,
    slots_log2: u32,
    /// Free slots in open extents, and where to look for the next: round and round.
    pub(crate) free_open: u64,
    cursor: u64,
    /// The last checkpoint begun has everything up to this operation.
    pub(crate) begun: u64,
}

impl FreeSlots {
    /// With a bit for each slot that holds a record.
    pub(crate) fn at_open(geometry: &Geometry, slots: u64, live: &Bitmap) -> Self {
        let mut new = Self {
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            oldest_read: 0,
            loose: Vec::new(),
            held: BTreeMap::new(),
            moments: Vec::new(),
            moments_changes: 0,
            free: (0..slots.div_ceil(64) as usize).map(|n| !live.word(n)).collect(),
            extents: Vec::new(),
            slots_log2: geometry.slots_log2,
            free_open: 0,
            cursor: 0,
            begun: 1,
        };
        for slot in slots..new.free.len() as u64 * 64 {
            take_bit(&mut new.free, slot as usize);
        }
        for number in 0..geometry.extents_for(slots) {
            let first = (number as u64) << geometry.slots_log2;
            let end = (first + geometry.slots_per_extent() as u64).min(slots);
            let free = count(&new.free, first, end);
            // The last one goes on being filled, if it is not all void.
            let state = if free < end - first { ExtentState::Open } else { ExtentState::Returned };
            if state == ExtentState::Open {
                new.free_open += free;
            }
            new.extents.push(SlotExtent { state, stuck: false, free: free as u32 });
        }
        new
    }

    /// Takes a slot whose record died with operation `now`. `referred_to`: by a checkpoint, or by the index.
    pub(crate) fn give(&mut self, slot: u32, heap: HeapPlace, now: u64, referred_to: bool) {
        let queue = if referred_to { &mut self.waiting } else { &mut self.ready };
        queue.push_back(Dead { at: now, slot, heap });
    }

    /// A checkpoint with everything up to `durable` has become durable, and operation `now` has taken away
    /// what led to the slots that died before it.
    pub(crate) fn release(&mut self, durable: u64, now: u64) {
        while let Some(dead) = self.waiting.pop_front_if(|dead| dead.at <= durable) {
            self.ready.push_back(Dead { at: now, ..dead });
        }
    }

    /// Frees what nobody can get at any more, of up to `looks` slots.
    pub(crate) fn settle(&mut self, shared: &Shared, heap: &mut Heap, looks: usize) {
        self.look_at_snapshots(shared);
        for _ in 0..looks {
            let Some(dead) = self.loose.pop().or_else(|| self.past_reads(shared)) else { return };
            // A snapshot that is taken later does not show it.
            match self.moment_in(shared.life(dead.slot)) {
                Some(moment) => self.held.entry(moment).or_default().push(dead),
                None => self.set_free(dead, heap),
            }
        }
    }

    fn set_free(&mut self, dead: Dead, heap: &mut Heap) {
        heap.release(dead.heap);
        set_bit(&mut self.free, dead.slot as usize);
        let extent = &mut self.extents[(dead.slot >> self.slots_log2) as usize];
        extent.free += 1;
        self.free_open += u64::from(extent.state == ExtentState::Open);
    }

    /// A free slot of an open extent.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.free_open == 0 {
            return None;
        }
        loop {
            let number = (self.cursor >> self.slots_log2) as usize;
            let Some(extent) = self.extents.get_mut(number) else {
                self.cursor = 0;
                continue;
            };
            let end = (number as u64 + 1) << self.slots_log2;
            if extent.state == ExtentState::Open
                && extent.free > 0
                && let Some(slot) = next(&self.free, self.cursor, end)
            {
                extent.free -= 1;
                self.free_open -= 1;
                take_bit(&mut self.free, slot as usize);
                self.cursor = slot + 1;
                return Some(slot as u32);
            }
            self.cursor = end;
        }
    }

    /// A slot beyond all others is about to be used.
    pub(crate) fn grow(&mut self, slot: u64) {
        if self.free.len() as u64 * 64 <= slot {
            self.free.push(0);
        }
        let extent = (slot >> self.slots_log2) as usize;
        self.add_extents(extent + 1);
        if self.is_returned(extent) {
            self.reopen(extent);
        }
    }

    /// There are so many extents.
    pub(crate) fn add_extents(&mut self, extents: usize) {
        let new = SlotExtent { state: ExtentState::Open, stuck: false, free: 0 };
        self.extents.resize(extents.max(self.extents.len()), new);
    }

    /// Whether an extent has to be allocated before it is used.
    pub(crate) fn is_returned(&self, extent: usize) -> bool {
        self.extents.get(extent).is_some_and(|extent| extent.state == ExtentState::Returned)
    }

    /// The lowest extent with free slots that has to be allocated before it is used.
    pub(crate) fn returned(&self) -> Option<usize> {
        self.extents.iter().position(|extent| extent.state == ExtentState::Returned && extent.free > 0)
    }

    /// An extent was allocated: its slots can be used.
    pub(crate) fn reopen(&mut self, extent: usize) {
        self.set_state(extent, ExtentState::Open);
        self.cursor = (extent as u64) << self.slots_log2;
    }

    pub(crate) fn set_state(&mut self, extent: usize, state: ExtentState) {
        let extent = &mut self.extents[extent];
        let open = |state| u64::from(state == ExtentState::Open) * u64::from(extent.free);
        self.free_open = self.free_open - open(extent.state) + open(state);
        extent.state = state;
    }

    /// The next slot that no read under way can get at.
    fn past_reads(&mut self, shared: &Shared) -> Option<Dead> {
        let safe_at = self.ready.front()?.at;
        if safe_at > self.oldest_read {
            // Reads that begin after this look announce at least the present number.
            let now = shared.sequence.load(Ordering::Relaxed);
            self.oldest_read = shared.readers.oldest().min(now);
        }
        if safe_at > self.oldest_read {
            return None;
        }
        self.ready.pop_front()
    }

    /// Lets go what only snapshots held that are gone. No snapshot is taken while this runs: taking one
    /// borrows the store.
    fn look_at_snapshots(&mut self, shared: &Shared) {
        let changes = shared.moments.changes();
        if changes == self.moments_changes {
            return;
        }
        self.moments_changes = changes;
        self.moments = shared.moments.list();
        let gone = |moment: &u64| self.moments.binary_search(moment).is_err();
        let gone: Vec<u64> = self.held.keys().copied().filter(gone).collect();
        for moment in gone {
            // Another snapshot may show them, too: they are asked about one by one.
            self.loose.append(&mut self.held.remove(&moment).unwrap_or_default());
        }
    }

    /// The first moment of a snapshot at which the record was alive.
    fn moment_in(&self, life: &Life) -> Option<u64> {
        let from = self.moments.partition_point(|moment| *moment < life.birth());
        self.moments.get(from).copied().filter(|moment| life.is_visible(*moment))
    }
}

/// How many bits are set from `first` up to `end`.
fn count(bits: &[u64], first: u64, end: u64) -> u64 {
    if first.is_multiple_of(64) && end.is_multiple_of(64) {
        let words = &bits[(first / 64) as usize..(end / 64) as usize];
        return words.iter().map(|word| u64::from(word.count_ones())).sum();
    }
    (first..end).filter(|slot| bit(bits, *slot as usize)).count() as u64
}

/// The first bit that is set from `first` up to `end`.
fn next(bits: &[u64], first: u64, end: u64) -> Option<u64> {
    let mut at = first;
    while at < end {
        let word = bits.get((at / 64) as usize)? >> (at % 64);
        if word != 0 {
            return Some(at + u64::from(word.trailing_zeros())).filter(|found| *found < end);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}
