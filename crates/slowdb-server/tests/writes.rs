//! What each level of a write gives, and that a write is executed once however often it is sent.

mod common;

use common::{Cluster, assert_error, bytes_of, founding, get, id_in, put, write};
use slowdb_proto::{
    ClientId, Code, ReadLevel, Reply, Request, RequestKind, Role, WriteLevel, WriteReply, WriteRequest,
};

const V: [f32; 2] = [1.0, 2.0];
const W: [f32; 2] = [3.0, 4.0];

fn three() -> Cluster {
    Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 2))
}

fn single() -> Cluster {
    Cluster::founded(&founding(&["ada"], 2, 1))
}

fn short(kind: RequestKind) -> Request {
    Request { cluster: None, timeout_ms: 200, kind }
}

fn others(leader: usize) -> Vec<usize> {
    (0..3).filter(|at| *at != leader).collect()
}

#[test]
fn a_quorum_write_is_on_a_majority_and_readable_at_quorum() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let WriteReply { first, writes, replaced, durable_on, replicas, .. } =
        cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    assert_eq!((writes, replaced, replicas), (1, Some(0), 3));
    assert!(durable_on >= 2, "{durable_on}");
    let (reply, body) = cluster.ask(leader, get(0, ReadLevel::Quorum, &[&id]), b"");
    let Reply::Records { at, records, .. } = reply else { panic!("wanted records, got {reply:?}") };
    assert_eq!(records[0].map(|record| record.position), Some(first));
    assert!(at.applied >= first);
    assert_eq!(body, bytes_of(&V));
    let again = cluster.written(leader, write(0, 2, WriteLevel::Quorum), &put(&id, &W));
    assert_eq!(again.replaced, Some(1));
}

#[test]
fn without_a_majority_nothing_is_acknowledged_at_quorum_and_nothing_read() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    others(leader).into_iter().for_each(|at| cluster.kill(at));
    let asked = short(RequestKind::Write(write(0, 2, WriteLevel::Quorum)));
    let Reply::Error(error) = cluster.ask_as(leader, asked, &put(&id, &W)).0 else { panic!("acknowledged") };
    assert!(matches!(error.code, Code::Timeout | Code::LeaderChanged), "{error}");
    let (reply, _) = cluster.ask_as(leader, short(get(0, ReadLevel::Quorum, &[&id])), b"");
    assert!(matches!(reply, Reply::Error(_)), "read without a majority: {reply:?}");
    assert_eq!(
        cluster.get(leader, 0, &id).map(|(_, body)| body),
        Some(bytes_of(&V)),
        "at one, what was committed"
    );
}

#[test]
fn a_leader_without_a_majority_steps_down() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    others(leader).into_iter().for_each(|at| cluster.kill(at));
    cluster.wait("the leader steps down", |cluster| {
        let Reply::Status(status) = cluster.ask(leader, RequestKind::Status, b"").0 else { return false };
        status.groups.iter().all(|group| group.role != Role::Leader)
    });
    let asked = RequestKind::Write(write(0, 1, WriteLevel::One));
    assert_eq!(cluster.refused(leader, asked, &put(&id, &V)).code, Code::NotLeader);
}

#[test]
fn at_one_the_leaders_disk_is_enough() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    others(leader).into_iter().for_each(|at| cluster.kill(at));
    let written = cluster.written(leader, write(0, 1, WriteLevel::One), &put(&id, &V));
    assert_eq!((written.durable_on, written.replicas, written.replaced), (1, 3, None));
    // It survives a restart of that node. With one other a majority is there again, and only it can lead.
    cluster.kill(leader);
    let [second, third] = others(leader)[..] else { panic!("there are three nodes") };
    cluster.restart(leader);
    cluster.restart(second);
    let there = |cluster: &mut Cluster, at: usize| {
        cluster.get(at, 0, &id).is_some_and(|(position, _)| position == written.first)
    };
    cluster.wait("the write is applied", |cluster| there(cluster, leader) && there(cluster, second));
    cluster.restart(third);
    cluster.wait("and everywhere", |cluster| there(cluster, third));
}

/// The leader is gone, another one is elected, and the write is cut from the log of its first leader. That keeps it, and
/// offers it to the new one.
#[test]
fn a_write_at_one_that_a_failover_overtakes_comes_back() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let others = others(leader);
    others.iter().for_each(|at| cluster.kill(*at));
    let overtaken = cluster.written(leader, write(0, 1, WriteLevel::One), &put(&id, &V));
    cluster.kill(leader);
    others.iter().for_each(|at| cluster.restart(*at));
    let next = cluster.leader(0);
    let other = WriteRequest { client: ClientId([8; 16]), ..write(0, 1, WriteLevel::Quorum) };
    let second = id_in(0, 2, 1);
    cluster.written(next, other, &put(&second, &W));
    assert_eq!(cluster.get(next, 0, &id), None);
    cluster.restart(leader);
    for at in 0..3 {
        cluster.wait("the write is back", |cluster| {
            cluster.get(at, 0, &id).is_some_and(|(version, body)| {
                assert_ne!(version, overtaken.first, "it has a place of its own");
                body == bytes_of(&V)
            })
        });
    }
}

#[test]
fn all_names_who_is_missing_and_stands_at_quorum() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let written = cluster.written(leader, write(0, 1, WriteLevel::All), &put(&id, &V));
    assert_eq!((written.durable_on, written.replicas, written.replaced), (3, 3, Some(0)));
    let missing = others(leader)[0];
    cluster.kill(missing);
    let asked = short(RequestKind::Write(write(0, 2, WriteLevel::All)));
    let Reply::Error(error) = cluster.ask_as(leader, asked, &put(&id, &W)).0 else { panic!("acknowledged") };
    assert_error(&error, Code::LevelNotReached, ["ada", "bob", "cyd"][missing]);
    let (_, body) = cluster.ask(leader, get(0, ReadLevel::Quorum, &[&id]), b"");
    assert_eq!(body, bytes_of(&W), "it stands at quorum");
}

#[test]
fn what_was_acknowledged_at_quorum_survives_the_leader() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let written = cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    cluster.kill(leader);
    let next = cluster.leader(0);
    assert_ne!(next, leader);
    let (reply, body) = cluster.ask(next, get(0, ReadLevel::Quorum, &[&id]), b"");
    let Reply::Records { records, .. } = reply else { panic!("wanted records, got {reply:?}") };
    assert_eq!((records[0].map(|r| r.position), body), (Some(written.first), bytes_of(&V)));
    // The old leader comes back, follows, and is equal.
    cluster.restart(leader);
    cluster.wait("all replicas are equal", |cluster| {
        let states: Vec<_> = (0..3).map(|at| cluster.state(at, 0)).collect();
        states.iter().all(|state| (state.1, state.2) == (states[0].1, states[0].2))
    });
}

/// The second voter of two is a learner: `quorum` is one disk, `all` is both, and `status` says so.
#[test]
fn of_two_nodes_the_second_only_copies() {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob"], 2, 2));
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let Reply::Status(status) = cluster.ask(leader, RequestKind::Status, b"").0 else { panic!("no status") };
    assert!(status.warnings.iter().any(|w| w.contains("'quorum' is one disk")), "{:?}", status.warnings);
    assert!(status.warnings.iter().any(|w| w.contains("wants 3 replicas")), "{:?}", status.warnings);
    let copy = 1 - leader;
    let Reply::Status(status) = cluster.ask(copy, RequestKind::Status, b"").0 else { panic!("no status") };
    let role = status.groups.iter().find(|group| group.group == 1).map(|group| group.role);
    assert_eq!(role, Some(Role::Learner));
    let written = cluster.written(leader, write(0, 1, WriteLevel::All), &put(&id, &V));
    assert_eq!((written.durable_on, written.replicas), (2, 2));
    cluster.kill(copy);
    let written = cluster.written(leader, write(0, 2, WriteLevel::Quorum), &put(&id, &W));
    assert_eq!(written.durable_on, 1, "one disk, and the reply says so");
}

fn retry(write: WriteRequest) -> WriteRequest {
    WriteRequest { retry: true, ..write }
}

#[test]
fn a_retry_is_not_executed_again() {
    let mut cluster = single();
    let first = cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    let second = cluster.written(0, write(0, 2, WriteLevel::Quorum), &put("x", &W));
    let again = cluster.written(0, retry(write(0, 1, WriteLevel::Quorum)), &put("x", &V));
    assert_eq!((again.first, again.replaced), (first.first, first.replaced), "it gets the first one's reply");
    assert_eq!(cluster.get(0, 0, "x"), Some((second.first, bytes_of(&W))), "and the later write stands");
    // An attempt that was delayed on the way is none the less the same write, even if it does not say so.
    let late = cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    assert_eq!(late.first, first.first);
    assert_eq!(cluster.get(0, 0, "x"), Some((second.first, bytes_of(&W))));
    // The same number of another client is another write.
    let other = WriteRequest { client: ClientId([8; 16]), ..write(0, 1, WriteLevel::Quorum) };
    assert!(cluster.written(0, other, &put("x", &V)).first > second.first);
}

#[test]
fn a_retry_at_one_is_answered_when_its_outcome_is_known() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let first = cluster.written(leader, write(0, 1, WriteLevel::One), &put(&id, &V));
    let again = cluster.written(leader, retry(write(0, 1, WriteLevel::One)), &put(&id, &V));
    assert_eq!((again.first, again.replaced), (first.first, Some(0)));
    // Whether it was executed before is known when it is applied, and for that a majority is needed.
    others(leader).into_iter().for_each(|at| cluster.kill(at));
    let asked = short(RequestKind::Write(retry(write(0, 1, WriteLevel::One))));
    let (reply, _) = cluster.ask_as(leader, asked, &put(&id, &V));
    assert!(matches!(&reply, Reply::Error(error) if error.code != Code::UnknownOutcome), "{reply:?}");
}

#[test]
fn a_retry_after_failover_is_not_executed_again() {
    let mut cluster = three();
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let first = cluster.written(leader, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    cluster.kill(leader);
    let next = cluster.leader(0);
    let again = cluster.written(next, retry(write(0, 1, WriteLevel::Quorum)), &put(&id, &V));
    assert_eq!(again.first, first.first);
}

/// Fills the window of a shard with writes of one client.
fn fill_window(cluster: &mut Cluster, client: u8) {
    let mut sequence = 1_000;
    for _ in 0..10 {
        let ids: Vec<_> = (0..820)
            .map(|_| {
                sequence += 1;
                let client = ClientId([client; 16]);
                let kind =
                    RequestKind::Write(WriteRequest { client, ..write(0, sequence, WriteLevel::Quorum) });
                cluster.send(0, Request { cluster: None, timeout_ms: 60_000, kind }, &put("y", &V))
            })
            .collect();
        cluster.settle();
        for id in ids {
            let answer = cluster.take(0, id);
            assert!(matches!(answer, Some((Reply::Written(_), _))), "{answer:?}");
        }
    }
}

#[test]
fn a_retry_older_than_the_window_is_not_executed_and_says_so() {
    let mut cluster = single();
    let first = cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    fill_window(&mut cluster, 7);
    for sequence in [1, 999] {
        let asked = RequestKind::Write(retry(write(0, sequence, WriteLevel::Quorum)));
        let error = cluster.refused(0, asked, &put("x", &W));
        assert_error(&error, Code::UnknownOutcome, "it was not executed again");
    }
    assert_eq!(cluster.get(0, 0, "x"), Some((first.first, bytes_of(&V))));
}

/// Once a client was forgotten altogether, nobody can tell its retries from those of a client never seen. Neither
/// is executed: better a new write refused than an old one executed twice.
#[test]
fn after_a_client_was_forgotten_retries_of_unknown_clients_are_not_executed() {
    let mut cluster = single();
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    let stranger =
        |sequence| WriteRequest { client: ClientId([9; 16]), ..write(0, sequence, WriteLevel::Quorum) };
    cluster.written(0, retry(stranger(1)), &put("z", &V));
    fill_window(&mut cluster, 8);
    for forgotten in [write(0, 1, WriteLevel::Quorum), stranger(2)] {
        let error = cluster.refused(0, RequestKind::Write(retry(forgotten)), &put("x", &W));
        assert_eq!(error.code, Code::UnknownOutcome);
    }
    // A first attempt makes a client known again, but not what it did before.
    let third = cluster.written(0, stranger(3), &put("z", &W));
    let asked = RequestKind::Write(retry(stranger(1)));
    assert_eq!(cluster.refused(0, asked, &put("z", &V)).code, Code::UnknownOutcome);
    assert_eq!(
        cluster.get(0, 0, "z"),
        Some((third.first, bytes_of(&W))),
        "the first write was not done again"
    );
    cluster.written(0, retry(stranger(4)), &put("z", &V));
}

#[test]
fn a_stop_and_a_start_keep_records_positions_and_what_was_retried() {
    let mut cluster = single();
    let first = cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    let second = cluster.written(0, write(0, 2, WriteLevel::Quorum), &put("y", &W));
    let before = cluster.state(0, 0);
    cluster.stop(0);
    cluster.restart(0);
    assert_eq!(cluster.state(0, 0).2, before.2, "the digest, before anything was replayed");
    cluster.wait("it leads again", |cluster| cluster.leader(0) == 0);
    assert_eq!(cluster.get(0, 0, "x"), Some((first.first, bytes_of(&V))));
    assert_eq!(cluster.get(0, 0, "y"), Some((second.first, bytes_of(&W))));
    let again = cluster.written(0, retry(write(0, 1, WriteLevel::Quorum)), &put("x", &W));
    assert_eq!(again.first, first.first, "the window came with the checkpoint");
    let Reply::Status(status) = cluster.ask(0, RequestKind::Status, b"").0 else { panic!("no status") };
    let group = status.groups.iter().find(|group| group.group == 1).expect("it has a replica");
    assert!(group.checkpointed >= second.first.index, "{group:?}");
}

#[test]
fn a_crash_keeps_everything_acknowledged() {
    let mut cluster = single();
    let mut written = Vec::new();
    for number in 0..50_u64 {
        let id = format!("id-{number}");
        let body = put(&id, &[number as f32, 1.0]);
        written.push((id, cluster.written(0, write(0, number + 1, WriteLevel::Quorum), &body).first, number));
    }
    let before = cluster.state(0, 0).1;
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait("everything is applied again", |cluster| cluster.state(0, 0).1.index >= before.index);
    for (id, position, number) in written {
        assert_eq!(cluster.get(0, 0, &id), Some((position, bytes_of(&[number as f32, 1.0]))), "{id}");
    }
}

#[test]
fn a_log_that_was_lost_is_noticed() {
    let mut cluster = single();
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &V));
    cluster.stop(0);
    let disk = cluster.disk(0);
    slowdb_disk::Disk::remove_dir_all(&disk, "wal").expect("the disk works");
    let restarted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cluster.restart(0)));
    let why = restarted.expect_err("it holds more than its log");
    let why = why.downcast_ref::<String>().expect("the harness says why");
    assert!(why.contains("synced log was lost"), "{why}");
}
