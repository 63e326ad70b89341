//! What each pair of a write level and a read level gives, counted: how often a run had the occasion to break a promise,
//! and how often it did. What is promised must never be broken; what is not promised is broken in some runs, and that is
//! how one can see that the promise would be false. The table in `docs/guarantees.md` names a run for each.
//!
//! Everything goes by one client's operations on one id, each begun after the last was acknowledged:
//! At `session` all of it holds until a write that the session has seen is overtaken, which is an error that says so.
//!
//! - *durable*: an acknowledged write is in the shard's history in the end, so nothing has overtaken it;
//! - *own writes*: a read begun after the client's own write was acknowledged sees that write, or a later state;
//! - *monotonic*: a read sees no older version than an earlier read of the same client;
//! - *linearizable*: all reads and writes of an id, whoever did them, fit in one order that their times allow.

use super::{Op, histories, linearizability};
use crate::events::{Ask, Event, Key, Outcome, Seen};
use slowdb_proto::{Code, Position, ReadLevel, WriteLevel};
use slowdb_repl::{Standing, TermTable};
use std::collections::BTreeMap;
use std::fmt;

/// All levels of reads.
pub(super) const READ_LEVELS: [ReadLevel; 3] = [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum];

/// A promise that a pair of levels may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// What was acknowledged is not overtaken.
    Durable,
    /// A client reads its own writes.
    OwnWrites,
    /// A client never reads an older version after a newer one.
    Monotonic,
    /// Each id is a register.
    Linearizable,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// How it was written.
    pub write: WriteLevel,
    /// How it was read.
    pub read: ReadLevel,
    /// What is looked at.
    pub property: Property,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {:?}: {:?}", self.write, self.read, self.property)
    }
}

impl Cell {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Cell> {
        const WRITES: [WriteLevel; 3] = [WriteLevel::One, WriteLevel::Quorum, WriteLevel::All];
        const PROPERTIES: [Property; 4] =
            [Property::Durable, Property::OwnWrites, Property::Monotonic, Property::Linearizable];
        WRITES.into_iter().flat_map(|write| {
            READ_LEVELS.into_iter().flat_map(move |read| {
                PROPERTIES.into_iter().map(move |property| Cell { write, read, property })
            })
        })
    }

    /// Whether it is promised.
    pub fn is_promised(self) -> bool {
        let strong = self.write != WriteLevel::One;
        match (self.property, self.read) {
            (Property::Durable, _) => strong,
            (Property::OwnWrites | Property::Linearizable, ReadLevel::Quorum) => strong,
            (Property::OwnWrites | Property::Monotonic, ReadLevel::Session) => true,
            (Property::Monotonic, ReadLevel::Quorum) => true,
            (Property::Linearizable, ReadLevel::Session) | (_, ReadLevel::One) => false,
        }
    }
}

/// How a run fared with a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Occasions to break it.
    pub judged: u64,
    /// Occasions on which it was broken.
    pub broken: u64,
    /// The first of these.
    pub first_broken: Option<String>,
}

/// How a run fared with all cells that it had an occasion for.
pub type Tallies = BTreeMap<Cell, Tally>;

/// What was promised and broken.
pub(super) fn check(events: &[(u64, Event)], ops: &[Op]) -> Result<(), String> {
    let mut counter = Counter::new(events)?;
    counter.sessions(ops);
    let broken = counter.tallies.iter().find(|(cell, tally)| cell.is_promised() && tally.broken > 0);
    match broken {
        Some((cell, tally)) => Err(format!("{cell}: {}", tally.first_broken.as_deref().unwrap_or_default())),
        None => Ok(()),
    }
}

/// Counts all cells, those of [`Property::Linearizable`] too, whatever is promised.
pub(crate) fn tally(events: &[(u64, Event)], ops: &[Op]) -> Result<Tallies, String> {
    let mut counter = Counter::new(events)?;
    counter.sessions(ops);
    counter.registers(ops);
    Ok(counter.tallies)
}

/// The last state that a client knows of an id.
#[derive(Clone, Copy, Debug)]
struct Own {
    level: WriteLevel,
    position: Position,
    is_put: bool,
}

struct Counter {
    /// What was committed in each shard in the end.
    histories: BTreeMap<u32, (TermTable, u64)>,
    tallies: Tallies,
}

impl Counter {
    fn new(events: &[(u64, Event)]) -> Result<Self, String> {
        Ok(Counter { histories: histories(events)?, tallies: Tallies::new() })
    }

    fn note(&mut self, cell: Cell, holds: bool, what: impl FnOnce() -> String) {
        let tally = self.tallies.entry(cell).or_default();
        tally.judged += 1;
        if !holds {
            tally.broken += 1;
            tally.first_broken.get_or_insert_with(what);
        }
    }

    /// Whether a position is part of its shard's history; `None` if that is not known.
    fn is_held(&self, shard: u32, position: Position) -> Option<bool> {
        let (terms, last) = self.histories.get(&shard)?;
        Some(terms.standing(position, *last) == Standing::Held)
    }

    /// Everything that goes by one client's operations, one after the other.
    fn sessions(&mut self, ops: &[Op]) {
        // How each value was written.
        let mut levels: BTreeMap<u64, WriteLevel> = BTreeMap::new();
        for op in ops {
            if let Ask::Write { level, writes, .. } = &op.ask {
                levels.extend(writes.iter().filter_map(|(_, value)| Some(((*value)?, *level))));
            }
        }
        let mut own: BTreeMap<(usize, Key), Own> = BTreeMap::new();
        let mut read: BTreeMap<(usize, Key, ReadLevel), Seen> = BTreeMap::new();
        for op in ops {
            match (&op.ask, op.outcome()) {
                (Ask::Write { level, writes, .. }, Outcome::Written { first, .. }) => {
                    for (offset, (key, value)) in (first.offset..).zip(writes) {
                        let position = Position { offset, ..*first };
                        let state = Own { level: *level, position, is_put: value.is_some() };
                        own.insert((op.client, *key), state);
                        self.durable(op, *key, state);
                    }
                }
                (Ask::Write { .. }, Outcome::Unmet { .. }) => {}
                (Ask::Write { writes, .. }, _) => {
                    // What became of it is not known, so neither is what a read has to show.
                    for (key, _) in writes {
                        own.remove(&(op.client, *key));
                    }
                }
                (Ask::Read { level, keys, at: None, .. }, Outcome::Read { applied, seen, .. }) => {
                    for (key, seen) in keys.iter().zip(seen) {
                        if let Some(own) = own.get(&(op.client, *key)) {
                            self.own_write(op, *key, *level, *own, *applied, seen.as_ref());
                        }
                        let Some(seen) = seen else { continue };
                        let before = read.insert((op.client, *key, *level), *seen);
                        if let (Some(before), Some(write)) = (before, levels.get(&seen.value)) {
                            let cell = Cell { write: *write, read: *level, property: Property::Monotonic };
                            self.note(cell, before.position <= seen.position, || {
                                format!(
                                    "op {}: client {} read {key:?} as {seen:?} after {before:?}",
                                    op.id.0, op.client
                                )
                            });
                        }
                    }
                }
                // The session begins anew: something that it had seen will never be.
                (Ask::Read { .. }, Outcome::Refused(Code::Overtaken)) => {
                    own.retain(|(client, _), _| *client != op.client);
                    read.retain(|(client, _, level), _| (*client, *level) != (op.client, ReadLevel::Session));
                }
                _ => {}
            }
        }
    }

    /// An acknowledged write, whatever it is read with.
    fn durable(&mut self, op: &Op, key: Key, state: Own) {
        let Some(held) = self.is_held(op.shard, state.position) else { return };
        for read in READ_LEVELS {
            let cell = Cell { write: state.level, read, property: Property::Durable };
            self.note(cell, held, || {
                format!("op {} wrote {key:?} at {}, which was overtaken", op.id.0, state.position)
            });
        }
    }

    fn own_write(
        &mut self,
        op: &Op,
        key: Key,
        read: ReadLevel,
        own: Own,
        applied: Position,
        seen: Option<&Seen>,
    ) {
        let Some(held) = self.is_held(op.shard, own.position) else { return };
        let shows = match seen {
            Some(seen) => seen.position >= own.position,
            // It was removed, by this client or, later, by another one.
            None => !own.is_put || applied >= own.position,
        };
        let cell = Cell { write: own.level, read, property: Property::OwnWrites };
        self.note(cell, held && shows, || {
            format!(
                "op {}: client {} had written {key:?} at {}, and read {seen:?} at {applied}",
                op.id.0, op.client, own.position
            )
        });
    }

    /// Each id as a register, by the weakest level that it was written at, for each level of reads.
    fn registers(&mut self, ops: &[Op]) {
        for (cell, holds) in linearizability::registers(ops) {
            self.note(cell, holds, || "no order of its operations fits".to_owned());
        }
    }
}
