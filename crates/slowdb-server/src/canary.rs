//! Bugs that can be planted in this crate, to prove that the checks around it notice them. They hold for all nodes of a
//! thread: a simulation runs in one.

use std::cell::Cell;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canary {
    /// A leader takes votes away before those that are to have them instead are there.
    RemovalFirst,
    /// A node deletes its replica as soon as the catalog wants it gone.
    RemovalByWish,
    /// A snapshot comes without the table of terms.
    SnapshotWithoutTerms,
    /// The id of a replica that is gone is given to the next one.
    ReplicaIdReused,
    /// A leader changes members by whatever catalog it has.
    StaleExecutor,
    /// A retry is executed as if it were the first attempt.
    RetryExecuted,
    /// A write that was overtaken is applied whenever it is offered, however often.
    LateAppliedAgain,
    /// Tombstones are dropped with the entry that they come with.
    TombstonesDropped,
    /// Whether a write's condition holds is decided by what the leader has when it is asked, not when the write is applied.
    ConditionByLeader,
    /// Late writes win by their time, whatever the collection's conflict policy is.
    PolicyIgnored,
    /// To keep both, what lost is kept, but not to be read.
    SiblingDropped,
    /// What lost in a conflict is written whenever that is asked for: its entry stays.
    ReplayedAgain,
    /// A read at `session` is answered before what its caller has seen is applied.
    SessionNotAwaited,
}

thread_local! {
    static PLANTED: Cell<Option<Canary>> = const { Cell::new(None) };
}

/// Plants a bug in all nodes of this thread, or none.
pub fn plant(canary: Option<Canary>) {
    PLANTED.set(canary);
}

pub(crate) fn is_planted(canary: Canary) -> bool {
    PLANTED.get() == Some(canary)
}
