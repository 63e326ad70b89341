//! No write that was acknowledged at `one` vanishes: in the end, with all nodes back, it is part of its shard's history, or
//! the shard's log of conflicts says what became of it, or somebody has replayed or discarded what that said.
//!
//! Such a write was on one disk only. If that disk is lost, or its node removed as lost, so may be the write.

use super::{Op, histories};
use crate::events::{Ask, Event, Outcome};
use slowdb_proto::{Position, WriteLevel};
use slowdb_repl::Standing;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(events: &[(u64, Event)], ops: &[Op]) -> Result<(), String> {
    let mut nodes_of: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    let mut lost: BTreeSet<usize> = BTreeSet::new();
    let histories = histories(events)?;
    let mut listed: BTreeMap<u32, BTreeSet<Position>> = BTreeMap::new();
    for (_, event) in events {
        match event {
            Event::Attempt { op, node, .. } => drop(nodes_of.entry(op.0).or_default().insert(*node)),
            Event::Wiped { node } | Event::GivenUp { node } => drop(lost.insert(*node)),
            _ => {}
        }
    }
    // The last lists are those of the end.
    for op in ops {
        if let (Ask::Conflicts { shard }, Outcome::Conflicts { entries }) = (&op.ask, op.outcome()) {
            listed.insert(*shard, entries.iter().map(|entry| entry.was).collect());
        }
    }
    let resolves = |op: &&Op| !matches!(op.outcome(), Outcome::Refused(_) | Outcome::Unmet { .. });
    let resolved: BTreeSet<(u32, Position)> = ops
        .iter()
        .filter(resolves)
        .filter_map(|op| match op.ask {
            Ask::Resolve { entry, .. } => Some((op.shard, entry)),
            _ => None,
        })
        .collect();
    for op in ops {
        let (Ask::Write { level: WriteLevel::One, writes, .. }, Outcome::Written { first, .. }) =
            (&op.ask, op.outcome())
        else {
            continue;
        };
        let (Some((terms, last)), Some(late)) = (histories.get(&op.shard), listed.get(&op.shard)) else {
            continue;
        };
        if nodes_of.get(&op.id.0).is_some_and(|nodes| !nodes.is_disjoint(&lost)) {
            continue;
        }
        for (offset, (key, value)) in (first.offset..).zip(writes) {
            let position = Position { offset, ..*first };
            let settled = late.contains(&position) || resolved.contains(&(op.shard, position));
            if terms.standing(position, *last) != Standing::Held && !settled {
                return Err(format!(
                    "op {} was acknowledged at one with {key:?} = {value:?} at {position}, which is no part of the \
                     history of shard {}, and nobody knows what became of it",
                    op.id.0, op.shard
                ));
            }
        }
    }
    Ok(())
}
