//! What may be said before and after something is durable.

mod core_common;

use core_common::{APPEND, APPEND_RESPONSE, GROUP, Trio, VOTE, VOTE_RESPONSE};
use slowdb_repl::{AckLevel, ReplicaRole};

#[test]
fn a_leader_ships_before_its_own_sync_and_acknowledges_after_it() {
    let mut trio = Trio::led(1);
    let tokens =
        [AckLevel::One, AckLevel::Quorum].map(|level| trio.propose(0, level, b"x").expect("it leads"));
    trio.flush(0);
    assert!(!trio.peers[0].unsynced.is_empty(), "the leader has not synced yet");
    let appends = trio.take(|frame| frame.has(APPEND));
    assert_eq!(appends.len(), 2, "both followers are sent the entry at once");
    for frame in &appends {
        trio.deliver(frame);
        trio.flush(frame.to);
        trio.sync(frame.to);
    }
    // A majority has it durable, without the leader.
    for frame in trio.take(|frame| frame.has(APPEND_RESPONSE)) {
        trio.deliver(&frame);
    }
    trio.flush(0);
    assert!(
        tokens.iter().all(|token| !trio.acked(0, *token)),
        "nothing is acknowledged before the leader's own sync"
    );
    trio.sync(0);
    assert!(tokens.iter().all(|token| trio.acked(0, *token)));
}

#[test]
fn a_follower_confirms_entries_only_when_they_are_durable() {
    let mut trio = Trio::led(2);
    trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
    trio.flush(0);
    let appends = trio.take(|frame| frame.has(APPEND));
    trio.deliver(&appends[0]);
    let follower = appends[0].to;
    trio.flush(follower);
    assert!(trio.take(|frame| frame.has(APPEND_RESPONSE)).is_empty(), "not synced, so not confirmed");
    trio.sync(follower);
    assert_eq!(trio.take(|frame| frame.has(APPEND_RESPONSE)).len(), 1);
}

#[test]
fn a_vote_leaves_only_when_it_is_durable() {
    let mut trio = Trio::new(3);
    trio.flush(0);
    trio.sync(0);
    let mut asked = Vec::new();
    // The pre-vote binds nobody; the vote does.
    for _ in 0..4 {
        asked = trio.take(|frame| frame.has(VOTE));
        if !asked.is_empty() {
            break;
        }
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
        for node in 0..3 {
            trio.flush(node);
            trio.sync(node);
        }
    }
    let request = asked.first().expect("the preferred leader asks for votes");
    trio.deliver(request);
    trio.flush(request.to);
    assert!(trio.take(|frame| frame.has(VOTE_RESPONSE)).is_empty(), "the vote is not durable yet");
    trio.sync(request.to);
    assert_eq!(trio.take(|frame| frame.has(VOTE_RESPONSE)).len(), 1);
}

/// Who needs nobody else's vote elects itself at once; it must neither lead nor be heard before it can remember that it
/// did: without power it could vote for another one in that term.
#[test]
fn an_only_voter_neither_leads_nor_is_heard_before_its_term_is_durable() {
    let mut trio = Trio::with_one_voter(7);
    trio.flush(0);
    let view = trio.peers[0].repl.view(GROUP).expect("the group");
    assert_eq!((view.role, view.leader), (ReplicaRole::Candidate, None), "it has elected itself");
    assert!(!trio.peers[0].repl.leads(GROUP) && trio.propose(0, AckLevel::One, b"x").is_err());
    assert!(trio.take(|_| true).is_empty(), "a power loss now would make it lead the same term again");
    trio.sync(0);
    assert!(!trio.take(|frame| frame.has(APPEND)).is_empty(), "now it is heard");
    trio.flush(0);
    assert!(trio.peers[0].repl.leads(GROUP));
    let term = trio.peers[0].repl.view(GROUP).expect("the group").term;
    trio.propose(0, AckLevel::One, b"x").expect("it leads");
    trio.flush(0);
    trio.sync(0);
    trio.reopen(0, 0, |recovered| assert_eq!(recovered.groups[&1].hard_state.term, term))
        .expect("it reopens");
    trio.tick_all(60);
    let again = trio.peers[0].repl.view(GROUP).expect("the group");
    assert!(trio.peers[0].repl.leads(GROUP) && again.term > term, "{} after {term}", again.term);
    assert_eq!(trio.applied(1), trio.applied(0));
    assert_eq!(trio.applied(1).len(), 1);
}

#[test]
fn a_vote_is_remembered_over_a_power_loss() {
    let mut trio = Trio::led(4);
    let before = trio.peers[1].repl.view(GROUP).expect("the group").term;
    trio.reopen(1, 0, |recovered| {
        let state = recovered.groups[&2].hard_state;
        assert_eq!((state.term, state.vote), (before, 1), "term and vote are in the log");
    })
    .expect("it reopens");
    assert_eq!(trio.peers[1].repl.view(GROUP).expect("the group").term, before);
}

#[test]
fn a_machine_ahead_of_the_persisted_commit_reopens() {
    let mut trio = Trio::led(5);
    for _ in 0..3 {
        trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
        trio.settle();
    }
    trio.tick_all(4);
    let applied = trio.peers[1].repl.applied(GROUP).expect("the group").index;
    assert!(applied >= 3);
    let forgets_commit = |recovered: &mut slowdb_repl::wal::Recovered| {
        if let Some(group) = recovered.groups.get_mut(&2) {
            group.hard_state.commit = 0;
        }
    };
    trio.reopen(1, applied, forgets_commit).expect("what is applied is committed");
    let view = trio.peers[1].repl.view(GROUP).expect("the group");
    assert_eq!((view.committed, view.applied.index), (applied, applied));
    trio.propose(0, AckLevel::All, b"y").expect("it leads");
    trio.tick_all(4);
    assert_eq!(trio.applied(1).last().map(|(_, body)| body.as_slice()), Some(b"y".as_slice()));
}

#[test]
fn a_log_that_ends_before_what_was_applied_is_refused() {
    let mut trio = Trio::led(6);
    let error = trio.reopen(1, 1000, |_| {}).expect_err("the log cannot hold that much");
    assert!(error.contains("synced log was lost"), "{error}");
}

/// That the leader is heard does not wait for a disk: followers whose syncs take longer than an election do not
/// depose it, and confirm nothing meanwhile.
#[test]
fn slow_syncs_of_followers_do_not_depose_a_leader() {
    let mut trio = Trio::led(8);
    let term = trio.peers[0].repl.view(GROUP).expect("the group").term;
    let write = trio.propose(0, AckLevel::Quorum, b"x").expect("it leads");
    for _ in 0..60 {
        trio.now.micros += slowdb_repl::TICK_MICROS;
        for node in 0..3 {
            trio.tick(node);
            trio.flush(node);
        }
        trio.sync(0);
        for frame in std::mem::take(&mut trio.wire) {
            trio.deliver(&frame);
        }
        assert!(trio.peers[0].repl.leads(GROUP));
        assert!(!trio.acked(0, write), "no follower has synced it");
    }
    assert!((1..3).all(|node| !trio.peers[node].unsynced.is_empty()), "they are still about to");
    // Once the disks are done the write stands, in the same term.
    let late = trio.propose(0, AckLevel::Quorum, b"y").expect("it leads");
    trio.settle();
    trio.tick_all(3);
    assert!(trio.acked(0, late));
    assert_eq!(trio.peers[0].repl.view(GROUP).expect("the group").term, term);
}
