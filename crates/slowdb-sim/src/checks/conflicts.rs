//! What became of late writes is what the collection's conflict policy says: with `keep_current` none of them wins, else
//! hybrid logical time decides; none ever wins against what was written at `quorum` or `all`. What lost is kept, and with
//! `keep_both` it can be read, until somebody resolves it. Entries of the log of conflicts stay as they are, and each is
//! replayed or discarded once.
//!
//! The logs of conflicts are listed by clients now and then, and all of them in the end.

use super::Op;
use crate::events::{Ask, Conflict, Event, Key, Outcome};
use slowdb_proto::{Became, ConflictPolicy, Position, WriteLevel};
use std::collections::{BTreeMap, BTreeSet};

/// A shard, and a position in its log.
type Place = (u32, Position);

#[derive(Default)]
struct Seen {
    /// What each shard was to go by, and from where on it certainly does.
    policies: BTreeMap<u32, (ConflictPolicy, Position)>,
    /// Level and hybrid logical time of writes that were met.
    made: BTreeMap<Place, (WriteLevel, u64)>,
    /// Entries, by their names, with their losers as long as they had them.
    entries: BTreeMap<Place, Conflict>,
    /// The entries in the end.
    last: BTreeMap<u32, BTreeMap<Position, Conflict>>,
    /// Values by the positions that their writes were acknowledged at.
    values: BTreeMap<Place, (Key, Option<u64>)>,
    /// Ids to which conditional writes may have taken effect.
    conditional: BTreeSet<Key>,
}

pub(super) fn check(events: &[(u64, Event)], ops: &[Op]) -> Result<(), String> {
    let mut seen = Seen::default();
    for (_, event) in events {
        match event {
            Event::Policy { shard, policy, from } => drop(seen.policies.insert(*shard, (*policy, *from))),
            Event::Made { shard, position, level, hlc } => {
                seen.made.insert((*shard, *position), (*level, *hlc));
            }
            _ => {}
        }
    }
    for op in ops {
        seen.note(op)?;
    }
    for ((shard, _), entry) in &seen.entries {
        seen.entry(*shard, entry).map_err(|why| format!("shard {shard}, {entry:?}: {why}"))?;
    }
    each_is_resolved_once(ops)?;
    what_is_resolved_stays_so(ops)?;
    seen.siblings(ops)
}

impl Seen {
    fn note(&mut self, op: &Op) -> Result<(), String> {
        match (&op.ask, op.outcome()) {
            (_, Outcome::Conflicts { entries }) => {
                for entry in entries {
                    self.list(op, entry)?;
                }
                let by_name = entries.iter().map(|entry| (entry.was, *entry));
                self.last.insert(op.shard, by_name.collect());
            }
            (_, Outcome::Refused(_) | Outcome::Unmet { .. }) => {}
            (Ask::Write { writes, condition, .. }, outcome) => {
                if condition.is_some() {
                    self.conditional.extend(writes.iter().map(|(key, _)| *key));
                }
                if let Outcome::Written { first, .. } = outcome {
                    for (offset, write) in (first.offset..).zip(writes) {
                        self.values.insert((op.shard, Position { offset, ..*first }), *write);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is seen of an entry at different times fits together.
    fn list(&mut self, op: &Op, entry: &Conflict) -> Result<(), String> {
        let known = self.entries.entry((op.shard, entry.was)).or_insert(*entry);
        let loser = known.loser.or(entry.loser);
        let fits = entry.loser.is_none_or(|loser| known.loser.is_none_or(|known| known == loser));
        if !fits || (Conflict { loser, ..*known }) != (Conflict { loser, ..*entry }) {
            return Err(format!("op {}: {entry:?} of shard {} was {known:?} before", op.id.0, op.shard));
        }
        known.loser = loser;
        Ok(())
    }

    /// The policy by which something was decided, if that is certain.
    fn policy(&self, shard: u32, decided: Position) -> Option<ConflictPolicy> {
        match self.policies.get(&shard) {
            None => Some(ConflictPolicy::default()),
            Some((policy, from)) => (*from <= decided).then_some(*policy),
        }
    }

    fn entry(&self, shard: u32, entry: &Conflict) -> Result<(), String> {
        let policy = self.policy(shard, entry.decided);
        let made = entry.met.and_then(|met| self.made.get(&(shard, met)));
        match entry.became {
            Became::Replaced => {
                if policy == Some(ConflictPolicy::KeepCurrent) {
                    return Err("what was there was to stay".into());
                }
                if let Some((level @ (WriteLevel::Quorum | WriteLevel::All), _)) = made {
                    return Err(format!("it replaced what was written at {level:?}"));
                }
                if self.is_newer(shard, entry) == Some(false) {
                    return Err("it replaced what was newer".into());
                }
            }
            Became::Lost => {
                let by_time = matches!(policy, Some(ConflictPolicy::Newest | ConflictPolicy::KeepBoth));
                let against_one = !matches!(made, Some((WriteLevel::Quorum | WriteLevel::All, _)));
                if by_time && against_one && self.is_newer(shard, entry) == Some(true) {
                    return Err("it lost against what was older".into());
                }
            }
            Became::Applied => {
                // Of a later term it has not seen that, and an earlier write of its own leader it would be if that came late.
                let unseen = entry.met.is_some_and(|met| met.term > entry.was.term);
                if unseen && let Some((level, _)) = made {
                    return Err(format!("it was written at {level:?}, and met by what did not know of it"));
                }
            }
            Became::AlreadyThere | Became::Superseded => {}
        }
        self.loser(shard, entry, policy)
    }

    /// Whether a late write is newer than what it met, if the times of both are known.
    fn is_newer(&self, shard: u32, entry: &Conflict) -> Option<bool> {
        let met = entry.met?;
        let of_late = |other: &Conflict| {
            let applies = matches!(other.became, Became::Applied | Became::Replaced);
            (applies && other.decided == met).then_some((other.hlc, other.was))
        };
        let direct = self.made.get(&(shard, met)).map(|(_, hlc)| (*hlc, met));
        let late = || {
            let all = self.entries.range((shard, Position::START)..).take_while(|((of, _), _)| *of == shard);
            all.filter_map(|(_, other)| of_late(other)).next()
        };
        direct.or_else(late).map(|met| (entry.hlc, entry.was) > met)
    }

    /// What lost is kept, and is what was written.
    fn loser(&self, shard: u32, entry: &Conflict, policy: Option<ConflictPolicy>) -> Result<(), String> {
        let lost_at = match entry.became {
            Became::Lost => Some(entry.was),
            Became::Replaced => entry.met,
            Became::Applied | Became::AlreadyThere | Became::Superseded => {
                return match entry.loser {
                    Some(loser) => Err(format!("{loser:?} has lost, but nothing can have")),
                    None => Ok(()),
                };
            }
        };
        let Some(loser) = entry.loser else {
            let keeps_both = policy.is_none_or(|policy| policy == ConflictPolicy::KeepBoth);
            if keeps_both && self.conditional.contains(&entry.key) {
                return Ok(());
            }
            return Err("what lost is not kept, and nobody has resolved it".into());
        };
        let written = lost_at.and_then(|at| self.values.get(&(shard, at)));
        match written {
            Some((key, value)) if (*key, *value) != (entry.key, loser) => {
                Err(format!("what lost was {value:?} under {key:?}"))
            }
            _ => Ok(()),
        }
    }

    /// In the end every replica shows beside a record what lost against it, and nothing else.
    fn siblings(&self, ops: &[Op]) -> Result<(), String> {
        for op in ops {
            let (Ask::Read { at: Some(node), keys, .. }, Outcome::Read { seen, siblings, .. }) =
                (&op.ask, op.outcome())
            else {
                continue;
            };
            let Some(entries) = self.last.get(&op.shard) else { continue };
            let has_record = |key: &Key| keys.iter().zip(seen).any(|(k, seen)| k == key && seen.is_some());
            let kept = entries.values().filter_map(|entry| {
                let lost_at = if entry.became == Became::Replaced { entry.met? } else { entry.was };
                let policy = self.policy(op.shard, entry.decided);
                Some((policy, (entry.key, lost_at), entry.loser??)).filter(|_| has_record(&entry.key))
            });
            let kept: Vec<_> = kept.collect();
            let shown: BTreeMap<(Key, Position), u64> =
                siblings.iter().map(|(key, seen)| ((*key, seen.position), seen.value)).collect();
            for (policy, place, value) in &kept {
                let is_shown = shown.get(place) == Some(value);
                let wanted = policy.map(|policy| policy == ConflictPolicy::KeepBoth);
                if wanted.is_some_and(|wanted| wanted != is_shown) {
                    return Err(format!(
                        "shard {}, node {node}: {value} lost at {place:?}, decided by {policy:?}, and beside the records \
                         there is {siblings:?}",
                        op.shard
                    ));
                }
            }
            let odd = shown.iter().find(|(at, value)| !kept.iter().any(|(_, k, v)| (k, v) == (at, value)));
            if let Some(odd) = odd {
                return Err(format!("shard {}, node {node}: {odd:?} is shown, but never lost", op.shard));
            }
        }
        Ok(())
    }
}

/// Of any number of replays and discards of an entry one takes effect; and who finds it gone finds it resolved.
fn each_is_resolved_once(ops: &[Op]) -> Result<(), String> {
    let mut by_entry: BTreeMap<Place, Vec<&Op>> = BTreeMap::new();
    for op in ops {
        if let Ask::Resolve { entry, .. } = op.ask {
            by_entry.entry((op.shard, entry)).or_default().push(op);
        }
    }
    for ((shard, entry), ops) in by_entry {
        let done = |op: &&&Op| matches!(op.outcome(), Outcome::Written { .. });
        let mut done = ops.iter().filter(done);
        if let (Some(first), Some(second)) = (done.next(), done.next()) {
            return Err(format!(
                "shard {shard}: entry {entry} was resolved by op {}, and again by op {}",
                first.id.0, second.id.0
            ));
        }
        let missed = ops.iter().find(|op| matches!(op.outcome(), Outcome::Unmet { current: None }));
        let may_be = |op: &&Op| !matches!(op.outcome(), Outcome::Refused(_) | Outcome::Unmet { .. });
        if let Some(missed) = missed.filter(|_| !ops.iter().any(may_be)) {
            return Err(format!(
                "shard {shard}: op {} found no entry {entry}, which it had been shown, and nobody has resolved it",
                missed.id.0
            ));
        }
    }
    Ok(())
}

/// A sibling that was shown before a conditional write took effect is not shown after it.
fn what_is_resolved_stays_so(ops: &[Op]) -> Result<(), String> {
    let mut resolved: BTreeMap<Key, BTreeSet<Position>> = BTreeMap::new();
    let mut shown: BTreeMap<(Key, u64), Position> = BTreeMap::new();
    let reads = || {
        ops.iter().filter_map(|op| match op.outcome() {
            Outcome::Read { applied, siblings, .. } => Some((op, *applied, siblings)),
            _ => None,
        })
    };
    for op in ops {
        if let (Ask::Write { writes, condition: Some(_), .. }, Outcome::Written { first, .. }) =
            (&op.ask, op.outcome())
        {
            resolved.entry(writes[0].0).or_default().insert(*first);
        }
    }
    for (_, applied, siblings) in reads() {
        for (key, seen) in siblings {
            let first = shown.entry((*key, seen.value)).or_insert(applied);
            *first = applied.min(*first);
        }
    }
    for (op, applied, siblings) in reads() {
        for (key, seen) in siblings {
            let first = shown[&(*key, seen.value)];
            let by = resolved.get(key).and_then(|all| all.range(first..=applied).find(|at| **at > first));
            if let Some(by) = by {
                return Err(format!(
                    "op {} read {seen:?} beside {key:?} at {applied}, which was shown at {first} and resolved at {by}",
                    op.id.0
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key(3);

    fn at(term: u64, index: u64) -> Position {
        Position::new(term, index, 0)
    }

    /// Written in term 2 and overtaken; decided in term 3 against what was there.
    fn entry(became: Became, loser: Option<Option<u64>>) -> Conflict {
        Conflict {
            was: at(2, 10),
            key: KEY,
            became,
            decided: at(3, 20),
            met: Some(at(3, 11)),
            hlc: 50,
            loser,
        }
    }

    fn judged(policy: ConflictPolicy, made: (WriteLevel, u64), entry: Conflict) -> Result<(), String> {
        let mut seen = Seen::default();
        seen.policies.insert(0, (policy, at(3, 12)));
        seen.made.insert((0, at(3, 11)), made);
        seen.values.insert((0, at(2, 10)), (KEY, Some(7)));
        seen.values.insert((0, at(3, 11)), (KEY, Some(8)));
        seen.entry(0, &entry)
    }

    #[test]
    fn the_policy_decides() {
        use ConflictPolicy as P;
        let (lost, replaced) = (entry(Became::Lost, Some(Some(7))), entry(Became::Replaced, Some(Some(8))));
        let (older, newer) = ((WriteLevel::One, 49), (WriteLevel::One, 51));
        for policy in [P::Newest, P::KeepBoth] {
            assert_eq!(judged(policy, older, replaced), Ok(()));
            assert_eq!(judged(policy, newer, lost), Ok(()));
            assert!(judged(policy, newer, replaced).is_err());
            assert!(judged(policy, older, lost).is_err());
            assert_eq!(judged(policy, (WriteLevel::Quorum, 49), lost), Ok(()));
            assert!(judged(policy, (WriteLevel::Quorum, 49), replaced).is_err());
        }
        assert_eq!(judged(P::KeepCurrent, older, lost), Ok(()));
        assert!(judged(P::KeepCurrent, older, replaced).is_err());
    }

    #[test]
    fn what_lost_is_kept_as_it_was_written() {
        let newer = (WriteLevel::One, 51);
        let wrong = entry(Became::Lost, Some(Some(8)));
        assert!(judged(ConflictPolicy::Newest, newer, wrong).is_err());
        assert!(judged(ConflictPolicy::KeepBoth, newer, entry(Became::Lost, None)).is_err());
    }
}
