//! Real nodes on real directories: what they do not start on, and that what they say they hold is there.

use slowdb_net::{Identity, Role};
use slowdb_proto::Metric;
use slowdb_server::{NodeConfig, RunningNode, StartError};
use std::path::Path;

fn config(dir: &Path, node: &str) -> NodeConfig {
    let identity: Identity =
        slowdb_net::load_or_create(&dir.join("certs"), Role::Node).expect("certificates can be made");
    NodeConfig {
        node_id: node.to_owned(),
        storage_path: dir.join("data"),
        dimension: Some(4),
        metric: Metric::Cosine,
        host: "127.0.0.1".to_owned(),
        port: 0,
        initial_nodes: Vec::new(),
        num_shards: 2,
        virtual_nodes: 3,
        replication_factor: 1,
        zone: None,
        weight: 1,
        advertise: None,
        join: Vec::new(),
        joined: None,
        node_down_after: std::time::Duration::from_secs(60),
        snapshot_bytes_per_second: NodeConfig::SNAPSHOT_BYTES_PER_SECOND,
        min_free: None,
        scrub_bytes_per_second: NodeConfig::SCRUB_BYTES_PER_SECOND,
        identity,
    }
}

async fn refused(config: NodeConfig) -> String {
    match RunningNode::start(config).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_goes_on_as_what_it_was() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let good = config(dir.path(), "ada");
    let no_dimension = NodeConfig { dimension: None, ..good.clone() };
    let why = refused(no_dimension.clone()).await;
    assert!(why.contains("--dimension N"), "{why}");

    let node = RunningNode::start(good.clone()).await.expect("an empty path founds a cluster");
    let port = node.address().port();
    let why = refused(good.clone()).await;
    assert!(why.contains("another process is using it"), "{why}");
    let elsewhere = NodeConfig { storage_path: dir.path().join("elsewhere"), port, ..good.clone() };
    let taken = RunningNode::start(elsewhere).await;
    assert!(matches!(taken, Err(StartError::Bind(slowdb_net::BindError::InUse { .. }))));
    assert_eq!(node.shutdown().await, Ok(()));

    let why = refused(NodeConfig { dimension: Some(5), ..good.clone() }).await;
    assert!(why.contains("dimension 4, not 5"), "{why}");
    let initial_nodes = vec![("ada".to_owned(), "h:1".to_owned()), ("bob".to_owned(), "h:2".to_owned())];
    let why = refused(NodeConfig { initial_nodes, ..good }).await;
    assert!(why.contains("founded by ada, not ada, bob"), "{why}");

    let node = RunningNode::start(no_dimension).await.expect("it knows what it was");
    assert_eq!(node.shutdown().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_another_node_or_nobody_is_refused() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let node = RunningNode::start(config(dir.path(), "ada")).await.expect("an empty path founds a cluster");
    assert_eq!(node.shutdown().await, Ok(()));
    let data = dir.path().join("data");
    std::fs::rename(data.join("ada"), data.join("bob")).expect("nobody uses it");
    let why = refused(config(dir.path(), "bob")).await;
    assert!(why.contains("belongs to node ada, not bob"), "{why}");
    std::fs::remove_file(data.join("bob").join("identity")).expect("it is there");
    let why = refused(config(dir.path(), "bob")).await;
    assert!(why.contains("'identity' is missing"), "{why}");
}

/// A client's connection holds the node's socket until whoever serves it has noticed that it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_founded_a_cluster_joins_no_other() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let founder = config(dir.path(), "ada");
    let node = RunningNode::start(founder.clone()).await.expect("an empty path founds a cluster");
    assert_eq!(node.shutdown().await, Ok(()));
    let join = vec!["localhost:1".to_owned()];
    let joins = NodeConfig { join, advertise: Some("localhost:2".to_owned()), dimension: None, ..founder };
    let why = RunningNode::joining(&joins).expect_err("it is part of a cluster").to_string();
    assert!(why.contains("node ada") && why.contains("start it without --join"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_of_a_node_that_has_stopped_is_free() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let good = config(dir.path(), "ada");
    let alpn = std::str::from_utf8(slowdb_proto::ALPN_CLIENT).expect("ASCII");
    for _ in 0..5 {
        let node = RunningNode::start(good.clone()).await.expect("it starts");
        let address = node.address();
        let connector = slowdb_net::Connector::new(&good.identity).expect("a socket");
        let within = std::time::Duration::from_secs(60);
        let to = address.to_string();
        let dialled = connector.connect(&to, alpn, slowdb_net::Profile::Client, within);
        let _connection = dialled.await.expect("it listens");
        assert_eq!(node.shutdown().await, Ok(()));
        std::net::UdpSocket::bind(address).expect("the port is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_named() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let node = RunningNode::start(config(dir.path(), "ada")).await.expect("an empty path founds a cluster");
    assert_eq!(node.shutdown().await, Ok(()));
    let identity = dir.path().join("data/ada/identity");
    let good = std::fs::read(&identity).expect("it is there");
    let mut bad = good.clone();
    *bad.last_mut().expect("it is not empty") ^= 1;
    std::fs::write(&identity, bad).expect("it can be written");
    let why = refused(config(dir.path(), "ada")).await;
    assert!(why.contains("identity") && why.contains("checksum"), "{why}");
    std::fs::write(&identity, good).expect("it can be written");
    let node = RunningNode::start(config(dir.path(), "ada")).await.expect("it is whole again");
    assert_eq!(node.shutdown().await, Ok(()));
}
