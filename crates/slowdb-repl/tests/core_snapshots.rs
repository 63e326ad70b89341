//! Snapshots on their way, when something goes wrong in the middle.

mod core_common;

use core_common::{APPEND, GROUP, InFlight, List, OFFER, PART, Trio, WANT, messages, word};
use slowdb_repl::wal::Record;
use slowdb_repl::{
    AckLevel, GroupId, Job, Limits, Member, MemberChange, Membership, NodeId, Part, Proposal, ReplicaId,
    Token,
};
use std::collections::VecDeque;

/// The ids of the snapshots that a frame offers.
fn offered(frame: &InFlight) -> Vec<u64> {
    let offers = messages(&frame.meta).into_iter().filter(|at| frame.meta[at + 80] == OFFER);
    offers.map(|at| word(&frame.meta, at + 48)).collect()
}

fn incarnation(trio: &Trio, node: usize) -> u64 {
    trio.peers[node].repl.membership(GROUP).expect("it has a replica").incarnation
}

/// Node 3 has taken a snapshot's offer and one part; what it asks for next is lost.
fn half_way(seed: u64) -> Trio {
    let mut trio = Trio::growing(seed);
    let mut parts = 0;
    trio.run(30, |trio, frame| {
        let lost = parts > 0 && (frame.has(WANT) || frame.has(PART));
        parts += usize::from(frame.has(PART));
        if !lost {
            trio.deliver(&frame);
        }
    });
    let arriving =
        trio.peers[3].repl.view(GROUP).expect("it has a replica").arriving.expect("it is on its way");
    assert!(arriving.bytes > 0 && arriving.bytes < arriving.of_bytes, "{arriving:?}");
    trio
}

#[test]
fn a_new_leader_takes_over_when_the_sender_is_silent() {
    let mut trio = half_way(1);
    trio.cut[0] = true;
    let leader = trio.elect();
    assert_ne!(leader, 0);
    trio.propose(leader, AckLevel::Quorum, b"after").expect("it leads");
    trio.tick_all(30);
    assert!(trio.applied(3).is_empty(), "it still waits for the first sender");
    // Three seconds after the last part.
    trio.tick_all(160);
    assert_eq!(trio.applied(3), trio.applied(leader));
    assert_eq!(trio.applied(3).len(), 5);
}

#[test]
fn a_sender_that_restarted_says_so_and_makes_another_one() {
    let mut trio = half_way(2);
    trio.reopen(0, 0, |_| {}).expect("it opens");
    let leader = trio.elect();
    if leader != 0 {
        assert!(trio.peers[leader].repl.hand_over_to(GROUP, ReplicaId(1)));
    }
    // Far less than a silent sender is waited for.
    trio.tick_all(60);
    assert!(trio.peers[0].repl.leads(GROUP));
    assert_eq!(trio.applied(3), trio.applied(0));
}

#[test]
fn a_snapshot_with_another_digest_than_was_offered_is_not_used() {
    let mut trio = Trio::growing(3);
    let mut offers = 0;
    trio.run(14, |trio, mut frame| {
        let offer = messages(&frame.meta).into_iter().find(|at| frame.meta[at + 80] == OFFER);
        if let Some(at) = offer {
            offers += 1;
            let mut meta = frame.meta.to_vec();
            // The digest comes first in the context, which follows the fixed part.
            meta[at + 88] ^= 1;
            frame.meta = meta.into();
        }
        trio.deliver(&frame);
    });
    let view = trio.peers[3].repl.view(GROUP).expect("it has a replica");
    assert!(offers > 0 && view.halted.is_none());
    assert_eq!((trio.applied(3).len(), incarnation(&trio, 3), view.last_index), (0, 0, 0));
    // The next one is offered rightly.
    trio.tick_all(40);
    assert_eq!(trio.applied(3), trio.applied(0));
    assert!(incarnation(&trio, 3) > 0);
}

#[test]
fn a_snapshot_that_cannot_be_made_durable_is_taken_again() {
    let mut trio = Trio::growing(4);
    trio.peers[3].kept.lock().unwrap().full = true;
    let mut failed = false;
    for _ in 0..40 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        (0..4).for_each(|node| trio.tick(node));
        for _ in 0..20 {
            for node in 0..4 {
                trio.flush(node);
                trio.sync(node);
                let had_job = node == 3 && !trio.peers[3].jobs.is_empty();
                trio.finish_jobs(node);
                if had_job && trio.peers[3].repl.view(GROUP).expect("the group").arriving.is_none() {
                    failed = true;
                    trio.peers[3].kept.lock().unwrap().full = false;
                }
            }
            for frame in std::mem::take(&mut trio.wire) {
                trio.deliver(&frame);
            }
        }
    }
    assert!(failed && trio.halted(3).is_none());
    assert_eq!(trio.applied(3), trio.applied(0));
}

/// A follower (node 2) that is behind what node 0 keeps, but not behind what node 1 keeps.
fn behind(seed: u64) -> Trio {
    let limits = Limits { retained_bytes_per_group: 1_000, ..Limits::default() };
    let mut trio = Trio::with_limits(seed, limits);
    trio.settle();
    trio.tick_all(3);
    trio.cut[2] = true;
    for n in 0..10u8 {
        trio.propose(0, AckLevel::Quorum, &[n; 500]).expect("it leads");
        trio.settle();
    }
    checkpoint(&mut trio, 0);
    trio.tick_all(40);
    let first = |node: usize| trio.peers[node].repl.view(GROUP).expect("the group").first_index;
    assert!(first(0) > 8 && first(1) == 2, "{} {}", first(0), first(1));
    trio
}

/// A node's machine holds all that it has applied.
fn checkpoint(trio: &mut Trio, node: usize) {
    let applied = trio.peers[node].repl.applied(GROUP).expect("the group").index;
    trio.peers[node].repl.machine_mut(GROUP).expect("the group").keep(0, applied);
    trio.peers[node].repl.checkpointed(GROUP, applied);
}

/// The engine would read what it has not applied, and the log begins behind that.
#[test]
fn who_waits_for_a_slow_disk_to_take_a_snapshot_does_not_stand_for_election() {
    let mut trio = behind(6);
    trio.cut[2] = false;
    // Until the log of the one that was away is about to go on from the snapshot; that is never synced.
    let is_snapshot = |record: &Record| matches!(record, Record::Snapshot { .. });
    let is_due =
        |trio: &Trio| trio.peers[2].unsynced.iter().flat_map(|batch| &batch.records).any(is_snapshot);
    for round in 0.. {
        assert!(round < 1000, "no snapshot arrives");
        trio.now.micros += slowdb_repl::TICK_MICROS;
        for node in 0..3 {
            trio.tick(node);
            trio.flush(node);
            if node < 2 {
                trio.sync(node);
                trio.finish_jobs(node);
            }
        }
        if is_due(&trio) {
            break;
        }
        trio.sync(2);
        while let Some(job) = trio.peers[2].jobs.pop_front() {
            trio.peers[2].repl.job_done(job.run());
        }
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
    }
    for _ in 0..100 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        trio.tick(2);
        trio.flush(2);
    }
    assert!(trio.applied(2).len() < trio.applied(0).len(), "the disk is slow");
    trio.wire.clear();
    trio.sync(2);
    trio.tick_all(20);
    assert!(incarnation(&trio, 2) > 0);
    assert_eq!(trio.applied(2), trio.applied(0));
}

#[test]
fn a_snapshot_that_the_log_has_overtaken_is_dropped() {
    let mut trio = behind(5);
    trio.cut[2] = false;
    let mut held: VecDeque<Job> = VecDeque::new();
    for _ in 0..60 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        (0..3).for_each(|node| trio.tick(node));
        for _ in 0..20 {
            for node in 0..3 {
                trio.flush(node);
                trio.sync(node);
                held.extend(trio.peers[2].jobs.drain(..));
                trio.finish_jobs(node);
            }
            for frame in std::mem::take(&mut trio.wire) {
                trio.deliver(&frame);
            }
        }
        assert!(held.len() <= 1, "one job at a time");
    }
    assert_eq!(held.len(), 1, "all parts have arrived, and the disk is slow");
    // The other node leads, and has the log.
    assert!(trio.peers[0].repl.hand_over_to(GROUP, ReplicaId(2)));
    trio.settle();
    trio.propose(1, AckLevel::Quorum, b"more").expect("it leads");
    trio.tick_all(20);
    assert_eq!(trio.applied(2), trio.applied(1));
    held.drain(..).for_each(|job| trio.peers[2].repl.job_done(job.run()));
    trio.tick_all(5);
    let view = trio.peers[2].repl.view(GROUP).expect("the group");
    assert_eq!((view.arriving, view.halted, incarnation(&trio, 2)), (None, None, 0));
    assert_eq!(trio.applied(2), trio.applied(1));
}

/// Were it not, the receiver would need another snapshot as soon as it has this one.
#[test]
fn the_log_behind_a_snapshot_on_its_way_is_kept() {
    let mut trio = behind(6);
    trio.cut[2] = false;
    let mut held = Vec::new();
    let mut ids = Vec::new();
    let mut appended = 0;
    for n in 0..100u8 {
        trio.run(1, |trio, frame| {
            ids.extend(offered(&frame));
            // The parts take their time.
            if frame.has(PART) && n < 90 { held.push(frame) } else { trio.deliver(&frame) }
        });
        trio.propose(0, AckLevel::Quorum, &[n; 500]).expect("it leads");
        checkpoint(&mut trio, 0);
    }
    held.iter().for_each(|frame| trio.deliver(frame));
    trio.run(60, |trio, frame| {
        ids.extend(offered(&frame));
        appended += usize::from(frame.to == 2 && frame.has(APPEND));
        trio.deliver(&frame);
    });
    ids.dedup();
    assert_eq!(ids.len(), 1, "one snapshot was enough: {ids:?}");
    assert!(appended > 0 && incarnation(&trio, 2) == ids[0]);
    assert_eq!(trio.applied(2), trio.applied(0));
}

/// One more group of the three nodes, with more replicas to follow; the first node leads it and has written to it.
fn one_more_group(trio: &mut Trio, group: GroupId, first_replica: u64) {
    one_more_group_of(trio, group, first_replica, 4);
}

/// The same, with so many items in its list.
fn one_more_group_of(trio: &mut Trio, group: GroupId, first_replica: u64, items: u64) {
    let member = |at: u64| Member {
        replica: ReplicaId(at + first_replica),
        node: NodeId::new(&format!("n{at}")),
        part: Part::Voter,
    };
    for own in 0..3 {
        let membership =
            Membership::new(group, ReplicaId(own as u64 + first_replica), (0..3).map(member).collect());
        trio.peers[own].repl.create(membership, List::default()).expect("a new group");
    }
    trio.tick_all(60);
    let leader = (0..3).find(|at| trio.peers[*at].repl.leads(group)).expect("it has a leader");
    for n in 0..items {
        let proposal = Proposal {
            token: Token(first_replica * 1_000 + n),
            level: AckLevel::Quorum,
            retry: false,
            writes: 1,
            client: [2; 16],
            sequence: n,
            body: vec![n as u8].into(),
            deadline: u64::MAX,
        };
        trio.peers[leader].repl.propose(group, proposal).expect("it leads");
        trio.settle();
    }
    let add = MemberChange::AddLearner { replica: ReplicaId(first_replica + 3), node: NodeId::new("n3") };
    trio.peers[leader].repl.change_members(group, &add, 1).expect("it fits");
    let joining = Membership::joining(group, ReplicaId(first_replica + 3));
    trio.peers[3].repl.create(joining, List::default()).expect("a new replica");
}

/// Were parts that are asked for again counted in the pace, a group whose sender never answers would take every turn:
/// it is the first in order, and whenever a part may be asked for, its own is overdue.
#[test]
fn a_part_that_is_asked_for_in_vain_does_not_take_the_others_turn() {
    // A part of 512 KiB in 50 ticks.
    let limits = Limits { snapshot_bytes_per_second: 512 * 1024, ..Limits::default() };
    let mut trio = Trio::growing_with_limits(7, limits);
    let second = GroupId(GROUP.0 + 1);
    one_more_group(&mut trio, second, 11);
    let mut lost = 0;
    trio.run(600, |trio, frame| {
        let of_first = messages(&frame.meta).into_iter().any(|at| word(&frame.meta, at) == GROUP.0);
        if frame.has(PART) && of_first { lost += 1 } else { trio.deliver(&frame) }
    });
    assert!(lost > 8, "the first group asked on: {lost} times");
    assert!(trio.applied(3).is_empty(), "nothing of the first group arrived");
    let list = trio.peers[3].repl.machine(second).expect("it has a replica");
    assert_eq!(list.applied.len(), 4, "the second group's four parts have arrived");
}

/// Each has to wait for longer than a sender is waited for until it may ask again, and must not begin anew for that.
#[test]
fn groups_that_wait_for_their_turn_do_not_take_their_senders_for_lost() {
    // A part of 512 KiB a second, and eight groups.
    let limits = Limits { snapshot_bytes_per_second: 512 * 1024, ..Limits::default() };
    let mut trio = Trio::growing_with_limits(8, limits);
    for n in 1..8 {
        one_more_group(&mut trio, GroupId(GROUP.0 + n), 10 * n + 1);
    }
    trio.tick_all(50 * 40);
    for n in 0..8 {
        let list = trio.peers[3].repl.machine(GroupId(GROUP.0 + n)).expect("it has a replica");
        assert_eq!(list.applied.len(), 4, "group {n}");
    }
}

/// At half a part a second: were each of them counted as a part, the last would have to wait for 16 seconds.
#[test]
fn small_snapshots_take_of_the_pace_what_they_are() {
    let limits = Limits { snapshot_bytes_per_second: 256 * 1024, ..Limits::default() };
    let mut trio = Trio::growing_with(9, limits, 1);
    let others: Vec<GroupId> = (1..8).map(|n| GroupId(GROUP.0 + n)).collect();
    for (n, group) in others.iter().enumerate() {
        one_more_group_of(&mut trio, *group, 10 * n as u64 + 11, 1);
    }
    trio.tick_all(50 * 2);
    for group in std::iter::once(&GROUP).chain(&others) {
        let list = trio.peers[3].repl.machine(*group).expect("it has a replica");
        assert_eq!(list.applied.len(), 1, "group {group}");
    }
}
