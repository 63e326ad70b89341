//! A replica that does not hold what the others do: it is found, and so are the records.

use crate::nodes::{DEADLINE, Nodes};
use slowdb_client::{CompareOptions, WriteLevel, WriteOptions};
use slowdb_disk::RealDisk;
use slowdb_storage::{Options, Store, Version};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xtask::cluster::{Shape, view};

const RECORDS: usize = 500;
const DIMENSION: usize = 2;

/// What no node does: replaces a record in a replica, removes one, and adds one.
fn tamper(nodes: &Nodes, node: &str) {
    let root = nodes.cluster.storage().join(node);
    let shard =
        fs::read_dir(root.join("shards")).expect("it is there").next().expect("a shard").expect("a name");
    let dir = format!("shards/{}", shard.file_name().display());
    let disk = Arc::new(RealDisk::open(&root).expect("it opens"));
    let mut store = Store::open(disk, &dir, Options::new(DIMENSION)).expect("it opens");
    assert_eq!(store.len(), RECORDS as u64, "what was applied was not checkpointed");
    let reader = store.reader();
    let record = |id: &str| reader.get(id.as_bytes()).expect("it is whole").expect("it is there");
    let (replaced, payload) = (record("r7"), record("r7").payload);
    store.put(b"r7", (&vec![0.5; DIMENSION]).into(), &payload, replaced.version).expect("written");
    store.delete(b"r8").expect("removed");
    let version = Version([replaced.version.0[0], replaced.version.0[1], 5]);
    store.put(b"added", (&vec![0.5; DIMENSION]).into(), &payload, version).expect("written");
    let mark = store.mark().to_vec();
    store.checkpoint(&mark).expect("durable");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_differ_are_found_while_others_are_written() {
    let (num_shards, dimension) = (1, DIMENSION as u32);
    let shape = Shape { nodes: 3, dimension, replication_factor: 3, num_shards, ..Shape::default() };
    let (mut nodes, client) = Nodes::start(shape).await;
    let records = client.collection("default");
    let all = WriteOptions { level: Some(WriteLevel::All), ..WriteOptions::default() };
    for n in 0..RECORDS {
        records.put(&format!("r{n}"), &[n as f32, 1.0], &all).await.expect("written");
    }
    let equal = nodes.cli(&["compare"]);
    assert_eq!((equal.exit, &equal.json["equal"]), (0, &serde_json::json!(true)), "{equal:?}");
    nodes.cluster.terminate("n2").expect("it stops in good order");
    let without = nodes.cli(&["compare", "--timeout", "2s"]);
    assert!(without.exit == 1 && without.json.to_string().contains("not_equal"), "{without:?}");
    tamper(&nodes, "n2");
    nodes.cluster.start("n2").expect("it starts");
    view::wait_ready(&nodes.cluster, DEADLINE).await.expect("all is well");

    let is_over = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (records, is_over) = (records.clone(), Arc::clone(&is_over));
        async move {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                let id = format!("r{}", 100 + n % 50);
                records.put(&id, &[n as f32, 2.0], &WriteOptions::default()).await.expect("written");
                n += 1;
            }
        }
    });
    for _ in 0..10 {
        let found = records.compare(0, &CompareOptions::default()).await.expect("it answers");
        let ids: Vec<&str> = found.differences.iter().map(|difference| difference.id.as_str()).collect();
        assert_eq!(ids, ["added", "r7", "r8"], "{found:?}");
        for difference in &found.differences {
            let at = |node: &str| {
                difference.held.iter().find(|held| held.node == node).expect("it answered").record
            };
            assert!(at("n1") == at("n3") && at("n1") != at("n2"), "{difference:?}");
        }
    }
    is_over.store(true, Ordering::Relaxed);
    writing.await.expect("all were written");

    let found = nodes.cli(&["compare", "--limit", "2"]);
    assert!(found.exit == 1 && found.json.to_string().contains("not_equal"), "{found:?}");
    let one = nodes.cli(&["compare", "--shard", "1"]);
    assert!(one.exit == 4 && one.message().contains("no shard 1"), "{one:?}");
}
