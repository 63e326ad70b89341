//! What recovery does with a record, as a table.
//!
//! Six questions with yes or no are asked about the place where the next record should be; the table has
//! exactly one row for each of the 64 answers, which a test goes through. The same table is in `docs/format.md`.

use super::error::CorruptionKind;

/// What is found where the next record should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// The header's checksum is right for this log, this segment and this offset.
    pub(super) header: bool,
    /// The record is of the opening that wrote the segment.
    pub(super) opening: bool,
    /// The header makes sense: known type, lengths that fit, a watermark not above the record.
    pub(super) sane: bool,
    /// The record names the checksum of the record before it.
    pub(super) chain: bool,
    /// The body's checksum is right.
    pub(super) body: bool,
    /// The place was synced: it is below a watermark written later, or below the end that the next segment names.
    pub(super) synced: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Take the record.
    Accept,
    /// The log ends here: what was here, if anything, was never synced.
    End,
    /// Something synced is lost: report it.
    Corrupt(Damage),
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Header,
    Opening,
    Malformed,
    Chain,
    Body,
}

impl Damage {
    pub(super) fn kind(self) -> CorruptionKind {
        match self {
            Self::Header => CorruptionKind::RecordHeader,
            Self::Opening => CorruptionKind::RecordOpening,
            Self::Malformed => CorruptionKind::RecordMalformed,
            Self::Chain => CorruptionKind::RecordChain,
            Self::Body => CorruptionKind::RecordBody,
        }
    }
}

/// A condition on one of the answers: yes, no, or either.
type Is = Option<bool>;
const Y: Is = Some(true);
const N: Is = Some(false);
const ANY: Is = None;

/// One row: conditions on header, opening, sane, chain, body, synced; and what to do.
pub(super) struct Row(Is, Is, Is, Is, Is, Is, Action);

/// The decisions. Rows do not overlap, so their order does not matter.
pub(super) const TABLE: [Row; 10] = [
    // A sector that was lost, or never written, or damaged afterwards.
    Row(N, ANY, ANY, ANY, ANY, N, Action::End),
    Row(N, ANY, ANY, ANY, ANY, Y, Action::Corrupt(Damage::Header)),
    // Left behind by an opening that a crash ended before its segment became part of the log.
    Row(Y, N, ANY, ANY, ANY, N, Action::End),
    Row(Y, N, ANY, ANY, ANY, Y, Action::Corrupt(Damage::Opening)),
    // No crash makes a checksum come out right over nonsense, synced or not.
    Row(Y, Y, N, ANY, ANY, ANY, Action::Corrupt(Damage::Malformed)),
    // The record before it is not the one it was written behind.
    Row(Y, Y, Y, N, ANY, N, Action::End),
    Row(Y, Y, Y, N, ANY, Y, Action::Corrupt(Damage::Chain)),
    // The header arrived, the body did not, or was damaged afterwards.
    Row(Y, Y, Y, Y, N, N, Action::End),
    Row(Y, Y, Y, Y, N, Y, Action::Corrupt(Damage::Body)),
    // All is well. Above the last watermark too: it arrived without having been promised.
    Row(Y, Y, Y, Y, Y, ANY, Action::Accept),
];

impl Row {
    pub(super) fn matches(&self, case: Case) -> bool {
        let fits = |condition: Is, answer: bool| condition.is_none_or(|wanted| wanted == answer);
        fits(self.0, case.header)
            && fits(self.1, case.opening)
            && fits(self.2, case.sane)
            && fits(self.3, case.chain)
            && fits(self.4, case.body)
            && fits(self.5, case.synced)
    }

    pub(super) fn action(&self) -> Action {
        self.6
    }
}

/// What to do in this case.
pub(super) fn decide(case: Case) -> Action {
    let row = TABLE.iter().find(|row| row.matches(case));
    // The table is exhaustive, which a test proves; were it not, refusing would be the safe answer.
    row.map_or(Action::Corrupt(Damage::Malformed), Row::action)
}
