//! What is due, and when.
//!
//! One queue of actions, ordered by time and then by when they were asked for, so that nothing is left to chance
//! but what the seed draws.

use crate::faults::{Fault, Wiped};
use slowdb_repl::{GroupId, Job, JobDone};
use slowdb_storage::{CheckpointDone, CheckpointError, CheckpointJob};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How a checkpoint ended. Boxed, as all that is large in an action.
type CheckpointEnd = Box<Result<CheckpointDone, CheckpointError>>;

/// Something that is due at some time.
pub(crate) enum Action {
    Start { node: usize },
    Tick { node: usize, life: u32 },
    Wake { node: usize, life: u32 },
    Synced { node: usize, life: u32 },
    Mark { node: usize, life: u32, batch: u64 },
    Close { node: usize, life: u32, down: u64 },
    RunCheckpoint { node: usize, life: u32, group: GroupId, job: Box<CheckpointJob> },
    CheckpointRan { node: usize, life: u32, group: GroupId, result: CheckpointEnd },
    RunJob { node: usize, life: u32, job: Box<Job> },
    JobRan { node: usize, life: u32, done: Box<JobDone> },
    Frame { from: usize, to: usize, life: u32, bytes: Vec<u8> },
    Unreachable { node: usize, life: u32, other: usize },
    Dial { from: usize, to: usize, life: u32 },
    Request { client: usize, attempt: u64, node: usize, bytes: Vec<u8> },
    Answer { client: usize, attempt: u64, bytes: Vec<u8> },
    Client { client: usize, timer: u64 },
    Ask { asker: usize, timer: u64 },
    FetchOver { attempt: u64 },
    Operate,
    Wipe { node: usize, life: u32, wiped: Wiped },
    Fault(Box<Fault>),
    Mend { from: usize, to: usize },
    MendClient { client: usize, node: usize },
    FreeDisk { node: usize },
    PowerLoss { node: usize, life: u32, down: u64 },
}

impl Action {
    /// Whether it is something that a thread of this node does, holding files open.
    pub(crate) fn is_work_of(&self, of: usize) -> bool {
        match self {
            Action::RunCheckpoint { node, .. }
            | Action::CheckpointRan { node, .. }
            | Action::RunJob { node, .. } => *node == of,
            _ => false,
        }
    }
}

/// When an action is due, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    /// Grows by one from action to action.
    number: u64,
    place: usize,
}

/// All that is due. Actions stay where they are: only their times are moved about.
#[derive(Default)]
pub(crate) struct Queue {
    dues: BinaryHeap<Reverse<Due>>,
    actions: Vec<Option<Action>>,
    /// Places without an action.
    free: Vec<usize>,
    number: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, action: Action) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.actions.push(None);
            self.actions.len() - 1
        });
        self.actions[place] = Some(action);
        self.number += 1;
        self.dues.push(Reverse(Due { at, number: self.number, place }));
    }

    /// The next action, with its time, if it is due by then.
    pub(crate) fn pop_until(&mut self, until: u64) -> Option<(u64, Action)> {
        if self.dues.peek().is_none_or(|Reverse(due)| due.at > until) {
            return None;
        }
        let Reverse(Due { at, place, .. }) = self.dues.pop()?;
        self.free.push(place);
        Some((at, self.actions[place].take()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.dues.is_empty()
    }

    /// Drops the actions that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Action) -> bool) {
        let Queue { dues, actions, free, .. } = self;
        dues.retain(|Reverse(due)| {
            let kept = actions[due.place].as_ref().is_some_and(&keep);
            if !kept {
                actions[due.place] = None;
                free.push(due.place);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_order_of_time_and_then_of_asking() {
        let mut queue = Queue::default();
        for (at, node) in [(5, 0), (3, 1), (5, 2), (3, 3), (9, 4)] {
            queue.push(at, Action::Start { node });
        }
        queue.retain(|action| !matches!(action, Action::Start { node: 3 }));
        queue.push(5, Action::Start { node: 5 });
        let mut seen = Vec::new();
        while let Some((at, Action::Start { node })) = queue.pop_until(8) {
            seen.push((at, node));
        }
        assert_eq!(seen, [(3, 1), (5, 0), (5, 2), (5, 5)]);
        assert!(!queue.is_empty() && queue.pop_until(9).is_some() && queue.is_empty());
    }
}
