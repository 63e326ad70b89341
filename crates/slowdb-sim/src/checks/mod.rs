//! The checkers. Each reads the log of events and looks for one kind of wrong; none knows how the cluster works.

mod accounted;
mod agreement;
mod conflicts;
mod content;
mod durability;
mod leaders;
mod linearizability;
mod once;
mod pairs;
mod placement;
mod precedence;
mod replicas;

use crate::events::{Ask, Event, Key, OpId, Outcome};
use crate::keys::Keys;
pub(crate) use pairs::tally;
pub use pairs::{Cell, Property, Tallies, Tally};
pub(crate) use placement::moves;
use slowdb_proto::{Became, Position};
use slowdb_repl::TermTable;
use std::collections::BTreeMap;
use std::fmt;

/// Something that must not happen, and has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which checker found it.
    pub checker: &'static str,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

/// An operation of a client as a whole. Times are places in the log, which no two events share.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) id: OpId,
    pub(crate) client: usize,
    pub(crate) shard: u32,
    pub(crate) ask: Ask,
    pub(crate) begun: usize,
    /// Requests that were sent for it.
    pub(crate) attempts: u32,
    /// With its end, unless it never ended.
    pub(crate) outcome: Option<(usize, Outcome)>,
}

impl Op {
    /// Its outcome; what has not ended may or may not take effect.
    pub(crate) fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().map_or(&Outcome::Unknown, |(_, outcome)| outcome)
    }
}

/// The operations in the order in which they began.
pub(crate) fn operations(events: &[(u64, Event)]) -> Vec<Op> {
    let mut ops: BTreeMap<OpId, Op> = BTreeMap::new();
    for (at, (_, event)) in events.iter().enumerate() {
        match event {
            Event::Invoke { op, client, shard, ask } => {
                let (client, shard) = (*client, *shard);
                let (id, ask) = (*op, ask.clone());
                let begun = Op { id, client, shard, ask, begun: at, attempts: 0, outcome: None };
                ops.insert(*op, begun);
            }
            Event::Attempt { op, .. } => {
                if let Some(op) = ops.get_mut(op) {
                    op.attempts += 1;
                }
            }
            Event::Return { op, outcome } => {
                if let Some(op) = ops.get_mut(op) {
                    op.outcome = Some((at, outcome.clone()));
                }
            }
            _ => {}
        }
    }
    ops.into_values().collect()
}

/// The history of each shard in the end: its terms, and its last index.
fn histories(events: &[(u64, Event)]) -> Result<BTreeMap<u32, (TermTable, u64)>, String> {
    let mut histories = BTreeMap::new();
    for (_, event) in events {
        if let Event::History { shard, terms, last } = event {
            let mut table = TermTable::new();
            for (term, index) in terms {
                table.append(*term, *index).map_err(|error| format!("shard {shard}: {error}"))?;
            }
            histories.insert(*shard, (table, *last));
        }
    }
    Ok(histories)
}

/// What became of each write that was overtaken, as far as anybody has listed it.
pub(crate) fn conflicts(events: &[(u64, Event)]) -> BTreeMap<(u32, Position), Became> {
    let ops = operations(events);
    let listed = ops.iter().filter_map(|op| match op.outcome() {
        Outcome::Conflicts { entries } => Some((op.shard, entries)),
        _ => None,
    });
    listed.flat_map(|(shard, all)| all.iter().map(move |it| ((shard, it.was), it.became))).collect()
}

/// Where what was replayed from logs of conflicts has been written, by id and value: the positions, `None` for those that
/// nobody was told.
pub(crate) fn replays(ops: &[Op]) -> BTreeMap<(Key, u64), Vec<Option<Position>>> {
    let mut replays: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for op in ops {
        let Ask::Resolve { lost: (key, Some(value)), replays: true, .. } = op.ask else { continue };
        let position = match op.outcome() {
            Outcome::Written { first, .. } => Some(*first),
            Outcome::Refused(_) | Outcome::Unmet { .. } => continue,
            _ => None,
        };
        replays.entry((key, value)).or_default().push(position);
    }
    replays
}

/// A checker's name, and what runs it.
type Checker<'a> = (&'static str, &'a dyn Fn() -> Result<(), String>);

/// Runs all checkers; the first violation found.
pub(crate) fn all(events: &[(u64, Event)], keys: &Keys) -> Option<Violation> {
    let ops = operations(events);
    let checkers: [Checker<'_>; 12] = [
        ("leaders", &|| leaders::check(events)),
        ("replicas", &|| replicas::check(events)),
        ("agreement", &|| agreement::check(events)),
        ("placement", &|| placement::check(events)),
        ("durability", &|| durability::check(&ops)),
        ("linearizability", &|| linearizability::check(&ops, keys)),
        ("content", &|| content::check(&ops)),
        ("once", &|| once::check(&ops)),
        ("precedence", &|| precedence::check(&ops)),
        ("conflicts", &|| conflicts::check(events, &ops)),
        ("accounted", &|| accounted::check(events, &ops)),
        ("pairs", &|| pairs::check(events, &ops)),
    ];
    checkers.into_iter().find_map(|(checker, check)| Some(Violation { checker, what: check().err()? }))
}
