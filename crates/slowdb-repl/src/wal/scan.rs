//! Reading the records of one segment, and judging the place where they end.
//!
//! Works on the bytes of a segment, decides with the table of `decide`, and knows nothing of files or groups.

use std::collections::BTreeSet;

use super::decide::{Action, Case, Damage, decide};
use super::format::{
    ALIGN, HEADER_AREA, RECORD_HEADER, RecordHeader, RecordType, SegmentHeader, body_check, record_bytes,
};

/// A segment's bytes, from its first on.
pub(super) struct Scan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header: SegmentHeader,
    /// What the checksums of its records depend on.
    pub(super) seed: u64,
    /// Whether openings and chain are checked.
    pub(super) checks_chain: bool,
    /// Where the records end, if the next segment says so: everything before is synced.
    pub(super) sealed_end: Option<u32>,
}

/// A record that was accepted.
#[derive(Clone, Copy)]
pub(super) struct Scanned<'a> {
    pub(super) offset: u32,
    pub(super) header: RecordHeader,
    pub(super) record_type: RecordType,
    pub(super) body: &'a [u8],
    /// The checksum of the record, which the next one is chained to.
    pub(super) check: u64,
}

impl Scanned<'_> {
    /// Where the next record starts.
    pub(super) fn end(&self) -> u32 {
        self.offset + record_bytes(self.body.len() as u64) as u32
    }
}

/// Where the records of a segment end.
pub(super) struct ScanEnd {
    pub(super) offset: u32,
    /// The checksum of the last record.
    pub(super) chain: u64,
    /// The highest watermark: everything before was synced.
    pub(super) watermark: u32,
}

/// Why a scan stopped early.
pub(super) enum ScanError<E> {
    /// Something synced is lost.
    Damaged { offset: u32, damage: Damage, groups: Vec<u64> },
    /// The visitor refused a record.
    Refused { offset: u32, error: E },
}

/// What was found at one place.
enum Found<'a> {
    Record(Scanned<'a>),
    Nothing(Case),
}

impl<'a> Scan<'a> {
    /// Hands the records to `visit`, in order, until the log ends.
    pub(super) fn run<E>(
        &self,
        mut visit: impl FnMut(Scanned<'a>) -> Result<(), E>,
    ) -> Result<ScanEnd, ScanError<E>> {
        let mut offset = HEADER_AREA;
        let mut chain = self.header.chain_start();
        let mut watermark = self.header.synced_end;
        loop {
            if Some(offset) == self.sealed_end {
                return Ok(ScanEnd { offset, chain, watermark: offset });
            }
            match self.examine(offset, chain) {
                Found::Record(record) => {
                    watermark = watermark.max(record.header.watermark);
                    chain = record.check;
                    visit(record).map_err(|error| ScanError::Refused { offset, error })?;
                    offset = record.end();
                }
                Found::Nothing(mut case) => {
                    let (later_watermark, groups) = self.look_beyond(offset);
                    let synced_end = self.sealed_end.unwrap_or(watermark.max(later_watermark));
                    case.synced = offset < synced_end;
                    match decide(case) {
                        Action::Corrupt(damage) => return Err(ScanError::Damaged { offset, damage, groups }),
                        Action::Accept | Action::End => return Ok(ScanEnd { offset, chain, watermark }),
                    }
                }
            }
        }
    }

    /// The end of the space for records.
    fn limit(&self) -> u32 {
        self.sealed_end.unwrap_or(self.bytes.len() as u32)
    }

    /// The header at `offset`, if there is one of this log, segment and place.
    fn header_at(&self, offset: u32) -> Option<(RecordHeader, u64)> {
        let bytes = self.bytes.get(offset as usize..offset as usize + RECORD_HEADER)?;
        RecordHeader::decode(bytes.try_into().ok()?, self.seed, offset)
    }

    /// What is at `offset`, if the record before it has the checksum `chain`.
    fn examine(&self, offset: u32, chain: u64) -> Found<'a> {
        let mut case =
            Case { header: false, opening: false, sane: false, chain: false, body: false, synced: false };
        let Some((header, check)) = self.header_at(offset) else {
            return Found::Nothing(case);
        };
        case.header = true;
        case.opening = header.opening == self.header.opening || !self.checks_chain;
        let Some(record_type) = header.record_type(offset, self.limit()) else {
            return Found::Nothing(case);
        };
        case.sane = true;
        case.chain = header.chain == chain || !self.checks_chain;
        let start = offset as usize + RECORD_HEADER;
        let body = &self.bytes[start..start + header.body_bytes as usize];
        case.body = body_check(body) == header.body_check;
        if decide(case) == Action::Accept {
            Found::Record(Scanned { offset, header, record_type, body, check })
        } else {
            Found::Nothing(case)
        }
    }

    /// Looks for records at and beyond a bad place: the highest watermark among them, and their groups.
    ///
    /// The length of a bad record cannot be trusted, so every aligned place is tried. What a payload holds is not
    /// mistaken for a record: the checksum depends on the log's id, the segment and the offset.
    fn look_beyond(&self, offset: u32) -> (u32, Vec<u64>) {
        let mut watermark = 0;
        let mut groups = BTreeSet::new();
        for place in (offset..self.limit()).step_by(ALIGN as usize) {
            let Some((header, _)) = self.header_at(place) else { continue };
            if header.opening != self.header.opening {
                continue;
            }
            let Some(record_type) = header.record_type(place, self.limit()) else { continue };
            watermark = watermark.max(header.watermark);
            if record_type != RecordType::Mark {
                groups.insert(header.group);
            }
        }
        (watermark, groups.into_iter().collect())
    }
}
