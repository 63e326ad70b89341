//! Each id that is never written at `one` is a linearizable register, as far as operations at `quorum` and `all` go.
//!
//! A write with a condition is one that also reads: where it took effect, what it expected was there; where it did not,
//! its reply names the version that was there instead.
//!
//! The search is Wing and Gong's with Lowe's memory: take the operations in some order that their intervals allow,
//! go back where a read does not fit, and never look twice at the same set of operations with the same value.
//! A write of unknown outcome may take effect at any time after it began, or never.

use super::pairs::READ_LEVELS;
use super::{Cell, Op, Property};
use crate::events::{Ask, Expected, Key, OpId, Outcome};
use crate::keys::Keys;
use slowdb_proto::{Position, ReadLevel, WriteLevel};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Steps of the search for one id before it is given up; histories of real runs take a few thousand.
const STEPS_MAX: u64 = 5_000_000;
/// The same where nothing is promised, and many orders may have to be tried to find that none fits.
const QUICK_STEPS_MAX: u64 = 200_000;

/// What an operation does to one id, or finds. A value is `None` where there is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// It finds this.
    Reads(Option<u64>),
    /// It leaves this behind.
    Writes(Option<u64>),
    /// It found the first, and leaves the second behind.
    Swaps(Option<u64>, Option<u64>),
    /// It leaves the second behind if it finds the first, and else does nothing.
    MaySwap(Option<u64>, Option<u64>),
}

impl Does {
    /// The value after it, if it can come after `value`.
    fn after(self, value: Option<u64>) -> Option<Option<u64>> {
        match self {
            Does::Reads(found) => (found == value).then_some(value),
            Does::Writes(left) => Some(left),
            Does::Swaps(found, left) => (found == value).then_some(left),
            Does::MaySwap(found, left) => Some(if found == value { left } else { value }),
        }
    }

    /// What it may leave behind.
    fn leaves(self) -> Option<Option<u64>> {
        match self {
            Does::Reads(_) => None,
            Does::Writes(left) | Does::Swaps(_, left) | Does::MaySwap(_, left) => Some(left),
        }
    }
}

/// An operation on one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    id: OpId,
    begun: usize,
    /// `usize::MAX` if it may take effect at any later time.
    ended: usize,
    does: Does,
}

pub(super) fn check(ops: &[Op], keys: &Keys) -> Result<(), String> {
    for (key, steps) in histories(ops) {
        search(&steps, STEPS_MAX).map_err(|why| format!("id '{}': {why}", keys.name(key)))?;
    }
    Ok(())
}

/// Whether each id is a register, by the weakest level that it was written at, for reads of each level. What cannot be
/// decided quickly is left out.
pub(super) fn registers(ops: &[Op]) -> Vec<(Cell, bool)> {
    let mut weakest: BTreeMap<Key, WriteLevel> = BTreeMap::new();
    for op in ops {
        if let Ask::Write { level, writes, .. } = &op.ask {
            for (key, _) in writes {
                let known = weakest.entry(*key).or_insert(*level);
                *known = (*known).min(*level);
            }
        }
    }
    let mut found = Vec::new();
    for read in READ_LEVELS {
        let mut steps = steps(ops, |level| level == read);
        steps.values_mut().for_each(prune);
        for (key, steps) in
            steps.iter().filter(|(_, steps)| steps.iter().any(|step| matches!(step.does, Does::Reads(_))))
        {
            let Some(write) = weakest.get(key) else { continue };
            let cell = Cell { write: *write, read, property: Property::Linearizable };
            if let Some(holds) = search(steps, QUICK_STEPS_MAX).map_or_else(Stuck::decided, |()| Some(true)) {
                found.push((cell, holds));
            }
        }
    }
    found
}

/// For each id that is never written at `one`, what was done to it at `quorum` and `all`.
fn histories(ops: &[Op]) -> BTreeMap<Key, Vec<Step>> {
    let mut weak: BTreeSet<Key> = BTreeSet::new();
    for op in ops {
        if let Ask::Write { level: WriteLevel::One, writes, .. } = &op.ask {
            weak.extend(writes.iter().map(|(key, _)| *key));
        }
    }
    let mut steps = steps(ops, |level| level == ReadLevel::Quorum);
    steps.retain(|key, _| !weak.contains(key));
    steps.values_mut().for_each(prune);
    steps
}

/// What was done to each id, as far as the level of reads is wanted.
fn steps(ops: &[Op], wanted: impl Fn(ReadLevel) -> bool) -> BTreeMap<Key, Vec<Step>> {
    let values = values_by_version(ops);
    let mut steps: BTreeMap<Key, Vec<Step>> = BTreeMap::new();
    for op in ops {
        let ended = op.outcome.as_ref().map_or(usize::MAX, |(at, _)| *at);
        let mut push = |key: &Key, ended: usize, does: Does| {
            steps.entry(*key).or_default().push(Step { id: op.id, begun: op.begun, ended, does });
        };
        match (&op.ask, op.outcome()) {
            (_, Outcome::Refused(_)) => {}
            (Ask::Write { writes, .. }, Outcome::Unmet { current }) => {
                for (key, _) in writes {
                    // A version that nobody ever read shows nothing that could be checked.
                    let found = match current {
                        None => Some(None),
                        Some(version) => values.get(&(*key, *version)).map(|value| Some(*value)),
                    };
                    if let Some(found) = found {
                        push(key, ended, Does::Reads(found));
                    }
                }
            }
            (Ask::Write { writes, condition, .. }, outcome) => {
                let is_known = *outcome != Outcome::Unknown;
                let ended = if is_known { ended } else { usize::MAX };
                let expected = condition.map(|condition| match condition {
                    Expected::Absent => None,
                    Expected::Record(seen) => Some(seen.value),
                });
                for (key, value) in writes {
                    push(
                        key,
                        ended,
                        match expected {
                            None => Does::Writes(*value),
                            Some(expected) if is_known => Does::Swaps(expected, *value),
                            Some(expected) => Does::MaySwap(expected, *value),
                        },
                    );
                }
            }
            (Ask::Read { level, keys, .. }, Outcome::Read { seen, .. }) if wanted(*level) => {
                for (key, seen) in keys.iter().zip(seen) {
                    push(key, ended, Does::Reads(seen.map(|seen| seen.value)));
                }
            }
            (Ask::Read { level, keys, .. }, Outcome::Found { values, .. }) if wanted(*level) => {
                keys.iter().zip(values).for_each(|(key, value)| push(key, ended, Does::Reads(*value)));
            }
            // A replay depends on what no read shows: that it takes effect once is not looked at here.
            (ask @ Ask::Resolve { .. }, outcome) if !matches!(outcome, Outcome::Unmet { .. }) => {
                let ended = if *outcome == Outcome::Unknown { usize::MAX } else { ended };
                for (key, value) in ask.writes().map_or(&[][..], |(_, writes)| writes) {
                    push(key, ended, Does::Writes(*value));
                }
            }
            (Ask::Read { .. } | Ask::Resolve { .. } | Ask::Conflicts { .. }, _) => {}
        }
    }
    steps
}

/// The value of each version of each id that anybody read or was told of.
fn values_by_version(ops: &[Op]) -> BTreeMap<(Key, Position), u64> {
    let mut values = BTreeMap::new();
    for op in ops {
        match (&op.ask, op.outcome()) {
            (Ask::Write { writes, .. }, Outcome::Written { first, .. }) => {
                for (offset, (key, value)) in (first.offset..).zip(writes) {
                    values.extend(value.map(|value| ((*key, Position { offset, ..*first }), value)));
                }
            }
            (Ask::Read { keys, .. }, Outcome::Read { seen, .. }) => {
                let seen = keys.iter().zip(seen).filter_map(|(key, seen)| Some((key, seen.as_ref()?)));
                values.extend(seen.map(|(key, seen)| ((*key, seen.position), seen.value)));
            }
            _ => {}
        }
    }
    values
}

/// Leaves out writes of unknown outcome whose value nobody saw: if an order exists with one of them, it exists without
/// it, since nothing was read between it and the next write.
fn prune(steps: &mut Vec<Step>) {
    let needs = |step: &Step| match step.does {
        Does::Reads(found) | Does::Swaps(found, _) | Does::MaySwap(found, _) => Some(found),
        Does::Writes(_) => None,
    };
    let seen: BTreeSet<Option<u64>> = steps.iter().filter_map(needs).collect();
    let may_count = |step: &Step| step.does.leaves().is_none_or(|left| seen.contains(&left));
    steps.retain(|step| step.ended != usize::MAX || may_count(step));
}

/// Why no order was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stuck {
    /// There is none.
    NoOrder { steps: usize, placed: usize, at: Step },
    /// There are too many to try.
    TooMany { steps: usize },
}

impl Stuck {
    fn decided(self) -> Option<bool> {
        matches!(self, Stuck::NoOrder { .. }).then_some(false)
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stuck::NoOrder { steps, placed, at } => {
                write!(f, "no order of its {steps} operations fits; stuck after {placed}, at {at:?}")
            }
            Stuck::TooMany { steps } => write!(f, "{steps} operations are too many to decide"),
        }
    }
}

/// Looks for an order, in so many steps at most.
fn search(steps: &[Step], steps_max: u64) -> Result<(), Stuck> {
    let mut pending: List = List::new(steps);
    let mut taken = Taken::new(steps.len());
    let mut tried: BTreeSet<(Vec<u64>, Option<u64>)> = BTreeSet::new();
    let mut path: Vec<(usize, Option<u64>)> = Vec::new();
    let mut value = None;
    let mut farthest = 0;
    let mut at = pending.first();
    for _ in 0..steps_max {
        let Some(place) = at else { return Ok(()) };
        let event = pending.event(place);
        let step = &steps[event.step];
        if event.is_begin {
            let next = step.does.after(value);
            if let Some(next_value) = next.filter(|next| tried.insert((taken.with(event.step), *next))) {
                path.push((event.step, value));
                value = next_value;
                taken.set(event.step, true);
                pending.lift(event.step);
                at = pending.first();
            } else {
                at = pending.after(place);
            }
            continue;
        }
        // An operation ends here that could not be placed before: go back.
        farthest = farthest.max(path.len());
        let Some((last, before)) = path.pop() else {
            return Err(Stuck::NoOrder { steps: steps.len(), placed: farthest, at: *step });
        };
        value = before;
        taken.set(last, false);
        pending.unlift(last);
        at = pending.after(pending.begin_of(last));
    }
    Err(Stuck::TooMany { steps: steps.len() })
}

#[derive(Clone, Copy)]
struct Boundary {
    step: usize,
    is_begin: bool,
}

/// Begins and ends of the operations that are not placed yet, in the order of time: a doubly linked list, out of which
/// pairs are lifted and into which they are put back in the reverse order.
struct List {
    events: Vec<Boundary>,
    begins: Vec<usize>,
    ends: Vec<usize>,
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl List {
    fn new(steps: &[Step]) -> Self {
        let mut order: Vec<(usize, bool, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            order.push((step.begun, false, number));
            order.push((step.ended, true, number));
        }
        order.sort_unstable();
        let mut list = List {
            events: Vec::new(),
            begins: vec![0; steps.len()],
            ends: vec![0; steps.len()],
            // Place 0 is the head.
            next: (1..=order.len() + 1).collect(),
            previous: (0..=order.len() + 1).map(|place: usize| place.saturating_sub(1)).collect(),
        };
        for (place, (_, is_end, step)) in (1..).zip(order) {
            list.events.push(Boundary { step, is_begin: !is_end });
            if is_end { list.ends[step] = place } else { list.begins[step] = place }
        }
        list
    }

    fn event(&self, place: usize) -> Boundary {
        self.events[place - 1]
    }

    fn first(&self) -> Option<usize> {
        self.after(0)
    }

    fn after(&self, place: usize) -> Option<usize> {
        let next = self.next[place];
        (next <= self.events.len()).then_some(next)
    }

    fn begin_of(&self, step: usize) -> usize {
        self.begins[step]
    }

    fn lift(&mut self, step: usize) {
        for place in [self.begins[step], self.ends[step]] {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = after;
            self.previous[after] = before;
        }
    }

    fn unlift(&mut self, step: usize) {
        for place in [self.ends[step], self.begins[step]] {
            let (before, after) = (self.previous[place], self.next[place]);
            self.next[before] = place;
            self.previous[after] = place;
        }
    }
}

/// A set of operations.
struct Taken(Vec<u64>);

impl Taken {
    fn new(len: usize) -> Self {
        Taken(vec![0; len.div_ceil(64)])
    }

    fn set(&mut self, at: usize, on: bool) {
        let bit = 1 << (at % 64);
        if on { self.0[at / 64] |= bit } else { self.0[at / 64] &= !bit }
    }

    fn with(&self, at: usize) -> Vec<u64> {
        let mut set = self.0.clone();
        set[at / 64] |= 1 << (at % 64);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(begun: usize, ended: usize, value: u64) -> Step {
        Step { id: OpId(value as u32), begun, ended, does: Does::Writes(Some(value)) }
    }

    fn read(begun: usize, ended: usize, value: Option<u64>) -> Step {
        Step { id: OpId(0), begun, ended, does: Does::Reads(value) }
    }

    fn swap(begun: usize, ended: usize, found: u64, left: u64) -> Step {
        let does = if ended == usize::MAX {
            Does::MaySwap(Some(found), Some(left))
        } else {
            Does::Swaps(Some(found), Some(left))
        };
        Step { id: OpId(left as u32), begun, ended, does }
    }

    #[test]
    fn of_two_swaps_of_one_value_only_one_can_have_taken_effect() {
        let both = [write(0, 1, 7), swap(2, 5, 7, 8), swap(3, 4, 7, 9)];
        assert!(search_all(&both).is_err());
        assert_eq!(search_all(&both[..2]), Ok(()));
        assert_eq!(search_all(&[write(0, 1, 7), swap(2, 5, 7, 8), swap(3, 4, 8, 9)]), Ok(()));
    }

    #[test]
    fn a_swap_of_unknown_outcome_may_take_effect_where_it_fits_or_never() {
        let late = [write(0, 1, 7), swap(2, usize::MAX, 7, 8), read(3, 4, Some(7)), read(5, 6, Some(8))];
        assert_eq!(search_all(&late), Ok(()));
        assert_eq!(search_all(&late[..3]), Ok(()));
        let never = [write(0, 1, 7), swap(2, usize::MAX, 6, 8), read(3, 4, Some(7)), read(5, 6, Some(8))];
        assert!(search_all(&never).is_err(), "what it expected was never there");
    }

    fn search_all(steps: &[Step]) -> Result<(), Stuck> {
        search(steps, STEPS_MAX)
    }

    #[test]
    fn reads_see_the_last_write() {
        assert_eq!(
            search_all(&[write(0, 1, 7), read(2, 3, Some(7)), write(4, 5, 8), read(6, 7, Some(8))]),
            Ok(())
        );
    }

    #[test]
    fn a_stale_read_is_found() {
        assert!(search_all(&[write(0, 1, 7), write(2, 3, 8), read(4, 5, Some(7))]).is_err());
        assert!(search_all(&[write(0, 1, 7), read(2, 3, None)]).is_err());
    }

    #[test]
    fn concurrent_operations_may_take_effect_in_either_order() {
        let both = |first, second| {
            [write(0, 10, 7), write(1, 9, 8), read(2, 3, Some(first)), read(4, 5, Some(second))]
        };
        assert_eq!(search_all(&both(7, 8)), Ok(()));
        assert_eq!(search_all(&both(8, 7)), Ok(()));
        // But not back and forth.
        let mut back_and_forth = both(7, 8).to_vec();
        back_and_forth.push(read(6, 7, Some(7)));
        assert!(search_all(&back_and_forth).is_err());
    }

    #[test]
    fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
        let late = [write(0, usize::MAX, 7), write(1, 2, 8), read(3, 4, Some(8)), read(5, 6, Some(7))];
        assert_eq!(search_all(&late), Ok(()));
        assert_eq!(search_all(&late[..3]), Ok(()));
        let mut twice = late.to_vec();
        twice.extend([write(7, 8, 9), read(9, 10, Some(7))]);
        assert!(search_all(&twice).is_err());
    }

    /// Nobody read what the first left behind, but the second, which was read, can have come only after it.
    #[test]
    fn what_a_swap_of_unknown_outcome_needs_is_not_left_out() {
        let mut steps = vec![
            write(0, usize::MAX, 7),
            swap(1, usize::MAX, 7, 8),
            read(2, 3, Some(8)),
            write(4, usize::MAX, 9),
        ];
        prune(&mut steps);
        assert_eq!(steps.len(), 3);
        assert_eq!(search_all(&steps), Ok(()));
    }

    #[test]
    fn unseen_unknown_writes_are_left_out() {
        let mut steps = vec![write(0, usize::MAX, 7), write(1, usize::MAX, 8), read(2, 3, Some(8))];
        prune(&mut steps);
        assert_eq!(steps, [write(1, usize::MAX, 8), read(2, 3, Some(8))]);
    }
}
