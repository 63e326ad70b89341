//! A record that is damaged on the disk of a node.

use crate::nodes::{DEADLINE, Direct, Nodes};
use slowdb_client::{ReadLevel, ReadOptions, WriteLevel, WriteOptions};
use slowdb_proto::{NodeStatus, Reply, RequestKind};
use std::fs;
use std::time::Duration;
use xtask::cluster::{Shape, view};

const RECORDS: usize = 100;
/// Components that fill a slot.
const DIMENSION: usize = 16;

fn vector(n: usize) -> Vec<f32> {
    (0..DIMENSION).map(|at| (n * DIMENSION + at) as f32).collect()
}

async fn status(nodes: &Nodes, node: &str) -> NodeStatus {
    let direct = Direct::to(&nodes.cluster, node).await;
    match direct.ask(RequestKind::Status, Vec::new(), Duration::from_secs(5)).await.0 {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_fetched_from_another_node() {
    let shape = Shape {
        nodes: 3,
        dimension: DIMENSION as u32,
        replication_factor: 3,
        num_shards: 1,
        ..Shape::default()
    };
    let (mut nodes, client) = Nodes::start(shape).await;
    let records = client.collection("default");
    let all = WriteOptions { level: Some(WriteLevel::All), ..WriteOptions::default() };
    for n in 0..RECORDS {
        records.put(&format!("r{n}"), &vector(n), &all).await.expect("written");
    }
    nodes.cluster.terminate("n2").expect("it stops in good order");
    let shards = nodes.cluster.storage().join("n2/shards");
    let dir = fs::read_dir(&shards).expect("it is there").next().expect("a shard").expect("it can be read");
    let file = dir.path().join("vectors");
    let mut bytes = fs::read(&file).expect("it can be read");
    bytes[7 * DIMENSION * 4 + 1] ^= 16;
    fs::write(&file, bytes).expect("it can be written");
    nodes.cluster.start("n2").expect("it starts");
    view::wait_ready(&nodes.cluster, DEADLINE).await.expect("all is well");

    let end = std::time::Instant::now() + DEADLINE;
    loop {
        let scrub = status(&nodes, "n2").await.scrub;
        if scrub.mended == 1 {
            assert_eq!(scrub.damaged, 0);
            break;
        }
        assert!(std::time::Instant::now() < end, "{scrub:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What it serves is what was written.
    nodes.cluster.kill("n1").expect("killed");
    nodes.cluster.kill("n3").expect("killed");
    let one = ReadOptions { level: Some(ReadLevel::One), ..ReadOptions::default() };
    for n in 0..RECORDS {
        let record = records.get(&format!("r{n}"), &one).await.expect("it answers").expect("it is there");
        assert_eq!(record.vector, vector(n), "r{n}");
    }
}
