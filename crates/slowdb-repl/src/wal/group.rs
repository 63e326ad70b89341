//! What the log knows of a group, and which records may follow.
//!
//! The same rules check a batch before it is appended and the records that are read when the log is opened.
//! Payloads are no concern here; of each entry only its term and the segment that holds it are kept, as runs.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::InvalidRecord;
use super::record::HardState;

/// A map from indices to values that change rarely: term or segment by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// (first index, value), ascending.
    runs: VecDeque<(u64, u64)>,
}

impl Runs {
    fn push(&mut self, index: u64, value: u64) {
        if self.runs.back().is_none_or(|(_, last)| *last != value) {
            self.runs.push_back((index, value));
        }
    }

    /// Forgets everything from `index` on.
    fn cut_from(&mut self, index: u64) {
        while self.runs.back().is_some_and(|(first, _)| *first >= index) {
            self.runs.pop_back();
        }
    }

    /// Forgets everything up to `index`.
    fn trim_to(&mut self, index: u64) {
        while self.runs.get(1).is_some_and(|(first, _)| *first <= index + 1) {
            self.runs.pop_front();
        }
        if let Some((first, _)) = self.runs.front_mut() {
            *first = (*first).max(index + 1);
        }
    }

    fn at(&self, index: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        after.checked_sub(1).map(|run| self.runs[run].1)
    }
}

/// What happened to a group's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// Entries from this index on were cut, and one was appended there.
    Append(u64),
    /// All entries are gone, and so is the group.
    Remove,
    /// Entries up to this index are gone.
    Trim(u64),
    /// All entries are gone; the next one follows on this index.
    Reset(u64),
}

/// Everything the log knows of one live group.
///
/// Invariants: if `exact`, then `base_known`, and `base.0 <= hard.commit <= last`; `hard.term` is at least the term of the last
/// entry; `last >= base.0`; the runs cover exactly the indices in `(base.0, last]`.
///
/// An open log knows its groups exactly. While a log is read that no longer starts at its beginning, what it says of
/// a group may at first hang in the air: its entries may start anywhere, and a compaction may be to an index
/// below entries that are not there any more because a later compaction, still to come, goes beyond them.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) hard: HardState,
    pub(super) config: Option<Bytes>,
    /// Index and term of the entry before the first one.
    pub(super) base: (u64, u64),
    /// Whether the term of `base` is known.
    base_known: bool,
    /// The last compaction read while the group is not known exactly.
    seen_base: Option<(u64, u64)>,
    /// Whether this is what the group is, and not only what could be seen of it so far.
    exact: bool,
    pub(super) last: u64,
    terms: Runs,
    segments: Runs,
    /// The segments with the latest copy of hard state, membership and compaction. What entries and compactions say
    /// about the hard state is not all of it, so they do not count as a copy.
    hard_at: Option<u64>,
    config_at: Option<u64>,
    base_at: Option<u64>,
}

impl Group {
    /// A group of which nothing was read yet. `from_the_beginning`: the log still has its first segment.
    pub(super) fn new(from_the_beginning: bool) -> Self {
        Self {
            hard: HardState::default(),
            config: None,
            base: (0, 0),
            base_known: from_the_beginning,
            seen_base: None,
            exact: from_the_beginning,
            last: 0,
            terms: Runs::default(),
            segments: Runs::default(),
            hard_at: None,
            config_at: None,
            base_at: None,
        }
    }

    /// The term of the entry at `index`, if it is known.
    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            self.base_known.then_some(self.base.1)
        } else if index > self.base.0 && index <= self.last {
            self.terms.at(index)
        } else {
            None
        }
    }

    /// An entry is appended to `segment`.
    pub(super) fn entry(
        &mut self,
        group: u64,
        leader_term: u64,
        term: u64,
        index: u64,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        self.check_entry(group, leader_term, term, index)?;
        if !self.exact && (self.is_empty() || index <= self.base.0) {
            // What is cut here, or never seen, may be all there was after the last compaction.
            let seen = self.seen_base.filter(|seen| seen.0 == index - 1);
            self.base = seen.unwrap_or((index - 1, 0));
            self.base_known = seen.is_some();
            self.exact = seen.is_some();
        }
        self.terms.cut_from(index);
        self.segments.cut_from(index);
        self.terms.push(index, term);
        self.segments.push(index, segment);
        self.last = index;
        if term > self.hard.term {
            // Whoever has an entry of a term is in that term at least.
            self.hard = HardState { term, vote: 0, commit: self.hard.commit };
            self.hard_at.get_or_insert(segment);
        }
        Ok(Effect::Append(index))
    }

    fn is_empty(&self) -> bool {
        self.last == self.base.0
    }

    fn check_entry(&self, group: u64, leader_term: u64, term: u64, index: u64) -> Result<(), InvalidRecord> {
        check_range(group, index, term)?;
        if leader_term < self.hard.term {
            return Err(InvalidRecord::StaleLeader { group, leader_term, current: self.hard.term });
        }
        if term > leader_term {
            return Err(InvalidRecord::BeyondLeader { group, index, term, leader_term });
        }
        if index <= self.hard.commit {
            return Err(InvalidRecord::Committed { group, index, commit: self.hard.commit });
        }
        if index > self.last + 1 && (self.exact || !self.is_empty()) {
            return Err(InvalidRecord::Gap { group, index, expected: self.last + 1 });
        }
        match self.term_at(index - 1) {
            Some(previous) if term < previous => {
                Err(InvalidRecord::TermGoesBack { group, index, term, previous })
            }
            _ => Ok(()),
        }
    }

    /// A hard state is appended to `segment`.
    pub(super) fn hard_state(
        &mut self,
        group: u64,
        new: HardState,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        let current = self.hard;
        if new.term < current.term || new.commit < current.commit {
            return Err(InvalidRecord::HardStateGoesBack { group, current, new });
        }
        if new.term == current.term && current.vote != 0 && new.vote != current.vote {
            return Err(InvalidRecord::VoteChanged { group, current, new });
        }
        if self.exact && new.commit > self.last {
            return Err(InvalidRecord::CommitBeyondEnd { group, commit: new.commit, last: self.last });
        }
        self.hard = new;
        self.hard_at = Some(segment);
        Ok(Effect::None)
    }

    /// A membership is appended to `segment`.
    pub(super) fn config(&mut self, data: Bytes, segment: u64) -> Effect {
        self.config = Some(data);
        self.config_at = Some(segment);
        Effect::None
    }

    /// A compaction is appended to `segment`.
    ///
    /// What has no entry of this index and term has another history behind it: its entries all go.
    pub(super) fn compacted(
        &mut self,
        group: u64,
        index: u64,
        term: u64,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        if (index, term) != (0, 0) {
            check_range(group, index, term)?;
        }
        if index < self.base.0 {
            return Err(InvalidRecord::CompactedGoesBack { group, index, current: self.base.0 });
        }
        match self.term_at(index) {
            Some(current) if current != term && index <= self.hard.commit => {
                Err(InvalidRecord::CompactedTerm { group, index, term, current })
            }
            Some(current) if current == term => Ok(self.trim(index, term, segment)),
            _ => Ok(self.reset(index, term, segment)),
        }
    }

    /// A compaction that dropped no entries above `index` was read.
    pub(super) fn replay_trim(
        &mut self,
        group: u64,
        index: u64,
        term: u64,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        if (index, term) != (0, 0) {
            check_range(group, index, term)?;
        }
        if self.exact {
            let effect = self.compacted(group, index, term, segment)?;
            return match effect {
                Effect::Reset(_) => Err(InvalidRecord::Gap { group, index, expected: self.last + 1 }),
                other => Ok(other),
            };
        }
        let is_known_otherwise = self.term_at(index).is_some_and(|current| current != term);
        if is_known_otherwise || (index > self.last && !self.is_empty()) {
            let current = self.term_at(index).unwrap_or_default();
            return Err(InvalidRecord::CompactedTerm { group, index, term, current });
        }
        self.seen_base = Some((index, term));
        self.note_compaction(index, term, segment);
        if index < self.base.0 {
            // Either older segments held what came between, and a later compaction follows; or all that is cut.
            return Ok(Effect::None);
        }
        if self.is_empty() {
            // There may have been entries above, in segments that are gone; then a later one follows.
            self.last = index;
            self.base = (index, term);
            self.base_known = true;
            return Ok(Effect::Trim(index));
        }
        self.exact = true;
        Ok(self.trim(index, term, segment))
    }

    fn trim(&mut self, index: u64, term: u64, segment: u64) -> Effect {
        if index == self.last {
            self.terms = Runs::default();
            self.segments = Runs::default();
        } else {
            self.terms.trim_to(index);
            self.segments.trim_to(index);
        }
        self.rebase(index, term, segment);
        Effect::Trim(index)
    }

    /// A compaction that dropped all the group's entries was read.
    pub(super) fn replay_reset(
        &mut self,
        group: u64,
        index: u64,
        term: u64,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        check_range(group, index, term)?;
        if self.exact && index < self.base.0 {
            return Err(InvalidRecord::CompactedGoesBack { group, index, current: self.base.0 });
        }
        Ok(self.reset(index, term, segment))
    }

    /// The group goes on from a snapshot, written to `segment`.
    pub(super) fn snapshot(
        &mut self,
        group: u64,
        index: u64,
        term: u64,
        config: Bytes,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        check_range(group, index, term)?;
        if self.exact && index < self.hard.commit {
            return Err(InvalidRecord::SnapshotGoesBack { group, index, commit: self.hard.commit });
        }
        self.config(config, segment);
        Ok(self.reset(index, term, segment))
    }

    /// All entries go; the next one is the one after `index`.
    fn reset(&mut self, index: u64, term: u64, segment: u64) -> Effect {
        self.terms = Runs::default();
        self.segments = Runs::default();
        self.last = index;
        self.exact = true;
        self.rebase(index, term, segment);
        Effect::Reset(index)
    }

    fn rebase(&mut self, index: u64, term: u64, segment: u64) {
        self.base = (index, term);
        self.base_known = true;
        self.note_compaction(index, term, segment);
    }

    /// A compaction is written down in `segment`, and says something about the hard state too.
    fn note_compaction(&mut self, index: u64, term: u64, segment: u64) {
        self.base_at = Some(segment);
        if self.hard.commit < index || self.hard.term < term {
            let newer = term > self.hard.term;
            self.hard = HardState {
                term: self.hard.term.max(term),
                vote: if newer { 0 } else { self.hard.vote },
                commit: self.hard.commit.max(index),
            };
            self.hard_at.get_or_insert(segment);
        }
    }

    /// Everything was read: says what is missing, if anything is.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        if !self.base_known {
            if self.base.0 != 0 {
                return Err(format!("its log starts at entry {} without a compaction", self.base.0 + 1));
            }
            self.base_known = true;
        }
        self.exact = true;
        if self.hard.commit > self.last {
            return Err(format!("commit index {} is beyond its last entry, {}", self.hard.commit, self.last));
        }
        Ok(())
    }

    /// The oldest segment with an entry that is needed.
    pub(super) fn first_segment(&self) -> Option<u64> {
        self.segments.runs.front().map(|(_, segment)| *segment)
    }

    /// The last index that keeps `segment` or an older one needed.
    pub(super) fn last_index_in(&self, segment: u64) -> Option<u64> {
        let older = self.segments.runs.partition_point(|(_, sequence)| *sequence <= segment);
        (older > 0).then(|| self.segments.runs.get(older).map_or(self.last, |(first, _)| first - 1))
    }

    /// Which of hard state, membership and compaction have their latest copy in a segment older than `keep`.
    pub(super) fn only_before(&self, keep: u64) -> StateRecords {
        let old = |at: Option<u64>| at.is_some_and(|segment| segment < keep);
        StateRecords { hard: old(self.hard_at), config: old(self.config_at), base: old(self.base_at) }
    }
}

/// Indices and terms count from 1, and are kept away from where adding 1 would wrap around.
fn check_range(group: u64, index: u64, term: u64) -> Result<(), InvalidRecord> {
    let range = 1..=u64::MAX / 2;
    if range.contains(&index) && range.contains(&term) {
        Ok(())
    } else {
        Err(InvalidRecord::OutOfRange { group, index, term })
    }
}

/// A choice among the records that hold a group's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateRecords {
    pub(super) hard: bool,
    pub(super) config: bool,
    pub(super) base: bool,
}
