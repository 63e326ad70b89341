//! Whether a write that was acknowledged at `one`, and overtaken by a failover, takes effect when it is offered again.
//! Pure: what is there, what came late, what comes of it.

use crate::envelope::Envelope;
use slowdb_proto::{ConflictPolicy, Position, WriteLevel};

/// What is there of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Neither record nor tombstone.
    Nothing,
    /// A record, or a tombstone, with the position of its write.
    Left(Position, Envelope),
}

/// A write that comes late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LateWrite {
    /// Position that it had in the log of the leader that was overtaken.
    pub(crate) was: Position,
    /// Hybrid logical time at that leader.
    pub(crate) hlc: u64,
    /// Up to this index, at least, the histories are the same.
    pub(crate) fork: u64,
}

/// What comes of a late write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is applied: nothing has touched the record since the histories parted.
    Apply,
    /// What is there is what it wrote.
    AlreadyThere,
    /// It is applied: what is there is an earlier write of the same leader.
    Supersede,
    /// It is not applied: what is there is a later write of the same leader.
    Superseded,
    /// It is applied: of two concurrent writes it is the newer one.
    Win,
    /// It is not applied.
    Lose,
}

impl Verdict {
    /// Whether the write takes effect.
    pub(crate) fn applies(self) -> bool {
        matches!(self, Verdict::Apply | Verdict::Supersede | Verdict::Win)
    }
}

/// Decides. Up to `horizon` tombstones may have been dropped.
pub(crate) fn judge(present: Present, late: LateWrite, horizon: u64, policy: ConflictPolicy) -> Verdict {
    let Present::Left(position, made) = present else {
        // It may have been deleted since, by a delete that nothing is left of.
        return if late.fork >= horizon { Verdict::Apply } else { Verdict::Lose };
    };
    if made.was == Some(late.was) {
        return Verdict::AlreadyThere;
    }
    if position.index <= late.fork {
        return Verdict::Apply;
    }
    // A term has one leader, and one history.
    if let Some(other) = made.was.filter(|other| other.term == late.was.term) {
        return if other < late.was { Verdict::Supersede } else { Verdict::Superseded };
    }
    let wins = match policy {
        ConflictPolicy::Newest | ConflictPolicy::KeepBoth => {
            (late.hlc, late.was) > (made.hlc, made.was.unwrap_or(position))
        }
        ConflictPolicy::KeepCurrent => false,
    };
    if made.level == WriteLevel::One && wins { Verdict::Win } else { Verdict::Lose }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: LateWrite = LateWrite { was: Position::new(3, 20, 1), hlc: 50, fork: 18 };

    fn left(index: u64, level: WriteLevel, hlc: u64, was: Option<Position>) -> Present {
        Present::Left(Position::new(4, index, 0), Envelope { level, hlc, was })
    }

    #[test]
    fn what_nothing_has_touched_is_applied() {
        assert_eq!(judge(Present::Nothing, LATE, 0, ConflictPolicy::Newest), Verdict::Apply);
        assert_eq!(judge(Present::Nothing, LATE, 18, ConflictPolicy::Newest), Verdict::Apply);
        for level in [WriteLevel::One, WriteLevel::Quorum, WriteLevel::All] {
            assert_eq!(judge(left(18, level, 90, None), LATE, 0, ConflictPolicy::Newest), Verdict::Apply);
        }
    }

    #[test]
    fn what_may_have_been_deleted_is_not_raised() {
        assert_eq!(judge(Present::Nothing, LATE, 19, ConflictPolicy::Newest), Verdict::Lose);
    }

    #[test]
    fn of_two_at_one_the_newer_wins() {
        for (hlc, verdict) in [(49, Verdict::Win), (51, Verdict::Lose), (50, Verdict::Lose)] {
            assert_eq!(
                judge(left(19, WriteLevel::One, hlc, None), LATE, 0, ConflictPolicy::Newest),
                verdict,
                "{hlc}"
            );
        }
        // Equal times: by the place that each had first.
        let other = |term| Some(Position::new(term, 90, 0));
        assert_eq!(
            judge(left(19, WriteLevel::One, 50, other(2)), LATE, 0, ConflictPolicy::Newest),
            Verdict::Win
        );
        assert_eq!(
            judge(left(19, WriteLevel::One, 50, other(5)), LATE, 0, ConflictPolicy::Newest),
            Verdict::Lose
        );
    }

    #[test]
    fn to_keep_the_current_is_to_keep_the_older_too() {
        let policy = ConflictPolicy::KeepCurrent;
        for hlc in [49, 51] {
            assert_eq!(judge(left(19, WriteLevel::One, hlc, None), LATE, 0, policy), Verdict::Lose, "{hlc}");
        }
        // These are no conflicts.
        assert_eq!(judge(Present::Nothing, LATE, 0, policy), Verdict::Apply);
        assert_eq!(judge(left(18, WriteLevel::Quorum, 99, None), LATE, 0, policy), Verdict::Apply);
        let earlier = left(40, WriteLevel::One, 999, Some(Position::new(3, 20, 0)));
        assert_eq!(judge(earlier, LATE, 0, policy), Verdict::Supersede);
    }

    #[test]
    fn what_a_majority_acknowledged_is_never_replaced() {
        for policy in [ConflictPolicy::Newest, ConflictPolicy::KeepCurrent, ConflictPolicy::KeepBoth] {
            for level in [WriteLevel::Quorum, WriteLevel::All] {
                assert_eq!(judge(left(19, level, 1, None), LATE, 0, policy), Verdict::Lose);
            }
        }
    }

    #[test]
    fn writes_of_one_leader_do_not_conflict() {
        let same = |offset| left(40, WriteLevel::One, 999, Some(Position::new(3, 20, offset)));
        assert_eq!(judge(same(0), LATE, 0, ConflictPolicy::Newest), Verdict::Supersede);
        assert_eq!(judge(same(1), LATE, 0, ConflictPolicy::Newest), Verdict::AlreadyThere);
        assert_eq!(judge(same(2), LATE, 0, ConflictPolicy::Newest), Verdict::Superseded);
    }
}
