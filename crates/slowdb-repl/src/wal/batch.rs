//! Turning records into one vectored write at the end of a segment.

use std::io::{self, IoSlice};
use std::ops::Range;

use slowdb_disk::DiskFile;

use super::format::{
    ALIGN, KIND_RESET, PAGE, RECORD_HEADER, RecordHeader, RecordType, body_check, record_bytes,
};
use super::group::Effect;
use super::record::Record;
use super::scan::Scanned;

static ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

/// Bodies up to this length are copied next to their header: a slice of their own would cost more.
const COPIED_BODY_BYTES_MAX: usize = 512;

/// A record as it goes to the disk, but for its place.
pub(super) struct Item<'a> {
    record_type: RecordType,
    kind: u8,
    group: u64,
    term: u64,
    index: u64,
    body: Body<'a>,
}

enum Body<'a> {
    Bytes(&'a [u8]),
    Word([u8; 8]),
}

impl Body<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Word(word) => word,
        }
    }
}

impl<'a> Item<'a> {
    /// The record, whose effect on its group is known.
    pub(super) fn new(record: &'a Record, effect: Effect) -> Self {
        let group = record.group();
        let plain = Self {
            record_type: RecordType::Removed,
            kind: 0,
            group,
            term: 0,
            index: 0,
            body: Body::Bytes(&[]),
        };
        match record {
            Record::Entry { term, index, kind, data, .. } => Self {
                record_type: RecordType::Entry,
                kind: *kind,
                term: *term,
                index: *index,
                body: Body::Bytes(data),
                ..plain
            },
            Record::HardState { state, .. } => Self {
                record_type: RecordType::HardState,
                term: state.term,
                index: state.commit,
                body: Body::Word(state.vote.to_le_bytes()),
                ..plain
            },
            Record::Config { data, .. } => {
                Self { record_type: RecordType::Config, body: Body::Bytes(data), ..plain }
            }
            Record::Compacted { index, term, .. } => Self {
                record_type: RecordType::Compacted,
                kind: if matches!(effect, Effect::Reset(_)) { KIND_RESET } else { 0 },
                term: *term,
                index: *index,
                ..plain
            },
            Record::Snapshot { index, term, data, .. } => Self {
                record_type: RecordType::Snapshot,
                term: *term,
                index: *index,
                body: Body::Bytes(data),
                ..plain
            },
            Record::Overtaken { term, index, data, .. } => Self {
                record_type: RecordType::Overtaken,
                term: *term,
                index: *index,
                body: Body::Bytes(data),
                ..plain
            },
            Record::Settled { term, index, offset, .. } => Self {
                record_type: RecordType::Settled,
                term: *term,
                index: *index,
                body: Body::Word(offset.to_le_bytes()),
                ..plain
            },
            Record::Removed { .. } => plain,
        }
    }

    /// A record that says nothing but its watermark.
    pub(super) fn mark() -> Self {
        Self { record_type: RecordType::Mark, kind: 0, group: 0, term: 0, index: 0, body: Body::Bytes(&[]) }
    }

    /// A record that was read and is to be written again.
    pub(super) fn again(record: &Scanned<'a>) -> Self {
        Self {
            record_type: record.record_type,
            kind: record.header.kind,
            group: record.header.group,
            term: record.header.term,
            index: record.header.index,
            body: Body::Bytes(record.body),
        }
    }
}

/// What the record takes in a segment, in bytes.
pub(super) fn bytes_of(record: &Record) -> u64 {
    record_bytes(match record {
        Record::Entry { data, .. }
        | Record::Config { data, .. }
        | Record::Snapshot { data, .. }
        | Record::Overtaken { data, .. } => data.len() as u64,
        Record::HardState { .. } | Record::Settled { .. } => 8,
        Record::Compacted { .. } | Record::Removed { .. } => 0,
    })
}

/// The end of the log, in its newest segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    pub(super) seed: u64,
    pub(super) opening: u32,
    pub(super) segment_bytes: u32,
    /// Where the next record goes.
    pub(super) end: u32,
    /// Everything before is known to be synced.
    pub(super) synced: u32,
    /// The checksum of the last record.
    pub(super) chain: u64,
    /// Whether the last write was of nothing but a mark.
    pub(super) ends_with_mark: bool,
}

/// A piece of a write: from the scratch buffer, or the body of an item.
enum Piece {
    Scratch(Range<usize>),
    Body(usize),
}

impl Cursor {
    /// Writes the items, which fit into the segment, behind one another in one go, and moves on.
    ///
    /// After an error it is not known what was written; the cursor has not moved.
    pub(super) fn write(
        &mut self,
        file: &dyn DiskFile,
        items: &[Item<'_>],
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        scratch.clear();
        let mut pieces = Vec::new();
        let mut copied = 0;
        let mut next = *self;
        for (number, item) in items.iter().enumerate() {
            let body = item.body.bytes();
            let header = RecordHeader {
                chain: next.chain,
                body_check: body_check(body),
                watermark: self.synced,
                opening: self.opening,
                body_bytes: body.len() as u32,
                kind_byte: item.record_type as u8,
                kind: item.kind,
                group: item.group,
                term: item.term,
                index: item.index,
            };
            next.chain = header.encode(self.seed, next.end, scratch);
            if body.len() <= COPIED_BODY_BYTES_MAX {
                scratch.extend_from_slice(body);
            } else {
                pieces.push(Piece::Scratch(copied..scratch.len()));
                pieces.push(Piece::Body(number));
                copied = scratch.len();
            }
            let padding =
                (RECORD_HEADER + body.len()).next_multiple_of(ALIGN as usize) - RECORD_HEADER - body.len();
            scratch.extend_from_slice(&ZEROS[..padding]);
            next.end += record_bytes(body.len() as u64) as u32;
        }
        assert!(next.end <= self.segment_bytes, "a batch was planned beyond the end of its segment");
        pieces.push(Piece::Scratch(copied..scratch.len()));
        let slices: Vec<IoSlice<'_>> = pieces
            .into_iter()
            .map(|piece| match piece {
                Piece::Scratch(range) => IoSlice::new(&scratch[range]),
                Piece::Body(number) => IoSlice::new(items[number].body.bytes()),
            })
            .chain([IoSlice::new(&ZEROS[..self.fill(next.end)])])
            .filter(|slice| !slice.is_empty())
            .collect();
        file.write_at(&slices, u64::from(self.end))?;
        next.ends_with_mark = items.iter().all(|item| item.record_type == RecordType::Mark);
        *self = next;
        Ok(())
    }

    /// How many zeros complete the page in which a write ends.
    fn fill(&self, end: u32) -> usize {
        (end.next_multiple_of(PAGE).min(self.segment_bytes) - end) as usize
    }
}
