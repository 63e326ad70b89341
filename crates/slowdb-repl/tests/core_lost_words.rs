//! What was said and not heard: by a replica that has taken in a snapshot, and by a leader that changed the members.

mod core_common;

use core_common::{GROUP, Trio};
use slowdb_repl::{AckLevel, Event, MemberChange, NodeId, Part, ReplicaId};

fn change(trio: &mut Trio, leader: usize, change: &MemberChange) {
    let changed = trio.peers[leader].repl.change_members(GROUP, change, 1);
    changed.unwrap_or_else(|error| panic!("{change:?}: {error}"));
}

/// Node 3 has a replica 4, a learner that knows nothing yet.
fn growing(seed: u64) -> Trio {
    let mut trio = Trio::led(seed);
    for n in 0..5u8 {
        trio.propose(0, AckLevel::Quorum, &[n]).expect("it leads");
        trio.tick_all(1);
    }
    let node = trio.add_node();
    trio.join(node, 4);
    change(&mut trio, 0, &MemberChange::AddLearner { replica: ReplicaId(4), node: NodeId::new("n3") });
    trio
}

fn incarnation(trio: &Trio, node: usize) -> u64 {
    trio.peers[node].repl.membership(GROUP).expect("it has a replica").incarnation
}

#[test]
fn that_a_snapshot_has_arrived_is_said_again() {
    for seed in 1..6 {
        let mut trio = growing(seed);
        let mut lost = 0;
        trio.run(40, |trio, frame| {
            // Nothing that it says once it has the snapshot is heard.
            if frame.from == 3 && incarnation(trio, 3) > 0 {
                lost += 1;
            } else {
                trio.deliver(&frame);
            }
        });
        assert!(lost > 0, "seed {seed}: it has said something");
        trio.tick_all(40);
        assert_eq!(trio.applied(3), trio.applied(0), "seed {seed}");
        let view = trio.peers[0].repl.view(GROUP).expect("the group");
        let learner = view.followers.iter().find(|follower| follower.replica.0 == 4).expect("a member");
        assert_eq!(learner.matched, view.last_index, "seed {seed}: the leader knows it");
    }
}

#[test]
fn a_snapshot_that_nobody_sends_any_more_is_given_up() {
    let mut trio = growing(8);
    let arriving = |trio: &Trio| trio.peers[3].repl.view(GROUP).expect("the group").arriving.is_some();
    let (mut was_offered, mut gave_up) = (false, false);
    trio.run(400, |trio, frame| {
        was_offered |= arriving(trio);
        gave_up |= was_offered && !arriving(trio);
        // Nobody hears what it asks for, until it asks for nothing.
        if !arriving(trio) {
            trio.deliver(&frame);
        }
    });
    assert!(was_offered && gave_up);
    trio.tick_all(40);
    assert_eq!(trio.applied(3), trio.applied(0), "it was offered another");
}

/// The entry that takes its vote was in its log when it was elected; no leader after it may be of its making.
#[test]
fn a_leader_that_loses_its_vote_by_what_it_inherited_steps_down() {
    let mut trio = growing(7);
    trio.tick_all(20);
    let (promote, remove) = (vec![ReplicaId(4)], vec![ReplicaId(3)]);
    change(&mut trio, 0, &MemberChange::EnterJoint { promote, demote: Vec::new(), remove });
    trio.tick_all(2);
    change(&mut trio, 0, &MemberChange::LeaveJoint);
    trio.flush(0);
    // Only who is to leave hears of it, and nobody hears that it did.
    for frame in trio.take(|frame| frame.from == 0 && frame.to == 2) {
        trio.deliver(&frame);
    }
    trio.wire.clear();
    trio.flush(2);
    trio.sync(2);
    trio.wire.clear();
    trio.cut[0] = true;
    let leader = trio.elect();
    let led =
        |event: &Event<_>| matches!(event, Event::Leader { leader: Some(node), .. } if node.as_str() == "n2");
    assert!(trio.peers[2].events.iter().any(led), "its log was the longest of those that are left");
    assert_ne!(leader, 2, "it has no vote any more");
    trio.tick_all(40);
    let members = &trio.peers[leader].repl.membership(GROUP).expect("the group").members;
    let members: Vec<(u64, Part)> = members.iter().map(|member| (member.replica.0, member.part)).collect();
    assert_eq!(members, [(1, Part::Voter), (2, Part::Voter), (4, Part::Voter)]);
    let token = trio.propose(leader, AckLevel::Quorum, b"after").expect("it leads");
    trio.tick_all(5);
    assert!(trio.acked(leader, token));
}
