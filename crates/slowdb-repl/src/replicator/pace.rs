//! Which parts of snapshots a node asks for, and when: a pace over all groups, whose groups take turns.

use super::Replicator;
use crate::engine::wire::Payload;
use crate::group::PART_BYTES;
use crate::ids::GroupId;
use crate::machine::StateMachine;
use crate::{Now, TICK_MICROS};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Parts that are under way at a time, over all groups. With [`PART_BYTES`] a part this fills half of the queue that a
/// sender keeps for a node; see `transport/peer.rs`.
const PARTS_UNDER_WAY_MAX: u64 = 16;
/// What was not asked for within this time is not made up for.
const BURST_MICROS: u64 = 5 * TICK_MICROS;

/// Bytes that may be asked for.
pub(super) struct Pace {
    per_second: u64,
    /// Below 0: as much was asked for too early.
    bytes: i64,
    filled_at: u64,
    /// Groups in which parts of a snapshot are missing.
    groups: BTreeSet<GroupId>,
    /// The group that asked last.
    asked_last: GroupId,
}

impl Pace {
    pub(super) fn new(per_second: u64) -> Self {
        Pace { per_second, bytes: 0, filled_at: 0, groups: BTreeSet::new(), asked_last: GroupId(0) }
    }

    /// Bytes that are allowed for in a time, but no more than can be counted.
    fn bytes_in(&self, micros: u64) -> i64 {
        let bytes = u128::from(self.per_second) * u128::from(micros) / 1_000_000;
        i64::try_from(bytes).unwrap_or(i64::MAX).min(i64::MAX / 4)
    }

    /// Time passed.
    pub(super) fn fill(&mut self, now: Now) {
        let passed = now.micros.saturating_sub(self.filled_at).min(BURST_MICROS);
        self.filled_at = now.micros;
        let most = self.bytes_in(BURST_MICROS).max(PART_BYTES as i64);
        self.bytes = (self.bytes + self.bytes_in(passed)).min(most);
    }

    /// Groups in which parts are missing, those first whose turn it is.
    fn in_turn(&self) -> Vec<GroupId> {
        let after = (Bound::Excluded(self.asked_last), Bound::Unbounded);
        let until = (Bound::Unbounded, Bound::Included(self.asked_last));
        self.groups.range(after).chain(self.groups.range(until)).copied().collect()
    }
}

impl<M: StateMachine> Replicator<M> {
    /// A group may have begun or ended to take in a snapshot, or a part arrived.
    pub(super) fn note_receiving(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        self.pace.bytes -= group.take_more_bytes();
        if group.misses_parts() {
            self.pace.groups.insert(id);
        } else {
            self.pace.groups.remove(&id);
        }
    }

    /// Asks for parts, one of each group in turn, until all have what they may have under way or the pace says stop.
    pub(super) fn ask_for_parts(&mut self, messages: &mut Vec<(GroupId, Payload)>) {
        if self.pace.groups.is_empty() {
            return;
        }
        self.pace.groups.retain(|id| self.groups.contains_key(id));
        let under_way = |id: &GroupId| self.groups.get(id).map_or(0, |group| group.parts_under_way());
        let mut under_way: u64 = self.pace.groups.iter().map(under_way).sum();
        let mut turn = self.pace.in_turn();
        while !turn.is_empty() {
            turn.retain(|id| {
                let may_ask_on = self.pace.bytes > 0 && under_way < PARTS_UNDER_WAY_MAX;
                let Some(group) = self.groups.get_mut(id) else { return false };
                let Some((want, again)) = group.next_want(may_ask_on) else { return false };
                if !again {
                    self.pace.bytes -= PART_BYTES as i64;
                    self.pace.asked_last = *id;
                    under_way += 1;
                }
                messages.push((*id, Payload::Note(want)));
                true
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Now {
        Now { micros, wall_millis: 0 }
    }

    #[test]
    fn a_second_allows_for_what_was_set_however_long_its_ticks_take() {
        let mut pace = Pace::new(50_000_000);
        let mut allowed = 0;
        for micros in (0..=1_000_000).step_by(12_500) {
            pace.fill(at(micros));
            allowed += std::mem::take(&mut pace.bytes);
        }
        assert_eq!(allowed, 50_000_000);
        // It sleeps for long, and does not make up for it.
        pace.fill(at(900_000_000));
        assert_eq!(pace.bytes, 5_000_000);
    }

    #[test]
    fn a_pace_of_less_than_a_part_allows_for_one_now_and_then() {
        let mut pace = Pace::new(1_000);
        let mut parts = 0;
        for second in 0..1_000 {
            (0..50).for_each(|tick| pace.fill(at(second * 1_000_000 + tick * 20_000)));
            while pace.bytes > 0 {
                pace.bytes -= PART_BYTES as i64;
                parts += 1;
            }
        }
        assert_eq!(parts, 2, "of 524,288 bytes");
    }

    #[test]
    fn no_limit_never_overflows() {
        let mut pace = Pace::new(u64::MAX);
        for second in 1..10 {
            pace.fill(at(second * 1_000_000));
        }
        assert!(pace.bytes > 1 << 60, "{}", pace.bytes);
    }

    #[test]
    fn groups_take_turns() {
        let mut pace = Pace::new(1);
        pace.groups.extend([GroupId(1), GroupId(4), GroupId(9)]);
        let turns = |last| {
            let pace = Pace { asked_last: GroupId(last), groups: pace.groups.clone(), ..Pace::new(1) };
            pace.in_turn().into_iter().map(|group| group.0).collect::<Vec<_>>()
        };
        assert_eq!(turns(0), [1, 4, 9]);
        assert_eq!(turns(1), [4, 9, 1]);
        assert_eq!(turns(5), [9, 1, 4]);
        assert_eq!(turns(9), [1, 4, 9]);
    }
}
