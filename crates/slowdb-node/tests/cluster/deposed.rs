//! Leaders that are none any more, or cannot know whether they are.

use crate::nodes::{self, DEADLINE, Direct, FIRST_GROUP, Nodes, small};
use slowdb_client::{ReadOptions, WriteOptions};
use slowdb_proto::{
    ClientId, Freshness, OpsBuilder, ReadLevel, Reply, RequestKind, WriteLevel, WriteRequest,
};
use slowdb_ring::shard_of;
use std::time::Duration;
use xtask::cluster::view;

const DIMENSION: usize = 4;
/// Requests that wait for the paused leader when it wakes up.
const REQUESTS: u64 = 8;
/// For requests that cannot be answered.
const SHORT: Duration = Duration::from_secs(2);

fn vector(n: f32) -> Vec<f32> {
    vec![n; DIMENSION]
}

fn get(shard: u32) -> RequestKind {
    nodes::get(shard, Freshness::at(ReadLevel::Quorum))
}

fn put(shard: u32, sequence: u64) -> RequestKind {
    let (collection, client, level) = ("default".into(), ClientId([7; 16]), Some(WriteLevel::Quorum));
    RequestKind::Write(WriteRequest {
        collection,
        first_group: FIRST_GROUP,
        shard,
        level,
        client,
        sequence,
        retry: false,
    })
}

fn body(n: f32) -> Vec<u8> {
    let mut ops = OpsBuilder::new();
    ops.put("x", &vector(n), &[]).expect("a good record");
    ops.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_of_nobody_neither_commits_nor_answers_a_quorum_read() {
    let shape = small(DIMENSION as u32);
    let shard = shard_of(b"x", shape.num_shards);
    let (nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    collection.put("x", &vector(1.0), &options).await.expect("written");
    let leader = view::View::of(&client).await.leaders()[&shard].clone();
    let direct = Direct::to(&nodes.cluster, &leader).await;

    let others: Vec<String> = nodes.cluster.ids().into_iter().filter(|id| *id != leader).collect();
    others.iter().for_each(|id| nodes.cluster.pause(id).expect("it ran"));
    let (read, write) =
        tokio::join!(direct.ask(get(shard), Vec::new(), SHORT), direct.ask(put(shard, 1), body(2.0), SHORT),);
    assert!(matches!(read.0, Reply::Error(_)), "nobody confirmed that it leads: {read:?}");
    assert!(matches!(write.0, Reply::Error(_)), "nobody else has it: {write:?}");

    others.iter().for_each(|id| nodes.cluster.resume(id).expect("it was paused"));
    let read = ReadOptions { timeout: Some(DEADLINE), ..ReadOptions::default() };
    let record = collection.get("x", &read).await.expect("read").expect("it is there");
    assert!([vector(1.0), vector(2.0)].contains(&record.vector), "{record:?}");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
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
    let reads = futures_of(REQUESTS, |_| direct.ask(get(shard), Vec::new(), DEADLINE));
    let writes = futures_of(REQUESTS, |n| direct.ask(put(shard, n + 1), body(3.0), DEADLINE));
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
