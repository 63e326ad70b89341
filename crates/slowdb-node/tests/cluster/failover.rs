//! Three real nodes, and what happens to writes when one of them is killed, paused, or all are.

use crate::nodes::{DEADLINE, Nodes, small};
use slowdb_client::{Client, ReadOptions, WriteOptions};
use std::time::Instant;
use xtask::cluster::view;
use xtask::failover::{KillPlan, kill_busiest_leader};
use xtask::load::{Load, LoadOptions, value};

const DIMENSION: u32 = 16;
/// Records written before anything happens.
const RECORDS: u64 = 200;

fn plan() -> KillPlan {
    KillPlan { prefix: "kill".into(), lanes_per_shard: 2, before: 20, after: 20 }
}

fn load_options(prefix: &str) -> LoadOptions {
    LoadOptions {
        num_shards: small(DIMENSION).num_shards,
        dimension: DIMENSION as usize,
        lanes_per_shard: 2,
        prefix: prefix.into(),
        timeout: DEADLINE,
    }
}

/// Lane 1,000 of [`value`] is nobody's, so these are told apart from what a load writes.
async fn write_records(client: &Client) {
    let collection = client.collection("default");
    let mut writer = collection.bulk_writer(Default::default()).await.expect("a collection");
    for n in 0..RECORDS {
        let vector = value(1_000, n, DIMENSION as usize);
        writer.put(&format!("record-{n}"), &vector, &[]).await.expect("taken");
    }
    assert_eq!(writer.finish().await.expect("written").written, RECORDS);
}

async fn check_records(client: &Client) {
    let ids: Vec<String> = (0..RECORDS).map(|n| format!("record-{n}")).collect();
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    let options = ReadOptions { timeout: Some(DEADLINE), ..ReadOptions::default() };
    let found = client.collection("default").get_many(&names, &options).await.expect("read").records;
    for (n, record) in (0..RECORDS).zip(found) {
        let record = record.unwrap_or_else(|| panic!("record {n} is gone"));
        assert_eq!(record.vector, value(1_000, n, DIMENSION as usize), "record {n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_takes_no_acknowledged_write_with_it() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    write_records(&client).await;
    let kill = kill_busiest_leader(&mut nodes.cluster, &client, &plan()).await.expect("a failover");
    assert!(kill.written.acked() > 0);
    kill.written.verify(&client.collection("default")).await.expect("nothing is lost");
    check_records(&client).await;

    // It comes back on the same storage, catches up, and is a copy of the others.
    nodes.cluster.start(&kill.victim).expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    kill.written.verify(&client.collection("default")).await.expect("nothing is lost");
    check_records(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9_of_all_nodes_at_once() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    write_records(&client).await;
    let load = Load::start(&client.collection("default"), load_options("all"));
    load.wait_more(20, &[0, 1, 2, 3], DEADLINE).await.expect("writes are acknowledged");
    for id in nodes.cluster.ids() {
        nodes.cluster.kill(&id).expect("it ran");
    }
    nodes.cluster.start_all().expect("they start again");
    let client = view::wait_ready(&nodes.cluster, DEADLINE).await.expect("they find each other");
    let killed = Instant::now();
    load.wait_ack_after(killed, &[0, 1, 2, 3], DEADLINE).await.expect("the load goes on by itself");
    let written = load.stop().await.expect("no lane panicked");
    written.verify(&client.collection("default")).await.expect("nothing is lost");
    check_records(&client).await;
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_stop_hands_over_first_and_exits_with_0() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    write_records(&client).await;
    let (leaver, led) = view::View::of(&client).await.busiest_leader().expect("somebody leads");
    let load = Load::start(&client.collection("default"), load_options("term"));
    load.wait_more(5, &[0, 1, 2, 3], DEADLINE).await.expect("writes are acknowledged");
    let status = nodes.cluster.terminate(&leaver).expect("it stops").expect("it was started here");
    assert_eq!(status.code(), Some(0), "{}", nodes.cluster.log_tail(&leaver));

    // Its shards have other leaders already: no election had to time out for that.
    let leaders = view::View::of(&client).await.leaders();
    for shard in led {
        let leader = leaders.get(&shard);
        assert!(leader.is_some_and(|leader| *leader != leaver), "shard {shard} is led by {leader:?}");
    }
    let stopped = Instant::now();
    load.wait_ack_after(stopped, &[0, 1, 2, 3], DEADLINE).await.expect("writes go on");
    let written = load.stop().await.expect("no lane panicked");
    assert_eq!(written.failed(), 0, "no write failed: {:?}", written.errors());
    written.verify(&client.collection("default")).await.expect("nothing is lost");

    nodes.cluster.start(&leaver).expect("it starts again");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    check_records(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_nodes_gone_means_no_write_and_no_quorum_read_but_reads_at_one() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    write_records(&client).await;
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("all have everything");
    nodes.cluster.kill("n1").expect("it ran");
    nodes.cluster.kill("n2").expect("it ran");
    let collection = client.collection("default");
    let short = Some(std::time::Duration::from_secs(2));
    let vector = value(1_001, 0, DIMENSION as usize);
    let write = WriteOptions { timeout: short, ..WriteOptions::default() };
    collection.put("record-0", &vector, &write).await.expect_err("there is no majority");
    let quorum = ReadOptions { timeout: short, ..ReadOptions::default() };
    collection.get("record-1", &quorum).await.expect_err("no majority confirms the leader");
    let one = ReadOptions { level: Some(slowdb_client::ReadLevel::One), timeout: Some(DEADLINE) };
    let record = collection.get("record-1", &one).await.expect("any replica answers").expect("it is there");
    assert_eq!(record.vector, value(1_000, 1, DIMENSION as usize));

    nodes.cluster.start("n1").expect("it starts again");
    nodes.cluster.start("n2").expect("it starts again");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    // The write that was given up may have taken effect or not; it is one of the two everywhere.
    let record = collection.get("record-0", &ReadOptions::default()).await.expect("read").expect("there");
    assert!(record.vector == vector || record.vector == value(1_000, 0, DIMENSION as usize));
}
