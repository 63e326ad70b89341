//! Proposals: who takes them, who is told what, and what is in an entry.

mod core_common;

use bytes::Bytes;
use core_common::{
    APPEND, APPEND_RESPONSE, CANNOT_BE_APPLIED, COMMIT_AT, GROUP, HEARTBEAT, INDEX_AT, Kept, List, TERM_AT,
    Trio, open_wal, with_word, word,
};
use slowdb_disk::SimDisk;
use slowdb_repl::{
    AckLevel, EntryView, Failure, Limits, Member, Membership, NodeId, OpenGroupError, Part, Position,
    ReplicaId, Replicator,
};

#[test]
fn a_follower_refuses_proposals_and_forwards_nothing() {
    let mut trio = Trio::led(1);
    assert_eq!(trio.propose(1, AckLevel::Quorum, b"x"), Err(Failure::NotLeader));
    trio.flush(1);
    assert!(trio.wire.is_empty(), "nothing leaves the follower: {:?}", trio.wire);
    assert_eq!(trio.peers[1].repl.leader(GROUP), Some((Some(NodeId::new("n0")), 2)));
}

#[test]
fn an_append_of_a_stale_term_changes_nothing() {
    let mut trio = Trio::led(2);
    trio.propose(0, AckLevel::Quorum, b"old").expect("it leads");
    trio.flush(0);
    let old = trio.take(|frame| frame.has(APPEND) && frame.to == 1);
    trio.cut[0] = true;
    let new = trio.elect();
    trio.propose(new, AckLevel::Quorum, b"new").expect("it leads");
    trio.tick_all(4);
    let before = trio.peers[1].repl.view(GROUP).expect("the group");
    assert!(word(&old[0].meta, TERM_AT) < before.term);
    trio.deliver(&old[0]);
    trio.flush(1);
    trio.sync(1);
    let after = trio.peers[1].repl.view(GROUP).expect("the group");
    assert_eq!(
        (after.term, after.last_index, &after.leader),
        (before.term, before.last_index, &before.leader)
    );
    let answers = trio.take(|frame| frame.has(APPEND_RESPONSE) && frame.to == 0);
    assert!(answers.iter().all(|answer| word(&answer.meta, TERM_AT) > word(&old[0].meta, TERM_AT)));
    assert_eq!(trio.applied(1).iter().filter(|(_, body)| body == b"old").count(), 0);
}

/// A session may read from a group that halted. Told that it holds what could not be applied, it would miss its own write.
#[test]
fn a_halted_group_has_not_applied_what_could_not_be_applied() {
    let mut trio = Trio::led(12);
    let before = trio.propose(0, AckLevel::Quorum, b"before").expect("it leads");
    trio.settle();
    assert!(trio.acked(0, before));
    let applied = trio.peers[0].repl.applied(GROUP);
    trio.propose(0, AckLevel::One, CANNOT_BE_APPLIED).expect("it leads");
    trio.settle();
    assert!(trio.halted(0).is_some_and(|why| why.contains("damaged")));
    assert_eq!(trio.peers[0].repl.applied(GROUP), applied);
}

#[test]
fn a_commit_index_beyond_the_log_halts_the_group_and_only_it() {
    let mut trio = Trio::led(3);
    trio.now.micros += slowdb_repl::TICK_MICROS;
    let mut heartbeats = Vec::new();
    while heartbeats.is_empty() {
        trio.tick(0);
        trio.flush(0);
        heartbeats = trio.take(|frame| frame.has(HEARTBEAT) && frame.to == 1);
    }
    let mut forged = heartbeats[0].clone();
    forged.meta = with_word(&forged.meta, COMMIT_AT, 1000);
    trio.deliver(&forged);
    trio.flush(1);
    let why = trio.halted(1).expect("it halts");
    assert!(why.contains("1000") && why.contains("synced log was lost"), "{why}");
    assert_eq!(trio.propose(1, AckLevel::Quorum, b"x"), Err(Failure::Halted));
    trio.tick_all(5);
    assert!(trio.peers[0].repl.leads(GROUP), "the others go on");
    let write = trio.propose(0, AckLevel::Quorum, b"y").expect("it leads");
    trio.settle();
    assert!(trio.acked(0, write));
}

#[test]
fn all_names_who_is_missing_and_stands_at_quorum() {
    let mut trio = Trio::led(4);
    trio.cut[2] = true;
    let all = trio.propose(0, AckLevel::All, b"x").expect("it leads");
    let quorum = trio.propose(0, AckLevel::Quorum, b"y").expect("it leads");
    trio.settle();
    assert!(trio.acked(0, quorum) && !trio.acked(0, all));
    trio.tick_all(90);
    assert_eq!(trio.failure(0, all), Some(Failure::LevelNotReached { missing: vec![NodeId::new("n2")] }));
    trio.cut[2] = false;
    let all = trio.propose(0, AckLevel::All, b"z").expect("it leads");
    trio.tick_all(40);
    assert!(trio.acked(0, all), "{:?}", trio.failure(0, all));
}

/// The engine adds entries to an append that waits to be sent; after a rejection they begin earlier than it does.
#[test]
fn entries_sent_again_after_a_rejection_keep_their_indexes() {
    let mut trio = Trio::led(9);
    for body in [b"a", b"b", b"c"] {
        trio.propose(0, AckLevel::Quorum, body).expect("it leads");
        trio.flush(0);
        trio.sync(0);
    }
    let appends = trio.take(|frame| frame.has(APPEND));
    // Node 2 gets everything, node 1 only the last entry, which it rejects.
    let last = appends.iter().rfind(|frame| frame.to == 1).expect("three appends");
    for frame in appends.iter().filter(|frame| frame.to == 2).chain([last]) {
        trio.deliver(frame);
    }
    for node in 1..3 {
        trio.flush(node);
        trio.sync(node);
    }
    // The leader hears of the commit, so that an empty append waits for node 1, and then of the rejection.
    for from in [2, 1] {
        for frame in trio.take(|frame| frame.has(APPEND_RESPONSE) && frame.from == from) {
            trio.deliver(&frame);
        }
    }
    trio.tick_all(8);
    assert_eq!(trio.applied(1), trio.applied(0));
    assert_eq!(trio.applied(1).len(), 3);
}

/// A segment of the log takes no more, and a payload that it does not take would stop the node.
#[test]
fn no_entry_is_larger_than_the_log_takes() {
    let mut trio = Trio::with_limits(11, Limits { entry_bytes_max: 10_000, ..Limits::default() });
    trio.settle();
    let largest = 10_000 - 16 - 88;
    let too_large = Err(Failure::TooLarge { bytes: 10_008, limit: 10_000 });
    assert_eq!(trio.propose(0, AckLevel::One, &vec![1; largest + 1]), too_large);
    // Waiting together, they are more than one entry may have.
    let bodies: Vec<Vec<u8>> = [3_000, 3_000, 3_000, largest, 0, 6_000].map(|len| vec![2; len]).to_vec();
    let tokens = bodies.iter().map(|body| trio.propose(0, AckLevel::Quorum, body).expect("it fits"));
    let tokens: Vec<_> = tokens.collect();
    trio.settle();
    for (token, body) in tokens.into_iter().zip(&bodies) {
        assert!(trio.acked(0, token), "{} bytes", body.len());
    }
    let applied: Vec<Vec<u8>> = trio.applied(2).iter().map(|(_, body)| body.to_vec()).collect();
    assert_eq!(applied, bodies);
    let indexes: Vec<u64> = trio.applied(2).iter().map(|(index, _)| *index).collect();
    assert!(indexes[0] == indexes[2] && indexes[2] < indexes[3] && indexes[3] < indexes[4], "{indexes:?}");
    assert_eq!(indexes[4], indexes[5]);
}

#[test]
fn an_entry_that_another_node_should_not_have_sent_is_refused() {
    let mut trio = Trio::with_limits(12, Limits { entry_bytes_max: 1_000, ..Limits::default() });
    trio.settle();
    trio.propose(0, AckLevel::Quorum, &[7; 800]).expect("it fits");
    trio.flush(0);
    let append = trio.take(|frame| frame.has(APPEND) && frame.to == 1);
    let [append] = append.as_slice() else { panic!("{append:?}") };
    // As if the other node had a larger limit: its entry is one byte longer than this one takes.
    let mut meta = append.meta.to_vec();
    let at = meta.len() - 4;
    let len = append.body.len();
    assert_eq!(meta[at..], (len as u32).to_le_bytes());
    meta[at..].copy_from_slice(&1_001_u32.to_le_bytes());
    let mut body = append.body.to_vec();
    body.resize(1_001, 0);
    let from = NodeId::new("n0");
    let refused = trio.peers[1].repl.receive(&from, &meta, &Bytes::from(body));
    let error = refused.expect_err("it is over the limit").to_string();
    assert!(error.contains("1001 bytes is over the limit of 1000"), "{error}");
    trio.settle();
    assert_eq!(trio.applied(2).len(), 1);
}

#[test]
fn a_log_in_segments_that_are_too_small_opens_no_group() {
    let (wal, _) = open_wal(&SimDisk::new());
    let limits = Limits { entry_bytes_max: 64 * 1024, ..Limits::default() };
    let mut repl = Replicator::new(NodeId::new("n0"), [1; 16], 1, limits, wal.reader());
    let member = Member { replica: ReplicaId(1), node: NodeId::new("n0"), part: Part::Voter };
    let membership = Membership::new(GROUP, ReplicaId(1), vec![member]);
    let refused = repl.create(membership, List::of(&Kept::default(), 0));
    let refused = refused.expect_err("an entry may be as large as a segment, which has a header, too");
    assert!(matches!(refused, OpenGroupError::SegmentsTooSmall { entry: 65_536, .. }), "{refused}");
}

#[test]
fn queues_are_bounded() {
    let mut few = Trio::with_limits(5, Limits { waiting_per_group_max: 3, ..Limits::default() });
    few.settle();
    for _ in 0..3 {
        few.propose(0, AckLevel::Quorum, b"x").expect("there is room");
    }
    assert_eq!(few.propose(0, AckLevel::Quorum, b"x"), Err(Failure::Overloaded));
    few.settle();
    few.propose(0, AckLevel::Quorum, b"x").expect("there is room again");

    let mut small = Trio::with_limits(6, Limits { waiting_bytes_max: 10, ..Limits::default() });
    small.settle();
    small.propose(0, AckLevel::Quorum, b"12345678").expect("there is room");
    assert_eq!(small.propose(0, AckLevel::Quorum, b"123"), Err(Failure::Overloaded));
    small.settle();
    small.propose(0, AckLevel::Quorum, b"123").expect("there is room again");
}

/// Who waits for a member that is away holds up no bytes once the write is applied.
#[test]
fn an_applied_write_that_waits_for_all_leaves_the_budget() {
    let mut trio = Trio::with_limits(10, Limits { waiting_bytes_max: 100, ..Limits::default() });
    trio.settle();
    trio.tick_all(3);
    trio.cut[2] = true;
    let all = trio.propose(0, AckLevel::All, &[1; 90]).expect("there is room");
    assert_eq!(trio.propose(0, AckLevel::Quorum, &[2; 20]), Err(Failure::Overloaded), "not applied yet");
    trio.settle();
    let quorum = trio.propose(0, AckLevel::Quorum, &[2; 20]).expect("there is room again");
    trio.settle();
    assert!(trio.acked(0, quorum) && !trio.acked(0, all));
    // It is still answered, one way or the other.
    trio.tick_all(90);
    assert_eq!(trio.failure(0, all), Some(Failure::LevelNotReached { missing: vec![NodeId::new("n2")] }));
}

/// Offsets within an entry have 32 bits.
#[test]
fn proposals_whose_writes_do_not_fit_one_entry_go_into_two() {
    let mut trio = Trio::led(11);
    let tokens = [u32::MAX, 1, u32::MAX].map(|writes| trio.propose_writes(0, writes).expect("it leads"));
    trio.settle();
    assert!(tokens.iter().all(|token| trio.acked(0, *token)));
    trio.tick_all(3);
    let indexes: Vec<u64> = trio.applied(0).iter().map(|(index, _)| *index).collect();
    assert_eq!(indexes, [3, 4, 5]);
    for node in 0..3 {
        assert_eq!((trio.halted(node), trio.applied(node).len()), (None, 3), "node {node}");
    }
    assert_eq!(trio.peers[0].repl.applied(GROUP), Some(Position { term: 2, index: 5, offset: u32::MAX - 1 }));
}

#[test]
fn a_deadline_is_kept() {
    let mut trio = Trio::led(7);
    trio.cut[1] = true;
    trio.cut[2] = true;
    let write = trio.propose(0, AckLevel::Quorum, b"x").expect("it does not know yet");
    trio.tick_all(90);
    assert!(matches!(trio.failure(0, write), Some(Failure::LeaderChanged | Failure::Timeout)));
    let answers = trio.peers[0]
        .events
        .iter()
        .filter(|event| matches!(event, slowdb_repl::Event::Failed { token, .. } if *token == write));
    assert_eq!(answers.count(), 1, "exactly once");
}

#[test]
fn elections_replay_exactly() {
    let frames = |seed: u64| {
        let mut trio = Trio::led(seed);
        trio.cut[0] = true;
        let mut metas: Vec<(usize, u64, Bytes)> = Vec::new();
        for tick in 0..60 {
            trio.now.micros += slowdb_repl::TICK_MICROS;
            for node in 1..3 {
                trio.tick(node);
                trio.flush(node);
                trio.sync(node);
            }
            metas.extend(trio.wire.iter().map(|frame| (frame.from, tick, frame.meta.clone())));
            for frame in std::mem::take(&mut trio.wire).into_iter().filter(|frame| frame.to != 0) {
                trio.deliver(&frame);
            }
        }
        metas
    };
    assert_eq!(frames(11), frames(11));
    let first_seeds: Vec<_> = (0..8).map(|seed| frames(seed * 1000)[0].1).collect();
    assert!(
        first_seeds.iter().any(|tick| *tick != first_seeds[0]),
        "seeds make a difference: {first_seeds:?}"
    );
}

/// The example of the layout at the head of `entry.rs`, byte by byte.
#[test]
fn an_entry_is_laid_out_as_documented() {
    let mut trio = Trio::led(8);
    trio.now.wall_millis = 0x0102_0304;
    trio.propose(0, AckLevel::Quorum, b"hello").expect("it leads");
    trio.flush(0);
    let append = trio.take(|frame| frame.has(APPEND)).remove(0);
    #[rustfmt::skip]
    let golden: Vec<u8> = [
        [1, 0, 0, 0, 1, 0, 0, 0].as_slice(),        // format 1, one proposal
        &[2, 0, 0, 0, 0, 0, 0, 0],                  // floor: all have entry 2
        &[1, 0, 0, 0, 1, 0, 0, 0],                  // quorum, no retry, one write
        &[1; 16],                                   // client
        &[1, 0, 0, 0, 0, 0, 0, 0],                  // sequence 1
        &[0, 0, 4, 3, 2, 1, 0, 0],                  // hybrid logical time: milliseconds << 16
        &[1, 0, 0, 0, 0, 0, 0, 0],                  // origin: replica 1
        &[5, 0, 0, 0, 0, 0, 0, 0],                  // five bytes of body
        b"hello\0\0\0",
    ].concat();
    assert_eq!(append.body, golden);
    let view = EntryView::parse(2, 3, &golden).expect("it follows the layout");
    assert_eq!((view.floor(), view.proposals().len()), (2, 1));
    let proposal = view.proposals()[0];
    assert_eq!(proposal.first, Position { term: 2, index: 3, offset: 0 });
    assert_eq!((proposal.body, proposal.header.level), (b"hello".as_slice(), AckLevel::Quorum));
    assert_eq!(word(&append.meta, INDEX_AT), 2, "it follows entry 2, the first");
    for cut in 0..golden.len() {
        assert!(EntryView::parse(2, 3, &golden[..cut]).is_err(), "cut after {cut} bytes");
    }
}
