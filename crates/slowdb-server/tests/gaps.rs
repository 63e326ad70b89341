//! Writes that come while a shard is between two leaders.

mod common;

use common::{Cluster, founding, id_in, put, write};
use slowdb_proto::{Code, ErrorReply, Reply, Request, RequestKind, WriteLevel};

const V: [f32; 2] = [1.0, 2.0];

fn three() -> Cluster {
    Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 2))
}

fn asked(sequence: u64) -> Request {
    Request {
        cluster: None,
        timeout_ms: 10_000,
        kind: RequestKind::Write(write(0, sequence, WriteLevel::Quorum)),
    }
}

fn error(reply: Reply) -> ErrorReply {
    let Reply::Error(error) = reply else { panic!("wanted an error, got {reply:?}") };
    error
}

#[test]
fn a_write_during_a_hand_over_is_told_who_leads_next() {
    let mut cluster = three();
    let (leader, body) = (cluster.leader(0), put(&id_in(0, 2, 0), &V));
    cluster.prepare_to_stop(leader);
    let during = cluster.send(leader, asked(1), &body);
    assert!(cluster.take(leader, during).is_none(), "it is held");
    cluster.wait("an answer", |cluster| {
        let Some((reply, _)) = cluster.take(leader, during) else { return false };
        let refused = error(reply);
        assert_eq!(refused.code, Code::NotLeader, "{refused}");
        let next = cluster.at(&refused.leader.expect("the next leader"));
        assert_ne!(next, leader);
        cluster.written(next, write(0, 1, WriteLevel::Quorum), &body);
        true
    });
}

#[test]
fn a_write_is_not_held_for_long_if_nobody_takes_over() {
    let mut cluster = three();
    let (leader, body) = (cluster.leader(0), put(&id_in(0, 2, 0), &V));
    // They are thought to be there, and do not hear that they are to lead.
    for other in (0..3).filter(|at| *at != leader) {
        cluster.cut.insert(["ada", "bob", "cyd"][other].to_owned());
    }
    cluster.prepare_to_stop(leader);
    let held = cluster.send(leader, asked(1), &body);
    let mut ticks = 0;
    let reply = loop {
        if let Some((reply, _)) = cluster.take(leader, held) {
            break reply;
        }
        ticks += 1;
        assert!(ticks <= 10, "it is held still");
        cluster.tick();
    };
    assert_eq!(error(reply).code, Code::ShuttingDown);
    assert!(ticks > 1, "it was not held");
}
