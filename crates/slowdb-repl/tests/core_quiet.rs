//! Groups in which nothing happens: next to nothing is done for them, and who is silent is noticed all the same.

mod core_common;

use core_common::{GROUP, InFlight, Trio};
use slowdb_repl::{AckLevel, ReplicaId, TICK_MICROS};

const CALL: u8 = 44;
const ROLL: u8 = 45;
const ANSWER: u8 = 46;

/// Delivers what is under way, and gives the types of it all.
fn deliver(trio: &mut Trio) -> Vec<u8> {
    let frames = trio.take(|_| true);
    frames.iter().for_each(|frame| trio.deliver(frame));
    frames.iter().flat_map(InFlight::types).collect()
}

/// One tick of all, with everything delivered that it leads to; gives the types of it.
fn turn(trio: &mut Trio) -> Vec<u8> {
    trio.now.micros += TICK_MICROS;
    (0..3).for_each(|node| trio.tick(node));
    let mut types = Vec::new();
    for _ in 0..2 {
        (0..3).for_each(|node| trio.flush(node));
        types.extend(deliver(trio));
    }
    types
}

/// A group of which all replicas rest.
fn resting(seed: u64) -> Trio {
    let mut trio = Trio::led(seed);
    trio.tick_all(60);
    assert_eq!(turn(&mut trio).len() + turn(&mut trio).len(), 4, "two calls and two answers in two ticks");
    trio
}

#[test]
fn a_group_in_which_nothing_happens_is_called_and_not_more() {
    let mut trio = resting(3);
    let led = trio.peers[0].repl.leader(GROUP);
    let mut types = Vec::new();
    for _ in 0..200 {
        types.extend(turn(&mut trio));
        assert!((0..3).all(|node| !trio.peers[node].repl.is_dirty()));
    }
    let count = |kind: u8| types.iter().filter(|other| **other == kind).count();
    assert_eq!(
        (types.len(), count(CALL), count(ANSWER)),
        (400, 200, 200),
        "a call every other tick, to two nodes"
    );
    assert_eq!(trio.peers[0].repl.leader(GROUP), led, "all that time it led, in one term");
}

#[test]
fn a_resting_leader_without_answers_steps_down_and_another_is_elected() {
    let mut trio = resting(4);
    trio.cut[0] = true;
    trio.tick_all(25);
    assert!(!trio.peers[0].repl.leads(GROUP), "nobody has answered for two election time-outs");
    assert_ne!(trio.elect(), 0);
}

#[test]
fn a_resting_leader_that_dies_is_missed_as_soon_as_any_other() {
    for seed in 0..20 {
        let mut trio = resting(seed);
        trio.cut[0] = true;
        trio.tick_all(10);
        assert!((1..3).all(|node| trio.peers[node].repl.leader(GROUP).is_some_and(|(_, term)| term == 2)));
        let mut ticks = 10;
        while !(1..3).any(|node| trio.peers[node].repl.leads(GROUP)) {
            trio.tick_all(1);
            ticks += 1;
            assert!(ticks < 48, "seed {seed}: nobody leads");
        }
    }
}

#[test]
fn a_leader_that_leads_no_more_is_not_called_for() {
    let mut trio = resting(5);
    assert!(trio.peers[0].repl.hand_over_to(GROUP, ReplicaId(2)));
    trio.tick_all(60);
    assert!(trio.peers[1].repl.leads(GROUP));
    let types: Vec<u8> = (0..20).flat_map(|_| turn(&mut trio)).collect();
    assert!(types.iter().all(|kind| [CALL, ANSWER].contains(kind)), "{types:?}");
    assert_eq!(types.len(), 40, "it rests again, and only the new leader calls");
}

#[test]
fn a_write_wakes_a_group_and_it_rests_again() {
    let mut trio = resting(6);
    let token = trio.propose(0, AckLevel::All, b"one").expect("it leads");
    trio.tick_all(3);
    assert!(trio.acked(0, token), "all have it");
    let types: Vec<u8> = (0..60).flat_map(|_| turn(&mut trio)).collect();
    assert!(types.contains(&ROLL), "the roll says another commit than before: {types:?}");
    let types: Vec<u8> = (0..20).flat_map(|_| turn(&mut trio)).collect();
    assert!(types.iter().all(|kind| [CALL, ANSWER].contains(kind)), "{types:?}");
}

#[test]
fn a_node_that_was_started_anew_knows_no_rolls() {
    let mut trio = resting(7);
    trio.reopen(1, 0, |_| ()).expect("it goes on");
    let types: Vec<u8> = (0..60).flat_map(|_| turn(&mut trio)).collect();
    assert!(types.contains(&ROLL), "it is told: {types:?}");
    assert!(trio.peers[0].repl.leads(GROUP), "nobody else was elected meanwhile");
    let types: Vec<u8> = (0..20).flat_map(|_| turn(&mut trio)).collect();
    assert!(types.iter().all(|kind| [CALL, ANSWER].contains(kind)), "{types:?}");
}
