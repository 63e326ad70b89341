//! Who and what real nodes refuse: strangers, paths and ports of others, nodes that forgot.

use crate::nodes::{DEADLINE, Nodes, Outcome, PROGRAM, run, small};
use slowdb_client::{Client, ClientOptions, Identity, ReadOptions, Role, WriteOptions};
use std::fs;
use std::path::Path;
use xtask::cluster::{Shape, view};
use xtask::process::wait_until;

const DIMENSION: u32 = 4;

fn one_node() -> Shape {
    Shape { nodes: 1, dimension: DIMENSION, replication_factor: 1, num_shards: 2, ..Shape::default() }
}

/// Tries to start a node of the cluster a second time, with some arguments changed; it has to refuse.
fn start_with(nodes: &Nodes, id: &str, changes: &[(&str, &str)]) -> Outcome {
    let mut args = nodes.cluster.start_args(id).expect("a known node");
    for (flag, value) in changes {
        let at = args.iter().position(|arg| arg == flag).expect("a flag that is there");
        args[at + 1] = (*value).to_owned();
    }
    run(&args.iter().map(String::as_str).collect::<Vec<_>>(), "")
}

/// Waits until a node says that it does not reach another one.
async fn not_connected(client: &Client, from: &str, to: &str) {
    let says_so = |view: &view::View| {
        let peers = view.nodes.get(from).map(|status| &status.peers);
        Ok(peers.is_some_and(|peers| peers.iter().any(|peer| peer.node == to && !peer.connected)))
    };
    view::wait(client, "it is not connected", DEADLINE, says_so).await.expect("refused");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_authority_or_without_a_certificate_gets_nowhere() {
    let (nodes, client) = Nodes::start(one_node()).await;
    let other = tempfile::tempdir().expect("a directory");
    let certs = other.path().join("certs");
    assert_eq!(run(&["certs", "create", text(&certs)], "").exit, 0);
    let connect = nodes.cluster.addresses().join(",");
    for command in [vec!["get", "a"], vec!["put", "a", "--vector", "1,2,3,4"], vec!["status"]] {
        let stranger = run(&[&command[..], &["--connect", &connect, "--certs", text(&certs)]].concat(), "");
        assert_eq!(stranger.code(), "certificate_refused", "{command:?}: {stranger:?}");
        assert_ne!(stranger.exit, 0);
        let none = run(&[&command[..], &["--connect", &connect, "--certs", text(other.path())]].concat(), "");
        assert_eq!(none.code(), "bad_certificates", "{command:?}: {none:?}");
        assert_ne!(none.exit, 0);
    }
    let record = client.collection("default").get("a", &ReadOptions::default()).await.expect("read");
    assert!(record.is_none(), "a stranger wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_certificates_of_another_authority_stays_outside() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    client.collection("default").put("a", &[1.0; 4], &options).await.expect("written");
    nodes.cluster.terminate("n3").expect("it stops");

    // n3's own name, address and data, but keys of somebody else's making.
    let certs = nodes.cluster.certs();
    let kept = certs.with_extension("kept");
    fs::rename(&certs, &kept).expect("renamed");
    assert_eq!(run(&["certs", "create", text(&certs)], "").exit, 0);
    nodes.cluster.start("n3").expect("it starts");
    let log = nodes.cluster.log("n3");
    wait_until("it is told that it is not trusted", DEADLINE, || {
        Ok(fs::read_to_string(&log)?.contains("certificate"))
    })
    .expect("the log names the reason");
    not_connected(&client, "n1", "n3").await;

    // With the right keys it is one of them again.
    nodes.cluster.terminate("n3").expect("it stops");
    fs::remove_dir_all(&certs).expect("removed");
    fs::rename(&kept, &certs).expect("renamed");
    nodes.cluster.start("n3").expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_though_its_certificate_is_good() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    client.collection("default").put("a", &[1.0; 4], &options).await.expect("written");
    let cluster = client.cluster_id();

    // Another cluster of nodes with the same names and the same keys.
    let mut others = Nodes::create(small(DIMENSION));
    fs::remove_dir_all(others.cluster.certs()).expect("removed");
    copy_dir(&nodes.cluster.certs(), &others.cluster.certs());
    others.cluster.start_all().expect("they start");
    let other_client = view::wait_ready(&others.cluster, DEADLINE).await.expect("the cluster forms");
    assert_ne!(other_client.cluster_id(), cluster);
    others.cluster.down().expect("they stop");

    // Its n3 comes in place of ours.
    nodes.cluster.terminate("n3").expect("it stops");
    let ours = nodes.cluster.storage().join("n3");
    let kept = nodes.cluster.storage().join("kept");
    fs::rename(&ours, &kept).expect("renamed");
    copy_dir(&others.cluster.storage().join("n3"), &ours);
    nodes.cluster.start("n3").expect("it starts");
    let log = nodes.cluster.log("n3");
    wait_until("it is told that it is of another cluster", DEADLINE, || {
        Ok(fs::read_to_string(&log)?.contains(&cluster.to_string()))
    })
    .expect("the log names both clusters");
    not_connected(&client, "n1", "n3").await;

    // A client that means our cluster does not speak with it either.
    let identity = Identity::load(&nodes.cluster.certs(), Role::Client).expect("certificates");
    let address = nodes.cluster.address("n3").expect("known");
    let pinned = ClientOptions { cluster: Some(cluster), ..ClientOptions::new([address], identity) };
    Client::connect(pinned).await.expect_err("another cluster");

    nodes.cluster.terminate("n3").expect("it stops");
    fs::remove_dir_all(&ours).expect("removed");
    fs::rename(&kept, &ours).expect("renamed");
    nodes.cluster.start("n3").expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused_and_never_serves_nothing_for_something() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    let collection = client.collection("default");
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    for n in 0..40 {
        collection.put(&format!("id-{n}"), &[n as f32, 1.0, 1.0, 1.0], &options).await.expect("written");
    }
    nodes.cluster.kill("n2").expect("it ran");
    let data = nodes.cluster.storage().join("n2");
    let kept = nodes.cluster.storage().join("kept");
    fs::rename(&data, &kept).expect("renamed");
    nodes.cluster.start("n2").expect("it starts with nothing");
    let log = nodes.cluster.log("n2");
    wait_until("it is told that it forgot", DEADLINE, || Ok(fs::read_to_string(&log)?.contains("wiped")))
        .expect("the log says what happened");

    // Reads at `one` through a client that knows only the wiped node find the records or an error.
    let one = ReadOptions { level: Some(slowdb_client::ReadLevel::One), timeout: Some(DEADLINE) };
    for n in 0..40 {
        let record = collection.get(&format!("id-{n}"), &one).await.expect("the others answer");
        assert!(record.is_some(), "id-{n} was not found");
    }
    let identity = Identity::load(&nodes.cluster.certs(), Role::Client).expect("certificates");
    let address = nodes.cluster.address("n2").expect("known");
    let pinned =
        ClientOptions { cluster: Some(client.cluster_id()), ..ClientOptions::new([address], identity) };
    Client::connect(pinned).await.expect_err("it is no part of the cluster");

    // With the disk that it had it is one of them again.
    nodes.cluster.kill("n2").expect("it ran");
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&kept, &data).expect("renamed");
    nodes.cluster.start("n2").expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_and_ports_of_others_are_refused() {
    let (mut nodes, client) = Nodes::start(one_node()).await;
    let options = WriteOptions::default();
    client.collection("default").put("a", &[1.0; 4], &options).await.expect("written");

    // The path is in use, whatever the port.
    let outcome = start_with(&nodes, "n1", &[("--port", "0")]);
    assert_eq!((outcome.exit, outcome.code()), (1, "storage_path"), "{outcome:?}");
    assert!(outcome.message().contains("another process"), "{outcome:?}");

    // The port is in use, whatever the path.
    let elsewhere = tempfile::tempdir().expect("a directory");
    let outcome = start_with(&nodes, "n1", &[("--storage-path", text(elsewhere.path()))]);
    assert_eq!((outcome.exit, outcome.code()), (1, "port_in_use"), "{outcome:?}");

    nodes.cluster.terminate("n1").expect("it stops");

    // A copy of n1's files under another name.
    let storage = nodes.cluster.storage();
    copy_dir(&storage.join("n1"), &storage.join("n9"));
    let address = nodes.cluster.address("n1").expect("known");
    let initial = format!("n9={address}");
    let outcome = start_with(&nodes, "n1", &[("--node-id", "n9"), ("--initial-nodes", &initial)]);
    assert_eq!((outcome.exit, outcome.code()), (1, "storage_path"), "{outcome:?}");
    assert!(outcome.message().contains("belongs to node n1"), "{outcome:?}");

    // Another dimension, other founders.
    let outcome = start_with(&nodes, "n1", &[("--dimension", "5")]);
    assert_eq!((outcome.exit, outcome.code()), (1, "storage_path"), "{outcome:?}");
    let others = format!("n1={address},n2=127.0.0.1:1");
    let outcome = start_with(&nodes, "n1", &[("--initial-nodes", &others)]);
    assert_eq!((outcome.exit, outcome.code()), (1, "storage_path"), "{outcome:?}");

    // None of this did any harm.
    nodes.cluster.start("n1").expect("it starts");
    let client = view::wait_ready(&nodes.cluster, DEADLINE).await.expect("it is ready");
    let record = client.collection("default").get("a", &ReadOptions::default()).await.expect("read");
    assert_eq!(record.expect("it is there").vector, [1.0; 4]);
}

/// A process on a copy of a live node's path, killed at the end of the test should it still run.
struct Copy(std::process::Child);

impl Drop for Copy {
    fn drop(&mut self) {
        // Either call fails only if it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_live_nodes_path_is_refused_and_stops() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION)).await;
    let collection = client.collection("default");
    let options = WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() };
    collection.put("a", &[1.0; 4], &options).await.expect("written");
    nodes.cluster.terminate("n2").expect("it stops");
    let elsewhere = tempfile::tempdir().expect("a directory");
    copy_dir(&nodes.cluster.storage().join("n2"), &elsewhere.path().join("n2"));
    nodes.cluster.start("n2").expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");

    let mut args = nodes.cluster.start_args("n2").expect("a known node");
    for (flag, value) in [("--storage-path", text(elsewhere.path())), ("--port", "0")] {
        let at = args.iter().position(|arg| arg == flag).expect("a flag that is there");
        args[at + 1] = value.to_owned();
    }
    let log = elsewhere.path().join("log");
    let mut command = std::process::Command::new(PROGRAM);
    command.args(args).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let stderr = fs::File::create(&log).expect("a file");
    let mut copy = Copy(command.stderr(stderr).spawn().expect("it starts"));
    wait_until("the copy stops", DEADLINE, || Ok(copy.0.try_wait()?.is_some())).expect("it is told to stop");
    assert!(!copy.0.wait().expect("it has ended").success());
    let says = fs::read_to_string(&log).expect("text");
    assert!(says.contains("node n2 runs already") && says.contains("do not start copies"), "{says}");

    // The node that was copied has noticed nothing, and may come back as often as it likes.
    collection.put("b", &[2.0; 4], &options).await.expect("written");
    nodes.cluster.kill("n2").expect("it ran");
    nodes.cluster.start("n2").expect("it starts");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

fn copy_dir(from: &Path, to: &Path) {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let mode = fs::metadata(from).expect("there").mode();
    fs::DirBuilder::new().recursive(true).mode(mode).create(to).expect("created");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copied");
        }
    }
}
