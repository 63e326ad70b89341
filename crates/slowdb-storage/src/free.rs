//! Slots on their way to be used again.
//!
//! A slot that died waits, one after the other, until
//! 1. the last durable checkpoint does not refer to it, and nothing else leads to it;
//! 2. no read under way can still get at it ([`crate::readers`]);
//! 3. no snapshot is of a moment at which its record was alive ([`crate::snapshot`]).
//!
//! Reads are soon over, so one oldest read holds back all that died since. Snapshots may be kept for long, so
//! each holds back only what it shows: at most as many slots as it has records, whatever is written meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

use crate::files::Life;
use crate::shared::{Shared, bit};

/// How many slots one write looks at before it takes a new one. As a write frees at most one slot, the queue
/// gets shorter all the same.
const LOOKS_MAX: usize = 16;

/// Slots on their way to be used again.
pub(crate) struct FreeSlots {
    /// Dead since the number, and needed by a checkpoint, or to say that an id was deleted.
    waiting: VecDeque<(u64, u32)>,
    /// Out of reach once no read under way announced less than the number, which never falls along the queue.
    ready: VecDeque<(u64, u32)>,
    /// No read under way, now or later, announces less.
    oldest_read: u64,
    /// Out of reach of reads; snapshots are still to be asked.
    loose: Vec<u32>,
    /// By the moment of a snapshot that shows them.
    held: BTreeMap<u64, Vec<u32>>,
    /// The moments of all snapshots, ascending, and how often they had changed then.
    moments: Vec<u64>,
    moments_changes: u64,
    /// Slots from here to `at_open_end` are free if they held no record at open.
    at_open_next: u64,
    at_open_end: u64,
    /// The last checkpoint begun has everything up to this operation.
    pub(crate) begun: u64,
}

impl FreeSlots {
    pub(crate) fn at_open(slots: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            oldest_read: 0,
            loose: Vec::new(),
            held: BTreeMap::new(),
            moments: Vec::new(),
            moments_changes: 0,
            at_open_next: 0,
            at_open_end: slots,
            begun: 1,
        }
    }

    /// Takes a slot whose record died with operation `now`. `referred_to`: by a checkpoint, or by the index.
    pub(crate) fn give(&mut self, slot: u32, now: u64, referred_to: bool) {
        let queue = if referred_to { &mut self.waiting } else { &mut self.ready };
        queue.push_back((now, slot));
    }

    /// A checkpoint with everything up to `durable` has become durable, and operation `now` has taken away
    /// what led to the slots that died before it.
    pub(crate) fn release(&mut self, durable: u64, now: u64) {
        while let Some((_, slot)) = self.waiting.pop_front_if(|(death, _)| *death <= durable) {
            self.ready.push_back((now, slot));
        }
    }

    /// A slot that held a record that nobody can get at any more.
    pub(crate) fn take(&mut self, shared: &Shared) -> Option<u32> {
        self.look_at_snapshots(shared);
        for _ in 0..LOOKS_MAX {
            let slot = self.loose.pop().or_else(|| self.past_reads(shared))?;
            if self.moments.is_empty() {
                return Some(slot);
            }
            let Some(moment) = self.moment_in(shared.life(slot)) else { return Some(slot) };
            self.held.entry(moment).or_default().push(slot);
        }
        None
    }

    /// A slot that held no record at open and was not used since.
    pub(crate) fn free_at_open(&mut self, live_at_open: &[u64]) -> Option<u32> {
        while self.at_open_next < self.at_open_end {
            let slot = self.at_open_next;
            self.at_open_next += 1;
            if live_at_open[(slot / 64) as usize] == u64::MAX {
                self.at_open_next = (slot / 64 + 1) * 64;
            } else if !bit(live_at_open, slot as usize) {
                return Some(slot as u32);
            }
        }
        None
    }

    /// The next slot that no read under way can get at.
    fn past_reads(&mut self, shared: &Shared) -> Option<u32> {
        let (safe_at, slot) = *self.ready.front()?;
        if safe_at > self.oldest_read {
            // Reads that begin after this look announce at least the present number.
            let now = shared.sequence.load(Ordering::Relaxed);
            self.oldest_read = shared.readers.oldest().min(now);
        }
        if safe_at > self.oldest_read {
            return None;
        }
        self.ready.pop_front();
        Some(slot)
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
        let Self { moments, held, loose, .. } = self;
        held.retain(|moment, slots| {
            let there = moments.binary_search(moment).is_ok();
            if !there {
                loose.append(slots);
            }
            there
        });
    }

    /// The first moment of a snapshot at which the record was alive.
    fn moment_in(&self, life: &Life) -> Option<u64> {
        let from = self.moments.partition_point(|moment| *moment < life.birth());
        self.moments.get(from).copied().filter(|moment| life.is_visible(*moment))
    }
}
