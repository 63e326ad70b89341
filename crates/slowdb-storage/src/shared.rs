//! What the writer and the readers of a store share: the mapped files, the index, and how far things are.
//!
//! # Invariants
//! - The bytes of a slot (vector, metadata, heap range) are written only while its birth is 0 and nobody can
//!   read them; a release store of the birth, or of the index entry, publishes them. From then on they do
//!   not change until the slot is cleared.
//! - A slot is cleared only when every read under way announced a sequence number at which it was already
//!   dead *and* it lives as of no index that such a read can hold ([`crate::readers`]), and when no snapshot is
//!   of a moment between its birth and its death ([`crate::free`]).
//! - What the last durable checkpoint refers to is not cleared before the next one is durable. That is the slots that
//!   live as of it, and no others: entries of its index files that lead elsewhere do not count ([`crate::index`]).
//! - Bytes are mapped by one opening of the store at a time: the data files are locked as long as there is
//!   anything of it ([`crate::files::DataFiles`]).
//! - `sequence` is raised, by the writer only, after everything that the operation changed.
#![expect(unsafe_code, reason = "lends records out of mapped files")]

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use slowdb_disk::DiskFile;

use crate::atomics::AtomicU64;
use crate::bitmap::Bitmap;
use crate::error::Corruption;
use crate::files::{AppendList, Extent, Life, Span};
use crate::hash;
use crate::index::{Chain, Lookup};
use crate::layout::{Geometry, SlotMeta};
use crate::manifest::in_dir;
use crate::overlay::Overlay;
use crate::readers::{Pin, Readers};
use crate::snapshot::Moments;
use crate::types::{ID_BYTES_MAX, PAYLOAD_BYTES_MAX, RecordRef};

pub(crate) const VECTORS: &str = "vectors";
pub(crate) const SLOTS: &str = "slots";
pub(crate) const HEAP: &str = "heap";

pub(crate) struct Shared {
    pub(crate) dir: String,
    pub(crate) geometry: Geometry,
    pub(crate) hash_seed: u64,
    /// The number of the last operation of this opening; what was there at open counts as operation 1.
    pub(crate) sequence: AtomicU64,
    pub(crate) readers: Readers,
    pub(crate) moments: Moments,
    pub(crate) view: ArcSwap<View>,
    /// Slots below this number have been used.
    pub(crate) slots: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) extents: AppendList<Extent>,
    pub(crate) heap: AppendList<Span>,
    /// A bit for each slot that held a record at open.
    pub(crate) live_at_open: Bitmap,
    /// Why the store takes no more writes.
    pub(crate) poison: OnceLock<String>,
    /// Vectors, slots, heap: open, and locked as long as anybody can reach what is mapped of them. The last
    /// field, so that the mappings go first.
    pub(crate) data_files: [Arc<dyn DiskFile>; 3],
}

/// The id index at a moment: the newest part that knows an id is right.
pub(crate) struct View {
    /// What changed since the last checkpoint was begun.
    pub(crate) overlay: Arc<Overlay>,
    /// What changed between the last durable checkpoint and the one under way.
    pub(crate) frozen: Option<Arc<Overlay>>,
    /// As of the last durable checkpoint.
    pub(crate) index: Option<Arc<Chain>>,
}

impl Shared {
    pub(crate) fn pin(&self) -> Pin<'_> {
        self.readers.pin(&self.sequence)
    }

    pub(crate) fn extent(&self, extent: usize) -> &Extent {
        self.extents.get(extent).expect("a slot in use lies in a mapped extent")
    }

    pub(crate) fn lives<'a>(&self, number: usize, extent: &'a Extent) -> &'a [Life] {
        extent.lives.get_or_init(|| {
            let first = number << self.geometry.slots_log2;
            let live = |slot: usize| self.live_at_open.get(slot);
            (first..first + self.geometry.slots_per_extent()).map(|slot| Life::at_open(live(slot))).collect()
        })
    }

    pub(crate) fn life(&self, slot: u32) -> &Life {
        let (extent, at) = self.geometry.locate(slot);
        &self.lives(extent, self.extent(extent))[at]
    }

    /// The slots from `from` up to `end`, which have been used, whose records are those as of operation `at`.
    pub(crate) fn visible_slots(&self, from: u64, end: u64, at: u64) -> impl Iterator<Item = u32> {
        (from..end).map(|slot| slot as u32).filter(move |slot| self.life(*slot).is_visible(at))
    }

    /// The newest slot that an id has or had, among those the view knows. It may be dead.
    ///
    /// # Safety
    /// The caller has a pin that is older than the view, or is the writer.
    pub(crate) unsafe fn find(
        &self,
        view: &View,
        id: &[u8],
        fingerprint: u32,
    ) -> Result<Option<u32>, Corruption> {
        for overlay in [Some(&view.overlay), view.frozen.as_ref()].into_iter().flatten() {
            for (_, entry) in overlay.candidates(fingerprint) {
                // SAFETY: what a view leads to is kept for those who can hold the view.
                if unsafe { self.holds(entry.slot(), id)? } {
                    return Ok(Some(entry.slot()));
                }
            }
        }
        let Some(index) = &view.index else { return Ok(None) };
        let found = index.find(fingerprint, |slot, is_stale| {
            // SAFETY: as above. The slot lives as of the view's checkpoint.
            unsafe { Ok(self.has_id(slot, id) || !is_stale() && self.holds(slot, id)?) }
        })?;
        match found {
            Lookup::Slot(slot) => Ok(Some(slot)),
            Lookup::Absent => Ok(None),
            // SAFETY: as above.
            Lookup::Unknown => unsafe { self.find_by_walk(index, id) },
        }
    }

    /// As [`Shared::find`], for want of a good page of the index: looks at all records as of its checkpoint. A damaged
    /// one may be the one with this id.
    ///
    /// # Safety
    /// As for [`Shared::find`].
    unsafe fn find_by_walk(&self, index: &Chain, id: &[u8]) -> Result<Option<u32>, Corruption> {
        let mut damaged = None;
        for slot in index.live.ones() {
            // SAFETY: promised by the caller.
            match unsafe { self.holds(slot, id) } {
                Ok(true) => return Ok(Some(slot)),
                Ok(false) => {}
                Err(corruption) => damaged = damaged.or(Some(corruption)),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Whether the slot's record has this id.
    ///
    /// # Safety
    /// The slot is written and not cleared as long as this runs.
    pub(crate) unsafe fn holds(&self, slot: u32, id: &[u8]) -> Result<bool, Corruption> {
        // SAFETY: promised by the caller.
        unsafe {
            if self.has_id(slot, id) {
                return Ok(true);
            }
            // Either two ids with one fingerprint, which is rare, or a damaged record, which must not pass
            // for a missing one, whether or not it was good when it was last looked at.
            self.recompute(slot)?;
        }
        Ok(false)
    }

    /// Whether the slot's record, as far as it can be read, has this id.
    ///
    /// # Safety
    /// As for [`Shared::holds`].
    unsafe fn has_id(&self, slot: u32, id: &[u8]) -> bool {
        // SAFETY: promised by the caller.
        unsafe {
            let meta = self.meta(slot);
            usize::from(meta.id_len) == id.len()
                && self.heap_bytes(slot, &meta).is_ok_and(|(found, _)| found == id)
        }
    }

    /// The record in a slot. Compares it with its hash if that was not done since the store was opened.
    ///
    /// # Safety
    /// The slot is written and not cleared as long as the record is used.
    pub(crate) unsafe fn record(&self, slot: u32) -> Result<RecordRef<'_>, Corruption> {
        // SAFETY: promised by the caller.
        unsafe {
            self.verify(slot)?;
            let meta = self.meta(slot);
            let (id, payload) = self.heap_bytes(slot, &meta)?;
            let vector = &self.padded_vector(slot)[..self.geometry.dimension];
            Ok(RecordRef { id, vector, payload, version: meta.version })
        }
    }

    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn verify(&self, slot: u32) -> Result<(), Corruption> {
        let (extent, at) = self.geometry.locate(slot);
        let extent = self.extent(extent);
        if extent.is_verified(at) {
            return Ok(());
        }
        // SAFETY: promised by the caller.
        unsafe { self.recompute(slot)? };
        extent.set_verified(at);
        Ok(())
    }

    /// The record in a slot is to be compared with its hash again before it is served.
    pub(crate) fn forget_verified(&self, slot: u32) {
        let (extent, at) = self.geometry.locate(slot);
        self.extent(extent).forget_verified(at);
    }

    /// The hash of the record, computed from its bytes and compared with the stored one.
    ///
    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn recompute(&self, slot: u32) -> Result<u128, Corruption> {
        let bytes = self.geometry.dimension * 4;
        // SAFETY: promised by the caller.
        let (meta, padded) = unsafe { (self.whole_meta(slot)?, self.vector_bytes(slot)) };
        // SAFETY: promised by the caller.
        let (id, payload) = unsafe { self.heap_bytes(slot, &meta)? };
        let hash = hash::record(id, meta.version, &padded[..bytes], payload);
        if hash != meta.record_hash {
            return Err(
                self.bad_slot(slot, "the record does not fit its hash: its vector, id or payload is damaged")
            );
        }
        if padded[bytes..].iter().any(|b| *b != 0) {
            let file = in_dir(&self.dir, VECTORS);
            let offset = self.geometry.vector_offset(slot);
            let what = "the vector's padding is not zero";
            return Err(Corruption { file, offset, slot: Some(slot), what });
        }
        Ok(hash)
    }

    /// The id in a slot.
    ///
    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn id(&self, slot: u32) -> Result<&[u8], Corruption> {
        // SAFETY: promised by the caller.
        unsafe { Ok(self.heap_bytes(slot, &self.meta(slot))?.0) }
    }

    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn meta(&self, slot: u32) -> SlotMeta {
        // SAFETY: promised by the caller.
        SlotMeta::decode(unsafe { self.meta_bytes(slot) })
    }

    /// The metadata in a slot, if it is as it was written.
    ///
    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn whole_meta(&self, slot: u32) -> Result<SlotMeta, Corruption> {
        // SAFETY: promised by the caller.
        let bytes = unsafe { self.meta_bytes(slot) };
        if !SlotMeta::is_whole(bytes, slot) {
            return Err(self.bad_slot(slot, "the slot does not fit its checksum"));
        }
        Ok(SlotMeta::decode(bytes))
    }

    /// # Safety
    /// As for [`Shared::record`].
    unsafe fn meta_bytes(&self, slot: u32) -> &[u8; SlotMeta::BYTES] {
        let (extent, at) = self.geometry.locate(slot);
        let metas = &self.extent(extent).metas;
        // SAFETY: promised by the caller; the range is checked, and bytes have no alignment.
        unsafe { &*metas.ptr(at * SlotMeta::BYTES, SlotMeta::BYTES).cast::<[u8; SlotMeta::BYTES]>() }
    }

    /// # Safety
    /// As for [`Shared::record`].
    unsafe fn vector_bytes(&self, slot: u32) -> &[u8] {
        let (extent, at) = self.geometry.locate(slot);
        // SAFETY: promised by the caller.
        unsafe { self.extent(extent).vectors.bytes(at * self.geometry.stride, self.geometry.stride) }
    }

    /// The vector with its padding.
    ///
    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn padded_vector(&self, slot: u32) -> &[f32] {
        // SAFETY: promised by the caller.
        let bytes = unsafe { self.vector_bytes(slot) };
        // SAFETY: any bits are an `f32`; mappings are aligned to pages and strides to 64, so nothing is cut
        // off in front.
        let (front, floats, _) = unsafe { bytes.align_to::<f32>() };
        assert!(front.is_empty() && floats.len() == self.geometry.padded());
        floats
    }

    /// Id and payload of a slot.
    ///
    /// # Safety
    /// As for [`Shared::record`].
    pub(crate) unsafe fn heap_bytes(&self, slot: u32, meta: &SlotMeta) -> Result<(&[u8], &[u8]), Corruption> {
        let (id_len, payload_len) = (usize::from(meta.id_len), meta.payload_len as usize);
        let extent_bytes = self.geometry.heap_extent();
        let at = (meta.heap_offset & (extent_bytes as u64 - 1)) as usize;
        let fits = (1..=ID_BYTES_MAX).contains(&id_len)
            && payload_len <= PAYLOAD_BYTES_MAX
            && id_len + payload_len <= extent_bytes - at;
        let span = usize::try_from(meta.heap_offset >> self.geometry.heap_log2)
            .ok()
            .filter(|_| fits)
            .and_then(|extent| self.heap.get(extent))
            .ok_or_else(|| self.bad_slot(slot, "the slot points to no place in the heap"))?;
        // SAFETY: promised by the caller; a damaged slot can point to bytes of another record, or to bytes that
        // the writer fills at this moment: whatever is read then is compared with the hash before it is served.
        let bytes = unsafe { span.bytes(at, id_len + payload_len) };
        Ok(bytes.split_at(id_len))
    }

    pub(crate) fn bad_slot(&self, slot: u32, what: &'static str) -> Corruption {
        let offset = self.geometry.meta_offset(slot);
        Corruption { file: in_dir(&self.dir, SLOTS), offset, slot: Some(slot), what }
    }

    /// Marks the store as failed; says so the same way ever after.
    pub(crate) fn poison(&self, what: &str, e: &std::io::Error) {
        // The first reason is the one that counts.
        let _ = self.poison.set(format!("{what} failed: {e}"));
    }

    pub(crate) fn slots(&self) -> u64 {
        self.slots.load(Ordering::Acquire)
    }
}

/// Bit `n` of a bitmap; 0 beyond its end.
pub(crate) fn bit(bits: &[u64], n: usize) -> bool {
    bits.get(n / 64).is_some_and(|word| word >> (n % 64) & 1 == 1)
}

pub(crate) fn set_bit(bits: &mut [u64], n: usize) {
    bits[n / 64] |= 1 << (n % 64);
}

/// Clears bit `n`. Says whether it was set.
pub(crate) fn take_bit(bits: &mut [u64], n: usize) -> bool {
    let was_set = bit(bits, n);
    if was_set {
        bits[n / 64] &= !(1 << (n % 64));
    }
    was_set
}
