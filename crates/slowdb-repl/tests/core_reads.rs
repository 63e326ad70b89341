//! Linearizable reads.

mod core_common;

use core_common::{APPEND_RESPONSE, GROUP, HEARTBEAT, HEARTBEAT_RESPONSE, Trio};
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
    assert!(trio.failure(0, read).is_some());
    let bodies: Vec<&[u8]> = trio.applied(0).iter().map(|(_, body)| body.as_slice()).collect();
    assert_eq!(bodies, [b"kept"]);
}
