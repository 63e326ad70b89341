//! Writes that come while their group is between two leaders.
//!
//! Whoever asks then could only be told to come back, and would guess when. Held for the moment that it takes until the next
//! leader is known, the write is taken if that is this node, and otherwise refused with the name of who it is, to whom the
//! client goes at once. What is held was not begun: letting go of it loses nothing.

use crate::node::{Node, RequestId};
use bytes::Bytes;
use slowdb_proto::{Code, Reply, WriteRequest};
use slowdb_repl::GroupId;
use std::collections::{BTreeMap, VecDeque};

/// A write is not held for longer than this: an election under good conditions is over by then.
const HELD_TICKS: u64 = 8;
/// All that are held at a time.
const HELD_MAX: usize = 4096;
const HELD_BYTES_MAX: usize = 16 << 20;

/// A write that was not looked at yet.
pub(crate) struct Held {
    pub(crate) id: RequestId,
    pub(crate) write: WriteRequest,
    pub(crate) body: Bytes,
    /// When nobody waits for it any more, in microseconds.
    pub(crate) deadline: u64,
}

/// Groups between two leaders, as far as this node knows, and the writes to them.
#[derive(Default)]
pub(crate) struct Gaps {
    gaps: BTreeMap<GroupId, Gap>,
    count: usize,
    bytes: usize,
}

struct Gap {
    since: u64,
    held: VecDeque<Held>,
}

impl Gaps {
    /// A group has lost its leader, or is being handed over.
    pub(crate) fn begin(&mut self, group: GroupId, ticks: u64) {
        self.gaps.entry(group).or_insert(Gap { since: ticks, held: VecDeque::new() });
    }

    /// Gives what was held.
    pub(crate) fn end(&mut self, group: GroupId) -> VecDeque<Held> {
        let held = self.gaps.remove(&group).map(|gap| gap.held).unwrap_or_default();
        self.count -= held.len();
        self.bytes -= held.iter().map(|held| held.body.len()).sum::<usize>();
        held
    }

    /// Groups that are to be looked at again: the time is up, or there is a leader that takes writes.
    fn over(&self, ticks: u64, leads: impl Fn(GroupId) -> bool) -> Vec<GroupId> {
        let is_over = |(id, gap): &(&GroupId, &Gap)| gap.since + HELD_TICKS <= ticks || leads(**id);
        self.gaps.iter().filter(is_over).map(|(id, _)| *id).collect()
    }

    /// Holds a write to a group that is between two leaders. Gives back any other, and one that there is no room for.
    pub(crate) fn hold(&mut self, group: GroupId, held: Held) -> Option<Held> {
        let Some(gap) = self.gaps.get_mut(&group) else { return Some(held) };
        if self.count >= HELD_MAX || self.bytes + held.body.len() > HELD_BYTES_MAX {
            return Some(held);
        }
        self.count += 1;
        self.bytes += held.body.len();
        gap.held.push_back(held);
        None
    }
}

impl Node {
    /// The group has a leader again, or none is waited for any longer.
    pub(crate) fn end_gap(&mut self, group: GroupId) {
        for held in self.gaps.end(group) {
            let id = held.id;
            let taken = if held.deadline <= self.now.micros {
                let message = format!("{group} had no leader in time");
                Err(crate::requests::error(Code::Timeout, message))
            } else {
                self.write(held)
            };
            if let Err(error) = taken {
                self.reply(id, Reply::Error(*error));
            }
        }
    }

    /// With each tick. A hand-over that came to nothing ends without a word.
    pub(crate) fn look_at_gaps(&mut self) {
        let repl = &self.repl;
        for group in self.gaps.over(self.ticks, |group| repl.leads(group) && !repl.is_handing_over(group)) {
            self.end_gap(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_proto::{ClientId, WriteLevel};

    const GROUP: GroupId = GroupId(3);

    fn held(bytes: usize) -> Held {
        let write = WriteRequest {
            collection: "default".to_owned(),
            first_group: 1,
            shard: 0,
            level: Some(WriteLevel::Quorum),
            client: ClientId([7; 16]),
            sequence: 1,
            retry: false,
        };
        Held { id: RequestId(1), write, body: Bytes::from(vec![0; bytes]), deadline: 9 }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut gaps = Gaps::default();
        assert!(gaps.hold(GROUP, held(1)).is_some(), "it has a leader");
        gaps.begin(GROUP, 1);
        assert!(gaps.hold(GROUP, held(HELD_BYTES_MAX)).is_none());
        assert!(gaps.hold(GROUP, held(1)).is_some(), "no room");
        assert_eq!(gaps.end(GROUP).len(), 1);
        gaps.begin(GROUP, 1);
        for _ in 0..HELD_MAX {
            assert!(gaps.hold(GROUP, held(1)).is_none());
        }
        assert!(gaps.hold(GROUP, held(1)).is_some(), "too many");
    }

    #[test]
    fn a_gap_ends_in_time_however_often_it_begins() {
        let mut gaps = Gaps::default();
        gaps.begin(GROUP, 1);
        gaps.begin(GROUP, HELD_TICKS);
        assert!(gaps.over(HELD_TICKS, |_| false).is_empty());
        assert_eq!(gaps.over(HELD_TICKS, |_| true), [GROUP], "this node leads after all");
        assert_eq!(gaps.over(1 + HELD_TICKS, |_| false), [GROUP]);
    }
}
