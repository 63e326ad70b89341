//! Where things lie in the files: strides, extents, slot metadata. Pure arithmetic; docs/format.md draws it.

use slowdb_disk::MAP_ALIGN;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::types::Version;

/// Slots are padded with zeros to a multiple of this, so that distances have no odd tail.
pub(crate) const STRIDE_ALIGN: usize = 64;
/// The smallest heap extent: an id and a payload of the largest size fit, as none crosses extents.
const HEAP_EXTENT_MIN: usize = 131_072;

/// The fixed measures of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) dimension: usize,
    /// Bytes from one vector to the next.
    pub(crate) stride: usize,
    /// log2 of the slots in an extent.
    pub(crate) slots_log2: u32,
    /// log2 of the bytes in an extent of the heap.
    pub(crate) heap_log2: u32,
}

impl Geometry {
    /// `dimension` and `extent_bytes` are inside their limits.
    pub(crate) fn new(dimension: usize, extent_bytes: usize) -> Self {
        let stride = stride(dimension);
        Self {
            dimension,
            stride,
            slots_log2: (extent_bytes / stride).max(1).ilog2(),
            heap_log2: extent_bytes.max(HEAP_EXTENT_MIN).next_power_of_two().ilog2(),
        }
    }

    pub(crate) fn slots_per_extent(&self) -> usize {
        1 << self.slots_log2
    }

    /// Components of a slot, the padding included.
    pub(crate) fn padded(&self) -> usize {
        self.stride / 4
    }

    pub(crate) fn vector_extent(&self) -> usize {
        align(self.slots_per_extent() * self.stride)
    }

    pub(crate) fn meta_extent(&self) -> usize {
        align(self.slots_per_extent() * SlotMeta::BYTES)
    }

    pub(crate) fn heap_extent(&self) -> usize {
        1 << self.heap_log2
    }

    /// The extent a slot is in, and which slot of it it is.
    pub(crate) fn locate(&self, slot: u32) -> (usize, usize) {
        let slot = slot as usize;
        (slot >> self.slots_log2, slot & (self.slots_per_extent() - 1))
    }

    pub(crate) fn extents_for(&self, slots: u64) -> usize {
        (slots.div_ceil(self.slots_per_extent() as u64)) as usize
    }

    /// The offset of a slot in the vector file.
    pub(crate) fn vector_offset(&self, slot: u32) -> u64 {
        let (extent, at) = self.locate(slot);
        extent as u64 * self.vector_extent() as u64 + (at * self.stride) as u64
    }

    /// The offset of a slot in the slot file.
    pub(crate) fn meta_offset(&self, slot: u32) -> u64 {
        let (extent, at) = self.locate(slot);
        extent as u64 * self.meta_extent() as u64 + (at * SlotMeta::BYTES) as u64
    }
}

pub(crate) fn stride(dimension: usize) -> usize {
    (dimension * 4).next_multiple_of(STRIDE_ALIGN)
}

fn align(len: usize) -> usize {
    len.next_multiple_of(MAP_ALIGN as usize)
}

/// What the slot file holds for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotMeta {
    pub(crate) version: Version,
    pub(crate) record_hash: u128,
    pub(crate) heap_offset: u64,
    pub(crate) payload_len: u32,
    pub(crate) id_len: u16,
}

impl SlotMeta {
    pub(crate) const BYTES: usize = 64;
    /// Bytes from here on are zero, up to the checksum.
    const USED: usize = 54;
    const CHECK: usize = 56;

    /// As it lies in this slot.
    pub(crate) fn encode(&self, slot: u32) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..24].copy_from_slice(&self.version.to_bytes());
        bytes[24..40].copy_from_slice(&self.record_hash.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.heap_offset.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[52..54].copy_from_slice(&self.id_len.to_le_bytes());
        let check = Self::check(&bytes, slot);
        bytes[Self::CHECK..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    fn check(bytes: &[u8; Self::BYTES], slot: u32) -> u64 {
        xxh3_64_with_seed(&bytes[..Self::CHECK], slot.into())
    }

    pub(crate) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        Self {
            version: Version::from_bytes(part(bytes, 0)),
            record_hash: u128::from_le_bytes(*part(bytes, 24)),
            heap_offset: u64::from_le_bytes(*part(bytes, 40)),
            payload_len: u32::from_le_bytes(*part(bytes, 48)),
            id_len: u16::from_le_bytes(*part(bytes, 52)),
        }
    }

    /// Whether the bytes are what was written to this slot.
    pub(crate) fn is_whole(bytes: &[u8; Self::BYTES], slot: u32) -> bool {
        bytes[Self::CHECK..] == Self::check(bytes, slot).to_le_bytes()
            && bytes[Self::USED..Self::CHECK].iter().all(|b| *b == 0)
    }
}

/// `N` bytes at a fixed place.
fn part<const N: usize>(bytes: &[u8; SlotMeta::BYTES], at: usize) -> &[u8; N] {
    bytes[at..].first_chunk().expect("field inside the slot metadata")
}
