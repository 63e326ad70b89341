//! Writes that were acknowledged at `one`, overtaken by a failover, and are offered again: decided one by one, noted in
//! the conflict log, and remembered like any other batch. If a value would lose that there is no room for, nothing is
//! done at all, and whoever holds the writes keeps them.

use super::{ShardMachine, WriteOutcome, position_of};
#[cfg(feature = "canary")]
use crate::canary::{Canary, is_planted};
use crate::conflicts::{Became, Conflict, Value};
use crate::dedup::{Known, WriteResult};
use crate::envelope::Envelope;
use crate::late::{LateWrite, Present, Verdict, judge};
use slowdb_proto::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, CONFLICT_BYTES_MAX, ID_BYTES_MAX};
use slowdb_proto::{ConflictPolicy, Op, Ops, Position, Unmet};
use slowdb_repl::{ApplyError, Late, ProposalView, Standing};
use std::collections::BTreeMap;

/// Most bytes of records that the late writes of one batch may replace as the newer ones; beyond that they lose.
const REPLACED_BYTES_MAX: usize = 4 * 1024 * 1024;
// So that the losers of any batch find room in an empty log.
const _: () = assert!(BATCH_BYTES_MAX + BATCH_WRITES_MAX * 192 + REPLACED_BYTES_MAX <= CONFLICT_BYTES_MAX);
const _: () = assert!(ID_BYTES_MAX <= REPLACED_BYTES_MAX);

/// One write of the batch, decided.
struct Decided<'a> {
    op: Op<'a>,
    was: Position,
    position: Position,
    met: Option<Position>,
    verdict: Verdict,
}

impl ShardMachine {
    pub(super) fn apply_late(
        &mut self,
        proposal: &ProposalView<'_>,
        late: Late,
    ) -> Result<WriteOutcome, ApplyError> {
        let (header, first) = (&proposal.header, proposal.first);
        let fail = |error: String| ApplyError(format!("at {first}: {error}"));
        if let Some(result) = self.settled(proposal, late) {
            return Ok(WriteOutcome::Done(result));
        }
        let ops = Ops::check_layout(proposal.body).map_err(|error| fail(error.to_string()))?;
        let made = Envelope { was: None, ..Envelope::of(header.level, header.hlc) };
        let (decided, bytes) = self.decide(&ops, first, late, &made).map_err(fail)?;
        if !self.beside.conflicts.has_room(bytes) {
            return Ok(WriteOutcome::NoRoom);
        }
        let mut result = WriteResult { first, replaced: 0, unmet: Vec::new() };
        for write in &decided {
            let done = self.carry_out(write, &made).map_err(|error| {
                self.torn = true;
                fail(error)
            })?;
            result.replaced += u32::from(done);
            if write.verdict == Verdict::Lose {
                // Whoever sends it again hears of it.
                let nth = write.position.offset - first.offset;
                result.unmet.push(Unmet { write: nth, current: write.met });
            }
        }
        self.beside.dedup.remember(header.client, header.sequence, result.clone());
        Ok(WriteOutcome::Done(result))
    }

    /// What came of the batch, if it was executed: where it was first, or as a retry, or when it was offered before.
    fn settled(&self, proposal: &ProposalView<'_>, late: Late) -> Option<WriteResult> {
        #[cfg(feature = "canary")]
        if is_planted(Canary::LateAppliedAgain) {
            return None;
        }
        let before = proposal.first.index.saturating_sub(1);
        if self.beside.terms.standing(late.was, before) == Standing::Held {
            return Some(WriteResult { first: late.was, replaced: 0, unmet: Vec::new() });
        }
        let header = &proposal.header;
        match self.beside.dedup.look_up(&header.client, header.sequence, true) {
            Known::Done(result) => Some(result),
            // What may have been executed is decided write by write: at worst it loses to itself.
            Known::Forgotten | Known::Fresh => None,
        }
    }

    /// What comes of each write, given those before it, and what the losers among them count for.
    fn decide<'a>(
        &self,
        ops: &Ops<'a>,
        first: Position,
        late: Late,
        made: &Envelope,
    ) -> Result<(Vec<Decided<'a>>, usize), String> {
        let horizon = self.beside.tombstones.horizon();
        // What there will be of ids that earlier writes of the batch change.
        let mut changed: BTreeMap<&str, Present> = BTreeMap::new();
        let (mut decided, mut bytes, mut replaced_bytes) = (Vec::new(), 0, 0);
        for (offset, op) in (0..).zip(ops.iter()) {
            if matches!(op, Op::SetPolicy(_)) {
                // Never at level `one`, so never late: not from a leader.
                continue;
            }
            let id = op.id();
            let was = Position { offset: late.was.offset.saturating_add(offset), ..late.was };
            let position = Position { offset: first.offset + offset, ..first };
            let (present, record_bytes) = match changed.get(id) {
                Some(present) => (*present, 0),
                None => self.present(id)?,
            };
            let met = match present {
                Present::Left(position, _) => Some(position),
                Present::Nothing => None,
            };
            let late_write = LateWrite { was, hlc: made.hlc, fork: late.fork };
            let policy = self.beside.policy;
            #[cfg(feature = "canary")]
            let policy = if is_planted(Canary::PolicyIgnored) { ConflictPolicy::Newest } else { policy };
            let mut verdict = judge(present, late_write, horizon, policy);
            if self.beside.conflicts.get(was).is_some() {
                verdict = Verdict::AlreadyThere;
            }
            #[cfg(feature = "canary")]
            if is_planted(Canary::LateAppliedAgain) {
                verdict = Verdict::Apply;
            }
            if verdict == Verdict::Win {
                replaced_bytes += record_bytes;
            }
            // Conditions, and resolutions of conflicts, are for writes at quorum: a late one has no business here.
            let is_odd = op.depends() || replaced_bytes > REPLACED_BYTES_MAX;
            if is_odd && verdict.applies() {
                verdict = Verdict::Lose;
            }
            if matches!(op, Op::Replay { .. } | Op::Discard { .. }) {
                // There is no value that could lose.
                verdict = Verdict::Superseded;
            }
            bytes += match verdict {
                Verdict::Win => Conflict::bytes_of(id, record_bytes),
                Verdict::Lose => Conflict::bytes_of(id, bytes_of(&op)),
                _ => 0,
            };
            if verdict.applies() {
                changed.insert(id, Present::Left(position, Envelope { was: Some(was), ..*made }));
            }
            decided.push(Decided { op, was, position, met, verdict });
        }
        Ok((decided, bytes))
    }

    /// What is there of an id, and the bytes of its record.
    fn present(&self, id: &str) -> Result<(Present, usize), String> {
        let found = self.store.reader().get_with(id.as_bytes(), |record| {
            let (made, payload) = Envelope::unwrap(record.payload)?;
            Some((Present::Left(position_of(record.version), made), record.vector.len() * 4 + payload.len()))
        });
        match found.map_err(|error| error.to_string())? {
            Some(found) => found.ok_or_else(|| format!("the record '{id}' does not say how it came to be")),
            None => {
                let tombstone = self.beside.tombstones.get(id);
                Ok((tombstone.map_or(Present::Nothing, |(at, made)| Present::Left(at, made)), 0))
            }
        }
    }

    /// Does what was decided, notes it, and says whether a record was replaced or deleted.
    fn carry_out(&mut self, write: &Decided<'_>, made: &Envelope) -> Result<bool, String> {
        let Decided { op, was, position, met, verdict } = write;
        let (became, loser) = match verdict {
            Verdict::AlreadyThere if self.beside.conflicts.get(*was).is_some() => return Ok(false),
            Verdict::AlreadyThere => (Became::AlreadyThere, None),
            Verdict::Apply | Verdict::Supersede => (Became::Applied, None),
            Verdict::Superseded => (Became::Superseded, None),
            Verdict::Lose => (Became::Lost, Some(value_of(op))),
            Verdict::Win => (Became::Replaced, Some(self.value(op.id())?)),
        };
        let is_record = matches!(loser, Some(Value::Put { .. }));
        let sibling = is_record && self.beside.policy == ConflictPolicy::KeepBoth;
        #[cfg(feature = "canary")]
        let sibling = sibling && !is_planted(Canary::SiblingDropped);
        let mut existed = false;
        if verdict.applies() {
            let made = Envelope { was: Some(*was), ..*made };
            existed = self.write(op, *position, &made).map_err(|error| error.to_string())?;
        }
        let (id, decided) = (op.id().to_owned(), *position);
        self.beside.conflicts.note(Conflict {
            was: *was,
            id,
            became,
            decided,
            met: *met,
            made: *made,
            loser,
            sibling,
        })?;
        Ok(existed)
    }

    /// What is there of an id, to be kept.
    fn value(&self, id: &str) -> Result<Value, String> {
        let found = self.store.reader().get_with(id.as_bytes(), |record| {
            let (_, payload) = Envelope::unwrap(record.payload)?;
            let vector = record.vector.iter().flat_map(|component| component.to_le_bytes()).collect();
            Some(Value::Put { vector, payload: payload.to_vec() })
        });
        match found.map_err(|error| error.to_string())? {
            Some(value) => value.ok_or_else(|| format!("the record '{id}' does not say how it came to be")),
            None => Ok(Value::Delete),
        }
    }
}

fn bytes_of(op: &Op<'_>) -> usize {
    match op {
        Op::Put { vector, payload, .. } => vector.len() + payload.len(),
        Op::Delete { .. } | Op::Replay { .. } | Op::Discard { .. } | Op::SetPolicy(_) => 0,
    }
}

fn value_of(op: &Op<'_>) -> Value {
    match op {
        Op::Put { vector, payload, .. } => Value::Put { vector: vector.to_vec(), payload: payload.to_vec() },
        Op::Delete { .. } | Op::Replay { .. } | Op::Discard { .. } | Op::SetPolicy(_) => Value::Delete,
    }
}

#[cfg(test)]
mod tests;
