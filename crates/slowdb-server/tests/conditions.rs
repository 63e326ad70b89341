//! Compare-and-set: a write that depends on a version is decided once, when it is applied.

mod common;

use common::{Cluster, assert_error, bytes_of, founding, id_in, put, write};
use slowdb_proto::{
    Code, Condition, OpsBuilder, Position, ReadLevel, Reply, Request, RequestKind, Unmet, WriteLevel,
    WriteReply, WriteRequest,
};

const V: [f32; 2] = [1.0, 2.0];
const W: [f32; 2] = [3.0, 4.0];
const QUORUM: WriteLevel = WriteLevel::Quorum;

fn single() -> Cluster {
    Cluster::founded(&founding(&["ada"], 2, 1))
}

fn put_if(id: &str, vector: &[f32], condition: Condition) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.put_if(id, vector, b"", Some(condition)).expect("a good put");
    batch.finish()
}

fn delete_if(id: &str, condition: Condition) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.delete_if(id, Some(condition)).expect("a good delete");
    batch.finish()
}

fn unmet(reply: &WriteReply) -> Option<Option<Position>> {
    let [Unmet { write: 0, current }] = reply.unmet[..] else { return None };
    Some(current)
}

#[test]
fn a_condition_decides_whether_a_write_takes_effect() {
    let mut cluster = single();
    let made = cluster.written(0, write(0, 1, QUORUM), &put_if("x", &V, Condition::IfAbsent));
    assert_eq!((made.unmet.len(), made.replaced), (0, Some(0)));
    let again = cluster.written(0, write(0, 2, QUORUM), &put_if("x", &W, Condition::IfAbsent));
    assert_eq!((unmet(&again), again.replaced), (Some(Some(made.first)), Some(0)));
    assert_eq!(cluster.get(0, 0, "x"), Some((made.first, bytes_of(&V))));
    let newer = Condition::IfVersion(made.first);
    let replaced = cluster.written(0, write(0, 3, QUORUM), &put_if("x", &W, newer));
    assert_eq!((replaced.unmet.len(), replaced.replaced), (0, Some(1)));
    let stale = cluster.written(0, write(0, 4, QUORUM), &delete_if("x", newer));
    assert_eq!(unmet(&stale), Some(Some(replaced.first)));
    assert_eq!(cluster.get(0, 0, "x"), Some((replaced.first, bytes_of(&W))));
    let gone = cluster.written(0, write(0, 5, QUORUM), &delete_if("x", Condition::IfVersion(replaced.first)));
    assert_eq!((gone.unmet.len(), gone.replaced), (0, Some(1)));
    let none = cluster.written(0, write(0, 6, QUORUM), &delete_if("x", Condition::IfVersion(replaced.first)));
    assert_eq!(unmet(&none), Some(None), "there is no record");
}

/// The version is the whole position: of two writes to an id in one batch, only the second one's is right.
#[test]
fn writes_of_one_batch_have_versions_of_their_own() {
    let mut cluster = single();
    let mut batch = OpsBuilder::new();
    batch.put("x", &V, b"").expect("good");
    batch.put_if("y", &V, b"", Some(Condition::IfVersion(Position::new(9, 9, 9)))).expect("good");
    batch.put_if("x", &W, b"", Some(Condition::IfAbsent)).expect("good");
    batch.put("x", &W, b"").expect("good");
    let done = cluster.written(0, write(0, 1, QUORUM), &batch.finish());
    let expected = [Unmet { write: 1, current: None }, Unmet { write: 2, current: Some(done.first) }];
    assert_eq!((&done.unmet[..], done.replaced), (&expected[..], Some(1)));
    let first = Condition::IfVersion(done.first);
    let version = Position { offset: done.first.offset + 3, ..done.first };
    let stale = cluster.written(0, write(0, 2, QUORUM), &put_if("x", &V, first));
    assert_eq!(
        unmet(&stale),
        Some(Some(version)),
        "the first write of the batch is not the record's version"
    );
    let good = cluster.written(0, write(0, 3, QUORUM), &put_if("x", &V, Condition::IfVersion(version)));
    assert!(good.unmet.is_empty());
    assert_eq!(cluster.get(0, 0, "y"), None);
}

#[test]
fn a_condition_needs_more_than_level_one() {
    let mut cluster = single();
    let asked = RequestKind::Write(write(0, 1, WriteLevel::One));
    let error = cluster.refused(0, asked, &put_if("x", &V, Condition::IfAbsent));
    assert_error(&error, Code::BadRequest, "write it at quorum or all");
    assert_eq!(cluster.get(0, 0, "x"), None);
}

/// A reply is lost, another client writes, the leader is gone: what the first attempt came to stands.
#[test]
fn a_retry_gets_the_stored_result_after_failover() {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 2));
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let made = cluster.written(leader, write(0, 1, QUORUM), &put(&id, &V));
    let change = put_if(&id, &W, Condition::IfVersion(made.first));
    let met = cluster.written(leader, write(0, 2, QUORUM), &change);
    let unmet_first = cluster.written(leader, write(0, 3, QUORUM), &change);
    assert_eq!((met.unmet.len(), unmet(&unmet_first)), (0, Some(Some(met.first))));
    // Back to how it was: now the second would fail and the third succeed, if they were decided again.
    let back = cluster.written(leader, write(0, 4, QUORUM), &delete_if(&id, Condition::IfVersion(met.first)));
    assert!(back.unmet.is_empty());
    cluster.kill(leader);
    let next = cluster.leader(0);
    let retry = |sequence| WriteRequest { retry: true, ..write(0, sequence, QUORUM) };
    let again = cluster.written(next, retry(2), &change);
    assert_eq!((again.first, again.replaced, again.unmet), (met.first, Some(1), vec![]));
    let again = cluster.written(next, retry(3), &change);
    assert_eq!((again.first, unmet(&again)), (unmet_first.first, Some(Some(met.first))));
    let (reply, _) = cluster.ask(next, common::get(0, ReadLevel::Quorum, &[&id]), b"");
    assert!(matches!(reply, Reply::Records { records, .. } if records == [None]), "it is deleted");
    cluster.restart(leader);
    cluster.wait("all replicas are equal", |cluster| {
        let states: Vec<_> = (0..3).map(|at| cluster.state(at, 0)).collect();
        states.iter().all(|state| (state.1, state.2) == (states[0].1, states[0].2))
    });
}

/// Many that would all take effect if each were decided by what its leader has when it is asked.
#[test]
fn of_writes_that_depend_on_one_version_one_takes_effect() {
    let mut cluster = single();
    let made = cluster.written(0, write(0, 1, QUORUM), &put("x", &V));
    let ids: Vec<_> = (2..20)
        .map(|sequence| {
            let kind = RequestKind::Write(write(0, sequence, QUORUM));
            let request = Request { cluster: None, timeout_ms: 10_000, kind };
            cluster.send(0, request, &put_if("x", &[sequence as f32, 0.0], Condition::IfVersion(made.first)))
        })
        .collect();
    cluster.settle();
    let met = ids.into_iter().filter(|id| {
        let (reply, _) = cluster.take(0, *id).expect("it was answered");
        let Reply::Written(reply) = reply else { panic!("{reply:?}") };
        reply.unmet.is_empty()
    });
    assert_eq!(met.count(), 1);
}

/// Found by the simulator: the condition did not hold, and the reply said that the write stands at quorum.
#[test]
fn a_write_that_changes_nothing_does_not_stand_at_quorum() {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 2));
    let (leader, id) = (cluster.leader(0), id_in(0, 2, 0));
    let made = cluster.written(leader, write(0, 1, QUORUM), &put(&id, &V));
    let missing = (leader + 1) % 3;
    cluster.kill(missing);
    let all = |sequence| Request {
        cluster: None,
        timeout_ms: 300,
        kind: RequestKind::Write(write(0, sequence, WriteLevel::All)),
    };
    let (reply, _) = cluster.ask_as(leader, all(2), &put_if(&id, &W, Condition::IfAbsent));
    let Reply::Written(reply) = reply else { panic!("{reply:?}") };
    assert_eq!((unmet(&reply), reply.durable_on), (Some(Some(made.first)), 2));
    assert_eq!(cluster.get(leader, 0, &id), Some((made.first, bytes_of(&V))));
    let (reply, _) = cluster.ask_as(leader, all(3), &put_if(&id, &W, Condition::IfVersion(made.first)));
    let Reply::Error(error) = reply else { panic!("{reply:?}") };
    assert_error(&error, Code::LevelNotReached, ["ada", "bob", "cyd"][missing]);
}
