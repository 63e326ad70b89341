//! Whatever arrives, nothing panics, and what is not allowed over the network is refused.

mod core_common;

use bytes::Bytes;
use core_common::{
    APPEND, APPEND_RESPONSE, CLUSTER, GROUP, HEARTBEAT, HEARTBEAT_RESPONSE, InFlight, PRE_VOTE,
    PRE_VOTE_RESPONSE, TYPE_AT, Trio, VOTE, VOTE_RESPONSE,
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
