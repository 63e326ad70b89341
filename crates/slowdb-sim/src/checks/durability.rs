//! What was acknowledged at `quorum` or `all` is there in the end: each id's last state, as read at `quorum` after all
//! faults, is that of the acknowledged write with the highest position, or of a later one.
//!
//! This goes by the positions that the cluster itself reports; linearizability is checked without them. A write
//! acknowledged at `one` has to be there if its leader's term was the last, unless it was sent more than once.

use super::Op;
use crate::events::{Ask, Key, OpId, Outcome, Seen};
use slowdb_proto::{Position, ReadLevel, WriteLevel};
use std::collections::BTreeMap;

/// The acknowledged write of an id with the highest position.
#[derive(Clone, Copy, Debug)]
struct Acked {
    op: OpId,
    position: Position,
    value: Option<u64>,
}

pub(super) fn check(ops: &[Op]) -> Result<(), String> {
    let last = last_reads(ops);
    for ((shard, key), (applied, seen)) in &last {
        let mut newest: Option<Acked> = None;
        let mut late_delete = false;
        for op in ops.iter().filter(|op| op.shard == *shard) {
            let Some((level, writes)) = op.ask.writes() else { continue };
            let Some(offset) = writes.iter().position(|(written, _)| written == key) else { continue };
            let value = writes[offset].1;
            match op.outcome() {
                Outcome::Written { first, .. } => {
                    let position = Position { offset: first.offset + offset as u32, ..*first };
                    // One that was sent again may be answered with what became of it as a late write.
                    let alone = position.term == applied.term && op.attempts == 1;
                    let binding = level != WriteLevel::One || alone;
                    if binding && newest.is_none_or(|newest| newest.position < position) {
                        newest = Some(Acked { op: op.id, position, value });
                    }
                    // Acknowledged at `one`, it may be there or not.
                    late_delete |= value.is_none() && !binding;
                }
                Outcome::Unknown | Outcome::StandsAtQuorum => late_delete |= value.is_none(),
                _ => {}
            }
        }
        let Some(newest) = newest else { continue };
        if !is_kept(&newest, seen.as_ref(), late_delete) {
            return Err(format!(
                "{key:?} of shard {shard}: op {} was acknowledged at {} with {:?}, in the end there is {seen:?} \
                 (applied up to {applied})",
                newest.op.0, newest.position, newest.value
            ));
        }
    }
    Ok(())
}

fn is_kept(newest: &Acked, seen: Option<&Seen>, late_delete: bool) -> bool {
    match seen {
        Some(seen) if seen.position == newest.position => newest.value == Some(seen.value),
        Some(seen) => seen.position > newest.position,
        None => newest.value.is_none() || late_delete,
    }
}

type LastReads = BTreeMap<(u32, Key), (Position, Option<Seen>)>;

/// The last read at `quorum` of each id, if nothing was written after it.
fn last_reads(ops: &[Op]) -> LastReads {
    let mut last = LastReads::new();
    for op in ops {
        match (&op.ask, op.outcome()) {
            (Ask::Read { level: ReadLevel::Quorum, keys, .. }, Outcome::Read { applied, seen, .. }) => {
                for (key, seen) in keys.iter().zip(seen) {
                    last.insert((op.shard, *key), (*applied, *seen));
                }
            }
            (ask, _) => {
                for (key, _) in ask.writes().map_or(&[][..], |(_, writes)| writes) {
                    last.remove(&(op.shard, *key));
                }
            }
        }
    }
    last
}
