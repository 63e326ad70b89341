//! Compaction: extents with much in them that nobody needs are emptied, by writing their records anew elsewhere, and
//! their space goes back to the file system.
//!
//! A record that is moved is put once more as it is, so that readers, snapshots, checkpoints and the digest see
//! nothing of it. What it leaves behind is freed like what any write replaces: once no durable checkpoint, read or
//! snapshot needs it.
#![expect(unsafe_code, reason = "reads records of mapped files while the store is written to")]

use std::cmp::Reverse;
use std::sync::Arc;

use crate::error::WriteError;
use crate::hash;
use crate::heap::{ExtentState, HeapPlace};
use crate::layout::SlotMeta;
use crate::store::{NewRecord, Store};

/// What a call of [`Store::compact`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// How many records were moved.
    pub records_moved: u64,
    /// How many bytes were given back to the file system.
    pub bytes_returned: u64,
    /// Whether there is more to move now. What was moved gives space back in a call after the next checkpoint.
    pub has_more: bool,
}

/// A walk over the records that were there when it began, which moves those that are in the way.
pub(crate) struct Pass {
    /// The slot to look at next.
    cursor: u64,
    end: u64,
    /// Whether extents of the heap are to be emptied, so that every record has to be looked at.
    empties_heap: bool,
}

impl Store {
    /// Moves records together and gives space back to the file system, if so much is void that it pays: more than
    /// an eighth of what is in use, and two extents. Does about as much as reads and writes `budget_bytes`, and at
    /// least one step; goes on where the last call ended.
    ///
    /// To be called now and then, best before checkpoints: what it moves is a write like any other, durable with
    /// the next one, and what is left behind is given back by a later call. Reads are not held up.
    ///
    /// # Errors
    /// As for [`Store::put`]; [`WriteError::Corrupt`] never, since a damaged record stays where it is.
    pub fn compact(&mut self, budget_bytes: u64) -> Result<Compaction, WriteError> {
        self.check_writable()?;
        self.slots_free.settle(&self.shared, &mut self.heap, usize::MAX);
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => self.begin_pass(),
        };
        let mut done = Compaction { bytes_returned: self.give_back()?, ..Compaction::default() };
        let moved = self.go_on(&mut pass, budget_bytes, &mut done);
        done.has_more = pass.cursor < pass.end;
        if done.has_more {
            self.pass = Some(pass);
        } else {
            self.end_pass();
        }
        moved?;
        done.bytes_returned += self.give_back()?;
        Ok(done)
    }

    /// Decides which extents are to be emptied.
    fn begin_pass(&mut self) -> Pass {
        let slot_extents = self.sparse_slot_extents();
        for extent in &slot_extents {
            self.slots_free.set_state(*extent, ExtentState::Closing);
        }
        let heap_extents = self.sparse_heap_extents();
        for extent in &heap_extents {
            self.heap.extents[*extent].state = ExtentState::Closing;
        }
        let any = !slot_extents.is_empty() || !heap_extents.is_empty();
        let end = if any { self.shared.slots() } else { 0 };
        Pass { cursor: 0, end, empties_heap: !heap_extents.is_empty() }
    }

    /// Extents that the file has ahead of what is used, and those whose records fit into the free slots of the
    /// others so that enough are left. The one that is being filled is none of them.
    fn sparse_slot_extents(&mut self) -> Vec<usize> {
        let per_extent = self.shared.geometry.slots_per_extent() as u64;
        let used = self.shared.geometry.extents_for(self.shared.slots());
        let full = (self.shared.slots() / per_extent) as usize;
        self.slots_free.add_extents(self.files.slot_extents);
        let extents = &self.slots_free.extents;
        let open = |n: &usize| extents[*n].state == ExtentState::Open;
        let ahead = (used..extents.len()).filter(open).count() as u64;
        let open_used = (0..used).filter(open).count() as u64;
        let in_use = (open_used * per_extent).saturating_sub(self.slots_free.free_open);
        let free = self.slots_free.free_open + ahead * per_extent;
        if free <= in_use / 8 + 2 * per_extent {
            return Vec::new();
        }
        let enough = ((free - in_use / 16) / per_extent - 1) as usize;
        let free_of = |n: &usize| if *n < used { u64::from(extents[*n].free) } else { per_extent };
        let pays = |n: &usize| !extents[*n].stuck && free_of(n) * 8 >= per_extent;
        let mut sparse: Vec<usize> = (0..full).chain(used..extents.len()).filter(open).filter(pays).collect();
        sparse.sort_by_key(|n| Reverse(free_of(n)));
        sparse.truncate(enough);
        sparse
    }

    /// Likewise of the heap. The one that is being filled is none of them.
    fn sparse_heap_extents(&self) -> Vec<usize> {
        let extent_bytes = self.shared.geometry.heap_extent() as u64;
        let extents = &self.heap.extents;
        let open = |n: &usize| extents[*n].state == ExtentState::Open && self.heap.current != Some(*n as u32);
        let gain_of = |n: &usize| match extents[*n].held {
            0 => extent_bytes,
            _ => u64::from(extents[*n].dead()),
        };
        let in_use: u64 = extents.iter().map(|extent| u64::from(extent.held)).sum();
        let void: u64 = (0..extents.len()).filter(open).map(|n| gain_of(&n)).sum();
        if void <= in_use / 8 + 2 * extent_bytes {
            return Vec::new();
        }
        let pays = |n: &usize| !extents[*n].stuck && gain_of(n) * 8 >= extent_bytes;
        let mut sparse: Vec<usize> = (0..extents.len()).filter(open).filter(pays).collect();
        sparse.sort_by_key(|n| Reverse(gain_of(n)));
        let (mut gained, enough) = (0, void - in_use / 16 - extent_bytes);
        sparse.retain(|n| {
            let wanted = gained < enough;
            gained += gain_of(n);
            wanted
        });
        sparse
    }

    fn go_on(&mut self, pass: &mut Pass, budget_bytes: u64, done: &mut Compaction) -> Result<(), WriteError> {
        let mut spent = 0;
        while pass.cursor < pass.end && spent < budget_bytes.max(1) {
            let slot = pass.cursor as u32;
            let (extent, _) = self.shared.geometry.locate(slot);
            let is_closing = self.slots_free.extents[extent].state == ExtentState::Closing;
            if !is_closing && !pass.empties_heap {
                pass.cursor = (extent as u64 + 1) << self.shared.geometry.slots_log2;
                continue;
            }
            if self.live.get(slot as usize) {
                spent += SlotMeta::BYTES as u64;
                if (is_closing || self.is_in_closing_heap(slot))
                    && let Some(bytes) = self.relocate(slot)?
                {
                    spent += bytes;
                    done.records_moved += 1;
                }
            }
            pass.cursor += 1;
        }
        Ok(())
    }

    fn is_in_closing_heap(&self, slot: u32) -> bool {
        // SAFETY: this is the writer, and the slot is alive.
        let meta = unsafe { self.shared.meta(slot) };
        let place = HeapPlace::of(&meta, &self.shared.geometry);
        // A damaged slot may point anywhere.
        let extent = self.heap.extents.get(place.extent as usize);
        extent.is_some_and(|extent| extent.state == ExtentState::Closing)
    }

    /// Writes a live record anew. Says how many bytes it has, or nothing if it is damaged and stays.
    fn relocate(&mut self, slot: u32) -> Result<Option<u64>, WriteError> {
        let shared = Arc::clone(&self.shared);
        // SAFETY: this is the writer, and the slot is alive: until it is freed, which the write does not do.
        let Ok(record) = (unsafe { shared.record(slot) }) else { return Ok(None) };
        let fingerprint = hash::fingerprint(record.id, shared.hash_seed);
        let Ok(Some(found)) = self.find(record.id, fingerprint) else { return Ok(None) };
        if found.slot != slot {
            return Ok(None);
        }
        // SAFETY: as above.
        let old = unsafe { shared.meta(slot) };
        let (id, payload, version) = (record.id, record.payload, record.version);
        self.write(
            Some(found),
            Some(old),
            &NewRecord { fingerprint, id, vector: record.vector.into(), payload, version },
        )?;
        Ok(Some((shared.geometry.stride + id.len() + payload.len()) as u64))
    }

    /// What could not be moved stays where it is, and is left alone from now on.
    fn end_pass(&mut self) {
        let per_extent = self.shared.geometry.slots_per_extent();
        for n in 0..self.slots_free.extents.len() {
            let mut slots = n * per_extent..(n + 1) * per_extent;
            if self.slots_free.extents[n].state == ExtentState::Closing
                && slots.any(|slot| self.live.get(slot))
            {
                self.slots_free.extents[n].stuck = true;
                self.slots_free.set_state(n, ExtentState::Open);
            }
        }
        for extent in &mut self.heap.extents {
            if extent.state == ExtentState::Closing && extent.has_live() {
                (extent.stuck, extent.state) = (true, ExtentState::Open);
            }
        }
    }

    /// Gives back the space of the extents that nobody needs any more. Says how many bytes.
    fn give_back(&mut self) -> Result<u64, WriteError> {
        let per_extent = self.shared.geometry.slots_per_extent() as u32;
        let mut bytes = 0;
        for n in 0..self.slots_free.extents.len() {
            let extent = self.slots_free.extents[n];
            let is_ahead = (n * per_extent as usize) as u64 >= self.shared.slots();
            if extent.state == ExtentState::Closing && (is_ahead || extent.free == per_extent) {
                let given_back = self.files.give_back_slots(n);
                bytes += given_back.map_err(|e| self.write_error("giving space back", e))?;
                self.slots_free.set_state(n, ExtentState::Returned);
            }
        }
        for n in 0..self.heap.extents.len() {
            let extent = self.heap.extents[n];
            if extent.state == ExtentState::Closing && extent.held == 0 {
                let given_back = self.files.give_back_heap(n);
                bytes += given_back.map_err(|e| self.write_error("giving space back", e))?;
                self.heap.returned(n);
            }
        }
        Ok(bytes)
    }
}
