//! Whatever arrives, nothing panics, and what is not allowed over the network is refused.

mod core_common;

use bytes::Bytes;
use core_common::{
    APPEND, APPEND_RESPONSE, CLUSTER, COMMIT_AT, GROUP, HEARTBEAT, HEARTBEAT_RESPONSE, INDEX_AT, InFlight,
    LOG_TERM_AT, OFFER, PART, PRE_VOTE, PRE_VOTE_RESPONSE, REJECT_HINT_AT, TERM_AT, TYPE_AT, Trio, VOTE,
    VOTE_RESPONSE, WANT, with_word, word,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use slowdb_repl::{AckLevel, EntryView, Member, Membership, NodeId, Part, ReplicaId, WireError};

const PARTS: [Part; 5] = [Part::Learner, Part::Voter, Part::Entering, Part::Leaving, Part::Demoted];

/// Frames of every kind, as a healthy group sends them.
fn sample_frames() -> Vec<InFlight> {
    let mut trio = Trio::new(1);
    let mut frames: Vec<InFlight> = Vec::new();
    for round in 0..40 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        for node in 0..3 {
            trio.tick(node);
            if trio.peers[node].repl.leads(GROUP) && round % 3 == 0 {
                trio.propose(node, AckLevel::Quorum, &[round; 20]).expect("it leads");
                trio.read(node).expect("it leads");
            }
            trio.flush(node);
            trio.sync(node);
        }
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
            frames.push(frame);
        }
    }
    frames
}

#[test]
fn samples_have_every_kind() {
    let frames = sample_frames();
    for kind in [
        APPEND,
        APPEND_RESPONSE,
        VOTE,
        VOTE_RESPONSE,
        HEARTBEAT,
        HEARTBEAT_RESPONSE,
        PRE_VOTE,
        PRE_VOTE_RESPONSE,
    ] {
        assert!(frames.iter().any(|frame| frame.has(kind)), "there is a message of type {kind}");
    }
}

#[test]
fn what_does_not_cross_the_network_is_refused() {
    let mut trio = Trio::led(1);
    let heartbeat = sample_frames().into_iter().find(|frame| frame.has(HEARTBEAT)).expect("a heartbeat");
    let from = trio.peers[heartbeat.from].name.clone();
    // Local messages, forwarded proposals and reads, snapshots, reports, and what does not exist.
    for kind in [0, 1, 2, 7, 10, 11, 12, 13, 15, 16, 19, 200] {
        let mut meta = heartbeat.meta.to_vec();
        meta[TYPE_AT] = kind;
        let refused = trio.peers[heartbeat.to].repl.receive(&from, &meta, &heartbeat.body);
        assert!(matches!(refused, Err(WireError::Malformed(_))), "type {kind}: {refused:?}");
    }
}

#[test]
fn frames_of_another_cluster_are_refused() {
    let mut trio = Trio::led(1);
    let frame = sample_frames().remove(0);
    let mut meta = frame.meta.to_vec();
    meta[..16].copy_from_slice(&[8; 16]);
    assert_ne!(meta[..16], CLUSTER);
    let from = trio.peers[frame.from].name.clone();
    assert_eq!(trio.peers[frame.to].repl.receive(&from, &meta, &frame.body), Err(WireError::OtherCluster));
}

#[test]
fn a_message_from_a_node_that_is_not_its_sender_is_dropped() {
    let mut trio = Trio::led(1);
    let before = trio.peers[1].repl.view(GROUP).expect("the group").term;
    let vote = sample_frames().into_iter().find(|frame| frame.has(VOTE) && frame.to == 1).expect("a vote");
    let mut meta = vote.meta.to_vec();
    meta[core_common::TERM_AT] = 50;
    let stranger = NodeId::new("n2");
    assert_ne!(vote.from, 2);
    trio.peers[1].repl.receive(&stranger, &meta, &vote.body).expect("it is laid out well");
    trio.flush(1);
    assert_eq!(trio.peers[1].repl.view(GROUP).expect("the group").term, before);
}

/// A frame whose first message is of this kind.
fn sample(kind: u8) -> InFlight {
    let found = sample_frames().into_iter().find(|frame| frame.types()[0] == kind);
    found.unwrap_or_else(|| panic!("there is a message of type {kind}"))
}

/// Delivers a frame with a changed meta to a node of a group that is led, which has to refuse it.
fn is_refused(frame: &InFlight, meta: &[u8], what: &str) {
    let mut trio = Trio::led(1);
    let before = trio.peers[frame.to].repl.view(GROUP).expect("the group");
    let from = trio.peers[frame.from].name.clone();
    let refused = trio.peers[frame.to].repl.receive(&from, meta, &frame.body);
    assert!(matches!(refused, Err(WireError::Malformed(_))), "{what}: {refused:?}");
    trio.flush(frame.to);
    let after = trio.peers[frame.to].repl.view(GROUP).expect("the group");
    assert_eq!((before.term, before.committed, None), (after.term, after.committed, after.halted), "{what}");
}

/// The engine takes a message of term 0 for one of its own, and checks nothing.
#[test]
fn messages_of_term_0_are_refused() {
    for kind in [APPEND, APPEND_RESPONSE, VOTE, VOTE_RESPONSE, HEARTBEAT, HEARTBEAT_RESPONSE, PRE_VOTE] {
        let frame = sample(kind);
        let meta = with_word(&frame.meta, TERM_AT, 0);
        is_refused(&frame, &meta, &format!("type {kind}"));
    }
    // What they could do: move a commit index, or ask for a vote that the log does not bear out.
    let heartbeat = sample(HEARTBEAT);
    let meta = with_word(&with_word(&heartbeat.meta, TERM_AT, 0), COMMIT_AT, 1 << 40);
    is_refused(&heartbeat, &meta, "a commit index far ahead");
    let mut meta = with_word(&with_word(&heartbeat.meta, TERM_AT, 0), INDEX_AT, 1000).to_vec();
    meta[TYPE_AT] = VOTE;
    is_refused(&heartbeat, &meta, "a vote");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let response = sample(APPEND_RESPONSE);
    let mut rejection = response.meta.to_vec();
    rejection[TYPE_AT + 1] = 1;
    for at in [TERM_AT, LOG_TERM_AT, INDEX_AT, COMMIT_AT, REJECT_HINT_AT] {
        for number in [(1 << 62) + 1, u64::MAX] {
            let meta = with_word(&rejection, at, number);
            is_refused(&response, &meta, &format!("{number} at {at}"));
        }
    }
}

/// Where the first message of this kind begins, counted from where a frame's first message does.
fn place(frame: &InFlight, kind: u8) -> Option<usize> {
    let found = core_common::messages(&frame.meta).into_iter().find(|at| frame.meta[at + 80] == kind);
    found.map(|at| at - core_common::MESSAGE_AT)
}

#[test]
fn notes_about_snapshots_that_cannot_be_are_refused() {
    const OFFERED: [(usize, u64, &str); 5] = [
        (INDEX_AT, 0, "a snapshot at 0"),
        (INDEX_AT, u64::MAX, "a snapshot at the last index there is"),
        (LOG_TERM_AT, 0, "a snapshot of term 0"),
        (LOG_TERM_AT, u64::MAX, "a snapshot of the last term there is"),
        (REJECT_HINT_AT, 1 << 32, "an offset out of range"),
    ];
    let mut refused = 0;
    let mut trio = Trio::growing(1);
    trio.run(40, |trio, frame| {
        let cases: &[_] = match frame.types().iter().find(|kind| [OFFER, WANT].contains(kind)) {
            Some(&OFFER) => &OFFERED,
            Some(&WANT) => &[(INDEX_AT, u64::MAX, "a part behind the last one")],
            _ => &[],
        };
        let at = place(&frame, OFFER).or(place(&frame, WANT)).unwrap_or_default();
        let from = trio.peers[frame.from].name.clone();
        for (field, number, what) in cases {
            let meta = with_word(&frame.meta, at + field, *number);
            let answer = trio.peers[frame.to].repl.receive(&from, &meta, &frame.body);
            assert!(matches!(answer, Err(WireError::Malformed(_))), "{what}: {answer:?}");
            refused += 1;
        }
        trio.deliver(&frame);
    });
    assert!(refused >= 6, "{refused} were tried");
    assert_eq!(trio.applied(3), trio.applied(0), "and the right ones are not");
}

/// Who offers it has heard from the receiver in its own term, so the receiver is in that term.
#[test]
fn a_snapshot_of_a_term_that_the_receiver_has_not_reached_is_not_taken() {
    let mut trio = Trio::growing(1);
    trio.run(60, |trio, mut frame| {
        if let Some(at) = place(&frame, OFFER) {
            let term = word(&frame.meta, at + LOG_TERM_AT);
            frame.meta = with_word(&frame.meta, at + LOG_TERM_AT, term + 50);
        }
        assert!(!frame.has(PART), "nothing is asked for");
        trio.deliver(&frame);
    });
    assert_eq!((trio.applied(3).len(), trio.halted(3)), (0, None));
}

fn mutate(meta: &mut [u8], edits: &[(prop::sample::Index, u8)]) {
    for (at, byte) in edits {
        let at = at.index(meta.len());
        meta[at] = *byte;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x510db),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_never_panic(meta: Vec<u8>, body: Vec<u8>) {
        let mut trio = Trio::led(1);
        let from = trio.peers[0].name.clone();
        let _ = trio.peers[1].repl.receive(&from, &meta, &Bytes::from(body));
        trio.flush(1);
    }

    /// A node may halt a group over nonsense from a member, but it never panics.
    #[test]
    fn damaged_frames_never_panic(
        frames in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)),
            1..12,
        ),
        leads in any::<bool>(),
    ) {
        let samples = sample_frames();
        let mut trio = Trio::led(1);
        trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
        trio.settle();
        let target = usize::from(!leads);
        for (sample, edits) in &frames {
            let frame = sample.get(&samples);
            let mut meta = frame.meta.to_vec();
            mutate(&mut meta, edits);
            if frame.to == target {
                let from = trio.peers[frame.from].name.clone();
                let _ = trio.peers[target].repl.receive(&from, &meta, &frame.body);
                trio.flush(target);
                trio.sync(target);
            }
        }
    }

    /// The same for what is said about snapshots; the log takes whatever comes of it.
    #[test]
    fn damaged_notes_never_panic(
        edits in prop::collection::vec(
            prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            1..6,
        ),
    ) {
        let mut edits = edits.iter().cycle();
        let mut trio = Trio::growing(1);
        trio.run(20, |trio, frame| {
            let mut meta = frame.meta.to_vec();
            if let Some(edits) = edits.next().filter(|_| frame.types().iter().any(|kind| *kind >= OFFER)) {
                mutate(&mut meta[core_common::MESSAGE_AT..], edits);
            }
            let from = trio.peers[frame.from].name.clone();
            let _ = trio.peers[frame.to].repl.receive(&from, &meta, &frame.body);
        });
    }

    #[test]
    fn entries_of_random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = EntryView::parse(1, 1, &bytes);
    }

    #[test]
    fn memberships_survive_encoding(nodes in prop::collection::btree_map(1..1000u64, ("[a-z]{1,20}", 0..5usize), 1..6)) {
        let members: Vec<Member> = nodes
            .iter()
            .map(|(replica, (name, part))| Member { replica: ReplicaId(*replica), node: NodeId::new(name), part: PARTS[*part] })
            .collect();
        let membership = Membership::new(GROUP, members[0].replica, members);
        let decoded = Membership::decode(&membership.encode());
        prop_assert_eq!(decoded, membership.is_sound().then_some(membership));
    }

    #[test]
    fn memberships_of_random_bytes_never_panic(bytes: Vec<u8>) {
        if let Some(membership) = Membership::decode(&bytes) {
            prop_assert!(membership.is_sound());
        }
    }
}
