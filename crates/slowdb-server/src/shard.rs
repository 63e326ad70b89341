//! One shard as a state machine: a store of vectors, and what became of the latest writes.

#[cfg(feature = "canary")]
use crate::canary::{Canary, is_planted};
use crate::conflicts::{Conflict, Conflicts, SIBLINGS_MAX, Value};
use crate::dedup::{DedupState, DedupWindow, Known, WriteResult};
use crate::envelope::Envelope;
use crate::read::{Latest, ShardReader, Sibling, Siblings};
use crate::requests::{Answer, error};
use crate::tombstones::{TombstoneState, Tombstones};
use crate::transfer::{ShardSnapshot, ShardStaging};
use crate::unguarded::GUARDED;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::limits::BODY_BYTES_MAX;
use slowdb_proto::{Code, ConflictPolicy, Op, Ops, Position, Unmet};
use slowdb_repl::{ApplyError, ProposalView, SnapshotSource, Staging, Standing, TermTable};
use slowdb_storage::{Options, Store, VectorRef, Version, WriteError};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

mod checkpoint;
mod overtaken;
mod resolve;

/// What comes of a batch of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It was executed, now or by an earlier attempt.
    Done(WriteResult),
    /// It may have been executed by an earlier attempt that is forgotten; it was not executed now.
    Forgotten,
    /// Of a late write: there is no room for a value that would lose. Nothing was done.
    NoRoom,
}

/// What is checkpointed, and sent, beside the records.
#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct Mark {
    applied: Position,
    /// Index of the last entry that is in it, whether it was a write or not.
    index: u64,
    dedup: DedupState,
    /// Term and index of the first entry of each term.
    terms: Vec<(u64, u64)>,
    tombstones: TombstoneState,
    conflicts: Vec<Conflict>,
    /// What becomes of late writes that conflict.
    policy: ConflictPolicy,
}

/// What is replicated beside the records.
struct Beside {
    dedup: DedupWindow,
    terms: TermTable,
    tombstones: Tombstones,
    conflicts: Conflicts,
    /// What becomes of late writes that conflict. It changes with an entry, so it is the same everywhere at each of them.
    policy: ConflictPolicy,
}

impl Beside {
    fn of(mark: Mark, dimension: usize) -> Result<Self, String> {
        Ok(Beside {
            dedup: DedupWindow::from_state(mark.dedup)?,
            terms: terms_of(&mark.terms)?,
            tombstones: Tombstones::from_state(mark.tombstones)?,
            conflicts: Conflicts::from_state(mark.conflicts, dimension)?,
            policy: mark.policy,
        })
    }

    /// Digest of all replicated state, with these records.
    fn digest(&self, records: &Store) -> [u8; 16] {
        let terms = xxh3_128(&self.terms.encode());
        let policy = match self.policy {
            ConflictPolicy::Newest => 0,
            other => xxh3_128(&[other as u8]),
        };
        let parts = [self.dedup.digest(), terms, self.tombstones.digest(), self.conflicts.digest(), policy];
        parts.into_iter().fold(records.digest().0, u128::wrapping_add).to_le_bytes()
    }
}

/// Where a replica keeps its stores, one for each incarnation.
#[derive(Clone)]
pub(crate) struct ShardPlace {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) replica: u64,
    pub(crate) options: Options,
}

impl ShardPlace {
    pub(crate) fn dir(&self, incarnation: u64) -> String {
        format!("{SHARDS}/{}.{incarnation}", self.replica)
    }

    /// Removes all incarnations but one, or all.
    pub(crate) fn remove_others(&self, keep: Option<u64>) -> std::io::Result<()> {
        let keep = keep.map(|incarnation| format!("{}.{incarnation}", self.replica));
        let own = format!("{}.", self.replica);
        let names = if self.disk.exists(SHARDS)? { self.disk.list(SHARDS)? } else { Vec::new() };
        for name in names.iter().filter(|name| name.starts_with(&own) && Some(*name) != keep.as_ref()) {
            slowdb_storage::remove(&*self.disk, &format!("{SHARDS}/{name}"))?;
        }
        Ok(())
    }
}

/// The directory of all replicas of a node.
pub(crate) const SHARDS: &str = "shards";

pub(crate) struct ShardMachine {
    place: ShardPlace,
    incarnation: u64,
    store: Store,
    beside: Beside,
    applied: Position,
    /// Index of the last entry that was applied, as far as the machine hears of them.
    index: u64,
    latest: Arc<Latest>,
    /// An entry was applied in part: what is here is nobody's state.
    torn: bool,
    /// Index up to which the last durable checkpoint reaches.
    held: u64,
    /// Index up to which the checkpoint that is being made reaches.
    in_progress: Option<u64>,
    /// Bytes applied since the last checkpoint was begun.
    bytes_since: u64,
    /// About how many bytes of records were written, replaced or deleted since the store was compacted.
    churned: u64,
    /// The store was compacted since the last checkpoint was begun, which makes room once another is durable.
    compacted: bool,
    /// For what is stored as a record's payload.
    wrapped: Vec<u8>,
}

/// The position of a record's write, as the store keeps it.
pub(crate) fn version_of(position: Position) -> Version {
    Version([position.term, position.index, u64::from(position.offset)])
}

/// The reverse of [`version_of`].
pub(crate) fn position_of(version: Version) -> Position {
    let Version([term, index, offset]) = version;
    Position { term, index, offset: offset as u32 }
}

impl ShardMachine {
    /// Opens what a replica keeps under this incarnation, and removes what it keeps under others.
    pub(crate) fn open(place: ShardPlace, incarnation: u64) -> Result<Self, String> {
        place.disk.create_dir_all(SHARDS).map_err(|error| error.to_string())?;
        place.remove_others(Some(incarnation)).map_err(|error| error.to_string())?;
        Self::open_incarnation(place, incarnation)
    }

    fn open_incarnation(place: ShardPlace, incarnation: u64) -> Result<Self, String> {
        let dir = place.dir(incarnation);
        let store = Store::open(Arc::clone(&place.disk), &dir, place.options.clone());
        let store = store.map_err(|error| error.to_string())?;
        let mark = decode_mark(store.mark())?;
        // A snapshot holds everything up to the index that it was made at, whether or not it heard of the last of it.
        let (applied, index) = (mark.applied, mark.index.max(incarnation));
        Ok(ShardMachine {
            place,
            incarnation,
            beside: Beside::of(mark, store.dimension())?,
            store,
            latest: Arc::new(Latest::at(applied)),
            applied,
            index,
            torn: false,
            held: index,
            in_progress: None,
            bytes_since: 0,
            churned: 0,
            compacted: false,
            wrapped: Vec::new(),
        })
    }

    /// What a replica that is gone kept, to be removed.
    pub(crate) fn into_place(self) -> ShardPlace {
        self.place
    }

    /// Which store it has: replica and incarnation.
    pub(crate) fn store_name(&self) -> (u64, u64) {
        (self.place.replica, self.incarnation)
    }

    /// The records as they are now.
    pub(crate) fn records_snapshot(&self) -> Result<slowdb_storage::Snapshot, slowdb_storage::SnapshotError> {
        self.store.snapshot()
    }

    /// The id of the damaged record in a slot, if that can be told.
    pub(crate) fn damaged_id(&self, slot: u32) -> Option<String> {
        let (id, _) = self.store.damaged(slot)?;
        String::from_utf8(id).ok()
    }

    /// Writes the damaged record in a slot anew, from what another replica gave under its id. Says whether it did: only
    /// what has the record's hash is taken. How the record came to be is not sent, and has to be readable here.
    pub(crate) fn mend(
        &mut self,
        slot: u32,
        id: &str,
        vector: &[u8],
        payload: &[u8],
    ) -> Result<bool, WriteError> {
        let Some((_, kept)) = self.store.damaged(slot).filter(|(own, _)| own == id.as_bytes()) else {
            return Ok(false);
        };
        let Some((made, _)) = Envelope::unwrap(&kept) else { return Ok(false) };
        self.wrapped.clear();
        made.wrap(payload, &mut self.wrapped);
        let mended = self.store.mend(id.as_bytes(), VectorRef::LeBytes(vector), &self.wrapped)?;
        if mended {
            // It is to be checkpointed, like a write.
            self.bytes_since += (vector.len() + payload.len()) as u64;
        }
        Ok(mended)
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn reader(&self) -> ShardReader {
        ShardReader { records: self.store.reader(), latest: Arc::clone(&self.latest) }
    }

    /// About how many bytes a copy of it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.store.len() * (self.store.dimension() as u64 * 4 + 64)
    }

    pub(crate) fn terms(&self) -> &TermTable {
        &self.beside.terms
    }

    /// What becomes of late writes that conflict.
    pub(crate) fn policy(&self) -> ConflictPolicy {
        self.beside.policy
    }

    /// What lost against these records, and is readable beside them. Nothing is copied of what no answer can hold, and
    /// nothing twice, however often an id is named.
    pub(crate) fn siblings(&self, ids: &[String]) -> Answer<Siblings> {
        let mut named: BTreeMap<&str, usize> = BTreeMap::new();
        for id in ids {
            if self.beside.conflicts.siblings_of(id).next().is_some() {
                *named.entry(id).or_default() += 1;
            }
        }
        let (mut count, mut bytes) = (0, 0);
        for (id, times) in &named {
            for conflict in self.beside.conflicts.siblings_of(id) {
                count += times;
                bytes += times * conflict.loser.as_ref().map_or(0, Value::bytes);
            }
        }
        if count > SIBLINGS_MAX || bytes > BODY_BYTES_MAX {
            let message = format!(
                "{count} siblings of {bytes} bytes are beside the {} records asked for, and an answer holds \
                 {SIBLINGS_MAX} of {BODY_BYTES_MAX}: ask for fewer at a time, and for each once",
                ids.len()
            );
            return Err(error(Code::TooLarge, message));
        }
        let sibling = |conflict: &Conflict| match &conflict.loser {
            Some(Value::Put { vector, payload }) => {
                let (vector, payload) = (vector.clone(), payload.clone());
                Some(Sibling { position: conflict.lost_at(), vector, payload })
            }
            Some(Value::Delete) | None => None,
        };
        let of = |id: &str| self.beside.conflicts.siblings_of(id).filter_map(sibling).collect();
        Ok(named.into_keys().map(|id| (id.to_owned(), of(id))).collect())
    }

    pub(crate) fn records(&self) -> u64 {
        self.store.len()
    }

    pub(crate) fn conflicts(&self) -> &Conflicts {
        &self.beside.conflicts
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.beside.tombstones.len()
    }

    /// Digest of all replicated state.
    pub(crate) fn digest(&self) -> [u8; 16] {
        self.beside.digest(&self.store)
    }

    fn mark(&self) -> Mark {
        let Beside { dedup, terms, tombstones, conflicts, policy } = &self.beside;
        Mark {
            applied: self.applied,
            index: self.index,
            dedup: dedup.to_state(),
            terms: terms.iter().collect(),
            tombstones: tombstones.to_state(),
            conflicts: conflicts.to_state(),
            policy: *policy,
        }
    }

    /// The state as it is now.
    pub(crate) fn snapshot(&self) -> Result<Box<dyn SnapshotSource>, ApplyError> {
        let records = self.store.snapshot().map_err(|error| ApplyError(error.to_string()))?;
        let (mark, digest) = (self.mark(), self.digest());
        #[cfg(feature = "canary")]
        let (mark, digest) = if is_planted(Canary::SnapshotWithoutTerms) {
            let bytes = |terms: &TermTable| xxh3_128(&terms.encode());
            let digest = u128::from_le_bytes(digest).wrapping_sub(bytes(&self.beside.terms));
            let digest = digest.wrapping_add(bytes(&TermTable::new())).to_le_bytes();
            (Mark { terms: Vec::new(), ..mark }, digest)
        } else {
            (mark, digest)
        };
        let mark = rkyv::to_bytes::<RkyvError>(&mark).map_err(|error| ApplyError(error.to_string()))?;
        Ok(Box::new(ShardSnapshot { records, mark: mark.into_vec(), digest }))
    }

    /// Begins to take in a snapshot beside what is here.
    pub(crate) fn stage(&self, incarnation: u64) -> Result<Box<dyn Staging>, ApplyError> {
        let fail = |error: String| ApplyError(error);
        if incarnation == self.incarnation {
            return Err(fail(format!("incarnation {incarnation} is in use")));
        }
        let dir = self.place.dir(incarnation);
        let disk = &self.place.disk;
        slowdb_storage::remove(&**disk, &dir).map_err(|error| fail(error.to_string()))?;
        let store = Store::open(Arc::clone(disk), &dir, self.place.options.clone());
        let store = store.map_err(|error| fail(error.to_string()))?;
        Ok(Box::new(ShardStaging { store, incarnation, mark: None }))
    }

    /// Goes on from what was staged.
    pub(crate) fn install(&mut self, incarnation: u64) -> Result<(), ApplyError> {
        *self = Self::open_incarnation(self.place.clone(), incarnation).map_err(ApplyError)?;
        Ok(())
    }

    /// Removes what is kept under other incarnations. What cannot be removed now goes with the next start.
    pub(crate) fn forget(&mut self) {
        if let Err(error) = self.place.remove_others(Some(self.incarnation)) {
            tracing::warn!(replica = self.place.replica, %error, "files of an earlier state cannot be removed yet");
        }
    }

    pub(crate) fn bytes_since(&self) -> u64 {
        self.bytes_since
    }

    pub(crate) fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<WriteOutcome, ApplyError> {
        let header = &proposal.header;
        let first = proposal.first;
        self.applied = Position { offset: first.offset + header.writes.saturating_sub(1), ..first };
        // Before any of it can be seen.
        if GUARDED {
            self.latest.reach(self.applied);
        }
        self.bytes_since += proposal.body.len() as u64;
        let record_bytes = self.store.dimension() as u64 * 4;
        self.churned += (proposal.body.len() as u64).max(u64::from(header.writes) * record_bytes);
        self.begin_term(first.term, first.index)?;
        if let Some(late) = header.late {
            return self.apply_late(proposal, late);
        }
        let known = self.beside.dedup.look_up(&header.client, header.sequence, header.retry);
        #[cfg(feature = "canary")]
        let known = if is_planted(Canary::RetryExecuted) { Known::Fresh } else { known };
        match known {
            Known::Done(result) => return Ok(WriteOutcome::Done(result)),
            Known::Forgotten => return Ok(WriteOutcome::Forgotten),
            Known::Fresh => {}
        }
        // The leader checked all of it before it went into the log.
        let ops =
            Ops::check_layout(proposal.body).map_err(|error| ApplyError(format!("at {first}: {error}")))?;
        let made = Envelope::of(header.level, header.hlc);
        let mut result = WriteResult { first, replaced: 0, unmet: Vec::new() };
        for (write, op) in (0..).zip(ops.iter()) {
            let position = Position { offset: first.offset + write, ..first };
            let done = self.execute(&op, position, &made).map_err(|error| {
                self.torn = true;
                ApplyError(format!("at {first}: {error}"))
            })?;
            match done {
                Ok(existed) => result.replaced += u32::from(existed),
                Err(current) => result.unmet.push(Unmet { write, current }),
            }
        }
        self.beside.dedup.remember(header.client, header.sequence, result.clone());
        Ok(WriteOutcome::Done(result))
    }

    /// Does a write, and says whether there was a record; unless its condition does not hold, then says what version
    /// there is, or what there is of the conflict that it is to resolve.
    fn execute(
        &mut self,
        op: &Op<'_>,
        position: Position,
        made: &Envelope,
    ) -> Result<Result<bool, Option<Position>>, String> {
        match op {
            Op::Replay { id, entry, anyway } => return self.replay(id, *entry, *anyway, position, made),
            Op::Discard { id, entry } => return self.discard(id, *entry),
            Op::Put { .. } | Op::Delete { .. } | Op::SetPolicy(_) => {}
        }
        let condition = op.condition();
        #[cfg(feature = "canary")]
        let condition = condition.filter(|_| !is_planted(Canary::ConditionByLeader));
        if let Some(condition) = condition {
            let current = self.store.version(op.id().as_bytes()).map_err(|error| error.to_string())?;
            let current = current.map(position_of);
            if !condition.holds(current) {
                return Ok(Err(current));
            }
        }
        let existed = self.write(op, position, made).map_err(|error| error.to_string())?;
        if condition.is_some() {
            // Who says what it replaces has seen what there is.
            self.beside.conflicts.resolve(op.id())?;
        }
        Ok(Ok(existed))
    }

    /// Puts or deletes, and says whether there was a record.
    fn write(&mut self, op: &Op<'_>, position: Position, made: &Envelope) -> Result<bool, WriteError> {
        let before = match op {
            Op::Put { id, vector, payload, .. } => {
                self.beside.tombstones.remove(id);
                self.wrapped.clear();
                made.wrap(payload, &mut self.wrapped);
                let version = version_of(position);
                self.store.put(id.as_bytes(), VectorRef::LeBytes(vector), &self.wrapped, version)?
            }
            Op::Delete { id, .. } => {
                let before = self.store.delete(id.as_bytes())?;
                self.beside.tombstones.bury(id, position, *made);
                before
            }
            // They are no value: see `resolve`.
            Op::Replay { .. } | Op::Discard { .. } => None,
            Op::SetPolicy(policy) => {
                self.beside.policy = *policy;
                None
            }
        };
        Ok(before.is_some())
    }

    /// The entry at this index is the first of its term, and about to be applied.
    pub(crate) fn begin_term(&mut self, term: u64, index: u64) -> Result<(), ApplyError> {
        let terms = &mut self.beside.terms;
        // After a restart entries come again that the table knows.
        if GUARDED && terms.last().is_none_or(|(_, first)| first < index) {
            terms.append(term, index).map_err(|error| ApplyError(error.to_string()))?;
            self.index = self.index.max(index);
        }
        Ok(())
    }

    /// The entry is applied; every member has the log up to the floor.
    pub(crate) fn end_of_entry(&mut self, index: u64, floor: u64) {
        #[cfg(feature = "canary")]
        if is_planted(Canary::TombstonesDropped) {
            self.beside.tombstones.drop_all_unnoticed();
        }
        self.beside.tombstones.pass(floor);
        self.index = self.index.max(index);
        self.compact_if_churned();
    }

    /// The version of a record at this moment.
    #[cfg(feature = "canary")]
    pub(crate) fn version(&self, id: &str) -> Option<Position> {
        self.store.version(id.as_bytes()).ok().flatten().map(position_of)
    }
    /// Where a position stands that somebody has seen, with entries applied up to this index.
    pub(crate) fn standing(&self, position: Position, applied: u64) -> Standing {
        // Every group begins after index 1, which is no entry's, and held by all.
        if position.index <= 1 { Standing::Held } else { self.beside.terms.standing(position, applied) }
    }
}

/// Reads a mark; an empty one is that of a new store.
pub(crate) fn decode_mark(mark: &[u8]) -> Result<Mark, String> {
    if mark.is_empty() {
        return Ok(Mark {
            applied: Position::default(),
            index: 0,
            dedup: DedupState::default(),
            terms: Vec::new(),
            tombstones: TombstoneState::default(),
            conflicts: Vec::new(),
            policy: ConflictPolicy::default(),
        });
    }
    let mut aligned = AlignedVec::<16>::with_capacity(mark.len());
    aligned.extend_from_slice(mark);
    rkyv::from_bytes::<Mark, RkyvError>(&aligned).map_err(|error| format!("checkpoint mark: {error}"))
}

fn terms_of(rows: &[(u64, u64)]) -> Result<TermTable, String> {
    let mut terms = TermTable::new();
    for (term, index) in rows {
        terms.append(*term, *index).map_err(|error| format!("checkpoint mark: {error}"))?;
    }
    Ok(terms)
}

/// Digest of what a store and the mark that came with it, in a snapshot made at an index, are.
pub(crate) fn digest_with_mark(store: &Store, mark: &[u8], index: u64) -> Result<[u8; 16], String> {
    let mark = decode_mark(mark)?;
    let latest = mark.applied.index.max(mark.index).max(mark.terms.last().map_or(0, |(_, first)| *first));
    if latest > index {
        return Err(format!("the mark of a snapshot at {index} says that {latest} is in it"));
    }
    Ok(Beside::of(mark, store.dimension())?.digest(store))
}

#[cfg(test)]
mod tests;
