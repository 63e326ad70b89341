//! Conflicts are resolved by writes: what lost is written after all, or given up. Either way its entry goes.

use super::{ShardMachine, position_of};
#[cfg(feature = "canary")]
use crate::canary::{Canary, is_planted};
use crate::conflicts::{Conflict, Value};
use crate::envelope::Envelope;
use slowdb_proto::{Op, Position};

/// Whether there was a record. Or, if nothing was done: where the record was written to since the conflict was decided, or
/// where it was decided if nothing lost in it; `None` if there is no such conflict.
type Resolved = Result<bool, Option<Position>>;

impl ShardMachine {
    /// Writes what lost in the conflict about an id that has this name, at the position of this write, and removes the
    /// entry; unless the record was written to since, but then only if that is wanted anyway.
    pub(super) fn replay(
        &mut self,
        id: &str,
        entry: Position,
        anyway: bool,
        position: Position,
        made: &Envelope,
    ) -> Result<Resolved, String> {
        let Some(conflict) = self.conflict(id, entry) else { return Ok(Err(None)) };
        let (decided, Some(loser)) = (conflict.decided, conflict.loser.clone()) else {
            return Ok(Err(Some(conflict.decided)));
        };
        let since = self.left_by(id)?.filter(|latest| *latest > decided && !anyway);
        if since.is_some() {
            return Ok(Err(since));
        }
        #[cfg(feature = "canary")]
        let stays = is_planted(Canary::ReplayedAgain);
        #[cfg(not(feature = "canary"))]
        let stays = false;
        if !stays {
            self.beside.conflicts.remove(entry)?;
        }
        let op = match &loser {
            Value::Put { vector, payload } => Op::Put { id, vector, payload, condition: None },
            Value::Delete => Op::Delete { id, condition: None },
        };
        self.bytes_since += loser.bytes() as u64;
        self.write(&op, position, made).map(Ok).map_err(|error| error.to_string())
    }

    /// Removes the entry about an id that has this name, and what lost in it.
    pub(super) fn discard(&mut self, id: &str, entry: Position) -> Result<Resolved, String> {
        if self.conflict(id, entry).is_none() {
            return Ok(Err(None));
        }
        self.beside.conflicts.remove(entry)?;
        Ok(Ok(false))
    }

    fn conflict(&self, id: &str, entry: Position) -> Option<&Conflict> {
        self.beside.conflicts.get(entry).filter(|conflict| conflict.id == id)
    }

    /// The write or delete that an id was left by, if that is known.
    fn left_by(&self, id: &str) -> Result<Option<Position>, String> {
        let version = self.store.version(id.as_bytes()).map_err(|error| error.to_string())?;
        let tombstone = self.beside.tombstones.get(id).map(|(position, _)| position);
        Ok(version.map(position_of).or(tombstone))
    }
}
