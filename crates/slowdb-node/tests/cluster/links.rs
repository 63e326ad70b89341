//! Links between nodes that are cut, both ways or one, while clients still reach everybody.

use crate::nodes::{DEADLINE, Direct, Nodes, get, small};
use slowdb_client::{ReadOptions, WriteOptions};
use slowdb_proto::{Freshness, ReadLevel, Reply};
use slowdb_ring::shard_of;
use std::time::Duration;
use xtask::cluster::{Shape, view};
use xtask::relay::Link;

const DIMENSION: usize = 4;
/// For requests that cannot be answered.
const SHORT: Duration = Duration::from_secs(2);

/// The leader of the shard of `x` is cut off by `cut`; the others go on, it serves nothing stale, and catches up.
async fn cut_off(cut: impl Fn(&xtask::relay::Relays, &str, &[String])) {
    let shape = Shape { relayed: true, ..small(DIMENSION as u32) };
    let shard = shard_of(b"x", shape.num_shards);
    let (nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    let first = collection.put("x", &[1.0; DIMENSION], &options).await.expect("written");
    let old = view::View::of(&client).await.leaders()[&shard].clone();
    let direct = Direct::to(&nodes.cluster, &old).await;
    let others: Vec<String> = nodes.cluster.ids().into_iter().filter(|id| *id != old).collect();

    let relays = nodes.cluster.relays().expect("it has relays");
    cut(relays, &old, &others);
    // A write may reach the old leader first, which cannot commit it.
    let second = loop {
        let written =
            collection.put("x", &[2.0; DIMENSION], &options).await.expect("the others elect a leader");
        if written.position.term > first.position.term {
            break written;
        }
    };
    let (reply, _) = direct.ask(get(shard, Freshness::at(ReadLevel::Quorum)), Vec::new(), SHORT).await;
    assert!(matches!(reply, Reply::Error(_)), "nobody confirms that it leads: {reply:?}");

    relays.heal();
    let read = ReadOptions { timeout: Some(DEADLINE), ..ReadOptions::default() };
    let record = collection.get("x", &read).await.expect("read").expect("it is there");
    assert_eq!(record.position, second.position);
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_is_replaced_and_answers_no_quorum_read() {
    cut_off(|relays, old, _| relays.isolate(old)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_heard_and_hears_nobody_is_replaced_and_answers_no_quorum_read() {
    cut_off(|relays, old, others| {
        let cut = Link { cut: true, ..Link::default() };
        others.iter().for_each(|other| relays.set(other, old, cut));
    })
    .await;
}
