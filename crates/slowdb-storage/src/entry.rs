//! An entry of the id index, in memory and on the disk: 8 bytes.

/// A slot and the fingerprint of the id in it. Never all zeros, which is an empty place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    fingerprint: u32,
    slot: u32,
}

impl Entry {
    pub(crate) const BYTES: usize = 8;

    pub(crate) fn new(fingerprint: u32, slot: u32) -> Self {
        assert!(slot < u32::MAX, "slot numbers stay below the limit of a store");
        Self { fingerprint, slot }
    }

    pub(crate) fn fingerprint(self) -> u32 {
        self.fingerprint
    }

    pub(crate) fn slot(self) -> u32 {
        self.slot
    }

    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.fingerprint) << 32 | u64::from(self.slot + 1)
    }

    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        let slot = (bits as u32).checked_sub(1)?;
        Some(Self { fingerprint: (bits >> 32) as u32, slot })
    }
}
