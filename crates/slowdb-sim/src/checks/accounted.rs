//! No write that was acknowledged at `one` vanishes: in the end, with all nodes back, it is part of its shard's history, or
//! the shard's log of conflicts says what became of it.
//!
//! Such a write was on one disk only. If that disk is lost, or its node removed for good, so may be the write.

use super::Op;
use crate::events::{Ask, Event, Outcome};
use slowdb_proto::{Position, WriteLevel};
use slowdb_repl::{Standing, TermTable};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn check(events: &[(u64, Event)], ops: &[Op]) -> Result<(), String> {
    let mut nodes_of: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
    let mut lost: BTreeSet<usize> = BTreeSet::new();
    let mut histories: BTreeMap<u32, (TermTable, u64)> = BTreeMap::new();
    let mut accounted: BTreeMap<u32, BTreeSet<Position>> = BTreeMap::new();
    for (_, event) in events {
        match event {
            Event::Attempt { op, node, .. } => drop(nodes_of.entry(op.0).or_default().insert(*node)),
            Event::Wiped { node } => drop(lost.insert(*node)),
            Event::History { shard, terms, last } => {
                let mut table = TermTable::new();
                for (term, index) in terms {
                    table.append(*term, *index).map_err(|error| format!("shard {shard}: {error}"))?;
                }
                histories.insert(*shard, (table, *last));
            }
            Event::Accounted { shard, late } => {
                drop(accounted.insert(*shard, late.iter().copied().collect()))
            }
            _ => {}
        }
    }
    for op in ops {
        let (Ask::Write { level: WriteLevel::One, writes, .. }, Outcome::Written { first, .. }) =
            (&op.ask, op.outcome())
        else {
            continue;
        };
        let (Some((terms, last)), Some(late)) = (histories.get(&op.shard), accounted.get(&op.shard)) else {
            continue;
        };
        if nodes_of.get(&op.id.0).is_some_and(|nodes| !nodes.is_disjoint(&lost)) {
            continue;
        }
        for (offset, (key, value)) in (first.offset..).zip(writes) {
            let position = Position { offset, ..*first };
            if terms.standing(position, *last) != Standing::Held && !late.contains(&position) {
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
