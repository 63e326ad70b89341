//! Parts of a snapshot, several under way at a time.

mod core_common;

use core_common::{
    COMMIT_AT, GROUP, INDEX_AT, InFlight, MESSAGE_AT, OFFER, PART, Trio, WANT, messages, word,
};
use slowdb_repl::{Job, Limits, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Parts that a receiver may have under way.
const WINDOW: usize = 12;
/// More than two windows.
const ITEMS: u8 = 40;

/// The numbers of the parts that the messages of a kind in a frame are about.
fn numbers(frame: &InFlight, kind: u8) -> Vec<u64> {
    let of_kind = messages(&frame.meta).into_iter().filter(|at| frame.meta[at + 80] == kind);
    of_kind.map(|at| word(&frame.meta, at + INDEX_AT - MESSAGE_AT)).collect()
}

/// The ids of the snapshots that a frame offers.
fn offered(frame: &InFlight) -> Vec<u64> {
    let offers = messages(&frame.meta).into_iter().filter(|at| frame.meta[at + 80] == OFFER);
    offers.map(|at| word(&frame.meta, at + COMMIT_AT - MESSAGE_AT)).collect()
}

fn growing(seed: u64) -> Trio {
    Trio::growing_with(seed, Limits { snapshot_bytes_per_second: u64::MAX, ..Limits::default() }, ITEMS)
}

fn arrived_whole(trio: &Trio) {
    assert_eq!(trio.applied(3).len(), usize::from(ITEMS));
    assert_eq!(trio.applied(3), trio.applied(0));
}

#[test]
fn as_many_parts_are_under_way_as_the_window_holds() {
    let mut trio = growing(1);
    let mut held: Vec<InFlight> = Vec::new();
    let (mut asked, mut most) = (BTreeSet::new(), 0);
    // Nothing arrives at first, for less than the time after which a part is asked for again.
    trio.run(15, |trio, frame| {
        for part in numbers(&frame, WANT) {
            assert!(asked.insert(part), "part {part} was asked for twice");
        }
        if frame.has(PART) { held.push(frame) } else { trio.deliver(&frame) }
    });
    assert_eq!(asked, (0..WINDOW as u64).collect(), "a window, and no more");
    let mut under_way = held.len();
    let parts = held.len();
    held.iter().for_each(|frame| trio.deliver(frame));
    under_way -= parts;
    trio.run(60, |trio, frame| {
        under_way += numbers(&frame, WANT).len();
        under_way -= numbers(&frame, PART).len();
        most = most.max(under_way);
        numbers(&frame, WANT).into_iter().for_each(|part| assert!(asked.insert(part), "{part} again"));
        trio.deliver(&frame);
    });
    assert!((2..=WINDOW).contains(&most), "{most} were under way at once");
    arrived_whole(&trio);
}

/// Parts and what asks for them are lost, come twice and late, all of it drawn from a seed.
#[test]
fn a_snapshot_arrives_whatever_becomes_of_its_parts() {
    for seed in 0..40 {
        let mut trio = growing(seed);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) % below
        };
        let mut late: BTreeMap<(u64, u64), InFlight> = BTreeMap::new();
        let (mut ids, mut lost, mut handed) = (BTreeSet::new(), 0, 0);
        for tick in 0..1_500 {
            trio.run(1, |trio, frame| {
                ids.extend(offered(&frame));
                if !frame.has(PART) && !frame.has(WANT) {
                    return trio.deliver(&frame);
                }
                handed += 1;
                match draw(8) {
                    0 => lost += 1,
                    1 => (0..2).for_each(|_| trio.deliver(&frame)),
                    2 | 3 => drop(late.insert((tick + draw(40), handed), frame)),
                    _ => trio.deliver(&frame),
                }
            });
            let later = late.split_off(&(tick + 1, 0));
            std::mem::replace(&mut late, later).values().for_each(|frame| trio.deliver(frame));
            if trio.applied(3).len() == usize::from(ITEMS) {
                break;
            }
        }
        assert!(lost > 0, "seed {seed}: nothing was lost");
        assert_eq!(ids.len(), 1, "seed {seed}: one snapshot was enough");
        arrived_whole(&trio);
    }
}

/// The offer, and everything up to where the receiver holds so many parts. What it asks for then is lost.
fn part_of_the_way(seed: u64, parts: u64) -> Trio {
    let mut trio = growing(seed);
    trio.run(20, |trio, frame| {
        let beyond = |kind| numbers(&frame, kind).into_iter().any(|part| part >= parts);
        if !(frame.has(PART) && beyond(PART) || frame.has(WANT) && beyond(WANT) && parts > WINDOW as u64) {
            trio.deliver(&frame);
        }
    });
    let arriving = trio.peers[3].repl.view(GROUP).expect("it has a replica").arriving;
    let arriving = arriving.expect("it is on its way");
    assert!(arriving.bytes > 0 && arriving.bytes < arriving.of_bytes, "{arriving:?}");
    trio
}

/// Only that many of its parts follow on what it still knows of as many as there were before.
#[test]
fn a_sender_that_restarted_does_not_know_parts_that_it_has_not_read() {
    for (seed, parts) in [(2, 5), (3, 20)] {
        let mut trio = part_of_the_way(seed, parts);
        trio.reopen(0, 0, |_| {}).expect("it opens");
        let leader = trio.elect();
        if leader != 0 {
            assert!(trio.peers[leader].repl.hand_over_to(GROUP, ReplicaId(1)));
        }
        trio.tick_all(80);
        assert!(trio.peers[0].repl.leads(GROUP));
        arrived_whole(&trio);
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_any_more_is_given_up() {
    let mut trio = part_of_the_way(4, 8);
    trio.peers[0].kept.lock().unwrap().unreadable = true;
    trio.tick_all(60);
    let view = trio.peers[3].repl.view(GROUP).expect("it has a replica");
    assert_eq!((view.arriving.map(|it| it.bytes).unwrap_or_default(), view.halted), (0, None));
    assert!(trio.peers[0].repl.leads(GROUP), "the group goes on");
    trio.peers[0].kept.lock().unwrap().unreadable = false;
    trio.tick_all(200);
    arrived_whole(&trio);
}

/// The part under way to the disk belongs to a snapshot that is given up. What it is written to is in use until then.
#[test]
fn nothing_is_staged_while_a_part_is_being_written() {
    let mut trio = growing(5);
    let mut held: Vec<Job> = Vec::new();
    let run = |trio: &mut Trio, ticks: usize, held: &mut Vec<Job>, loses_parts: bool| {
        for _ in 0..ticks {
            trio.now.micros += slowdb_repl::TICK_MICROS;
            (0..4).for_each(|node| trio.tick(node));
            for _ in 0..20 {
                for node in 0..4 {
                    trio.flush(node);
                    trio.sync(node);
                    held.extend(trio.peers[3].jobs.drain(..));
                    trio.finish_jobs(node);
                }
                for frame in std::mem::take(&mut trio.wire) {
                    if !(loses_parts && numbers(&frame, PART).into_iter().any(|part| part >= 8)) {
                        trio.deliver(&frame);
                    }
                }
            }
        }
    };
    run(&mut trio, 20, &mut held, true);
    assert_eq!(held.len(), 1, "the first parts are being written");
    // It cannot be read: it is gone.
    trio.peers[0].kept.lock().unwrap().unreadable = true;
    run(&mut trio, 60, &mut held, false);
    trio.peers[0].kept.lock().unwrap().unreadable = false;
    let view = trio.peers[3].repl.view(GROUP).expect("it has a replica");
    assert_eq!((view.arriving, held.len()), (None, 1), "given up, and nothing else begun");
    run(&mut trio, 40, &mut held, false);
    assert_eq!(held.len(), 1);
    held.drain(..).for_each(|job| trio.peers[3].repl.job_done(job.run()));
    trio.tick_all(60);
    arrived_whole(&trio);
}
