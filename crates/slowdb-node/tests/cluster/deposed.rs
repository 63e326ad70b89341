//! A leader that was paused for so long that it is none any more, and does not know it yet.

use crate::nodes::{DEADLINE, Direct, Nodes, small};
use slowdb_client::{ReadOptions, WriteOptions};
use slowdb_proto::{
    ClientId, GetRequest, OpsBuilder, ReadLevel, Reply, RequestKind, WriteLevel, WriteRequest,
};
use slowdb_ring::shard_of;
use xtask::cluster::view;

const DIMENSION: usize = 4;
/// Requests that wait for the paused leader when it wakes up.
const REQUESTS: u64 = 8;

fn vector(n: f32) -> Vec<f32> {
    vec![n; DIMENSION]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_neither_commits_nor_answers_a_quorum_read() {
    let shape = small(DIMENSION as u32);
    let shard = shard_of(b"x", shape.num_shards);
    let (nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    let first = collection.put("x", &vector(1.0), &options).await.expect("written");
    let old = view::View::of(&client).await.leaders()[&shard].clone();
    let direct = Direct::to(&nodes.cluster, &old).await;

    nodes.cluster.pause(&old).expect("it ran");
    let second = collection.put("x", &vector(2.0), &options).await.expect("the others elect a leader");
    assert!(second.position > first.position && second.position.term > first.position.term);

    // All this lies in the old leader's socket when it wakes up and still takes itself for the leader.
    let get = || {
        let ids = vec!["x".to_owned()];
        RequestKind::Get(GetRequest { collection: "default".into(), shard, level: ReadLevel::Quorum, ids })
    };
    let put = |sequence| {
        let (collection, client, level) = ("default".into(), ClientId([7; 16]), WriteLevel::Quorum);
        RequestKind::Write(WriteRequest { collection, shard, level, client, sequence, retry: false })
    };
    let mut ops = OpsBuilder::new();
    ops.put("x", &vector(3.0), &[]).expect("a good record");
    let body = ops.finish();
    let reads = futures_of(REQUESTS, |_| direct.ask(get(), Vec::new()));
    let writes = futures_of(REQUESTS, |n| direct.ask(put(n + 1), body.clone()));
    let wake = async {
        // The requests above are polled first, so they are on their way.
        tokio::task::yield_now().await;
        nodes.cluster.resume(&old).expect("it was paused");
    };
    let (reads, writes, ()) = tokio::join!(reads, writes, wake);

    let mut newest = second.position;
    for (reply, _) in writes {
        match reply {
            // It may lead again by then, but only in a later term, after all that was committed meanwhile.
            Reply::Written(written) => {
                assert!(written.first.term > second.position.term, "{written:?} after {second:?}");
                newest = newest.max(written.first);
            }
            Reply::Error(_) => {}
            other => panic!("not an answer to a write: {other:?}"),
        }
    }
    for (reply, body) in reads {
        match reply {
            Reply::Records { .. } => assert_ne!(body[..4], 1.0_f32.to_le_bytes(), "a stale value was served"),
            Reply::Error(_) => {}
            other => panic!("not an answer to a read: {other:?}"),
        }
    }
    let read = ReadOptions { timeout: Some(DEADLINE), ..ReadOptions::default() };
    let record = collection.get("x", &read).await.expect("read").expect("it is there");
    assert_eq!(record.position, newest);
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

/// So many requests at once; gives their answers.
async fn futures_of<T, F: Future<Output = T>>(count: u64, make: impl Fn(u64) -> F) -> Vec<T> {
    let mut pending: Vec<_> = (0..count).map(|n| Box::pin(make(n))).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if pending.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}
