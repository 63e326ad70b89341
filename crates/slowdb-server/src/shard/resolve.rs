//! Conflicts are resolved by writes: what lost is written after all, or given up. Either way its entry goes.

use super::ShardMachine;
use crate::conflicts::Value;
use crate::envelope::Envelope;
use slowdb_proto::{Op, Position};

impl ShardMachine {
    /// Removes the entry about an id that has this name; if that is wanted, writes what lost in it at the position of the
    /// resolving write. Says whether there was a record; or, if nothing was done, where the entry was decided in which
    /// nothing lost, `None` if there is no such entry.
    pub(super) fn resolve(
        &mut self,
        id: &str,
        entry: Position,
        is_replay: bool,
        position: Position,
        made: &Envelope,
    ) -> Result<Result<bool, Option<Position>>, String> {
        let Some(conflict) = self.beside.conflicts.get(entry).filter(|conflict| conflict.id == id) else {
            return Ok(Err(None));
        };
        let (decided, loser) = (conflict.decided, conflict.loser.clone().filter(|_| is_replay));
        if is_replay && loser.is_none() {
            return Ok(Err(Some(decided)));
        }
        self.beside.conflicts.remove(entry)?;
        let op = match &loser {
            None => return Ok(Ok(false)),
            Some(Value::Put { vector, payload }) => Op::Put { id, vector, payload, condition: None },
            Some(Value::Delete) => Op::Delete { id, condition: None },
        };
        self.bytes_since += loser.as_ref().map_or(0, Value::bytes) as u64;
        self.write(&op, position, made).map(Ok).map_err(|error| error.to_string())
    }
}
