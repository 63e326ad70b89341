//! What reads show was written: no value out of thin air or from another id, and in the end every replica shows the
//! same records.

use super::Op;
use crate::events::{Ask, Key, Outcome, Seen};
use slowdb_proto::Position;
use std::collections::BTreeMap;

pub(super) fn check(ops: &[Op]) -> Result<(), String> {
    nothing_out_of_thin_air(ops)?;
    replicas_show_the_same(ops)
}

fn nothing_out_of_thin_air(ops: &[Op]) -> Result<(), String> {
    let mut written: BTreeMap<u64, (Key, usize, bool)> = BTreeMap::new();
    for op in ops {
        if let Ask::Write { writes, .. } = &op.ask {
            let refused = matches!(op.outcome(), Outcome::Refused(_) | Outcome::Unmet { .. });
            let puts = writes.iter().filter_map(|(key, value)| Some(((*value)?, (*key, op.begun, refused))));
            written.extend(puts);
        }
    }
    for op in ops {
        let Ask::Read { keys, .. } = &op.ask else { continue };
        let (ended, values): (_, Vec<(Key, Option<u64>)>) = match &op.outcome {
            Some((ended, Outcome::Read { seen, siblings, .. })) => {
                let values = seen.iter().map(|seen| Some(seen.as_ref()?.value));
                let beside = siblings.iter().map(|(key, seen)| (*key, Some(seen.value)));
                (ended, keys.iter().copied().zip(values).chain(beside).collect())
            }
            Some((ended, Outcome::Found { values, .. })) => {
                (ended, keys.iter().copied().zip(values.iter().copied()).collect())
            }
            _ => continue,
        };
        for (key, value) in values.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            match written.get(&value) {
                Some((home, begun, false)) if *home == key && begun < ended => {}
                other => {
                    return Err(format!("op {} read {value} under {key:?}, written: {other:?}", op.id.0));
                }
            }
        }
    }
    Ok(())
}

/// A node, and what it shows: records, and what is beside them.
type Shown<'a> = (usize, &'a Vec<Option<Seen>>, &'a Vec<(Key, Seen)>);

/// Reads that name their node are those that compare replicas at the end. What is late on its way may be written between two
/// of them: those at one position show the same.
fn replicas_show_the_same(ops: &[Op]) -> Result<(), String> {
    let mut shards: BTreeMap<(u32, Position), Shown<'_>> = BTreeMap::new();
    for op in ops {
        let (Ask::Read { at: Some(node), keys, .. }, Outcome::Read { applied, seen, siblings }) =
            (&op.ask, op.outcome())
        else {
            continue;
        };
        let at = (op.shard, *applied);
        let (first, known, beside) = *shards.entry(at).or_insert((*node, seen, siblings));
        if beside != siblings {
            return Err(format!(
                "shard {}: beside its records node {node} shows {siblings:?}, node {first} {beside:?}",
                op.shard
            ));
        }
        if let Some(at) = (0..keys.len()).find(|at| known[*at] != seen[*at]) {
            return Err(format!(
                "shard {}, {:?}: node {node} shows {:?}, node {first} {:?}",
                op.shard, keys[at], seen[at], known[at]
            ));
        }
    }
    Ok(())
}
