//! Nothing is executed twice: every value is seen at one position only, whoever reads it and when; and where a write was
//! acknowledged at `quorum` or `all`, that is the position that its reply named.
//!
//! Values are never used twice, so one that shows up at two positions was written twice. Only a value that lost in a
//! conflict may be written again, once for each replay of it.

use super::{Op, replays};
use crate::events::{Ask, Key, OpId, Outcome};
use slowdb_proto::{Position, WriteLevel};
use std::collections::BTreeMap;

pub(super) fn check(ops: &[Op]) -> Result<(), String> {
    let mut replays = replays(ops);
    let mut known: BTreeMap<(Key, u64), (OpId, Position)> = BTreeMap::new();
    let mut note = |op: OpId, key: Key, value: u64, position: Position| {
        if let Some(replays) = replays.get_mut(&(key, value)) {
            if replays.contains(&Some(position)) {
                return Ok(());
            }
            let first = known.get(&(key, value)).is_none_or(|(_, before)| *before == position);
            if !first && let Some(unknown) = replays.iter_mut().find(|position| position.is_none()) {
                *unknown = Some(position);
                return Ok(());
            }
        }
        let (first, before) = *known.entry((key, value)).or_insert((op, position));
        if before == position {
            return Ok(());
        }
        Err(format!(
            "{key:?} has value {value} at {position} (op {}), and had it at {before} (op {}): it was written twice",
            op.0, first.0
        ))
    };
    for op in ops {
        match (&op.ask, op.outcome()) {
            (Ask::Write { level, writes, .. }, Outcome::Written { first, .. })
                if *level != WriteLevel::One =>
            {
                for (offset, (key, value)) in (first.offset..).zip(writes) {
                    if let Some(value) = value {
                        note(op.id, *key, *value, Position { offset, ..*first })?;
                    }
                }
            }
            (Ask::Read { keys, .. }, Outcome::Read { seen, .. }) => {
                for (key, seen) in keys.iter().zip(seen) {
                    if let Some(seen) = seen {
                        note(op.id, *key, seen.value, seen.position)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{By, Seen};
    use slowdb_proto::ReadLevel;

    const KEY: Key = Key(3);

    fn at(index: u64) -> Position {
        Position { term: 2, index, offset: 0 }
    }

    fn op(id: u32, ask: Ask, outcome: Outcome) -> Op {
        Op {
            id: OpId(id),
            client: 0,
            shard: 0,
            ask,
            begun: id as usize,
            attempts: 1,
            outcome: Some((id as usize, outcome)),
        }
    }

    fn write(id: u32, level: WriteLevel, index: u64) -> Op {
        let ask = Ask::Write { level, writes: vec![(KEY, Some(7))], condition: None };
        op(id, ask, Outcome::Written { first: at(index), durable_on: 2 })
    }

    fn read(id: u32, index: u64) -> Op {
        let ask = Ask::Read { level: ReadLevel::One, keys: vec![KEY], by: By::Get, at: None };
        op(
            id,
            ask,
            Outcome::Read {
                applied: at(9),
                seen: vec![Some(Seen { value: 7, position: at(index) })],
                siblings: Vec::new(),
            },
        )
    }

    #[test]
    fn a_value_at_two_positions_was_written_twice() {
        assert_eq!(check(&[write(1, WriteLevel::Quorum, 4), read(2, 4), read(3, 4)]), Ok(()));
        assert!(check(&[write(1, WriteLevel::Quorum, 4), read(2, 5)]).is_err());
        assert!(check(&[read(2, 4), read(3, 5)]).is_err());
        // At `one` it may be overtaken and come again, at another position.
        assert_eq!(check(&[write(1, WriteLevel::One, 4), read(2, 6), read(3, 6)]), Ok(()));
    }
}
