//! One shard as a state machine: a store of vectors, and what became of the latest writes.

use crate::dedup::{DedupState, DedupWindow, Known, WriteResult};
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::{Op, Ops, Position};
use slowdb_repl::{ApplyError, ProposalView};
use slowdb_storage::{CheckpointDone, CheckpointJob, Options, Reader, Store, VectorRef, Version};
use std::sync::Arc;

/// What comes of a batch of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteOutcome {
    /// It was executed, now or by an earlier attempt.
    Done { first: Position, replaced: u32 },
    /// It may have been executed by an earlier attempt that is forgotten; it was not executed now.
    Forgotten,
}

/// What is checkpointed beside the records.
#[derive(Archive, Serialize, Deserialize)]
struct Mark {
    applied: Position,
    dedup: DedupState,
}

pub(crate) struct ShardMachine {
    store: Store,
    dedup: DedupWindow,
    applied: Position,
    /// Index up to which the last durable checkpoint reaches.
    held: u64,
    /// Index up to which the checkpoint that is being made reaches.
    in_progress: Option<u64>,
    /// Bytes applied since the last checkpoint was begun.
    bytes_since: u64,
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
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &str, options: Options) -> Result<Self, String> {
        let store = Store::open(disk, dir, options).map_err(|error| error.to_string())?;
        let mark = store.mark();
        let mark = if mark.is_empty() {
            Mark { applied: Position::default(), dedup: DedupState::default() }
        } else {
            let mut aligned = AlignedVec::<16>::with_capacity(mark.len());
            aligned.extend_from_slice(mark);
            rkyv::from_bytes::<Mark, RkyvError>(&aligned)
                .map_err(|error| format!("checkpoint mark: {error}"))?
        };
        Ok(ShardMachine {
            store,
            dedup: DedupWindow::from_state(mark.dedup),
            applied: mark.applied,
            held: mark.applied.index,
            in_progress: None,
            bytes_since: 0,
        })
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn reader(&self) -> Reader {
        self.store.reader()
    }

    pub(crate) fn records(&self) -> u64 {
        self.store.len()
    }

    /// Digest of all replicated state.
    pub(crate) fn digest(&self) -> [u8; 16] {
        self.store.digest().0.wrapping_add(self.dedup.digest()).to_le_bytes()
    }

    pub(crate) fn bytes_since(&self) -> u64 {
        self.bytes_since
    }

    pub(crate) fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<WriteOutcome, ApplyError> {
        let header = &proposal.header;
        let first = proposal.first;
        self.applied = Position { offset: first.offset + header.writes.saturating_sub(1), ..first };
        self.bytes_since += proposal.body.len() as u64;
        match self.dedup.look_up(&header.client, header.sequence, header.retry) {
            Known::Done(WriteResult { first, replaced }) => {
                return Ok(WriteOutcome::Done { first, replaced });
            }
            Known::Forgotten => return Ok(WriteOutcome::Forgotten),
            Known::Fresh => {}
        }
        // The leader checked all of it before it went into the log.
        let ops =
            Ops::check_layout(proposal.body).map_err(|error| ApplyError(format!("at {first}: {error}")))?;
        let mut replaced = 0;
        for (offset, op) in (first.offset..).zip(ops.iter()) {
            let version = version_of(Position { offset, ..first });
            let before = match op {
                Op::Put { id, vector, payload } => {
                    self.store.put(id.as_bytes(), VectorRef::LeBytes(vector), payload, version)
                }
                Op::Delete { id } => self.store.delete(id.as_bytes()),
            };
            let before = before.map_err(|error| ApplyError(format!("at {first}: {error}")))?;
            replaced += u32::from(before.is_some());
        }
        self.dedup.remember(header.client, header.sequence, WriteResult { first, replaced });
        Ok(WriteOutcome::Done { first, replaced })
    }

    /// Begins a checkpoint of what is applied; `None` if there is nothing new or one is being made.
    pub(crate) fn begin_checkpoint(&mut self) -> Result<Option<CheckpointJob>, String> {
        if self.in_progress.is_some() || self.applied.index == self.held {
            return Ok(None);
        }
        let mark = Mark { applied: self.applied, dedup: self.dedup.to_state() };
        let mark = rkyv::to_bytes::<RkyvError>(&mark).map_err(|error| error.to_string())?;
        let job = self.store.begin_checkpoint(&mark).map_err(|error| error.to_string())?;
        self.in_progress = Some(self.applied.index);
        self.bytes_since = 0;
        Ok(Some(job))
    }

    /// The checkpoint is durable. Returns the index that it reaches.
    pub(crate) fn finish_checkpoint(&mut self, done: CheckpointDone) -> Result<u64, String> {
        self.store.finish_checkpoint(done).map_err(|error| error.to_string())?;
        self.held = self.in_progress.take().unwrap_or(self.held).max(self.held);
        Ok(self.held)
    }

    /// There will be no checkpoint.
    pub(crate) fn abandon_checkpoint(&mut self) {
        self.in_progress = None;
    }
}
