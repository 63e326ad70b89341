//! All groups of the log: staging a batch before it is written, and what must be written again before
//! old segments can go.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::InvalidRecord;
use super::format::{KIND_RESET, RecordType, u64_at};
use super::group::{Effect, Group};
use super::record::{HardState, Record};
use super::scan::Scanned;

/// All groups: the live ones, and the marks of those that were removed.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) live: BTreeMap<u64, Group>,
    /// Group to the segment with the latest copy of its removal mark.
    pub(super) removed: BTreeMap<u64, u64>,
    /// Overtaken proposals that are not settled, each with the segment that has its latest copy.
    pub(super) overtaken: BTreeMap<OvertakenKey, (u64, Bytes)>,
}

/// Group, term, index and offset of an overtaken proposal.
pub(super) type OvertakenKey = (u64, u64, u64, u64);

/// The effects of a batch that is not written yet: `None` for groups that it removes.
#[derive(Default)]
pub(super) struct Staged {
    groups: BTreeMap<u64, Option<Group>>,
    removed: Vec<(u64, u64)>,
    /// Overtaken proposals that it adds, and those that it settles.
    overtaken: Vec<(OvertakenKey, Option<(u64, Bytes)>)>,
}

/// A group that keeps a segment from being released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The group.
    pub group: u64,
    /// Once the group is compacted up to this index, it does not need the segment any more.
    pub last_index: u64,
}

impl Groups {
    /// Checks a record that is to be written to `segment`, and remembers its effect in `staged`.
    pub(super) fn stage(
        &self,
        staged: &mut Staged,
        record: &Record,
        segment: u64,
    ) -> Result<Effect, InvalidRecord> {
        let group = record.group();
        if let Record::Removed { .. } = record {
            staged.groups.insert(group, None);
            staged.removed.push((group, segment));
            return Ok(Effect::Remove);
        }
        // These are kept whatever becomes of the group.
        match record {
            Record::Overtaken { term, index, data, .. } => {
                let Some(offset) = data.first_chunk() else {
                    return Err(InvalidRecord::OvertakenCutOff { group, bytes: data.len() });
                };
                let key = (group, *term, *index, u64::from_le_bytes(*offset));
                staged.overtaken.push((key, Some((segment, data.clone()))));
                return Ok(Effect::None);
            }
            Record::Settled { term, index, offset, .. } => {
                staged.overtaken.push(((group, *term, *index, *offset), None));
                return Ok(Effect::None);
            }
            _ => {}
        }
        let slot = staged.groups.entry(group).or_insert_with(|| {
            let removed = self.removed.contains_key(&group);
            (!removed).then(|| self.live.get(&group).cloned().unwrap_or_else(|| Group::new(true)))
        });
        let Some(state) = slot else {
            return Err(InvalidRecord::Removed { group });
        };
        match record {
            Record::Entry { leader_term, term, index, .. } => {
                state.entry(group, *leader_term, *term, *index, segment)
            }
            Record::HardState { state: new, .. } => state.hard_state(group, *new, segment),
            Record::Config { data, .. } => Ok(state.config(data.clone(), segment)),
            Record::Compacted { index, term, .. } => state.compacted(group, *index, *term, segment),
            Record::Snapshot { index, term, data, .. } => {
                state.snapshot(group, *index, *term, data.clone(), segment)
            }
            Record::Removed { .. } | Record::Overtaken { .. } | Record::Settled { .. } => Ok(Effect::None),
        }
    }

    /// The batch was written.
    pub(super) fn commit(&mut self, staged: Staged) {
        for (group, state) in staged.groups {
            match state {
                Some(state) => self.live.insert(group, state),
                None => self.live.remove(&group),
            };
        }
        self.removed.extend(staged.removed);
        for (key, state) in staged.overtaken {
            self.note_overtaken(key, state);
        }
    }

    fn note_overtaken(&mut self, key: OvertakenKey, state: Option<(u64, Bytes)>) {
        match state {
            Some(state) => self.overtaken.insert(key, state),
            None => self.overtaken.remove(&key),
        };
    }

    /// Takes in a record that was read. `from_the_beginning`: the log still has its first segment.
    pub(super) fn replay(
        &mut self,
        record: &Scanned<'_>,
        segment: u64,
        from_the_beginning: bool,
    ) -> Result<Effect, InvalidRecord> {
        let header = &record.header;
        let (group, term, index) = (header.group, header.term, header.index);
        match record.record_type {
            RecordType::Mark => return Ok(Effect::None),
            RecordType::Overtaken | RecordType::Settled => {
                let key = (group, term, index, u64_at(record.body, 0));
                let is_kept = record.record_type == RecordType::Overtaken;
                self.note_overtaken(key, is_kept.then(|| (segment, Bytes::copy_from_slice(record.body))));
                return Ok(Effect::None);
            }
            RecordType::Removed => {
                self.live.remove(&group);
                self.removed.insert(group, segment);
                return Ok(Effect::Remove);
            }
            _ if self.removed.contains_key(&group) => return Err(InvalidRecord::Removed { group }),
            _ => {}
        }
        let state = self.live.entry(group).or_insert_with(|| Group::new(from_the_beginning));
        match record.record_type {
            RecordType::Entry => state.entry(group, u64::MAX, term, index, segment),
            RecordType::HardState => {
                let vote = u64_at(record.body, 0);
                state.hard_state(group, HardState { term, vote, commit: index }, segment)
            }
            RecordType::Config => Ok(state.config(Bytes::copy_from_slice(record.body), segment)),
            RecordType::Compacted if header.kind == KIND_RESET => {
                state.replay_reset(group, index, term, segment)
            }
            RecordType::Compacted => state.replay_trim(group, index, term, segment),
            RecordType::Snapshot => {
                let data = Bytes::copy_from_slice(record.body);
                state.snapshot(group, index, term, data, segment)
            }
            RecordType::Removed | RecordType::Mark | RecordType::Overtaken | RecordType::Settled => {
                Ok(Effect::None)
            }
        }
    }

    /// The oldest segment that holds an entry which is needed.
    pub(super) fn first_segment(&self) -> Option<u64> {
        self.live.values().filter_map(Group::first_segment).min()
    }

    /// The groups that need entries of `segment` or an older one.
    pub(super) fn pins(&self, segment: u64) -> Vec<Pin> {
        let pin = |(group, state): (&u64, &Group)| {
            let last_index = state.last_index_in(segment)?;
            Some(Pin { group: *group, last_index })
        };
        self.live.iter().filter_map(pin).collect()
    }

    /// What must be written again so that segments older than `keep` hold nothing that is not elsewhere too.
    pub(super) fn restate(&self, keep: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for (group, state) in &self.live {
            let old = state.only_before(keep);
            if old.base {
                records.push(Record::Compacted { group: *group, index: state.base.0, term: state.base.1 });
            }
            if let (true, Some(data)) = (old.config, &state.config) {
                records.push(Record::Config { group: *group, data: data.clone() });
            }
            if old.hard {
                records.push(Record::HardState { group: *group, state: state.hard });
            }
        }
        for ((group, term, index, _), (segment, data)) in &self.overtaken {
            if *segment < keep {
                let data = data.clone();
                records.push(Record::Overtaken { group: *group, term: *term, index: *index, data });
            }
        }
        let marks = self.removed.iter().filter(|(_, segment)| **segment < keep);
        records.extend(marks.map(|(group, _)| Record::Removed { group: *group }));
        records
    }
}
