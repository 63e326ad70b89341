//! The writer of a store: putting, deleting. Opening, checkpoints, and the reuse of slots have files of their
//! own.
#![expect(unsafe_code, reason = "writes mapped files")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slowdb_disk::{Disk, is_full};

use crate::bitmap::Bitmap;
use crate::checkpoint::{IndexFiles, Token};
use crate::compact::Pass;
use crate::entry::Entry;
use crate::error::{Corruption, WriteError};
use crate::files::Files;
use crate::free::{FreeSlots, LOOKS_MAX};
use crate::hash;
use crate::heap::{Heap, HeapPlace};
use crate::layout::SlotMeta;
use crate::overlay::{Overlay, Place};
use crate::reader::Reader;
use crate::shared::{Shared, View};
use crate::types::{Digest, ID_BYTES_MAX, PAYLOAD_BYTES_MAX, SLOTS_MAX, VectorRef, Version};

/// A store of vectors in a directory: its one writer.
///
/// Writes are visible to readers at once and durable with the next checkpoint. Opening a store shows exactly
/// what the last durable checkpoint held; what was written after it is the business of the caller's log.
///
/// Nothing is written when a store is dropped.
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) files: Files,
    /// A bit for each slot that holds a record now.
    pub(crate) live: Bitmap,
    pub(crate) digest: Digest,
    pub(crate) heap: Heap,
    /// The compaction under way.
    pub(crate) pass: Option<Pass>,
    pub(crate) overlay_entries: usize,
    pub(crate) slots_free: FreeSlots,
    pub(crate) mark: Vec<u8>,
    pub(crate) index_files: IndexFiles,
    pub(crate) token: Option<Token>,
    pub(crate) damage: Vec<Corruption>,
    pub(crate) canary_reuse_early: bool,
}

/// A record on its way into a slot.
pub(crate) struct NewRecord<'a> {
    pub(crate) fingerprint: u32,
    pub(crate) id: &'a [u8],
    pub(crate) vector: VectorRef<'a>,
    pub(crate) payload: &'a [u8],
    pub(crate) version: Version,
}

/// Where the index has an id.
pub(crate) struct Found {
    pub(crate) slot: u32,
    /// In the overlay, if it is there.
    place: Option<Place>,
    alive: bool,
}

impl Store {
    /// A reader. There can be any number, on any threads.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// Stores a record, replacing the one with this id. Gives the version of the one replaced.
    ///
    /// # Errors
    /// Nothing has changed then. After [`WriteError::Io`] the store takes no more writes until it is
    /// reopened.
    pub fn put(
        &mut self,
        id: &[u8],
        vector: VectorRef<'_>,
        payload: &[u8],
        version: Version,
    ) -> Result<Option<Version>, WriteError> {
        self.check_writable()?;
        check_id(id)?;
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(WriteError::PayloadTooLong(payload.len()));
        }
        check_vector(vector, self.shared.geometry.dimension)?;
        let fingerprint = hash::fingerprint(id, self.shared.hash_seed);
        let found = self.find(id, fingerprint)?;
        let old = self.live_meta(found.as_ref())?;
        self.write(found, old, &NewRecord { fingerprint, id, vector, payload, version })?;
        Ok(old.map(|old| old.version))
    }

    /// Writes a record, in place of the one that was found.
    pub(crate) fn write(
        &mut self,
        found: Option<Found>,
        old: Option<SlotMeta>,
        record: &NewRecord<'_>,
    ) -> Result<(), WriteError> {
        let NewRecord { fingerprint, id, payload, .. } = *record;
        let heap = self.reserve_heap(id.len() + payload.len())?;
        let slot = self.take_slot()?;
        let record_hash = self.fill(slot, heap, record);
        self.heap.take(heap);
        let now = self.shared.sequence.load(Ordering::Relaxed) + 1;
        self.shared.life(slot).begin(now);
        let entry = Entry::new(fingerprint, slot);
        match found.as_ref().and_then(|found| found.place) {
            Some(place) => self.shared.view.load().overlay.replace(place, entry),
            None => self.add_entry(entry),
        }
        self.live.set(slot as usize);
        self.digest.add(record_hash);
        if let (Some(found), Some(old)) = (&found, &old) {
            self.retire(found.slot, old, now, false);
        } else {
            self.shared.records.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.sequence.store(now, Ordering::SeqCst);
        Ok(())
    }

    /// Deletes the record with this id. Gives its version, or `None` if there was none.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub fn delete(&mut self, id: &[u8]) -> Result<Option<Version>, WriteError> {
        self.check_writable()?;
        check_id(id)?;
        let fingerprint = hash::fingerprint(id, self.shared.hash_seed);
        let found = self.find(id, fingerprint)?;
        let (Some(old), Some(found)) = (self.live_meta(found.as_ref())?, found) else { return Ok(None) };
        if found.place.is_none() {
            // Says in the newest part of the index that the record is dead.
            self.add_entry(Entry::new(fingerprint, found.slot));
        }
        let now = self.shared.sequence.load(Ordering::Relaxed) + 1;
        self.retire(found.slot, &old, now, true);
        self.shared.records.fetch_sub(1, Ordering::Relaxed);
        self.shared.sequence.store(now, Ordering::SeqCst);
        Ok(Some(old.version))
    }

    /// Id and payload, as they can still be read, of the damaged record in a slot; `None` if no record is there, or a
    /// good one, or one of which even that cannot be told.
    pub fn damaged(&self, slot: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        if u64::from(slot) >= self.shared.slots() || !self.live.get(slot as usize) {
            return None;
        }
        // SAFETY: this is the writer, and the slot is alive.
        unsafe {
            self.shared.recompute(slot).err()?;
            let meta = self.shared.whole_meta(slot).ok()?;
            let (id, payload) = self.shared.heap_bytes(slot, &meta).ok()?;
            Some((id.to_vec(), payload.to_vec()))
        }
    }

    /// Writes a damaged record anew, with its version, from a copy of its vector and payload that somebody else had. Says
    /// whether it did: not if there is no damaged record with this id, or if the copy does not have its hash.
    ///
    /// Like any other write it is durable with the next checkpoint. The digest stays what it is.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub fn mend(&mut self, id: &[u8], vector: VectorRef<'_>, payload: &[u8]) -> Result<bool, WriteError> {
        self.check_writable()?;
        check_id(id)?;
        let fingerprint = hash::fingerprint(id, self.shared.hash_seed);
        let found = self.find(id, fingerprint)?;
        let (Some(old), Some(found)) = (self.live_meta(found.as_ref())?, found) else { return Ok(false) };
        // SAFETY: this is the writer, and the slot is alive.
        let is_damaged = unsafe { self.shared.recompute(found.slot) }.is_err();
        let bytes = vector_bytes(vector);
        let has_room =
            bytes.len() == self.shared.geometry.dimension * 4 && payload.len() <= PAYLOAD_BYTES_MAX;
        if !is_damaged || !has_room || hash::record(id, old.version, bytes, payload) != old.record_hash {
            return Ok(false);
        }
        let record = NewRecord { fingerprint, id, vector, payload, version: old.version };
        self.write(Some(found), Some(old), &record)?;
        Ok(true)
    }

    /// The version of the record with this id.
    ///
    /// # Errors
    /// If that cannot be told: its vector and payload may be damaged.
    pub fn version(&self, id: &[u8]) -> Result<Option<Version>, Corruption> {
        if check_id(id).is_err() {
            return Ok(None);
        }
        let found = self.find(id, hash::fingerprint(id, self.shared.hash_seed))?;
        Ok(self.live_meta(found.as_ref())?.map(|meta| meta.version))
    }

    /// The number of records.
    pub fn len(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension of the vectors.
    pub fn dimension(&self) -> usize {
        self.shared.geometry.dimension
    }

    /// The digest of all records, as kept up by the writes. [`Reader::scrub`] computes it anew.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the caller gave with the last durable checkpoint; empty in a new store.
    pub fn mark(&self) -> &[u8] {
        &self.mark
    }

    /// What opening found damaged and could do without, as it is there twice. The next checkpoint with changes
    /// writes it anew.
    pub fn damage_at_open(&self) -> &[Corruption] {
        &self.damage
    }

    /// Why the store takes no more writes, if so.
    pub fn poisoned(&self) -> Option<&str> {
        self.shared.poison.get().map(String::as_str)
    }

    /// How many slots are in the files: records, and room for more.
    pub fn slots_used(&self) -> u64 {
        self.shared.slots()
    }

    pub(crate) fn check_writable(&self) -> Result<(), WriteError> {
        self.poisoned().map_or(Ok(()), |why| Err(WriteError::Poisoned(why.into())))
    }

    pub(crate) fn find(&self, id: &[u8], fingerprint: u32) -> Result<Option<Found>, Corruption> {
        let view = self.shared.view.load();
        let now = self.shared.sequence.load(Ordering::Relaxed);
        for (place, entry) in view.overlay.candidates(fingerprint) {
            // SAFETY: this is the writer: nobody clears a slot meanwhile.
            if unsafe { self.shared.holds(entry.slot(), id)? } {
                let alive = !self.shared.life(entry.slot()).is_dead(now);
                return Ok(Some(Found { slot: entry.slot(), place: Some(place), alive }));
            }
        }
        // SAFETY: as above. The overlay is looked at twice; it is the part in memory.
        let slot = unsafe { self.shared.find(&view, id, fingerprint)? };
        Ok(slot.map(|slot| Found { slot, place: None, alive: !self.shared.life(slot).is_dead(now) }))
    }

    /// The metadata of a record that was found alive, once it is known to be good. Its vector and payload may be damaged:
    /// what is written in its place needs neither.
    fn live_meta(&self, found: Option<&Found>) -> Result<Option<SlotMeta>, Corruption> {
        let Some(found) = found.filter(|found| found.alive) else { return Ok(None) };
        // SAFETY: this is the writer, and the slot is alive.
        unsafe { Ok(Some(self.shared.whole_meta(found.slot)?)) }
    }

    /// Where the next `len` bytes of the heap go; the room is there.
    fn reserve_heap(&mut self, len: usize) -> Result<HeapPlace, WriteError> {
        let place = self.heap.place(len as u32);
        let extent = place.extent as usize;
        if self.heap.is_returned(place) {
            self.files.allocate_heap(extent).map_err(|e| self.write_error("growing the heap", e))?;
            self.heap.reopen(extent);
        }
        self.files
            .ensure_heap(&self.shared, extent + 1)
            .map_err(|e| self.write_error("growing the heap", e))?;
        self.heap.grow(self.files.heap_extents);
        if let Some(span) = self.shared.heap.get(extent) {
            // SAFETY: extents are filled from front to back, and nobody needs what is behind where a record goes.
            unsafe { span.prepare(place.at as usize, len) };
        }
        Ok(place)
    }

    /// A slot that nobody looks at, below `slots`.
    fn take_slot(&mut self) -> Result<u32, WriteError> {
        self.slots_free.settle(&self.shared, &mut self.heap, LOOKS_MAX);
        if self.slots_free.free_open == 0
            && let Some(extent) = self.slots_free.returned()
        {
            let allocated = self.files.allocate_slots(extent);
            allocated.map_err(|e| self.write_error("growing the vector files", e))?;
            self.slots_free.reopen(extent);
        }
        if let Some(slot) = self.slots_free.take() {
            self.shared.life(slot).clear();
            return Ok(slot);
        }
        let slot = self.shared.slots();
        if slot >= SLOTS_MAX {
            return Err(WriteError::Full);
        }
        let extents = self.shared.geometry.extents_for(slot + 1);
        let grown = if self.slots_free.is_returned(extents - 1) {
            self.files.allocate_slots(extents - 1)
        } else {
            self.files.ensure_slots(&self.shared, extents)
        };
        grown.map_err(|e| self.write_error("growing the vector files", e))?;
        let geometry = &self.shared.geometry;
        let (extent, at) = geometry.locate(slot as u32);
        let extent = self.shared.extent(extent);
        // SAFETY: slots from `slots` on hold nothing that anybody refers to, and only the writer raises it.
        unsafe {
            extent.vectors.prepare(at * geometry.stride, geometry.stride);
            extent.metas.prepare(at * SlotMeta::BYTES, SlotMeta::BYTES);
        }
        self.slots_free.grow(slot);
        self.shared.slots.store(slot + 1, Ordering::Release);
        Ok(slot as u32)
    }

    /// Writes a record into a free slot. Gives its hash.
    fn fill(&self, slot: u32, place: HeapPlace, record: &NewRecord<'_>) -> u128 {
        let NewRecord { id, vector, payload, version, .. } = *record;
        let geometry = &self.shared.geometry;
        let (number, at) = geometry.locate(slot);
        let extent = self.shared.extent(number);
        let heap = self.shared.heap.get(place.extent as usize).expect("the heap's room was reserved");
        let heap_at = place.at as usize;
        let bytes = vector_bytes(vector);
        let record_hash = hash::record(id, version, bytes, payload);
        let meta = SlotMeta {
            version,
            record_hash,
            heap_offset: place.offset(geometry),
            payload_len: payload.len() as u32,
            id_len: id.len() as u16,
        };
        const ZEROS: [u8; crate::layout::STRIDE_ALIGN] = [0; crate::layout::STRIDE_ALIGN];
        // SAFETY: the slot is free: its birth is 0 and no reader gets at it. The place in the heap is behind all
        // that is filled of its extent, or in one that nobody needs; so it is the writer's.
        unsafe {
            heap.write(heap_at, id);
            heap.write(heap_at + id.len(), payload);
            extent.vectors.write(at * geometry.stride, bytes);
            extent.vectors.write(at * geometry.stride + bytes.len(), &ZEROS[..geometry.stride - bytes.len()]);
            extent.metas.write(at * SlotMeta::BYTES, &meta.encode(slot));
        }
        extent.set_verified(at);
        record_hash
    }

    /// Whether this overlay has an entry for the id that another overlay's entry stands for.
    pub(crate) fn overlay_has_id_of(&self, overlay: &Overlay, entry: Entry) -> Result<bool, Corruption> {
        // SAFETY: this is the writer, and slots that an overlay leads to are not cleared.
        let id = unsafe { self.shared.id(entry.slot())? };
        for (_, other) in overlay.candidates(entry.fingerprint()) {
            // SAFETY: as above.
            if unsafe { self.shared.holds(other.slot(), id)? } {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds an entry to the overlay, which has none for this id.
    fn add_entry(&mut self, entry: Entry) {
        let view = self.shared.view.load_full();
        if view.overlay.is_full(self.overlay_entries) {
            let larger = Overlay::with_room_for(self.overlay_entries * 2);
            view.overlay.entries().for_each(|entry| larger.add(entry));
            larger.add(entry);
            self.shared.view.store(Arc::new(View {
                overlay: Arc::new(larger),
                frozen: view.frozen.clone(),
                index: view.index.clone(),
            }));
        } else {
            view.overlay.add(entry);
        }
        self.overlay_entries += 1;
    }

    /// Ends the life of a record as of operation `now`. `deleted`: the index goes on leading to the slot.
    fn retire(&mut self, slot: u32, old: &SlotMeta, now: u64, deleted: bool) {
        let life = self.shared.life(slot);
        life.end(now);
        self.live.take(slot as usize);
        self.digest.subtract(old.record_hash);
        let referred_to = deleted || life.birth() <= self.slots_free.begun;
        let place = HeapPlace::of(old, &self.shared.geometry);
        self.heap.end_life(place);
        self.slots_free.give(slot, place, now, referred_to && !self.canary_reuse_early);
    }

    /// The error of a file that should have grown. A full disk leaves everything as it was; after anything
    /// else it is open what is on the disk.
    pub(crate) fn write_error(&self, what: &str, e: io::Error) -> WriteError {
        if is_full(&e) {
            return WriteError::NoSpace(e);
        }
        self.shared.poison(what, &e);
        WriteError::Io(e)
    }
}

fn check_id(id: &[u8]) -> Result<(), WriteError> {
    match id.len() {
        0 => Err(WriteError::IdEmpty),
        len if len > ID_BYTES_MAX => Err(WriteError::IdTooLong(len)),
        _ => Ok(()),
    }
}

fn check_vector(vector: VectorRef<'_>, dimension: usize) -> Result<(), WriteError> {
    const EXPONENT: u32 = 0x7f80_0000;
    let bytes = vector_bytes(vector);
    if !bytes.len().is_multiple_of(4) {
        return Err(WriteError::VectorBytes(bytes.len()));
    }
    if bytes.len() != dimension * 4 {
        return Err(WriteError::Dimension { expected: dimension, got: bytes.len() / 4 });
    }
    let bits = |component: &[u8]| u32::from_le_bytes(component.try_into().unwrap_or_default());
    let not_finite = |component: &[u8]| bits(component) & EXPONENT == EXPONENT;
    // Without an early exit this is a few instructions for a whole register of components.
    if bytes.chunks_exact(4).fold(false, |any, component| any | not_finite(component))
        && let Some(index) = bytes.chunks_exact(4).position(not_finite)
    {
        let value = f32::from_bits(bits(&bytes[index * 4..index * 4 + 4]));
        return Err(WriteError::NotFinite { index, value });
    }
    Ok(())
}

/// The components of a vector, four little-endian bytes each.
pub(crate) fn vector_bytes(vector: VectorRef<'_>) -> &[u8] {
    match vector {
        VectorRef::LeBytes(bytes) => bytes,
        // SAFETY: any `f32` is four bytes without padding, and the target is little-endian.
        VectorRef::Floats(floats) => unsafe {
            std::slice::from_raw_parts(floats.as_ptr().cast::<u8>(), size_of_val(floats))
        },
    }
}
