//! The bytes of the log: segment headers and record headers, checksums and alignment.
//!
//! Pure encoding and decoding; the layouts are drawn in `docs/format.md`. Nothing here decides what a bad
//! record means, that is `decide`.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// First bytes of every segment header.
const MAGIC: [u8; 8] = *b"SLOWDBWL";
/// The format written, and the only one understood.
pub(super) const VERSION: u32 = 1;
/// Bytes at the beginning of a segment that hold the two copies of its header.
pub(super) const HEADER_AREA: u32 = 8192;
/// Where the copies lie: in different blocks, so that no single block's loss takes both.
pub(super) const COPY_OFFSETS: [u64; 2] = [0, 4096];
/// Records start at multiples of this, so that a record header never straddles two sectors, and so that
/// looking for records beyond a bad one need not look everywhere.
pub(super) const ALIGN: u32 = 64;
/// Length of a record header, in bytes.
pub(super) const RECORD_HEADER: usize = 64;
/// A write is filled up with zeros to a multiple of this: a page that is written in full need not be read
/// from the disk first when its segment is used again.
pub(super) const PAGE: u32 = 4096;
/// Length of a segment header, in bytes.
pub(super) const SEGMENT_HEADER: usize = 96;

const _: () = assert!(RECORD_HEADER == ALIGN as usize);
const _: () = assert!(HEADER_AREA.is_multiple_of(PAGE) && PAGE.is_multiple_of(ALIGN));
const _: () = assert!(COPY_OFFSETS[1] + SEGMENT_HEADER as u64 <= HEADER_AREA as u64);

/// The header of a segment: what the segment is, and where the log before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) log_id: u64,
    /// The opening of the log that wrote the segment, from 1.
    pub(super) opening: u32,
    /// The segment's place in the log, from 1. Ascending, but an opening may leave numbers out.
    pub(super) sequence: u64,
    /// Whether the segment is part of the log yet. If not, its opening number is taken all the same.
    pub(super) active: bool,
    /// The sequence of the oldest segment that is needed.
    pub(super) first_needed: u64,
    /// The size of the file, in bytes.
    pub(super) segment_bytes: u64,
    /// The sequence of the segment before this one, 0 for none.
    pub(super) prev_sequence: u64,
    /// Where the log ended in that segment: everything before is synced, everything after is void.
    pub(super) prev_end: u32,
    /// Records of this segment before this offset were synced before the header was written.
    pub(super) synced_end: u32,
    /// The checksum of the last record before `prev_end`.
    pub(super) prev_chain: u64,
}

/// One copy of a segment header, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderCopy {
    /// Never written.
    Zero,
    /// Something that is not a header.
    Bad,
    /// A header of a format that is not known.
    Version(u32),
    /// A header.
    Valid(SegmentHeader),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut out = [0; SEGMENT_HEADER];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&if self.active { 2u32 } else { 1 }.to_le_bytes());
        out[16..24].copy_from_slice(&self.log_id.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..36].copy_from_slice(&self.opening.to_le_bytes());
        // 36..40 is reserved and zero.
        out[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        out[48..56].copy_from_slice(&self.first_needed.to_le_bytes());
        out[56..64].copy_from_slice(&self.prev_sequence.to_le_bytes());
        out[64..68].copy_from_slice(&self.prev_end.to_le_bytes());
        out[68..72].copy_from_slice(&self.synced_end.to_le_bytes());
        out[72..80].copy_from_slice(&self.prev_chain.to_le_bytes());
        // 80..88 is reserved and zero.
        let sum = xxh3_64(&out[..88]);
        out[88..96].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER]) -> HeaderCopy {
        if bytes.iter().all(|byte| *byte == 0) {
            return HeaderCopy::Zero;
        }
        if bytes[..8] != MAGIC || u64_at(bytes, 88) != xxh3_64(&bytes[..88]) {
            return HeaderCopy::Bad;
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return HeaderCopy::Version(version);
        }
        let header = Self {
            log_id: u64_at(bytes, 16),
            opening: u32_at(bytes, 32),
            sequence: u64_at(bytes, 24),
            active: u32_at(bytes, 12) == 2,
            first_needed: u64_at(bytes, 48),
            segment_bytes: u64_at(bytes, 40),
            prev_sequence: u64_at(bytes, 56),
            prev_end: u32_at(bytes, 64),
            synced_end: u32_at(bytes, 68),
            prev_chain: u64_at(bytes, 72),
        };
        if header.makes_sense() && header.encode() == *bytes {
            HeaderCopy::Valid(header)
        } else {
            HeaderCopy::Bad
        }
    }

    fn makes_sense(&self) -> bool {
        let synced_end = u64::from(self.synced_end);
        self.opening > 0
            && (1..u64::MAX / 2).contains(&self.sequence)
            && self.prev_sequence < self.sequence
            && (1..=self.sequence).contains(&self.first_needed)
            && (u64::from(HEADER_AREA)..=self.segment_bytes).contains(&synced_end)
            && self.segment_bytes <= super::options::SEGMENT_BYTES_MAX
            && self.synced_end.is_multiple_of(ALIGN)
            && self.prev_end.is_multiple_of(ALIGN)
            && (self.prev_sequence == 0) == (self.prev_end == 0)
            && (self.prev_end == 0 || self.prev_end >= HEADER_AREA)
    }

    /// Which of two copies is the newer one.
    pub(super) fn age(&self) -> (u32, u64, bool, u64) {
        (self.opening, self.sequence, self.active, self.first_needed)
    }

    /// What the checksums of the segment's records depend on: the log and the segment's place in it.
    pub(super) fn seed(&self) -> u64 {
        record_seed(self.log_id, self.sequence)
    }

    /// What the first record of the segment is chained to.
    pub(super) fn chain_start(&self) -> u64 {
        xxh3_64_with_seed(&self.opening.to_le_bytes(), self.seed())
    }
}

/// What the checksums of a segment's records depend on.
pub(super) fn record_seed(log_id: u64, sequence: u64) -> u64 {
    xxh3_64_with_seed(&sequence.to_le_bytes(), log_id)
}

/// What a record is. The numbers are on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordType {
    Entry = 1,
    HardState = 2,
    Config = 3,
    Compacted = 4,
    Removed = 5,
    /// Says nothing but its watermark.
    Mark = 6,
    Snapshot = 7,
    Overtaken = 8,
    Settled = 9,
}

impl RecordType {
    fn from_byte(byte: u8) -> Option<Self> {
        use RecordType as T;
        const ALL: [T; 9] = [
            T::Entry,
            T::HardState,
            T::Config,
            T::Compacted,
            T::Removed,
            T::Mark,
            T::Snapshot,
            T::Overtaken,
            T::Settled,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// `RecordHeader::kind` of a [`RecordType::Compacted`] that dropped all the group's entries.
pub(super) const KIND_RESET: u8 = 1;

/// The header of a record. What `term` and `index` are depends on the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Checksum of the record before it.
    pub(super) chain: u64,
    pub(super) body_check: u64,
    /// Everything in this segment before this offset was synced when the record was written.
    pub(super) watermark: u32,
    pub(super) opening: u32,
    pub(super) body_bytes: u32,
    /// The byte of a [`RecordType`].
    pub(super) kind_byte: u8,
    /// An entry's kind, or [`KIND_RESET`].
    pub(super) kind: u8,
    pub(super) group: u64,
    pub(super) term: u64,
    /// An index; of a hard state its commit index.
    pub(super) index: u64,
}

impl RecordHeader {
    /// Appends the header to `out` and returns its checksum, which stands for the whole record.
    pub(super) fn encode(&self, seed: u64, offset: u32, out: &mut Vec<u8>) -> u64 {
        let mut bytes = [0; RECORD_HEADER];
        bytes[8..16].copy_from_slice(&self.chain.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.body_check.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.watermark.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.opening.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[36] = self.kind_byte;
        bytes[37] = self.kind;
        // 38..40 is reserved and zero.
        bytes[40..48].copy_from_slice(&self.group.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.term.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.index.to_le_bytes());
        let check = header_check(&bytes, seed, offset);
        bytes[0..8].copy_from_slice(&check.to_le_bytes());
        out.extend_from_slice(&bytes);
        check
    }

    /// The header at `offset` and its checksum, if there is one.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER], seed: u64, offset: u32) -> Option<(Self, u64)> {
        let check = u64_at(bytes, 0);
        if check != header_check(bytes, seed, offset) {
            return None;
        }
        let header = Self {
            chain: u64_at(bytes, 8),
            body_check: u64_at(bytes, 16),
            watermark: u32_at(bytes, 24),
            opening: u32_at(bytes, 28),
            body_bytes: u32_at(bytes, 32),
            kind_byte: bytes[36],
            kind: bytes[37],
            group: u64_at(bytes, 40),
            term: u64_at(bytes, 48),
            index: u64_at(bytes, 56),
        };
        Some((header, check))
    }

    /// The record's type, if the header can be one at `offset` of a segment that ends at `limit`.
    pub(super) fn record_type(&self, offset: u32, limit: u32) -> Option<RecordType> {
        let kind = RecordType::from_byte(self.kind_byte)?;
        let body_is_right = match kind {
            RecordType::Entry | RecordType::Config | RecordType::Snapshot => true,
            RecordType::HardState | RecordType::Settled => self.body_bytes == 8,
            RecordType::Overtaken => self.body_bytes >= 8,
            RecordType::Compacted | RecordType::Removed | RecordType::Mark => self.body_bytes == 0,
        };
        let watermark_is_right =
            self.watermark >= HEADER_AREA && self.watermark <= offset && self.watermark.is_multiple_of(ALIGN);
        let end = u64::from(offset) + record_bytes(u64::from(self.body_bytes));
        (body_is_right && watermark_is_right && end <= u64::from(limit)).then_some(kind)
    }
}

fn header_check(bytes: &[u8; RECORD_HEADER], seed: u64, offset: u32) -> u64 {
    xxh3_64_with_seed(&bytes[8..], seed.wrapping_add(u64::from(offset)))
}

/// Checksum of a record's body.
pub(super) fn body_check(body: &[u8]) -> u64 {
    xxh3_64(body)
}

/// What a record with a body of this length takes in a segment, in bytes.
pub(super) fn record_bytes(body_bytes: u64) -> u64 {
    (RECORD_HEADER as u64 + body_bytes).next_multiple_of(u64::from(ALIGN))
}

/// The little-endian number at `offset`, which lies inside `bytes`.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

/// The little-endian number at `offset`, which lies inside `bytes`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(word)
}
