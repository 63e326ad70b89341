//! What may follow in a group, case by case.

use super::super::error::InvalidRecord;
use super::super::group::{Effect, Group};
use super::super::record::HardState;

/// Entries 1 to 5 in terms 1, 1, 2, 2, 3, in segments 1, 1, 1, 2, 3; commit index 2.
fn group() -> Group {
    let mut group = Group::new(true);
    for (index, term, segment) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 3)] {
        group.entry(7, 3, term, index, segment).expect("is valid");
    }
    group.hard_state(7, HardState { term: 3, vote: 1, commit: 2 }, 3).expect("is valid");
    group
}

#[test]
fn entries_that_cannot_follow_are_refused() {
    let refused = |leader_term, term, index| group().entry(7, leader_term, term, index, 3).unwrap_err();
    assert_eq!(refused(3, 3, 7), InvalidRecord::Gap { group: 7, index: 7, expected: 6 });
    assert_eq!(refused(2, 2, 6), InvalidRecord::StaleLeader { group: 7, leader_term: 2, current: 3 });
    assert_eq!(refused(3, 4, 6), InvalidRecord::BeyondLeader { group: 7, index: 6, term: 4, leader_term: 3 });
    assert_eq!(refused(3, 2, 6), InvalidRecord::TermGoesBack { group: 7, index: 6, term: 2, previous: 3 });
    assert_eq!(refused(3, 3, 2), InvalidRecord::Committed { group: 7, index: 2, commit: 2 });
    assert_eq!(refused(3, 3, 0), InvalidRecord::OutOfRange { group: 7, index: 0, term: 3 });
    assert_eq!(refused(3, 0, 6), InvalidRecord::OutOfRange { group: 7, index: 6, term: 0 });
    assert!(matches!(refused(u64::MAX, u64::MAX, u64::MAX), InvalidRecord::OutOfRange { .. }));
}

#[test]
fn an_old_entry_may_come_from_a_new_leader() {
    let mut group = group();
    assert_eq!(group.entry(7, 4, 2, 3, 4), Ok(Effect::Append(3)));
    assert_eq!(group.last, 3);
}

#[test]
fn hard_states_never_go_back() {
    let refused =
        |term, vote, commit| group().hard_state(7, HardState { term, vote, commit }, 3).unwrap_err();
    assert!(matches!(refused(2, 1, 2), InvalidRecord::HardStateGoesBack { .. }));
    assert!(matches!(refused(3, 1, 1), InvalidRecord::HardStateGoesBack { .. }));
    assert!(matches!(refused(3, 2, 2), InvalidRecord::VoteChanged { .. }));
    assert!(matches!(refused(3, 0, 2), InvalidRecord::VoteChanged { .. }));
    assert_eq!(refused(4, 0, 6), InvalidRecord::CommitBeyondEnd { group: 7, commit: 6, last: 5 });
}

#[test]
fn compactions_trim_or_reset() {
    let mut group = group();
    assert_eq!(group.compacted(7, 3, 2, 4), Ok(Effect::Trim(3)));
    assert_eq!((group.first_segment(), group.last), (Some(2), 5));
    assert_eq!(
        group.compacted(7, 2, 1, 4),
        Err(InvalidRecord::CompactedGoesBack { group: 7, index: 2, current: 3 })
    );
    let wrong = InvalidRecord::CompactedTerm { group: 7, index: 3, term: 1, current: 2 };
    assert_eq!(group.compacted(7, 3, 1, 4), Err(wrong));
    assert_eq!(group.compacted(7, 5, 4, 4), Ok(Effect::Reset(5)), "another history behind entry 5");
    assert_eq!((group.first_segment(), group.last), (None, 5));
    assert_eq!(group.hard, HardState { term: 4, vote: 0, commit: 5 }, "compacted means committed");
    assert_eq!(group.compacted(7, 100, 4, 4), Ok(Effect::Reset(100)));
    assert_eq!(group.entry(7, 4, 4, 101, 4), Ok(Effect::Append(101)));
}

#[test]
fn pins_say_up_to_where_to_compact() {
    let group = group();
    assert_eq!(group.last_index_in(1), Some(3));
    assert_eq!(group.last_index_in(2), Some(4));
    assert_eq!(group.last_index_in(9), Some(5));
    let mut group = group;
    group.compacted(7, 3, 2, 4).expect("is valid");
    assert_eq!(group.last_index_in(1), None);
}

#[test]
fn a_group_without_its_beginning_needs_a_compaction() {
    let mut group = Group::new(false);
    group.entry(7, u64::MAX, 2, 11, 5).expect("starts anywhere");
    group.entry(7, u64::MAX, 2, 12, 5).expect("follows");
    assert!(group.clone().finish().is_err());
    assert_eq!(group.replay_trim(7, 9, 1, 5), Ok(Effect::None), "more was compacted later");
    assert!(group.clone().finish().is_err());
    assert_eq!(group.replay_trim(7, 10, 1, 5), Ok(Effect::Trim(10)));
    assert_eq!(group.finish(), Ok(()));
    assert_eq!((group.base, group.last), ((10, 1), 12));
}
