//! What became of writes that were acknowledged at `one`, overtaken by a failover, and offered again.
//!
//! The log of conflicts is part of a shard's replicated state. Each such write has one entry, under the position that it
//! had first, so that one that is offered twice comes to one result. Where a value lost (the late write's, or the one
//! that it replaced) the entry holds its bytes, and stays. Entries without such bytes are notes: the oldest go when
//! there are too many.

use crate::envelope::Envelope;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
pub(crate) use slowdb_proto::Became;
use slowdb_proto::limits::{CONFLICT_BYTES_MAX, CONFLICT_NOTE_BYTES_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX};
use slowdb_proto::{ConflictEntry, Loser, Position};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_128;

/// What an entry counts for beside its id and the bytes of a loser.
const OVERHEAD_BYTES: usize = 192;
/// Most siblings in one answer: no shard has more.
pub(crate) const SIBLINGS_MAX: usize = CONFLICT_BYTES_MAX / OVERHEAD_BYTES;
/// A page of entries is closed at so many bytes of losers: its last one may go beyond.
const PAGE_BYTES: usize = 1024 * 1024;

/// A value that lost.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A record.
    Put {
        /// Its vector, f32 little endian.
        vector: Vec<u8>,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// That there be no record.
    Delete,
}

impl Value {
    /// Bytes of vector and payload.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Value::Put { vector, payload } => vector.len() + payload.len(),
            Value::Delete => 0,
        }
    }
}

/// An entry.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Position that the late write had in the log of the leader that was overtaken.
    pub(crate) was: Position,
    /// The record.
    pub(crate) id: String,
    /// What became of it.
    pub(crate) became: Became,
    /// Position at which that was decided: the late write's own, if it was applied.
    pub(crate) decided: Position,
    /// What was there: position of the write or delete that the record was left by, if any is known.
    pub(crate) met: Option<Position>,
    /// How the late write was made.
    pub(crate) made: Envelope,
    /// What lost, if anything did.
    pub(crate) loser: Option<Value>,
    /// The loser, a record, is readable beside the one that there is.
    pub(crate) sibling: bool,
}

impl Conflict {
    /// Position of the write that made the loser.
    pub(crate) fn lost_at(&self) -> Position {
        if self.became == Became::Replaced { self.met.unwrap_or(self.was) } else { self.was }
    }

    fn bytes(&self) -> usize {
        Self::bytes_of(&self.id, self.loser.as_ref().map_or(0, Value::bytes))
    }

    fn to_entry(&self) -> ConflictEntry {
        let loser = self.loser.as_ref().map(|loser| match loser {
            Value::Put { payload, .. } => Loser::Put { payload_bytes: payload.len() as u32 },
            Value::Delete => Loser::Delete,
        });
        let Conflict { was, id, became, decided, met, made, .. } = self;
        ConflictEntry {
            was: *was,
            id: id.clone(),
            became: *became,
            decided: *decided,
            met: *met,
            level: made.level,
            hlc: made.hlc,
            loser,
        }
    }

    /// What an entry about an id counts for, whose loser has so many bytes.
    pub(crate) fn bytes_of(id: &str, loser_bytes: usize) -> usize {
        OVERHEAD_BYTES + id.len() + loser_bytes
    }
}

/// Entries as they are read.
pub(crate) struct Entries {
    pub(crate) entries: Vec<ConflictEntry>,
    /// What lost in them, one after the other, if that was wanted.
    pub(crate) losers: Vec<u8>,
    /// Where the next ones begin, if there are any.
    pub(crate) next: Option<Position>,
}

/// The conflict log of one shard.
///
/// Invariants: `notes` are the entries without a loser, by when they were decided; `note_bytes` and `loser_bytes` are
/// sums over the entries without and with one, `digest` over all; `siblings` are the entries that are one, by id.
#[derive(Default)]
pub(crate) struct Conflicts {
    by_was: BTreeMap<Position, Conflict>,
    notes: BTreeSet<(Position, Position)>,
    siblings: BTreeMap<String, BTreeSet<Position>>,
    note_bytes: usize,
    loser_bytes: usize,
    digest: u128,
}

impl Conflicts {
    /// What became of the write that was at this position.
    pub(crate) fn get(&self, was: Position) -> Option<&Conflict> {
        self.by_was.get(&was)
    }

    /// Whether there is room for entries with losers that count for so many bytes.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.loser_bytes + bytes <= CONFLICT_BYTES_MAX
    }

    /// Notes what became of a write.
    pub(crate) fn note(&mut self, conflict: Conflict) -> Result<(), String> {
        let hash = hash(&conflict)?;
        self.remove(conflict.was)?;
        self.digest = self.digest.wrapping_add(hash);
        if conflict.loser.is_some() {
            self.loser_bytes += conflict.bytes();
        } else {
            self.note_bytes += conflict.bytes();
            self.notes.insert((conflict.decided, conflict.was));
        }
        if conflict.sibling {
            self.siblings.entry(conflict.id.clone()).or_default().insert(conflict.was);
        }
        self.by_was.insert(conflict.was, conflict);
        while self.note_bytes > CONFLICT_NOTE_BYTES_MAX
            && let Some((_, oldest)) = self.notes.first().copied()
        {
            self.remove(oldest)?;
        }
        Ok(())
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.by_was.len()
    }

    /// How many have a loser, and what those count for.
    pub(crate) fn losers(&self) -> (usize, usize) {
        (self.by_was.len() - self.notes.len(), self.loser_bytes)
    }

    /// Entries from this one on, with or without what lost in them: so many, or fewer if their bytes are many.
    pub(crate) fn page(&self, from: Position, limit: usize, losers: bool) -> Entries {
        let mut page = Entries { entries: Vec::new(), losers: Vec::new(), next: None };
        for (was, conflict) in self.by_was.range(from..) {
            if page.entries.len() == limit || page.losers.len() >= PAGE_BYTES {
                page.next = Some(*was);
                break;
            }
            if let (true, Some(Value::Put { vector, payload })) = (losers, &conflict.loser) {
                page.losers.extend_from_slice(vector);
                page.losers.extend_from_slice(payload);
            }
            page.entries.push(conflict.to_entry());
        }
        page
    }

    /// Removes an entry, if there is one.
    pub(crate) fn remove(&mut self, was: Position) -> Result<(), String> {
        let Some(conflict) = self.by_was.remove(&was) else { return Ok(()) };
        self.digest = self.digest.wrapping_sub(hash(&conflict)?);
        if conflict.loser.is_some() {
            self.loser_bytes -= conflict.bytes();
        } else {
            self.note_bytes -= conflict.bytes();
            self.notes.remove(&(conflict.decided, was));
        }
        if let Some(others) = self.siblings.get_mut(&conflict.id) {
            others.remove(&was);
            if others.is_empty() {
                self.siblings.remove(&conflict.id);
            }
        }
        Ok(())
    }

    /// What lost against a record and is readable beside it.
    pub(crate) fn siblings_of(&self, id: &str) -> impl Iterator<Item = &Conflict> {
        self.siblings.get(id).into_iter().flatten().filter_map(|was| self.by_was.get(was))
    }

    /// Lets go of what is readable beside a record. A note of each stays: the writes may be offered again.
    pub(crate) fn resolve(&mut self, id: &str) -> Result<(), String> {
        let siblings: Vec<Conflict> = self.siblings_of(id).cloned().collect();
        for sibling in siblings {
            self.note(Conflict { loser: None, sibling: false, ..sibling })?;
        }
        Ok(())
    }

    /// Set hash of all entries.
    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// By the position that the write had first.
    pub(crate) fn to_state(&self) -> Vec<Conflict> {
        self.by_was.values().cloned().collect()
    }

    pub(crate) fn from_state(state: Vec<Conflict>, dimension: usize) -> Result<Self, String> {
        let mut all = Conflicts::default();
        let entries = state.len();
        for conflict in state {
            let fits = match &conflict.loser {
                Some(Value::Put { vector, payload }) => {
                    vector.len() == dimension * 4 && payload.len() <= PAYLOAD_BYTES_MAX
                }
                Some(Value::Delete) | None => true,
            };
            let fits = fits && (!conflict.sibling || matches!(conflict.loser, Some(Value::Put { .. })));
            if !fits || conflict.id.is_empty() || conflict.id.len() > ID_BYTES_MAX {
                return Err(format!("checkpoint mark: the conflict of {} is malformed", conflict.was));
            }
            all.note(conflict)?;
        }
        if all.by_was.len() != entries || !all.has_room(0) {
            return Err("checkpoint mark: more conflicts than there can be, or two of one write".to_owned());
        }
        Ok(all)
    }
}

fn hash(conflict: &Conflict) -> Result<u128, String> {
    let bytes = rkyv::to_bytes::<RkyvError>(conflict).map_err(|error| error.to_string())?;
    Ok(xxh3_128(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_proto::WriteLevel;

    fn conflict(index: u64, loser: Option<Value>) -> Conflict {
        let made = Envelope { level: WriteLevel::One, hlc: 7, was: None };
        Conflict {
            was: Position::new(1, index, 0),
            id: format!("{index:08}"),
            became: Became::Lost,
            decided: Position::new(2, index + 100, 0),
            met: None,
            made,
            loser,
            sibling: false,
        }
    }

    fn value(bytes: usize) -> Option<Value> {
        Some(Value::Put { vector: vec![0; 8], payload: vec![1; bytes - 8] })
    }

    #[test]
    fn notes_are_bounded_and_losers_stay() {
        let mut conflicts = Conflicts::default();
        conflicts.note(conflict(1, Some(Value::Delete))).expect("it is noted");
        let most = (CONFLICT_NOTE_BYTES_MAX / Conflict::bytes_of("12345678", 0)) as u64;
        for index in 2..most + 12 {
            conflicts.note(conflict(index, None)).expect("it is noted");
        }
        assert!(conflicts.get(Position::new(1, 1, 0)).is_some());
        assert!(conflicts.get(Position::new(1, 11, 0)).is_none());
        assert!(conflicts.get(Position::new(1, 12, 0)).is_some());
        let again = Conflicts::from_state(conflicts.to_state(), 2).expect("it is sound");
        assert_eq!((again.to_state(), again.digest()), (conflicts.to_state(), conflicts.digest()));
    }

    #[test]
    fn losers_have_a_bound_that_is_asked_for_before() {
        let mut conflicts = Conflicts::default();
        let mut index = 0;
        while conflicts.has_room(Conflict::bytes_of("12345678", 60_000)) {
            index += 1;
            conflicts.note(conflict(index, value(60_000))).expect("it is noted");
        }
        assert_eq!(index as usize, CONFLICT_BYTES_MAX / Conflict::bytes_of("12345678", 60_000));
        // The same write again takes no more room.
        conflicts.note(conflict(1, value(60_000))).expect("it is noted");
        assert!(conflicts.has_room(0));
    }

    #[test]
    fn siblings_are_found_by_id_until_they_are_resolved() {
        let sibling = |index| Conflict { id: "a".to_owned(), sibling: true, ..conflict(index, value(9)) };
        let mut conflicts = Conflicts::default();
        conflicts.note(sibling(3)).expect("it is noted");
        conflicts.note(Conflict { sibling: false, ..sibling(4) }).expect("it is noted");
        conflicts.note(sibling(5)).expect("it is noted");
        let found = |all: &Conflicts| all.siblings_of("a").map(|it| it.was.index).collect::<Vec<_>>();
        assert_eq!((found(&conflicts), conflicts.siblings_of("b").count()), (vec![3, 5], 0));
        let again = Conflicts::from_state(conflicts.to_state(), 2).expect("it is sound");
        assert_eq!((found(&again), again.digest()), (vec![3, 5], conflicts.digest()));
        conflicts.resolve("a").expect("it is noted");
        assert_eq!(found(&conflicts), [0_u64; 0]);
        let loser = |index| conflicts.get(Position::new(1, index, 0)).expect("a note stays").loser.is_some();
        assert_eq!([3, 4, 5].map(loser), [false, true, false]);
        let none = Conflict { sibling: true, ..conflict(6, Some(Value::Delete)) };
        assert!(Conflicts::from_state(vec![none], 2).is_err(), "a delete is nothing to be read");
    }

    #[test]
    fn a_mark_that_contradicts_itself_is_refused() {
        let twice = vec![conflict(1, None), conflict(1, None)];
        for state in [
            twice,
            vec![conflict(1, value(10_000_000))],
            vec![Conflict { id: String::new(), ..conflict(1, None) }],
        ] {
            assert!(Conflicts::from_state(state, 2).is_err());
        }
        assert!(Conflicts::from_state(vec![conflict(1, value(9))], 3).is_err(), "of another dimension");
    }
}
