//! A write that was acknowledged at `one` and overtaken comes back late, if at all, and then replaces nothing that was
//! acknowledged at `quorum` or `all` meanwhile: neither a record, nor its removal. If an operator has it replayed, that is
//! a new write at `quorum`. And if what was agreed had been replaced by an ordinary write at `one`, it may win against that.

use super::{Op, replays};
use crate::events::{Ask, Key, OpId, Outcome};
use slowdb_proto::{Position, WriteLevel};
use std::collections::BTreeMap;

pub(super) fn check(ops: &[Op]) -> Result<(), String> {
    // What was acknowledged at `one`, by its value, with the position that it had then.
    let mut alone: BTreeMap<u64, Position> = BTreeMap::new();
    // Positions of what was acknowledged at `quorum` or `all`, by id.
    let mut agreed: BTreeMap<Key, Vec<(Position, OpId)>> = BTreeMap::new();
    for op in ops {
        let (Ask::Write { level, writes, .. }, Outcome::Written { first, .. }) = (&op.ask, op.outcome())
        else {
            continue;
        };
        for (offset, (key, value)) in (first.offset..).zip(writes) {
            let position = Position { offset, ..*first };
            match (level, value) {
                (WriteLevel::One, Some(value)) => drop(alone.insert(*value, position)),
                (WriteLevel::One, None) => {}
                _ => agreed.entry(*key).or_default().push((position, op.id)),
            }
        }
    }
    let replays = replays(ops);
    // What late writes met, by the position that they had first.
    let mut met: BTreeMap<(u32, Position), Position> = BTreeMap::new();
    for op in ops {
        if let Outcome::Conflicts { entries } = op.outcome() {
            met.extend(entries.iter().filter_map(|entry| Some(((op.shard, entry.was), entry.met?))));
        }
    }
    for op in ops {
        let (Ask::Read { keys, .. }, Outcome::Read { seen, .. }) = (&op.ask, op.outcome()) else { continue };
        for (key, seen) in keys.iter().zip(seen) {
            let Some(seen) = seen else { continue };
            let Some(was) = alone.get(&seen.value).filter(|was| **was != seen.position) else { continue };
            let by_hand = |replays: &Vec<Option<Position>>| {
                replays.iter().any(|at| at.is_none_or(|at| at == seen.position))
            };
            if replays.get(&(*key, seen.value)).is_some_and(by_hand) {
                continue;
            }
            // Of a later term than the one that it was made in: it has not seen that.
            let met = met.get(&(op.shard, *was)).copied().unwrap_or(Position::START);
            let unseen =
                |position: Position| position.term > was.term && position < seen.position && position >= met;
            let replaced =
                agreed.get(key).and_then(|list| list.iter().find(|(position, _)| unseen(*position)));
            if let Some((position, by)) = replaced {
                return Err(format!(
                    "op {} read {key:?} as {seen:?}, which was acknowledged at one as {was} and overtaken; it came back \
                     over what op {} had been acknowledged at {position}",
                    op.id.0, by.0
                ));
            }
        }
    }
    Ok(())
}
