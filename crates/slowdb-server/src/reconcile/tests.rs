//! Situations of a group, and what its leader does next.

use super::*;
use slowdb_proto::{Standing, Wanted::Gone, Wanted::Learner as Learns, Wanted::Voter as Votes};
use slowdb_repl::Part::{Demoted, Entering, Learner, Leaving, Voter};
use slowdb_repl::{GroupId, Member};

/// Replica `n` is on node `n<n>`.
fn node(replica: u64) -> String {
    format!("n{replica}")
}

/// What a follower is known to be.
#[derive(Clone, Copy)]
enum Follows {
    /// Up to date, digest not compared.
    Well,
    /// Up to date, and its digest was the leader's.
    Equally,
    /// It answers, but has nothing yet.
    FromNothing,
    /// It answers, and is 65 entries behind.
    Behind,
    /// It is silent.
    Not,
}
use Follows::{Behind, Equally, FromNothing, Not, Well};

const COMMITTED: u64 = 1_000;

fn view(member: &Member, follows: Follows) -> FollowerView {
    let (matched, active, equal_at) = match follows {
        Well => (COMMITTED, true, 0),
        Equally => (COMMITTED, true, 900),
        FromNothing => (0, true, 0),
        Behind => (COMMITTED - 65, true, 0),
        Not => (COMMITTED, false, 900),
    };
    let Member { replica, node, part } = member.clone();
    FollowerView { replica, node, part, matched, active, pinned_bytes: 0, equal_at }
}

/// A group of which replica 1 is the leader, with the intent 5 noted and the catalog's epoch 5 unless it says otherwise.
struct Situation {
    wanted: Vec<(u64, Wanted)>,
    /// The replica that is to lead.
    leader: u64,
    members: Vec<(u64, Part)>,
    /// All others follow well.
    follow: Vec<(u64, Follows)>,
    epoch: u64,
    intent: u64,
}

impl Situation {
    fn new(wanted: &[(u64, Wanted)], members: &[(u64, Part)]) -> Self {
        let (wanted, members) = (wanted.to_vec(), members.to_vec());
        Situation { wanted, leader: 1, members, follow: Vec::new(), epoch: 5, intent: 5 }
    }

    fn led_by(self, leader: u64) -> Self {
        Situation { leader, ..self }
    }

    fn follow(self, follow: &[(u64, Follows)]) -> Self {
        Situation { follow: follow.to_vec(), ..self }
    }

    fn next(&self) -> Step {
        let replica = |(replica, wanted): &(u64, Wanted)| Replica {
            replica: *replica,
            node: node(*replica),
            wanted: *wanted,
            standing: Standing::None,
            since: self.epoch,
        };
        let spec = GroupSpec {
            group: 7,
            epoch: self.epoch,
            replicas: self.wanted.iter().map(replica).collect(),
            leader: node(self.leader),
            ..GroupSpec::default()
        };
        let member = |(replica, part): &(u64, Part)| Member {
            replica: ReplicaId(*replica),
            node: NodeId::new(&node(*replica)),
            part: *part,
        };
        let members: Vec<Member> = self.members.iter().map(member).collect();
        let membership = Membership::new(GroupId(7), ReplicaId(1), members);
        let membership = Membership { intent: self.intent, ..membership };
        assert!(membership.is_sound(), "there is no such group");
        let others = membership.members.iter().filter(|member| member.replica != membership.own);
        let followers: Vec<FollowerView> = others
            .map(|member| {
                let told = self.follow.iter().find(|(replica, _)| *replica == member.replica.0);
                view(member, told.map_or(Well, |(_, follows)| *follows))
            })
            .collect();
        next_step(&spec, &Sight { membership: &membership, followers: &followers, committed: COMMITTED })
    }
}

const THREE: [(u64, Wanted); 3] = [(1, Votes), (2, Votes), (3, Votes)];
const THREE_VOTE: [(u64, Part); 3] = [(1, Voter), (2, Voter), (3, Voter)];
/// Replica 4 is to take the place of 3, which is not the leader.
const REPLACE: [(u64, Wanted); 4] = [(1, Votes), (2, Votes), (3, Gone), (4, Votes)];
const LEARNS: [(u64, Part); 4] = [(1, Voter), (2, Voter), (3, Voter), (4, Learner)];
/// It is to take the place of the leader.
const REPLACE_LEADER: [(u64, Wanted); 4] = [(1, Gone), (2, Votes), (3, Votes), (4, Votes)];

fn ids(replicas: &[u64]) -> Vec<ReplicaId> {
    replicas.iter().map(|replica| ReplicaId(*replica)).collect()
}

fn joint(promote: &[u64], demote: &[u64], remove: &[u64]) -> Step {
    let (promote, demote, remove) = (ids(promote), ids(demote), ids(remove));
    Step::Change(MemberChange::EnterJoint { promote, demote, remove })
}

fn add(replica: u64) -> Step {
    Step::Change(MemberChange::AddLearner { replica: ReplicaId(replica), node: NodeId::new(&node(replica)) })
}

fn remove(replica: u64) -> Step {
    Step::Change(MemberChange::RemoveLearner { replica: ReplicaId(replica) })
}

fn hand_over(replica: u64) -> Step {
    Step::HandOver(ReplicaId(replica))
}

#[track_caller]
fn assert_steps(cases: impl IntoIterator<Item = (&'static str, Situation, Step)>) {
    for (what, situation, step) in cases {
        assert_eq!(situation.next(), step, "{what}");
    }
}

#[test]
fn a_settled_group_is_left_alone_but_for_its_leader() {
    let settled = || Situation::new(&THREE, &THREE_VOTE);
    assert_steps([
        ("all is as it should be", settled(), Step::None),
        ("somebody else is to lead", settled().led_by(2), hand_over(2)),
        ("who is to lead is silent", settled().led_by(2).follow(&[(2, Not)]), Step::None),
        ("who is to lead is behind", settled().led_by(2).follow(&[(2, Behind)]), Step::None),
        ("nobody on that node is there", settled().led_by(9), Step::None),
    ]);
    let learner = Situation::new(&[(1, Votes), (2, Learns)], &[(1, Voter), (2, Learner)]);
    assert_steps([("a learner cannot lead", learner.led_by(2), Step::None)]);
}

#[test]
fn a_replica_comes() {
    let comes = [(1, Votes), (2, Votes), (3, Votes), (4, Learns), (5, Learns)];
    assert_steps([
        ("one by one", Situation::new(&comes, &THREE_VOTE), add(4)),
        ("the other too", Situation::new(&comes, &LEARNS), add(5)),
        ("a learner is done when it is there", Situation::new(&comes[..4], &LEARNS), Step::None),
        ("even if it is silent", Situation::new(&comes[..4], &LEARNS).follow(&[(4, Not)]), Step::None),
    ]);
}

#[test]
fn nobody_votes_before_it_has_what_the_leader_has() {
    let replace = |follows| Situation::new(&REPLACE, &LEARNS).follow(&[(4, follows)]);
    assert_steps([
        ("first it is added", Situation::new(&REPLACE, &THREE_VOTE), add(4)),
        ("it waits for a snapshot", replace(FromNothing), Step::None),
        ("it is silent", replace(Not), Step::None),
        ("digests are compared", replace(Well), Step::Compare),
        ("they are equal", replace(Equally), joint(&[4], &[], &[3])),
    ]);
    let two = [(1, Votes), (2, Gone), (3, Gone), (4, Votes), (5, Votes)];
    let both = [(1, Voter), (2, Voter), (3, Voter), (4, Learner), (5, Learner)];
    let two = |follow: &[(u64, Follows)]| Situation::new(&two, &both).follow(follow);
    assert_steps([
        ("one of two is silent", two(&[(4, Equally), (5, Not)]), Step::None),
        ("one of two is not compared", two(&[(4, Equally)]), Step::Compare),
        ("both are equal", two(&[(4, Equally), (5, Equally)]), joint(&[4, 5], &[], &[2, 3])),
    ]);
}

#[test]
fn votes_are_taken_only_when_all_who_stay_are_there() {
    let fewer = Situation::new(&[(1, Votes), (2, Learns), (3, Gone)], &THREE_VOTE);
    let silent = Situation::new(&[(1, Votes), (2, Votes), (3, Gone)], &THREE_VOTE).follow(&[(3, Not)]);
    let none_left = Situation::new(&[(1, Gone), (2, Gone), (3, Gone)], &THREE_VOTE);
    assert_steps([
        ("one vote less, one replica less", fewer, joint(&[], &[2], &[3])),
        ("whoever is to go is not waited for", silent, joint(&[], &[], &[3])),
        ("the last votes stay", none_left, Step::None),
    ]);
}

#[test]
fn a_joint_configuration_is_left_first() {
    let joint = [(1, Voter), (2, Voter), (3, Leaving), (4, Entering)];
    let leave = || Step::Change(MemberChange::LeaveJoint);
    let also = [(1, Votes), (2, Votes), (3, Gone), (4, Votes), (5, Votes)];
    assert_steps([
        ("as it was wanted", Situation::new(&REPLACE, &joint), leave()),
        ("even if something else is wanted now", Situation::new(&also, &joint), leave()),
        ("even if its newcomer is to go", Situation::new(&THREE, &joint), leave()),
        ("even if somebody else is to lead", Situation::new(&REPLACE, &joint).led_by(2), leave()),
        (
            "even if the leader is to go",
            Situation::new(&REPLACE_LEADER, &[(1, Voter), (2, Demoted), (3, Voter)]),
            leave(),
        ),
    ]);
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let learns = || Situation::new(&REPLACE_LEADER, &LEARNS);
    let ready = |others: &[(u64, Follows)]| learns().follow(&[others, &[(4, Equally)]].concat());
    assert_steps([
        ("not before the new one is equal", learns(), Step::Compare),
        ("then at once", ready(&[]), hand_over(2)),
        ("to the one that is furthest", ready(&[(2, Behind)]), hand_over(3)),
        ("to one that answers", ready(&[(2, Not)]), hand_over(3)),
    ]);
    // None of those who stay can lead: all of them are new.
    let all_new = |follow: &[(u64, Follows)]| {
        Situation::new(&[(1, Gone), (2, Votes)], &[(1, Voter), (2, Learner)]).follow(follow)
    };
    let last = Situation::new(&[(1, Gone), (2, Votes)], &[(1, Voter), (2, Voter)]);
    assert_steps([
        ("a group of one moves: compare", all_new(&[]), Step::Compare),
        ("the new one gets a vote, the old keeps its own", all_new(&[(2, Equally)]), joint(&[2], &[], &[])),
        ("then it can lead", last, hand_over(2)),
    ]);
    let none = Situation::new(&REPLACE_LEADER[..3], &THREE_VOTE).follow(&[(2, Not), (3, Not)]);
    assert_steps([("nobody to hand over to: it stays", none, Step::None)]);
    let demoted = Situation::new(&[(1, Learns), (2, Votes), (3, Votes)], &THREE_VOTE);
    assert_steps([("losing the vote is going, too", demoted, hand_over(2))]);
}

#[test]
fn who_has_no_vote_any_more_is_removed() {
    let lost = Situation::new(&[(1, Votes), (2, Gone)], &[(1, Voter), (2, Learner)]).follow(&[(2, Not)]);
    assert_steps([("a learner that is to go", lost, remove(2))]);
}

#[test]
fn that_somebody_is_gone_is_told_to_who_leads_next() {
    let gone = |intent| Situation { intent, ..Situation::new(&REPLACE[..3], &[(1, Voter), (2, Voter)]) };
    assert_steps([
        ("it is gone by an older intent", gone(4), Step::Compare),
        ("it is noted: the catalog will drop it", gone(5), Step::None),
    ]);
}

#[test]
fn who_knows_less_than_the_group_does_nothing() {
    let stale = |situation: Situation| Situation { intent: 6, ..situation };
    let joint = [(1, Voter), (2, Voter), (3, Leaving), (4, Entering)];
    assert_steps([
        ("no learner", stale(Situation::new(&REPLACE, &THREE_VOTE)), Step::None),
        ("no votes", stale(Situation::new(&REPLACE, &LEARNS).follow(&[(4, Equally)])), Step::None),
        ("no end of a joint configuration", stale(Situation::new(&REPLACE, &joint)), Step::None),
        ("no hand-over", stale(Situation::new(&THREE, &THREE_VOTE).led_by(2)), Step::None),
        ("no removal", stale(Situation::new(&[(1, Votes), (4, Gone)], &LEARNS)), Step::None),
    ]);
}
