//! What was deleted: so that a write that was overtaken, and is offered again, does not raise the dead.
//!
//! Every delete leaves a tombstone, also one that finds no record. It is dropped once every member of the group has the
//! log up to it, since then no member can come with a history that parts from this one before it; or when there are
//! too many, oldest first. Up to the *horizon* some were dropped: whether an id that has neither record nor tombstone
//! was deleted before that is not known any more.

use crate::envelope::Envelope;
use crate::unguarded::GUARDED;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::Position;
use slowdb_proto::limits::{ID_BYTES_MAX, TOMBSTONE_BYTES_MAX};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_128;

/// What a tombstone counts for beside its id.
const OVERHEAD_BYTES: usize = 64;

/// A tombstone as it is kept in a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    id: String,
    position: Position,
    made: Envelope,
}

/// All tombstones as they are kept in a checkpoint.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TombstoneState {
    /// By position.
    tombstones: Vec<Tombstone>,
    horizon: u64,
}

/// The tombstones of one shard.
///
/// Invariants: both maps hold the same; `bytes` and `digest` are sums over them, and `bytes` is at most the bound.
#[derive(Default)]
pub(crate) struct Tombstones {
    by_id: BTreeMap<String, (Position, Envelope)>,
    by_position: BTreeMap<Position, String>,
    bytes: usize,
    horizon: u64,
    digest: u128,
}

impl Tombstones {
    /// The delete that an id was deleted by, if that is known and the id was not written to since.
    pub(crate) fn get(&self, id: &str) -> Option<(Position, Envelope)> {
        self.by_id.get(id).copied()
    }

    /// Highest index up to which some were dropped.
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// An id was deleted.
    pub(crate) fn bury(&mut self, id: &str, position: Position, made: Envelope) {
        if !GUARDED {
            return;
        }
        self.remove(id);
        self.by_id.insert(id.to_owned(), (position, made));
        self.by_position.insert(position, id.to_owned());
        self.bytes += OVERHEAD_BYTES + id.len();
        self.digest = self.digest.wrapping_add(hash(id, position, &made));
        while self.bytes > TOMBSTONE_BYTES_MAX {
            self.drop_oldest();
        }
    }

    /// An id is written to.
    pub(crate) fn remove(&mut self, id: &str) {
        if let Some((position, made)) = self.by_id.remove(id) {
            self.by_position.remove(&position);
            self.bytes -= OVERHEAD_BYTES + id.len();
            self.digest = self.digest.wrapping_sub(hash(id, position, &made));
        }
    }

    /// Every member of the group has the log up to this index.
    pub(crate) fn pass(&mut self, floor: u64) {
        while self.by_position.first_key_value().is_some_and(|(position, _)| position.index <= floor) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((position, id)) = self.by_position.first_key_value() else { return };
        let (index, id) = (position.index, id.clone());
        self.remove(&id);
        self.horizon = self.horizon.max(index);
    }

    /// Planted bug: all are dropped, and nobody remembers that there were any.
    #[cfg(feature = "canary")]
    pub(crate) fn drop_all_unnoticed(&mut self) {
        while let Some(id) = self.by_position.values().next().cloned() {
            self.remove(&id);
        }
    }

    /// Set hash of all tombstones and the horizon.
    pub(crate) fn digest(&self) -> u128 {
        // Nothing is added for a shard where nothing was ever dropped.
        let horizon = if self.horizon == 0 { 0 } else { xxh3_128(&self.horizon.to_le_bytes()) };
        self.digest.wrapping_add(horizon)
    }

    pub(crate) fn to_state(&self) -> TombstoneState {
        let tombstone = |(position, id): (&Position, &String)| {
            let (_, made) = self.by_id.get(id)?;
            Some(Tombstone { id: id.clone(), position: *position, made: *made })
        };
        let tombstones = self.by_position.iter().filter_map(tombstone).collect();
        TombstoneState { tombstones, horizon: self.horizon }
    }

    pub(crate) fn from_state(state: TombstoneState) -> Result<Self, String> {
        let mut all = Tombstones { horizon: state.horizon, ..Tombstones::default() };
        for Tombstone { id, position, made } in state.tombstones {
            if id.is_empty() || id.len() > ID_BYTES_MAX {
                return Err(format!("checkpoint mark: a tombstone of an id of {} bytes", id.len()));
            }
            if all.by_position.last_key_value().is_some_and(|(last, _)| *last >= position)
                || all.by_id.contains_key(&id)
            {
                return Err(format!(
                    "checkpoint mark: the tombstone at {position} is out of order, or a second one"
                ));
            }
            all.bury(&id, position, made);
        }
        if all.horizon != state.horizon {
            return Err("checkpoint mark: more tombstones than there can be".to_owned());
        }
        Ok(all)
    }
}

fn hash(id: &str, position: Position, made: &Envelope) -> u128 {
    let mut bytes = position.encode().to_vec();
    made.wrap(id.as_bytes(), &mut bytes);
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_proto::WriteLevel;

    fn at(index: u64) -> Position {
        Position::new(1, index, 0)
    }

    fn made() -> Envelope {
        Envelope { level: WriteLevel::One, hlc: 7, was: None }
    }

    #[test]
    fn they_go_when_every_member_has_passed_them() {
        let mut tombstones = Tombstones::default();
        for (id, index) in [("a", 3), ("b", 5), ("a", 9), ("c", 12)] {
            tombstones.bury(id, at(index), made());
        }
        tombstones.pass(4);
        assert_eq!((tombstones.len(), tombstones.horizon()), (3, 0), "a was deleted again since");
        tombstones.pass(9);
        assert_eq!((tombstones.len(), tombstones.horizon()), (1, 9));
        tombstones.remove("c");
        assert_eq!((tombstones.len(), tombstones.bytes), (0, 0));
    }

    #[test]
    fn they_are_bounded_and_the_oldest_go_first() {
        let mut tombstones = Tombstones::default();
        let most = TOMBSTONE_BYTES_MAX / (OVERHEAD_BYTES + 8);
        for number in 0..most as u64 + 10 {
            tombstones.bury(&format!("{number:08}"), at(number + 2), made());
        }
        assert_eq!((tombstones.len(), tombstones.horizon()), (most, 11));
        assert!(tombstones.get("00000009").is_none() && tombstones.get("00000010").is_some());
        let again = Tombstones::from_state(tombstones.to_state()).expect("it is sound");
        assert_eq!((again.to_state(), again.digest()), (tombstones.to_state(), tombstones.digest()));
    }

    #[test]
    fn a_mark_that_contradicts_itself_is_refused() {
        let one = |id: &str, index| Tombstone { id: id.to_owned(), position: at(index), made: made() };
        for tombstones in [vec![one("a", 3), one("b", 3)], vec![one("a", 3), one("a", 4)], vec![one("", 3)]] {
            assert!(Tombstones::from_state(TombstoneState { tombstones, horizon: 0 }).is_err());
        }
    }
}
