//! What a group is to be, and when what it was is forgotten.

use super::*;
use Standing::{Changing, Learner, None as Absent, Voter};

const VOTES: Wanted = Wanted::Voter;
const LEARNS: Wanted = Wanted::Learner;

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|node| (*node).to_owned()).collect()
}

fn placed(nodes: &[(&str, Wanted)]) -> Vec<(String, Wanted)> {
    nodes.iter().map(|(node, wanted)| ((*node).to_owned(), *wanted)).collect()
}

fn report(index: u64, intent: u64, members: &[(u64, Standing)]) -> Report {
    Report { group: 7, index, intent, members: members.to_vec() }
}

/// Group 7 on a, b and c, as replicas 1, 2 and 3, since epoch 3.
fn spec(next: &mut u64) -> GroupSpec {
    GroupSpec::new(7, 3, &names(&["a", "b", "c"]), next)
}

fn ids(spec: &GroupSpec) -> Vec<u64> {
    spec.replicas.iter().map(|replica| replica.replica).collect()
}

#[test]
fn an_odd_number_votes() {
    for (replicas, voters) in [(0, 0), (1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5)] {
        assert_eq!(voters_of(replicas), voters, "{replicas} replicas");
    }
}

#[test]
fn what_is_wanted_already_changes_nothing() {
    let mut next = 1;
    let mut spec = spec(&mut next);
    let before = spec.clone();
    let same = placed(&[("c", VOTES), ("a", VOTES), ("b", VOTES)]);
    assert!(!spec.want(9, &same, "a", "again", &mut next));
    assert_eq!((&spec, next), (&before, 4), "no epoch, no reason and no id is spent");
    assert!(spec.want(9, &same, "b", "leads are spread", &mut next));
    assert_eq!((spec.epoch, spec.leader.as_str()), (3, "b"), "who leads is nothing that members change by");
}

#[test]
fn a_replica_comes_learns_votes_and_another_goes() {
    let mut next = 1;
    let mut spec = spec(&mut next);
    let wanted = placed(&[("a", VOTES), ("b", VOTES), ("d", VOTES)]);
    assert!(spec.want(9, &wanted, "a", "balance", &mut next));
    assert_eq!((ids(&spec), next, spec.epoch, spec.reason.as_str()), (vec![1, 2, 3, 4], 5, 9, "balance"));
    let since: Vec<u64> = spec.replicas.iter().map(|replica| replica.since).collect();
    assert_eq!(since, [3, 3, 9, 9]);
    assert_eq!(spec.staying().map(|replica| replica.node.as_str()).collect::<Vec<_>>(), ["a", "b", "d"]);
    let steps = [
        (10, vec![(1, Voter), (2, Voter), (3, Voter), (4, Learner)]),
        (11, vec![(1, Voter), (2, Voter), (3, Changing), (4, Changing)]),
        (12, vec![(1, Voter), (2, Voter), (4, Voter)]),
    ];
    for (index, members) in steps {
        assert!(!spec.is_settled(), "before {index}");
        let report = report(index, 9, &members);
        assert!(spec.is_news(&report) && spec.note(&report));
        assert!(!spec.is_news(&report) && !spec.note(&report), "the second time it is none");
    }
    assert!(spec.is_settled());
    assert_eq!(ids(&spec), [1, 2, 4]);
}

#[test]
fn a_replica_is_forgotten_only_when_nobody_can_make_it_a_member_again() {
    let cases = [
        ("it is a member", report(10, 9, &[(1, Voter), (2, Voter), (3, Learner)]), false),
        ("it is on its way out", report(10, 9, &[(1, Voter), (2, Voter), (3, Changing)]), false),
        ("who leads next may not know that it is to go", report(10, 8, &[(1, Voter), (2, Voter)]), false),
        ("a leader that knows it made it so", report(10, 9, &[(1, Voter), (2, Voter)]), true),
        ("a leader that knows even more did", report(10, 11, &[(1, Voter), (2, Voter)]), true),
    ];
    for (why, report, forgotten) in cases {
        let mut next = 1;
        let mut spec = spec(&mut next);
        assert!(spec.want(9, &placed(&[("a", VOTES), ("b", VOTES)]), "a", "factor", &mut next));
        assert!(spec.note(&report), "{why}");
        assert_eq!(spec.replica_on("c").is_none(), forgotten, "{why}");
    }
}

#[test]
fn an_intent_alone_is_news() {
    let mut next = 1;
    let mut spec = spec(&mut next);
    // It never became a member, and is not wanted any more.
    assert!(spec.want(
        9,
        &placed(&[("a", VOTES), ("b", VOTES), ("c", VOTES), ("d", LEARNS)]),
        "a",
        "",
        &mut next
    ));
    assert!(spec.want(10, &placed(&[("a", VOTES), ("b", VOTES), ("c", VOTES)]), "a", "", &mut next));
    let members = [(1, Voter), (2, Voter), (3, Voter)];
    assert!(!spec.is_news(&report(5, 9, &members)));
    assert!(spec.note(&report(5, 9, &members)));
    assert_eq!(ids(&spec), [1, 2, 3, 4]);
    assert!(spec.is_news(&report(5, 10, &members)), "the same configuration, and now they know");
    assert!(spec.note(&report(5, 10, &members)));
    assert_eq!(ids(&spec), [1, 2, 3]);
}

#[test]
fn old_reports_say_nothing() {
    let mut next = 1;
    let mut spec = spec(&mut next);
    assert!(spec.want(9, &placed(&[("a", VOTES), ("b", VOTES)]), "a", "factor", &mut next));
    let members = [(1, Voter), (2, Voter), (3, Voter)];
    assert!(spec.note(&report(20, 9, &members)));
    for old in [report(19, 9, &members[..2]), report(20, 9, &members[..2]), report(20, 8, &members[..2])] {
        assert!(!spec.note(&old) && !spec.is_news(&old), "{old:?}");
    }
    assert_eq!(ids(&spec), [1, 2, 3]);
}

#[test]
fn what_is_to_go_does_not_come_back_under_the_same_id() {
    let mut next = 1;
    let mut spec = spec(&mut next);
    let all = placed(&[("a", VOTES), ("b", VOTES), ("c", VOTES)]);
    assert!(spec.want(9, &all[..2], "a", "drained", &mut next));
    assert!(
        !spec.want(10, &all, "a", "not drained after all", &mut next),
        "one of them is on that node still"
    );
    assert_eq!((ids(&spec), next), (vec![1, 2, 3], 4));
    assert_eq!(spec.replica_on("c").map(|replica| replica.wanted), Some(Wanted::Gone));
    assert!(spec.note(&report(10, 9, &[(1, Voter), (2, Voter)])));
    assert!(spec.want(11, &all, "a", "balance", &mut next));
    assert_eq!((ids(&spec), next), (vec![1, 2, 4], 5));
}

#[test]
fn settled_is_when_all_are_what_they_are_to_be() {
    let settled = [(VOTES, Voter), (LEARNS, Learner)];
    for wanted in [VOTES, LEARNS, Wanted::Gone] {
        for standing in [Absent, Learner, Voter, Changing] {
            let mut spec = spec(&mut 1);
            assert!(spec.is_settled());
            (spec.replicas[1].wanted, spec.replicas[1].standing) = (wanted, standing);
            let expected = settled.contains(&(wanted, standing));
            assert_eq!(spec.is_settled(), expected, "wanted {wanted:?}, is {standing:?}");
        }
    }
}

#[test]
fn whom_a_replica_knows_at_first() {
    let mut next = 1;
    let mut spec = GroupSpec::new(7, 3, &names(&["a", "b"]), &mut next);
    assert!(spec.want(9, &placed(&[("a", VOTES), ("b", VOTES), ("c", VOTES)]), "a", "factor", &mut next));
    let founder = spec.first_membership("b").expect("it is on b");
    let parts: Vec<_> = founder.members.iter().map(|member| (member.replica.0, member.part)).collect();
    assert_eq!((founder.own, parts), (ReplicaId(2), vec![(1, Part::Voter), (2, Part::Learner)]));
    let joins = spec.first_membership("c").expect("it is to be on c");
    assert_eq!(joins, Membership::joining(GroupId(7), ReplicaId(3)), "it waits until it is spoken to");
    assert_eq!(spec.first_membership("d"), None);
}

#[test]
fn reports_are_of_what_was_committed() {
    let member = |replica: u64, part| Member { replica: ReplicaId(replica), node: NodeId::new("n"), part };
    let parts = [Part::Learner, Part::Voter, Part::Entering, Part::Leaving, Part::Demoted];
    let members = (1..).zip(parts).map(|(replica, part)| member(replica, part)).collect();
    let membership = Membership { index: 5, intent: 4, ..Membership::new(GroupId(7), ReplicaId(1), members) };
    let standings = [(1, Learner), (2, Voter), (3, Changing), (4, Changing), (5, Changing)];
    assert_eq!(Report::of(&membership), report(5, 4, &standings));
}
