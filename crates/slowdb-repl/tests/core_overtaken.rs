//! What one node acknowledged alone and a failover overtook: kept before it is cut, offered until it is settled.

mod core_common;

use core_common::{GROUP, Trio};
use slowdb_repl::wal::Record;
use slowdb_repl::{AckLevel, Limits, NodeId, ReplicaId};

/// The type of the note that offers overtaken proposals, and of the one that settles them.
const OVERTAKEN: u8 = 38;
const SETTLED: u8 = 39;

fn bodies(trio: &Trio, node: usize) -> Vec<&[u8]> {
    trio.applied(node).iter().map(|(_, body)| body.as_slice()).collect()
}

fn kept(trio: &Trio, node: usize) -> usize {
    trio.peers[node].repl.quarantined(GROUP).proposals
}

/// Node 0 leads, is cut off, and acknowledges `alone` by itself; then another node leads and commits `after`.
fn overtaken(seed: u64, limits: Limits) -> (Trio, usize) {
    let mut trio = Trio::with_limits(seed, limits);
    trio.settle();
    trio.tick_all(3);
    trio.propose(0, AckLevel::Quorum, b"before").expect("it leads");
    trio.settle();
    trio.cut[0] = true;
    let alone = trio.propose(0, AckLevel::One, b"alone").expect("it leads");
    let never = trio.propose(0, AckLevel::Quorum, b"never").expect("it leads");
    trio.settle();
    assert!(trio.acked(0, alone) && !trio.acked(0, never));
    let leader = trio.elect();
    trio.propose(leader, AckLevel::Quorum, b"after").expect("it leads");
    trio.settle();
    (trio, leader)
}

#[test]
fn what_a_new_leader_cuts_is_kept_and_offered_until_it_is_settled() {
    let (mut trio, leader) = overtaken(1, Limits::default());
    trio.cut[0] = false;
    trio.run(20, |trio, frame| {
        if !frame.has(OVERTAKEN) {
            trio.deliver(&frame);
        }
    });
    assert_eq!(kept(&trio, 0), 1, "nobody has taken it yet");
    assert_eq!(bodies(&trio, 0), [b"before".as_slice(), b"after"], "it is no part of this history");
    trio.tick_all(60);
    assert_eq!(kept(&trio, 0), 0);
    for node in 0..3 {
        assert_eq!(bodies(&trio, node), [b"before".as_slice(), b"after", b"alone"], "node {node}");
    }
    assert!(trio.peers[leader].repl.leads(GROUP));
}

#[test]
fn it_is_kept_until_the_word_that_it_is_settled_is_heard() {
    let (mut trio, _) = overtaken(2, Limits::default());
    trio.cut[0] = false;
    trio.run(20, |trio, frame| {
        if !frame.has(SETTLED) {
            trio.deliver(&frame);
        }
    });
    assert_eq!(bodies(&trio, 0).last(), Some(&b"alone".as_slice()), "it was taken");
    assert_eq!(kept(&trio, 0), 1, "but nobody has said so");
    trio.tick_all(60);
    assert_eq!(kept(&trio, 0), 0);
}

#[test]
fn the_log_keeps_it_over_a_power_loss() {
    let (mut trio, _) = overtaken(3, Limits::default());
    trio.cut[0] = false;
    trio.run(20, |trio, frame| {
        if !frame.has(OVERTAKEN) {
            trio.deliver(&frame);
        }
    });
    assert_eq!(kept(&trio, 0), 1);
    trio.reopen(0, 0, |recovered| assert_eq!(recovered.overtaken.len(), 1)).expect("it reopens");
    assert_eq!(kept(&trio, 0), 1, "what is kept outlives the process");
    trio.tick_all(120);
    assert_eq!(kept(&trio, 0), 0);
    assert_eq!(bodies(&trio, 0), [b"before".as_slice(), b"after", b"alone"]);
    trio.reopen(0, 0, |recovered| assert!(recovered.overtaken.is_empty())).expect("it reopens");
}

#[test]
fn it_is_written_ahead_of_what_cuts_it() {
    let (mut trio, _) = overtaken(4, Limits::default());
    trio.cut[0] = false;
    // Node 0 hears of the new history, and its power goes before that is durable.
    for _ in 0..200 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        (0..3).for_each(|node| trio.tick(node));
        for node in [1, 2] {
            trio.flush(node);
            trio.sync(node);
        }
        trio.flush(0);
        let cuts = |record: &Record| matches!(record, Record::Overtaken { .. });
        let batch = trio.peers[0].unsynced.iter().find(|batch| batch.records.iter().any(cuts));
        if let Some(batch) = batch {
            let keeps = batch.records.iter().position(cuts).expect("it is there");
            let entry = |record: &Record| matches!(record, Record::Entry { .. });
            let cut = batch.records.iter().position(entry).expect("something cuts it");
            assert!(keeps < cut, "a crash between the two must not lose it");
            trio.reopen(0, 0, |_| ()).expect("it reopens");
            trio.wire.clear();
            trio.tick_all(120);
            assert_eq!(bodies(&trio, 0), [b"before".as_slice(), b"after", b"alone"]);
            return;
        }
        trio.sync(0);
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
    }
    panic!("nothing was ever cut");
}

#[test]
fn what_a_snapshot_replaces_is_kept() {
    let limits = Limits { retained_bytes_per_group: 1, ..Limits::default() };
    let (mut trio, leader) = overtaken(5, limits);
    for n in 0..20u8 {
        trio.propose(leader, AckLevel::Quorum, &[n]).expect("it leads");
        trio.settle();
    }
    for node in [1, 2] {
        let applied = trio.peers[node].repl.applied(GROUP).expect("the group is there").index;
        trio.peers[node].repl.machine_mut(GROUP).expect("the group is there").keep(0, applied);
        trio.peers[node].repl.checkpointed(GROUP, applied);
    }
    trio.tick_all(40);
    trio.cut[0] = false;
    trio.tick_all(120);
    assert!(
        trio.peers[0].repl.membership(GROUP).expect("the group is there").incarnation > 0,
        "by a snapshot"
    );
    assert_eq!(kept(&trio, 0), 0);
    assert_eq!(bodies(&trio, 0), bodies(&trio, leader));
    assert_eq!(bodies(&trio, 0).iter().filter(|body| **body == b"alone").count(), 1);
}

#[test]
fn what_a_removed_replica_held_is_offered_by_its_node() {
    let (mut trio, leader) = overtaken(6, Limits::default());
    trio.peers[0].repl.remove(GROUP).expect("it was there");
    trio.cut[0] = false;
    assert_eq!(kept(&trio, 0), 1);
    let route = [1u64, 2].map(|at| (ReplicaId(at + 1), NodeId::new(&format!("n{at}")))).to_vec();
    trio.peers[0].repl.offer_to(GROUP, route);
    trio.tick_all(150);
    assert_eq!(kept(&trio, 0), 0, "one of the two leads, and has taken it");
    assert_eq!(bodies(&trio, leader), [b"before".as_slice(), b"after", b"alone"]);
    let recovered = trio.restart(0);
    assert!(recovered.overtaken.is_empty() && recovered.removed.contains(&1));
}

#[test]
fn what_a_replica_held_that_was_dropped_while_it_was_away_is_kept() {
    let (mut trio, _) = overtaken(7, Limits::default());
    let recovered = trio.restart(0);
    let known =
        slowdb_repl::Replicator::<core_common::List>::memberships(&recovered).expect("it makes sense");
    trio.peers[0].repl.discard(&known[&GROUP], &recovered).expect("it can be read");
    assert_eq!(kept(&trio, 0), 1);
    trio.flush(0);
    trio.sync(0);
    let recovered = trio.restart(0);
    assert_eq!(recovered.overtaken.len(), 1, "it outlives the replica");
}

#[test]
fn its_holder_settles_it_when_it_leads_itself() {
    let (mut trio, leader) = overtaken(8, Limits::default());
    trio.cut[0] = false;
    trio.run(20, |trio, frame| {
        if !frame.has(OVERTAKEN) {
            trio.deliver(&frame);
        }
    });
    assert_eq!(kept(&trio, 0), 1);
    assert!(trio.peers[leader].repl.hand_over_to(GROUP, ReplicaId(1)));
    trio.run(10, |trio, frame| {
        if !frame.has(OVERTAKEN) {
            trio.deliver(&frame);
        }
    });
    assert!(trio.peers[0].repl.leads(GROUP));
    trio.tick_all(60);
    assert_eq!(kept(&trio, 0), 0);
    assert_eq!(bodies(&trio, leader), [b"before".as_slice(), b"after", b"alone"]);
}

#[test]
fn a_node_that_keeps_too_much_takes_nothing_at_one() {
    let limits = Limits { quarantine_bytes_max: 50, ..Limits::default() };
    let (mut trio, leader) = overtaken(9, limits);
    trio.cut[0] = false;
    let lost = |trio: &mut Trio, frame: core_common::InFlight| {
        if !frame.has(OVERTAKEN) {
            trio.deliver(&frame);
        }
    };
    trio.run(20, lost);
    assert!(trio.peers[leader].repl.hand_over_to(GROUP, ReplicaId(1)));
    // The first offer to itself comes when it is due again.
    trio.run(10, lost);
    assert!(trio.peers[0].repl.leads(GROUP) && kept(&trio, 0) == 1);
    let refused = trio.propose(0, AckLevel::One, b"more");
    assert_eq!(refused.err(), Some(slowdb_repl::Failure::Overloaded));
    assert!(trio.propose(0, AckLevel::Quorum, b"more").is_ok());
}
