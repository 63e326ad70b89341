//! What reads show was written: no value out of thin air or from another id, and in the end every replica shows the
//! same records.

use super::Op;
use crate::events::{Ask, Key, Outcome, Seen};
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
        let (ended, values): (_, Vec<Option<u64>>) = match &op.outcome {
            Some((ended, Outcome::Read { seen, .. })) => {
                (ended, seen.iter().map(|seen| Some(seen.as_ref()?.value)).collect())
            }
            Some((ended, Outcome::Found { values, .. })) => (ended, values.clone()),
            _ => continue,
        };
        for (key, value) in keys.iter().zip(values).filter_map(|(key, value)| Some((key, value?))) {
            match written.get(&value) {
                Some((home, begun, false)) if home == key && begun < ended => {}
                other => {
                    return Err(format!("op {} read {value} under {key:?}, written: {other:?}", op.id.0));
                }
            }
        }
    }
    Ok(())
}

/// Reads that name their node are those that compare replicas at the end.
fn replicas_show_the_same(ops: &[Op]) -> Result<(), String> {
    let mut shards: BTreeMap<u32, (usize, &Vec<Option<Seen>>)> = BTreeMap::new();
    for op in ops {
        let (Ask::Read { at: Some(node), keys, .. }, Outcome::Read { seen, .. }) = (&op.ask, op.outcome())
        else {
            continue;
        };
        let (first, known) = *shards.entry(op.shard).or_insert((*node, seen));
        if let Some(at) = (0..keys.len()).find(|at| known[*at] != seen[*at]) {
            return Err(format!(
                "shard {}, {:?}: node {node} shows {:?}, node {first} {:?}",
                op.shard, keys[at], seen[at], known[at]
            ));
        }
    }
    Ok(())
}
