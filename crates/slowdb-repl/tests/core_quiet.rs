//! Groups in which nothing happens: next to nothing is done for them, and who is silent is noticed all the same.

mod core_common;

use core_common::{GROUP, InFlight, Trio};
use slowdb_repl::TICK_MICROS;

const HEARTBEAT: u8 = 8;
const HEARTBEAT_RESPONSE: u8 = 9;

fn delivered(trio: &mut Trio, kind: u8) -> Vec<InFlight> {
    let frames = trio.take(|_| true);
    for frame in &frames {
        assert!(frame.types().iter().all(|other| *other == kind), "{:?}", frame.types());
        trio.deliver(frame);
    }
    frames
}

#[test]
fn heartbeats_wake_nobody_in_a_quiet_group() {
    let mut trio = Trio::led(3);
    trio.tick_all(20);
    let led = trio.peers[0].repl.leader(GROUP);
    let mut answers = 0;
    for _ in 0..200 {
        trio.now.micros += TICK_MICROS;
        (0..3).for_each(|node| trio.tick(node));
        assert!(!trio.peers[1].repl.is_dirty() && !trio.peers[2].repl.is_dirty());
        trio.flush(0);
        delivered(&mut trio, HEARTBEAT);
        trio.flush(1);
        trio.flush(2);
        answers += delivered(&mut trio, HEARTBEAT_RESPONSE).len();
        assert!(!trio.peers[0].repl.is_dirty());
    }
    assert_eq!(answers, 200, "two followers answer every other tick");
    assert_eq!(trio.peers[0].repl.leader(GROUP), led, "all that time it led, in one term");
}

#[test]
fn a_quiet_leader_without_answers_steps_down_and_another_is_elected() {
    let mut trio = Trio::led(4);
    trio.tick_all(50);
    trio.cut[0] = true;
    trio.tick_all(25);
    assert!(!trio.peers[0].repl.leads(GROUP), "nobody has answered for two election time-outs");
    assert_ne!(trio.elect(), 0);
}
