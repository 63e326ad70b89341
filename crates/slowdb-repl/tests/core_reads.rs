//! Linearizable reads.

mod core_common;

use core_common::{
    APPEND, APPEND_RESPONSE, GROUP, HEARTBEAT, HEARTBEAT_RESPONSE, READ_ASKED, READ_CONFIRMED, Trio,
};
use slowdb_repl::{AckLevel, Failure};

#[test]
fn a_read_waits_for_a_majority_and_for_what_was_committed() {
    let mut trio = Trio::led(1);
    let write = trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
    trio.settle();
    assert!(trio.acked(0, write));
    let read = trio.read(0).expect("it leads");
    trio.flush(0);
    assert!(!trio.read_ready(0, read), "nobody has confirmed yet");
    trio.settle();
    assert!(trio.read_ready(0, read));
}

#[test]
fn a_read_before_the_first_commit_of_a_term_is_not_lost() {
    let mut trio = Trio::new(2);
    // Elected, but its first entry is not confirmed by anybody.
    for _ in 0..20 {
        for node in 0..3 {
            trio.flush(node);
            trio.sync(node);
        }
        trio.take(|frame| frame.has(APPEND_RESPONSE));
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
        if trio.peers[0].repl.leads(GROUP) {
            break;
        }
    }
    assert!(trio.peers[0].repl.leads(GROUP));
    let view = trio.peers[0].repl.view(GROUP).expect("the group");
    assert_eq!((view.committed, view.last_index), (1, 2), "only what the group began with is committed");
    let read = trio.read(0).expect("it leads");
    trio.flush(0);
    assert!(!trio.read_ready(0, read));
    // Whatever was lost is sent again in time.
    trio.tick_all(12);
    assert!(trio.read_ready(0, read));
}

#[test]
fn a_lost_round_is_asked_again() {
    let mut trio = Trio::led(3);
    let read = trio.read(0).expect("it leads");
    trio.flush(0);
    let lost = trio.take(|frame| frame.has(HEARTBEAT));
    assert_eq!(lost.len(), 2, "both followers were asked");
    for _ in 0..3 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        trio.tick(0);
        trio.flush(0);
        trio.take(|_| true);
    }
    assert!(!trio.read_ready(0, read));
    trio.tick_all(8);
    assert!(trio.read_ready(0, read), "the question is asked again");
}

#[test]
fn answers_to_an_earlier_question_confirm_nothing_later() {
    let mut trio = Trio::led(4);
    let first = trio.read(0).expect("it leads");
    trio.flush(0);
    for frame in trio.take(|frame| frame.has(HEARTBEAT)) {
        trio.deliver(&frame);
        trio.flush(frame.to);
        trio.sync(frame.to);
    }
    let answers = trio.take(|frame| frame.has(HEARTBEAT_RESPONSE));
    let second = trio.read(0).expect("it leads");
    trio.flush(0);
    for frame in answers {
        trio.deliver(&frame);
    }
    trio.flush(0);
    assert!(trio.read_ready(0, first));
    assert!(!trio.read_ready(0, second), "it was asked after those answers left");
    trio.settle();
    assert!(trio.read_ready(0, second));
}

#[test]
fn a_deposed_leader_neither_commits_nor_answers_reads() {
    let mut trio = Trio::led(5);
    trio.cut[0] = true;
    let write = trio.propose(0, AckLevel::Quorum, b"lost").expect("it does not know yet");
    let read = trio.read(0).expect("it does not know yet");
    let new = trio.elect();
    assert_ne!(new, 0);
    let later = trio.propose(new, AckLevel::Quorum, b"kept").expect("it leads");
    trio.settle();
    assert!(trio.acked(new, later));
    assert!(!trio.acked(0, write) && !trio.read_ready(0, read), "without a majority nothing is confirmed");
    trio.tick_all(30);
    assert!(!trio.peers[0].repl.leads(GROUP), "it stepped down by itself");
    assert_eq!(trio.propose(0, AckLevel::Quorum, b"no"), Err(Failure::NotLeader));
    trio.cut[0] = false;
    trio.tick_all(60);
    assert!(!trio.acked(0, write) && !trio.read_ready(0, read));
    assert!(matches!(trio.failure(0, write), Some(Failure::LeaderChanged)));
    assert_eq!(trio.failure(0, read), Some(Failure::NotLeader), "it knew of no leader for a while");
    let bodies: Vec<&[u8]> = trio.applied(0).iter().map(|(_, body)| body.as_slice()).collect();
    assert_eq!(bodies, [b"kept"]);
}

#[test]
fn a_follower_answers_reads_once_it_has_applied_what_the_leader_had_committed() {
    let mut trio = Trio::led(6);
    let write = trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
    // Replica 1 hears of nothing; the others acknowledge.
    for _ in 0..10 {
        for node in 0..3 {
            trio.flush(node);
            trio.sync(node);
        }
        trio.take(|frame| frame.to == 1);
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
    }
    assert!(trio.acked(0, write) && trio.applied(1).is_empty());
    let read = trio.read(1).expect("it knows the leader");
    for _ in 0..10 {
        for node in 0..3 {
            trio.flush(node);
            trio.sync(node);
        }
        trio.take(|frame| frame.to == 1 && frame.has(APPEND));
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
    }
    assert!(!trio.read_ready(1, read), "it has not applied what was acknowledged before the read");
    trio.tick_all(12);
    assert!(trio.read_ready(1, read));
    assert_eq!(trio.applied(1).len(), 1);
}

#[test]
fn reads_of_a_follower_share_one_question_and_one_round_with_others() {
    let mut trio = Trio::led(7);
    let mut reads = Vec::new();
    for node in [1, 2, 0] {
        reads.extend((0..100).map(|_| (node, trio.read(node).expect("it knows the leader"))));
    }
    for node in [1, 2] {
        trio.flush(node);
    }
    let asked = trio.take(|frame| frame.has(READ_ASKED));
    assert_eq!(asked.len(), 2, "one question for each follower");
    asked.iter().for_each(|frame| trio.deliver(frame));
    trio.flush(0);
    let rounds = trio.take(|frame| frame.has(HEARTBEAT));
    assert_eq!(rounds.len(), 2, "one round, in which both followers are asked");
    rounds.iter().for_each(|frame| trio.deliver(frame));
    trio.settle();
    assert!(reads.iter().all(|(node, read)| trio.read_ready(*node, *read)));
}

#[test]
fn a_lost_question_or_answer_is_asked_again() {
    for lost in [READ_ASKED, READ_CONFIRMED] {
        let mut trio = Trio::led(8);
        let read = trio.read(1).expect("it knows the leader");
        for _ in 0..5 {
            for node in 0..3 {
                trio.flush(node);
                trio.sync(node);
            }
            trio.take(|frame| frame.has(lost));
            for frame in std::mem::take(&mut trio.wire) {
                trio.deliver(&frame);
            }
        }
        assert!(!trio.read_ready(1, read));
        trio.tick_all(8);
        assert!(trio.read_ready(1, read), "type {lost}");
    }
}

#[test]
fn an_answer_to_an_earlier_life_confirms_nothing() {
    let mut trio = Trio::led(9);
    trio.read(1).expect("it knows the leader");
    for _ in 0..5 {
        for node in 0..3 {
            trio.flush(node);
        }
        for frame in trio.take(|frame| !frame.has(READ_CONFIRMED)) {
            trio.deliver(&frame);
        }
    }
    let answer = trio.take(|frame| frame.has(READ_CONFIRMED)).pop().expect("the leader answered");
    trio.reopen(1, 0, |_| {}).expect("it opens");
    trio.tick_all(4);
    let read = trio.read(1).expect("it knows the leader again");
    trio.flush(1);
    let asked = trio.take(|frame| frame.has(READ_ASKED));
    assert_eq!(asked.len(), 1);
    trio.deliver(&answer);
    trio.flush(1);
    assert!(!trio.read_ready(1, read), "that was asked in another life");
    asked.iter().for_each(|frame| trio.deliver(frame));
    trio.settle();
    assert!(trio.read_ready(1, read));
}

#[test]
fn a_follower_of_a_deposed_leader_asks_the_new_one() {
    let mut trio = Trio::led(10);
    trio.cut[0] = true;
    let new = trio.elect();
    let other = 3 - new;
    let later = trio.propose(new, AckLevel::Quorum, b"kept").expect("it leads");
    trio.settle();
    assert!(trio.acked(new, later));
    let read = trio.read(other).expect("it knows the new leader");
    trio.settle();
    assert!(trio.read_ready(other, read));
    assert_eq!(trio.applied(other).len(), 1);
    // The old one asks nobody: it takes itself for the leader, and then knows of none.
    let stale = trio.read(0);
    trio.tick_all(30);
    if let Ok(stale) = stale {
        assert!(!trio.read_ready(0, stale));
    }
    assert_eq!(trio.read(0), Err(Failure::NotLeader));
}
