//! Compare-and-set on the command line.

use crate::nodes::Nodes;
use xtask::cluster::Shape;

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_read_is_what_a_write_can_depend_on() {
    let shape = Shape { nodes: 1, dimension: 2, replication_factor: 1, num_shards: 2, ..Shape::default() };
    let (nodes, _client) = Nodes::start(shape).await;
    assert_eq!(nodes.cli(&["put", "cat", "--vector", "1,2", "--if-absent"]).exit, 0);
    let there = nodes.cli(&["put", "cat", "--vector", "3,4", "--if-absent"]);
    assert_eq!((there.exit, there.code()), (1, "condition_not_met"), "{there:?}");
    let read = nodes.cli(&["get", "cat"]);
    let version = read.json["version"].as_str().expect("it has a version").to_owned();
    assert!(there.message().contains(&version), "{there:?}");
    assert_eq!(nodes.cli(&["put", "cat", "--vector", "3,4", "--if-version", &version]).exit, 0);
    let stale = nodes.cli(&["delete", "cat", "--if-version", &version]);
    assert_eq!((stale.exit, stale.code()), (1, "condition_not_met"), "{stale:?}");
    let weak = nodes.cli(&["put", "cat", "--vector", "5,6", "--if-absent", "--consistency", "one"]);
    assert_eq!((weak.exit, weak.code()), (1, "bad_request"), "{weak:?}");
    let read = nodes.cli(&["get", "cat"]);
    assert_eq!(read.json["vector"], serde_json::json!([3.0, 4.0]));
    let version = read.json["version"].as_str().expect("it has a version").to_owned();
    assert_eq!(nodes.cli(&["delete", "cat", "--if-version", &version]).exit, 0);
}
