//! A group's log as the consensus engine reads it: recent entries in memory, older ones on disk.
//!
//! Invariants: indexes run without gaps from `compacted.index + 1`; an entry without data in memory has a
//! location on disk; terms never fall.

use crate::ids::{Membership, Part, ReplicaId};
use crate::quarantine::CutEntry;
use crate::wal::{HardState, Location, RecoveredGroup, WalReader};
use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

/// Data of entries that are durable and applied is dropped from memory beyond this many bytes.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

struct Slot {
    term: u64,
    kind: EntryType,
    len: u32,
    data: Option<Bytes>,
    location: Option<Location>,
}

pub(crate) struct GroupLog {
    hard_state: HardState,
    config: ConfState,
    compacted_index: u64,
    compacted_term: u64,
    slots: VecDeque<Slot>,
    /// Entries up to here are without data in memory, or were.
    evicted: u64,
    cached_bytes: u64,
    /// Of all entries, in memory or not.
    bytes: u64,
    reader: WalReader,
    /// Members that need what this log does not hold any more.
    behind: RefCell<BTreeSet<ReplicaId>>,
}

impl GroupLog {
    pub(crate) fn new(membership: &Membership, reader: WalReader) -> Self {
        GroupLog {
            hard_state: HardState { term: 0, vote: 0, commit: 0 },
            config: conf_state(membership),
            compacted_index: 0,
            compacted_term: 0,
            slots: VecDeque::new(),
            evicted: 0,
            cached_bytes: 0,
            bytes: 0,
            reader,
            behind: RefCell::default(),
        }
    }

    /// Takes over what the log on disk holds of this group.
    pub(crate) fn recover(&mut self, recovered: &RecoveredGroup) {
        self.hard_state = recovered.hard_state;
        (self.compacted_index, self.compacted_term) = recovered.compacted;
        self.slots = recovered
            .entries
            .iter()
            .map(|meta| Slot {
                term: meta.term,
                kind: kind_from_byte(meta.kind),
                len: meta.len,
                data: None,
                location: Some(meta.location),
            })
            .collect();
        self.evicted = self.last();
        self.bytes = self.slots.iter().map(|slot| u64::from(slot.len)).sum();
    }

    /// Goes on from a snapshot: all entries are gone.
    pub(crate) fn restore(&mut self, index: u64, term: u64, membership: &Membership) {
        self.slots.clear();
        self.cached_bytes = 0;
        self.bytes = 0;
        self.evicted = index;
        (self.compacted_index, self.compacted_term) = (index, term);
        self.config = conf_state(membership);
        self.hard_state.commit = self.hard_state.commit.max(index);
        self.hard_state.term = self.hard_state.term.max(term);
    }

    /// From now on these are the members.
    pub(crate) fn set_config(&mut self, membership: &Membership) {
        self.config = conf_state(membership);
    }

    /// Members that were found to need what this log does not hold any more, since this was last asked.
    pub(crate) fn take_behind(&self) -> BTreeSet<ReplicaId> {
        std::mem::take(&mut self.behind.borrow_mut())
    }

    pub(crate) fn has_behind(&self) -> bool {
        !self.behind.borrow().is_empty()
    }

    /// What is applied is committed, whatever the hard state on disk had got to.
    pub(crate) fn raise_commit(&mut self, applied: u64) {
        self.hard_state.commit = self.hard_state.commit.max(applied);
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.hard_state
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub(crate) fn first(&self) -> u64 {
        self.compacted_index + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.compacted_index + self.slots.len() as u64
    }

    /// Makes entries readable; those at or after the first of them are replaced.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.compacted_index && first.index <= self.last() + 1,
            "an append at {} does not join a log from {} to {}",
            first.index,
            self.first(),
            self.last()
        );
        while self.last() >= first.index {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes -= u64::from(slot.len);
                self.cached_bytes -= slot.data.map_or(0, |data| data.len() as u64);
            }
        }
        self.evicted = self.evicted.min(self.last());
        for entry in entries {
            self.cached_bytes += data_of(entry).len() as u64;
            self.bytes += data_of(entry).len() as u64;
            self.slots.push_back(Slot {
                term: entry.term,
                kind: entry.entry_type,
                len: data_of(entry).len() as u32,
                data: Some(data_of(entry).clone()),
                location: None,
            });
        }
    }

    /// Entries after `index`, as they are about to go.
    pub(crate) fn after(&self, index: u64) -> Result<Vec<CutEntry>> {
        let mut cut = Vec::new();
        for index in index.max(self.compacted_index) + 1..=self.last() {
            if self.slot(index).is_some_and(|slot| slot.kind == EntryType::EntryNormal) {
                let entry = self.read(index)?;
                cut.push(CutEntry { term: entry.term, index, data: entry.data });
            }
        }
        Ok(cut)
    }

    /// The entry at (term, index) is durable at `location`; one replaced meanwhile is none of our business.
    pub(crate) fn located(&mut self, term: u64, index: u64, location: Location) {
        if let Some(slot) = self.slot_mut(index).filter(|slot| slot.term == term) {
            slot.location = Some(location);
        }
    }

    /// Drops data from memory that is on disk and was applied.
    pub(crate) fn evict(&mut self, applied: u64) {
        while self.cached_bytes > CACHE_BYTES && self.evicted < applied {
            let index = self.evicted.max(self.compacted_index) + 1;
            let Some(slot) = self.slot_mut(index).filter(|slot| slot.location.is_some()) else { return };
            let freed = slot.data.take().map_or(0, |data| data.len() as u64);
            self.cached_bytes -= freed;
            self.evicted = index;
        }
    }

    /// Forgets entries up to `index`. Returns the term of that entry, or `None` if there was nothing to do.
    pub(crate) fn compact(&mut self, index: u64) -> Option<u64> {
        if index <= self.compacted_index || index > self.last() {
            return None;
        }
        let term = self.slot(index)?.term;
        for _ in 0..index - self.compacted_index {
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= u64::from(slot.len);
                self.cached_bytes -= slot.data.map_or(0, |data| data.len() as u64);
            }
        }
        self.compacted_index = index;
        self.compacted_term = term;
        Some(term)
    }

    /// The entry that has to go for the entries after it to take no more than so many bytes; 0 if none has to.
    pub(crate) fn index_over(&self, bytes: u64) -> u64 {
        let mut over = self.bytes.saturating_sub(bytes);
        let mut index = self.compacted_index;
        for slot in &self.slots {
            if over == 0 {
                return index;
            }
            over = over.saturating_sub(u64::from(slot.len));
            index += 1;
        }
        index
    }

    /// The last of the entries that are in segments of the log older than this one; 0 if none is.
    pub(crate) fn index_before(&self, segment: u64) -> u64 {
        let is_older = |slot: &&Slot| slot.location.is_some_and(|location| location.segment() < segment);
        match self.slots.iter().take_while(is_older).count() as u64 {
            0 => 0,
            older => self.compacted_index + older,
        }
    }

    /// Bytes of the entries after `index`.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        let skip = index.saturating_sub(self.compacted_index) as usize;
        self.slots.iter().skip(skip).map(|slot| u64::from(slot.len)).sum()
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.compacted_index {
            return Some(self.compacted_term);
        }
        self.slot(index).map(|slot| slot.term)
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let at = index.checked_sub(self.compacted_index + 1)?;
        self.slots.get(at as usize)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = index.checked_sub(self.compacted_index + 1)?;
        self.slots.get_mut(at as usize)
    }

    fn read(&self, index: u64) -> Result<Entry> {
        let slot = self.slot(index).ok_or(Error::Store(StorageError::Unavailable))?;
        let data = match (&slot.data, slot.location) {
            (Some(data), _) => data.clone(),
            (None, Some(location)) => self
                .reader
                .read(location)
                .map_err(|error| Error::Store(StorageError::Other(Box::new(error))))?,
            (None, None) => return Err(Error::Store(StorageError::Unavailable)),
        };
        let mut entry = Entry::default();
        entry.entry_type = slot.kind;
        entry.term = slot.term;
        entry.index = index;
        entry.data = data;
        Ok(entry)
    }
}

impl Storage for GroupLog {
    fn initial_state(&self) -> Result<RaftState> {
        let mut hard_state = raft::eraftpb::HardState::default();
        hard_state.term = self.hard_state.term;
        hard_state.vote = self.hard_state.vote;
        hard_state.commit = self.hard_state.commit;
        Ok(RaftState { hard_state, conf_state: self.config.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let len = self.slot(index).map_or(0, |slot| u64::from(slot.len));
            if !entries.is_empty() && bytes + len > max_size {
                break;
            }
            bytes += len;
            entries.push(self.read(index)?);
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index < self.compacted_index {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_at(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> Result<raft::eraftpb::Snapshot> {
        // Snapshots go their own way, and reach the engine of the receiver when they are durable there.
        self.behind.borrow_mut().insert(ReplicaId(to));
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// What an entry says. The engine reads the data of a change of members where it is proposed, in an encoding of its
/// own; what is logged, sent and applied is ours, which the proposer keeps beside it.
pub(crate) fn data_of(entry: &Entry) -> &Bytes {
    if entry.context.is_empty() { &entry.data } else { &entry.context }
}

/// A membership in the engine's words.
pub(crate) fn conf_state(membership: &Membership) -> ConfState {
    let ids = |parts: &[Part]| -> Vec<u64> {
        let wanted = membership.members.iter().filter(|m| parts.contains(&m.part));
        wanted.map(|m| m.replica.0).collect()
    };
    let mut state = ConfState::default();
    state.voters = ids(&[Part::Voter, Part::Entering]);
    state.learners = ids(&[Part::Learner]);
    if membership.is_joint() {
        state.voters_outgoing = ids(&[Part::Voter, Part::Leaving, Part::Demoted]);
        state.learners_next = ids(&[Part::Demoted]);
    }
    state
}

pub(crate) fn kind_to_byte(kind: EntryType) -> u8 {
    match kind {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    }
}

pub(crate) fn kind_from_byte(byte: u8) -> EntryType {
    match byte {
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => EntryType::EntryNormal,
    }
}
