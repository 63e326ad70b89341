//! Members that come and go, and snapshots for those who need one.

mod core_common;

use core_common::{GROUP, PART, Trio};
use slowdb_repl::{
    AckLevel, Event, Failure, Lane, Limits, MemberChange, MemberError, NodeId, Part, ReplicaId, ReplicaRole,
};

fn add(node: usize, replica: u64) -> MemberChange {
    MemberChange::AddLearner { replica: ReplicaId(replica), node: NodeId::new(&format!("n{node}")) }
}

fn joint(promote: &[u64], demote: &[u64], remove: &[u64]) -> MemberChange {
    let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
    MemberChange::EnterJoint { promote: ids(promote), demote: ids(demote), remove: ids(remove) }
}

fn change(trio: &mut Trio, leader: usize, change: &MemberChange) {
    trio.peers[leader]
        .repl
        .change_members(GROUP, change, 1)
        .unwrap_or_else(|error| panic!("{change:?}: {error}"));
    trio.tick_all(2);
}

fn parts(trio: &Trio, node: usize) -> Vec<(u64, Part)> {
    let membership = trio.peers[node].repl.membership(GROUP).expect("it has a replica");
    membership.members.iter().map(|member| (member.replica.0, member.part)).collect()
}

fn write(trio: &mut Trio, leader: usize, body: &[u8]) {
    let token = trio.propose(leader, AckLevel::Quorum, body).expect("it leads");
    trio.tick_all(1);
    assert!(trio.acked(leader, token), "{}", String::from_utf8_lossy(body));
}

/// Node 3 has a replica 4 that is a learner and has caught up.
fn grown(seed: u64) -> Trio {
    let mut trio = Trio::led(seed);
    for n in 0..5u8 {
        write(&mut trio, 0, &[n]);
    }
    let node = trio.add_node();
    trio.join(node, 4);
    change(&mut trio, 0, &add(3, 4));
    trio.tick_all(20);
    assert_eq!(trio.applied(3), trio.applied(0), "it caught up");
    trio
}

#[test]
fn a_new_replica_gets_a_snapshot_and_then_the_log() {
    let mut trio = grown(1);
    assert_eq!(parts(&trio, 3), parts(&trio, 0));
    assert_eq!(trio.peers[3].repl.view(GROUP).unwrap().part, Some(Part::Learner));
    write(&mut trio, 0, b"after");
    trio.tick_all(2);
    assert_eq!(trio.applied(3), trio.applied(0));
    assert!(trio.peers[3].repl.membership(GROUP).unwrap().incarnation > 0, "it began with a snapshot");
}

/// The snapshot that is at hand is from before it was a member.
#[test]
fn a_second_new_replica_gets_a_snapshot_that_knows_it() {
    let mut trio = grown(17);
    let node = trio.add_node();
    trio.join(node, 5);
    change(&mut trio, 0, &add(4, 5));
    trio.tick_all(20);
    assert_eq!(trio.applied(4), trio.applied(0));
    assert_eq!(parts(&trio, 4), parts(&trio, 0));
}

#[test]
fn a_learner_has_no_vote() {
    let mut trio = grown(2);
    for node in [1, 2] {
        trio.cut[node] = true;
    }
    let token = trio.propose(0, AckLevel::Quorum, b"alone").expect("it leads still");
    trio.tick_all(30);
    assert!(!trio.acked(0, token), "leader and learner are no majority of three voters");
}

#[test]
fn a_voter_is_replaced_by_a_joint_configuration() {
    let mut trio = grown(3);
    change(&mut trio, 0, &joint(&[4], &[], &[3]));
    assert_eq!(
        parts(&trio, 0),
        [(1, Part::Voter), (2, Part::Voter), (3, Part::Leaving), (4, Part::Entering)]
    );
    change(&mut trio, 0, &MemberChange::LeaveJoint);
    assert_eq!(parts(&trio, 0), [(1, Part::Voter), (2, Part::Voter), (4, Part::Voter)]);
    // The old voter does not count any more, the new one does.
    trio.cut[2] = true;
    trio.cut[1] = true;
    write(&mut trio, 0, b"with the new one");
    assert!(trio.peers[0].events.iter().any(|event| matches!(event, Event::Members { .. })));
}

#[test]
fn a_joint_configuration_needs_both_majorities() {
    let mut trio = grown(4);
    let other = trio.add_node();
    trio.join(other, 5);
    change(&mut trio, 0, &add(4, 5));
    trio.tick_all(20);
    change(&mut trio, 0, &joint(&[4, 5], &[], &[2, 3]));
    // Both new voters and the leader: a majority of the new, not of the old.
    trio.cut[1] = true;
    trio.cut[2] = true;
    let token = trio.propose(0, AckLevel::Quorum, b"too few").expect("it leads still");
    trio.tick_all(5);
    assert!(!trio.acked(0, token));
    trio.cut[1] = false;
    let leader = trio.elect();
    let token = trio.propose(leader, AckLevel::Quorum, b"enough").expect("it leads");
    trio.tick_all(5);
    assert!(trio.acked(leader, token));
}

#[test]
fn a_voter_can_become_a_learner() {
    let mut trio = Trio::led(5);
    change(&mut trio, 0, &joint(&[], &[2, 3], &[]));
    change(&mut trio, 0, &MemberChange::LeaveJoint);
    assert_eq!(parts(&trio, 0), [(1, Part::Voter), (2, Part::Learner), (3, Part::Learner)]);
    trio.cut[1] = true;
    trio.cut[2] = true;
    write(&mut trio, 0, b"one disk");
}

#[test]
fn changes_that_do_not_fit_are_refused_with_a_reason() {
    let mut trio = grown(6);
    let mut refused = |change: &MemberChange, says: &str| {
        match trio.peers[0].repl.change_members(GROUP, change, 1) {
            Err(MemberError::Invalid(why)) => assert!(why.contains(says), "{change:?}: {why}"),
            other => panic!("{change:?}: {other:?}"),
        };
    };
    refused(&MemberChange::LeaveJoint, "no joint configuration");
    refused(&add(9, 3), "is a member");
    refused(&add(1, 9), "has replica 2 already");
    refused(&MemberChange::RemoveLearner { replica: ReplicaId(2) }, "no learner");
    refused(&joint(&[2], &[], &[]), "no learner");
    refused(&joint(&[], &[4], &[]), "no voter");
    refused(&joint(&[4], &[], &[1]), "leads");
    refused(&joint(&[], &[], &[]), "nothing is to change");
    assert_eq!(
        trio.peers[1].repl.change_members(GROUP, &add(9, 9), 1),
        Err(MemberError::Failed(Failure::NotLeader))
    );
    let repl = &mut trio.peers[0].repl;
    repl.change_members(GROUP, &joint(&[4], &[], &[3]), 1).expect("it fits");
    assert_eq!(repl.change_members(GROUP, &MemberChange::LeaveJoint, 1), Err(MemberError::Pending));
}

#[test]
fn members_survive_a_restart() {
    let mut trio = grown(7);
    change(&mut trio, 0, &joint(&[4], &[], &[3]));
    for node in [0, 3] {
        let before = trio.peers[node].repl.membership(GROUP).unwrap().clone();
        trio.reopen(node, 0, |_| {}).expect("it opens");
        assert_eq!(trio.peers[node].repl.membership(GROUP), Some(&before));
    }
    let leader = trio.elect();
    trio.tick_all(5);
    // The one that is leaving may have been elected; another has to leave the joint configuration.
    let leader = if leader == 2 {
        assert!(trio.peers[2].repl.hand_over_to(GROUP, ReplicaId(2)));
        trio.tick_all(10);
        1
    } else {
        leader
    };
    change(&mut trio, leader, &MemberChange::LeaveJoint);
    trio.tick_all(5);
    let applied = trio.applied(leader).to_vec();
    assert_eq!(applied.len(), 5);
    assert_eq!(trio.applied(3), applied);
}

#[test]
fn a_snapshot_survives_the_loss_of_any_message() {
    for lost in 0..30 {
        let mut trio = Trio::led(8);
        for n in 0..4u8 {
            write(&mut trio, 0, &[n]);
        }
        let node = trio.add_node();
        trio.join(node, 4);
        trio.peers[0].repl.change_members(GROUP, &add(3, 4), 1).expect("it fits");
        let mut passed = 0;
        trio.run(120, |trio, frame| {
            let concerns = frame.to == 3 || frame.from == 3;
            passed += usize::from(concerns);
            if !concerns || passed != lost + 1 {
                trio.deliver(&frame);
            }
        });
        assert_eq!(trio.applied(3), trio.applied(0), "without message {lost}");
    }
}

#[test]
fn a_snapshot_goes_on_a_lane_of_its_own() {
    let mut trio = Trio::led(9);
    write(&mut trio, 0, b"something");
    let node = trio.add_node();
    trio.join(node, 4);
    trio.peers[0].repl.change_members(GROUP, &add(3, 4), 1).expect("it fits");
    let mut lanes = Vec::new();
    trio.run(60, |trio, frame| {
        lanes.extend(frame.has(PART).then_some(frame.lane));
        trio.deliver(&frame);
    });
    assert_eq!(trio.applied(3), trio.applied(0));
    assert!(!lanes.is_empty() && lanes.iter().all(|lane| *lane == Lane::Snapshot), "{lanes:?}");
}

#[test]
fn a_snapshot_with_a_damaged_part_is_not_taken() {
    let mut trio = Trio::led(10);
    write(&mut trio, 0, b"something");
    let node = trio.add_node();
    trio.join(node, 4);
    trio.peers[0].repl.change_members(GROUP, &add(3, 4), 1).expect("it fits");
    let mut damaged = 0;
    trio.run(200, |trio, frame| {
        if frame.has(PART) && damaged < 2 {
            let mut body = frame.body.to_vec();
            body[3] ^= 1;
            let from = trio.peers[frame.from].name.clone();
            trio.peers[3]
                .repl
                .receive(&from, &frame.meta, &body.into())
                .expect("what is in a part is not looked at");
            damaged += 1;
        } else {
            trio.deliver(&frame);
        }
        assert!(trio.applied(3).is_empty() || trio.applied(3) == trio.applied(0), "a damaged one was taken");
    });
    assert_eq!(damaged, 2);
    assert_eq!(trio.applied(3), trio.applied(0), "another one is taken");
}

/// Ten times the log that is kept is written while a follower is away.
#[test]
fn who_is_behind_the_log_that_is_kept_gets_a_snapshot() {
    let limits = Limits { retained_bytes_per_group: 2_000, ..Limits::default() };
    let mut trio = Trio::with_limits(11, limits);
    trio.settle();
    trio.tick_all(3);
    trio.cut[2] = true;
    for n in 0..40u8 {
        write(&mut trio, 0, &[n; 500]);
    }
    for node in 0..2 {
        let applied = trio.peers[node].repl.applied(GROUP).unwrap().index;
        trio.peers[node].repl.machine_mut(GROUP).unwrap().keep(0, applied);
        trio.peers[node].repl.checkpointed(GROUP, applied);
    }
    trio.tick_all(40);
    let view = trio.peers[0].repl.view(GROUP).unwrap();
    assert!(
        view.first_index > 20,
        "the log is cut though a member is away: it begins at {}",
        view.first_index
    );
    trio.cut[2] = false;
    trio.tick_all(60);
    assert_eq!(trio.applied(2), trio.applied(0));
    // And it goes on from there after a restart.
    trio.reopen(2, 0, |_| {}).expect("it opens");
    write(&mut trio, 0, b"more");
    trio.tick_all(5);
    assert_eq!(trio.applied(2), trio.applied(0));
}

#[test]
fn a_crash_between_the_snapshot_and_the_log_leaves_a_replica_that_catches_up() {
    for batches in 0..6 {
        let mut trio = Trio::led(12);
        for n in 0..4u8 {
            write(&mut trio, 0, &[n]);
        }
        let node = trio.add_node();
        trio.join(node, 4);
        trio.peers[0].repl.change_members(GROUP, &add(3, 4), 1).expect("it fits");
        // The new replica's disk takes so many batches, and then the power goes.
        let mut taken = 0;
        let act = |trio: &mut Trio, node: usize| {
            if node != 3 {
                return trio.act(node);
            }
            trio.flush(node);
            trio.finish_jobs(node);
            if taken < batches && !trio.peers[3].unsynced.is_empty() {
                taken += 1;
                trio.sync(node);
            }
        };
        trio.run_with(40, act, |trio, frame| trio.deliver(&frame));
        if batches == 0 {
            continue;
        }
        trio.reopen(3, 0, |_| {}).expect("it opens");
        trio.tick_all(80);
        assert_eq!(trio.applied(3), trio.applied(0), "after {batches} batches");
    }
}

#[test]
fn digests_are_compared_at_the_same_entry() {
    let mut trio = grown(13);
    assert!(trio.peers[0].repl.compare_digests(GROUP, 0));
    trio.tick_all(2);
    let view = trio.peers[0].repl.view(GROUP).unwrap();
    assert!(view.followers.iter().all(|follower| follower.equal_at == view.last_index), "{view:?}");

    // One replica is not what it should be.
    trio.peers[3].repl.machine_mut(GROUP).unwrap().applied[0].1.push(1);
    trio.peers[0].repl.compare_digests(GROUP, 0);
    trio.tick_all(2);
    let differs =
        |event: &Event<usize>| matches!(event, Event::DigestDiffers { node, .. } if node.as_str() == "n3");
    assert_eq!(trio.peers[0].events.iter().filter(|event| differs(event)).count(), 1);
    let view = trio.peers[0].repl.view(GROUP).unwrap();
    let odd = view.followers.iter().find(|follower| follower.node.as_str() == "n3").unwrap();
    assert_eq!(odd.equal_at, 0);
}

#[test]
fn a_removed_replica_is_gone_from_the_log() {
    let mut trio = grown(14);
    change(&mut trio, 0, &MemberChange::RemoveLearner { replica: ReplicaId(4) });
    assert!(trio.peers[3].repl.remove(GROUP).is_some());
    trio.settle();
    let log = trio.restart(3);
    assert!(log.groups.is_empty() && log.removed.contains(&4), "{log:?}");
    // Its id is never used again, but the group can come back under another one.
    trio.join(3, 5);
    change(&mut trio, 0, &add(3, 5));
    trio.tick_all(30);
    assert_eq!(trio.applied(3), trio.applied(0));
}

#[test]
fn a_leader_that_is_to_go_hands_over_first() {
    let mut trio = grown(15);
    assert!(trio.peers[0].repl.hand_over_to(GROUP, ReplicaId(2)));
    trio.tick_all(5);
    assert!(trio.peers[1].repl.leads(GROUP));
    change(&mut trio, 1, &joint(&[4], &[], &[1]));
    change(&mut trio, 1, &MemberChange::LeaveJoint);
    assert_eq!(parts(&trio, 1), [(2, Part::Voter), (3, Part::Voter), (4, Part::Voter)]);
    // The one that is gone stands for no election that anybody would notice.
    trio.tick_all(100);
    assert!(trio.peers[1].repl.leads(GROUP));
    assert_ne!(trio.peers[0].repl.view(GROUP).unwrap().role, ReplicaRole::Leader);
}

#[test]
fn what_is_sent_to_the_leader_arrives_there() {
    let mut trio = Trio::led(16);
    assert!(trio.peers[1].repl.forward(GROUP, b"for you".as_slice().into()));
    assert!(!trio.peers[0].repl.forward(GROUP, b"for me".as_slice().into()));
    trio.settle();
    let heard = trio.peers[0].events.iter().any(
        |event| matches!(event, Event::Forwarded { from, body, .. } if from.as_str() == "n1" && body == "for you"),
    );
    assert!(heard);
}

#[test]
fn a_change_by_somebody_who_missed_a_decision_is_refused() {
    let mut trio = grown(17);
    assert!(trio.peers[0].repl.compare_digests(GROUP, 5));
    trio.tick_all(2);
    for node in [0, 1, 2, 3] {
        assert_eq!(trio.peers[node].repl.membership(GROUP).unwrap().intent, 5);
    }
    let gone = MemberChange::RemoveLearner { replica: ReplicaId(4) };
    let refused = trio.peers[0].repl.change_members(GROUP, &gone, 4);
    assert_eq!(refused, Err(MemberError::Stale { intent: 4, seen: 5 }));
    // It is remembered over a restart, and a later decision goes.
    trio.reopen(0, 0, |_| {}).expect("it opens");
    let leader = trio.elect();
    trio.tick_all(5);
    assert!(trio.peers[leader].repl.change_members(GROUP, &gone, 4).is_err());
    trio.peers[leader].repl.change_members(GROUP, &gone, 6).expect("it is as new as can be");
}

#[test]
fn a_change_that_overtakes_nothing_but_its_own_time_is_left_out_by_all() {
    let mut trio = grown(18);
    // The intent is in the log, and not applied yet, when the change is proposed by somebody who does not know it.
    assert!(trio.peers[0].repl.compare_digests(GROUP, 5));
    let gone = MemberChange::RemoveLearner { replica: ReplicaId(4) };
    trio.peers[0].repl.change_members(GROUP, &gone, 4).expect("nothing is known of intent 5 yet");
    trio.tick_all(5);
    for node in 0..4 {
        assert_eq!(parts(&trio, node).len(), 4, "node {node}");
    }
    trio.peers[0].repl.change_members(GROUP, &gone, 5).expect("nothing is in its way");
    trio.tick_all(5);
    assert_eq!(parts(&trio, 0).len(), 3);
}

/// The state machine was quicker to make its state durable than the log was to write down who the members are.
#[test]
fn a_change_of_members_that_was_applied_is_not_forgotten_in_a_crash() {
    let mut trio = grown(19);
    let before = trio.applied(1).len();
    trio.peers[0].repl.change_members(GROUP, &joint(&[4], &[], &[3]), 1).expect("it fits");
    trio.propose(0, AckLevel::Quorum, b"right after").expect("it leads");
    // Until the second node has applied both, and has nothing of that in its log.
    'until: loop {
        for node in 0..4 {
            trio.flush(node);
            if node == 1 && trio.applied(1).len() > before {
                break 'until;
            }
            trio.sync(node);
        }
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
        trio.now.micros += slowdb_repl::TICK_MICROS;
        (0..4).for_each(|node| trio.tick(node));
    }
    let members = parts(&trio, 1);
    let index = trio.peers[1].repl.applied(GROUP).expect("the group").index;
    trio.peers[1].repl.machine_mut(GROUP).expect("the group").keep(0, index);
    trio.wire.clear();
    trio.reopen(1, 0, |_| {}).expect("it opens");
    assert_eq!(parts(&trio, 1), members, "as of what the machine holds");
    trio.tick_all(40);
    let leader = trio.elect();
    change(&mut trio, leader, &MemberChange::LeaveJoint);
    trio.tick_all(10);
    assert_eq!(trio.halted(1), None);
    assert_eq!(parts(&trio, 1), parts(&trio, leader));
}

#[test]
fn who_is_leaving_does_not_leave_the_joint_configuration_as_its_leader() {
    let mut trio = grown(20);
    change(&mut trio, 0, &joint(&[4], &[], &[3]));
    assert!(trio.peers[0].repl.hand_over_to(GROUP, ReplicaId(3)));
    trio.tick_all(10);
    assert!(trio.peers[2].repl.leads(GROUP));
    match trio.peers[2].repl.change_members(GROUP, &MemberChange::LeaveJoint, 1) {
        Err(MemberError::Invalid(why)) => assert!(why.contains("hand over"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(trio.peers[2].repl.hand_over_to(GROUP, ReplicaId(2)));
    trio.tick_all(10);
    change(&mut trio, 1, &MemberChange::LeaveJoint);
    write(&mut trio, 1, b"by one who stays");
}
