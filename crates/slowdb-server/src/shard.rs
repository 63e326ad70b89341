//! One shard as a state machine: a store of vectors, and what became of the latest writes.

#[cfg(feature = "canary")]
use crate::canary::{Canary, is_planted};
use crate::dedup::{DedupState, DedupWindow, Known, WriteResult};
use crate::envelope::Envelope;
use crate::transfer::{ShardSnapshot, ShardStaging};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::{Op, Ops, Position, Unmet};
use slowdb_repl::{ApplyError, ProposalView, SnapshotSource, Staging, TermTable};
use slowdb_storage::{CheckpointDone, CheckpointJob, Options, Reader, Store, VectorRef, Version, WriteError};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// What comes of a batch of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It was executed, now or by an earlier attempt.
    Done(WriteResult),
    /// It may have been executed by an earlier attempt that is forgotten; it was not executed now.
    Forgotten,
}

/// What is checkpointed, and sent, beside the records.
#[derive(Archive, Serialize, Deserialize)]
pub(crate) struct Mark {
    applied: Position,
    dedup: DedupState,
    /// Term and index of the first write of each term.
    terms: Vec<(u64, u64)>,
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
    dedup: DedupWindow,
    terms: TermTable,
    applied: Position,
    /// An entry was applied in part: what is here is nobody's state.
    torn: bool,
    /// Index up to which the last durable checkpoint reaches.
    held: u64,
    /// Index up to which the checkpoint that is being made reaches.
    in_progress: Option<u64>,
    /// Bytes applied since the last checkpoint was begun.
    bytes_since: u64,
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
        let terms = terms_of(&mark.terms)?;
        Ok(ShardMachine {
            place,
            incarnation,
            store,
            dedup: DedupWindow::from_state(mark.dedup),
            terms,
            applied: mark.applied,
            torn: false,
            // A snapshot holds everything up to the index that it was made at, whether or not the last of it was a write.
            held: mark.applied.index.max(incarnation),
            in_progress: None,
            bytes_since: 0,
            wrapped: Vec::new(),
        })
    }

    /// What a replica that is gone kept, to be removed.
    pub(crate) fn into_place(self) -> ShardPlace {
        self.place
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn reader(&self) -> Reader {
        self.store.reader()
    }

    /// About how many bytes a copy of it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.store.len() * (self.store.dimension() as u64 * 4 + 64)
    }

    pub(crate) fn terms(&self) -> &TermTable {
        &self.terms
    }

    pub(crate) fn records(&self) -> u64 {
        self.store.len()
    }

    /// Digest of all replicated state.
    pub(crate) fn digest(&self) -> [u8; 16] {
        digest_of(&self.store, &self.dedup, &self.terms)
    }

    fn mark(&self) -> Mark {
        Mark { applied: self.applied, dedup: self.dedup.to_state(), terms: self.terms.iter().collect() }
    }

    /// The state as it is now.
    pub(crate) fn snapshot(&self) -> Result<Box<dyn SnapshotSource>, ApplyError> {
        let records = self.store.snapshot().map_err(|error| ApplyError(error.to_string()))?;
        let (mark, digest) = (self.mark(), self.digest());
        #[cfg(feature = "canary")]
        let (mark, digest) = if is_planted(Canary::SnapshotWithoutTerms) {
            let digest = digest_of(&self.store, &self.dedup, &TermTable::new());
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
        self.bytes_since += proposal.body.len() as u64;
        self.terms.append(first.term, first.index).map_err(|error| ApplyError(error.to_string()))?;
        let known = self.dedup.look_up(&header.client, header.sequence, header.retry);
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
        let made = Envelope { level: header.level, hlc: header.hlc, was: None };
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
        self.dedup.remember(header.client, header.sequence, result.clone());
        Ok(WriteOutcome::Done(result))
    }

    /// Does a write, and says whether there was a record; unless its condition does not hold, then says what version
    /// there is.
    fn execute(
        &mut self,
        op: &Op<'_>,
        position: Position,
        made: &Envelope,
    ) -> Result<Result<bool, Option<Position>>, WriteError> {
        let condition = op.condition();
        #[cfg(feature = "canary")]
        let condition = condition.filter(|_| !is_planted(Canary::ConditionByLeader));
        if let Some(condition) = condition {
            let current = self.store.version(op.id().as_bytes())?.map(position_of);
            if !condition.holds(current) {
                return Ok(Err(current));
            }
        }
        let before = match op {
            Op::Put { id, vector, payload, .. } => {
                self.wrapped.clear();
                made.wrap(payload, &mut self.wrapped);
                let version = version_of(position);
                self.store.put(id.as_bytes(), VectorRef::LeBytes(vector), &self.wrapped, version)?
            }
            Op::Delete { id, .. } => self.store.delete(id.as_bytes())?,
        };
        Ok(Ok(before.is_some()))
    }

    /// The version of a record at this moment.
    #[cfg(feature = "canary")]
    pub(crate) fn version(&self, id: &str) -> Option<Position> {
        self.store.version(id.as_bytes()).ok().flatten().map(position_of)
    }

    /// Begins a checkpoint of what is applied; `None` if there is nothing new or one is being made.
    pub(crate) fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, String> {
        if self.torn {
            return Err("an entry was applied in part: a checkpoint would pass it off as whole".to_owned());
        }
        if self.in_progress.is_some() || self.applied.index <= self.held {
            return Ok(None);
        }
        let mark = rkyv::to_bytes::<RkyvError>(&self.mark()).map_err(|error| error.to_string())?;
        let job = self.store.begin_checkpoint(&mark).map_err(|error| error.to_string())?;
        self.in_progress = Some(self.applied.index);
        self.bytes_since = 0;
        Ok(Some(job))
    }

    /// The checkpoint is durable. Returns the index that it reaches.
    pub(crate) fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<u64, String> {
        if self.in_progress.is_none() {
            // It was begun before a snapshot was switched to: another store's.
            return Ok(self.held);
        }
        self.store.finish_checkpoint(done).map_err(|error| error.to_string())?;
        self.held = self.in_progress.take().unwrap_or(self.held).max(self.held);
        Ok(self.held)
    }

    /// There will be no checkpoint.
    pub(crate) fn abandon_checkpoint(&mut self) {
        self.in_progress = None;
    }
}

/// Reads a mark; an empty one is that of a new store.
pub(crate) fn decode_mark(mark: &[u8]) -> Result<Mark, String> {
    if mark.is_empty() {
        return Ok(Mark { applied: Position::default(), dedup: DedupState::default(), terms: Vec::new() });
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

fn digest_of(store: &Store, dedup: &DedupWindow, terms: &TermTable) -> [u8; 16] {
    let terms = xxh3_128(&terms.encode());
    store.digest().0.wrapping_add(dedup.digest()).wrapping_add(terms).to_le_bytes()
}

/// Digest of what a store and the mark that came with it, in a snapshot made at an index, are.
pub(crate) fn digest_with_mark(store: &Store, mark: &[u8], index: u64) -> Result<[u8; 16], String> {
    let mark = decode_mark(mark)?;
    let terms = terms_of(&mark.terms)?;
    let latest = mark.applied.index.max(terms.last().map_or(0, |(_, first)| first));
    if latest > index {
        return Err(format!("the mark of a snapshot at {index} says that {latest} is in it"));
    }
    Ok(digest_of(store, &DedupWindow::from_state(mark.dedup), &terms))
}
