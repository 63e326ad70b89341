//! A node whose disk is nearly full, and one whose disk is full: a really small one.

use crate::nodes::{DEADLINE, Nodes, PROGRAM};
use serde_json::Value;
use slowdb_client::{Client, ClientError, Put, ReadLevel, ReadOptions, WriteOptions};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use xtask::cluster::{Cluster, Lifetime, Shape, view};

const DIMENSION: u32 = 1024;
/// The log takes segments of 64 MiB.
const DISK_MIB: u64 = 448;
const LOW_MIB: u64 = 48;

/// A file system of its own for node `n1`, in a namespace of its own, in which all nodes run. No privilege is needed for
/// that, but a system may forbid it all the same.
struct SmallDisk {
    /// Ends when its input does, and with it the namespace.
    holder: Child,
    /// The file system, seen from outside.
    root: PathBuf,
}

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        let script = r#"mount -t tmpfs -o "size=$2m" tmpfs "$1" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
            .arg(at)
            .arg(DISK_MIB.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), at.display()));
        let disk = SmallDisk { holder, root };
        (line == "mounted\n").then_some(disk)
    }

    /// Fills it until so many MiB are free, or none can be written any more.
    fn leave(&self, free_mib: u64) {
        let used = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.root).output().expect("stat");
        let used = String::from_utf8(used.stdout).expect("text");
        let numbers: Vec<u64> = used.split_whitespace().map(|n| n.parse().expect("a number")).collect();
        let mut left = (numbers[0] * numbers[1]).saturating_sub(free_mib << 20);
        let mut ballast = File::options().create(true).append(true).open(self.ballast()).expect("opened");
        let chunk = vec![7; 1 << 20];
        while left > 0 {
            let part = chunk.len().min(left as usize);
            match ballast.write(&chunk[..part]) {
                Ok(written) => left -= written as u64,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
                    break;
                }
            }
        }
    }

    /// Makes room again.
    fn clear(&self) {
        fs::remove_file(self.ballast()).expect("removed");
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Three nodes, of which `n1` has a small disk; `None` where there is no way to mount one.
async fn start(min_free: &str) -> Option<(Nodes, SmallDisk, Client)> {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("slowdb-node-in-namespace");
    let shape = Shape {
        dimension: DIMENSION,
        num_shards: 2,
        min_free: Some(min_free.to_owned()),
        ..Shape::default()
    };
    let write_program = |enter: &str| {
        fs::write(&program, format!("#!/bin/sh\nexec {enter}{PROGRAM} \"$@\"\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
    };
    // There is no namespace yet to make certificates in.
    write_program("");
    let cluster = Cluster::create(&dir.path().join("cluster"), &program, shape, Lifetime::Owned);
    let mut cluster = cluster.expect("a cluster is laid out");
    let small = cluster.storage().join("n1");
    fs::create_dir_all(&small).expect("created");
    let Some(disk) = SmallDisk::mount(&small) else {
        println!(
            "SKIPPED: no file system can be mounted in a namespace here. What nodes do without room is tested on simulated \
             disks only, in slowdb-server/tests/space.rs"
        );
        return None;
    };
    write_program(&format!("nsenter --target {} --user --mount --preserve-credentials ", disk.holder.id()));
    cluster.start_all().expect("the nodes start");
    let client = view::wait_ready(&cluster, DEADLINE).await.expect("the cluster forms");
    Some((Nodes::of(cluster, dir), disk, client))
}

fn options() -> WriteOptions {
    WriteOptions { timeout: Some(DEADLINE), ..WriteOptions::default() }
}

/// What `status --json` says of a node.
fn said(nodes: &Nodes, node: &str) -> Value {
    let status = nodes.cli(&["status", "--timeout", "2s"]);
    let all = status.json["nodes"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|said| said["node"] == node).unwrap_or_default()
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_disk_is_full_writes_are_refused_and_all_else_goes_on() {
    let Some((nodes, disk, client)) = start(&format!("{LOW_MIB}MiB")).await else { return };
    let collection = client.collection("default");
    let vector = [0.5; DIMENSION as usize];
    for id in ["a", "b", "c", "d"] {
        collection.put(id, &vector, &options()).await.expect("there is room");
    }
    let before = said(&nodes, "n1");
    assert_eq!(before["space"]["refuses_writes"], false, "{before}");
    assert_eq!(before["space"]["low_bytes"], LOW_MIB << 20, "{before}");

    disk.leave(LOW_MIB / 2);
    // Whoever leads: every shard has a replica on it.
    for id in ["a", "b", "c", "d"] {
        wait_until("writes are refused", async || match collection.put(id, &vector, &options()).await {
            Ok(_) => false,
            Err(error) => {
                assert_eq!(error.code(), "low_space", "{error}");
                let message = error.to_string();
                assert!(message.contains("n1") && message.contains("60.0 MiB"), "{message}");
                true
            }
        })
        .await;
    }
    let low = said(&nodes, "n1");
    assert_eq!(low["space"]["refuses_writes"], true, "{low}");
    assert!(low["space"]["free_bytes"].as_u64().is_some_and(|free| free < LOW_MIB << 20), "{low}");
    assert!(low["warnings"].to_string().contains("nearly full"), "{low}");
    let quorum = ReadOptions { level: Some(ReadLevel::Quorum), timeout: Some(DEADLINE) };
    assert!(collection.get("a", &quorum).await.expect("reads go on").is_some());
    collection.delete("a", &options()).await.expect("deletes go on");
    assert!(collection.get("a", &quorum).await.expect("reads go on").is_none());

    disk.clear();
    wait_until("there is room again", async || collection.put("e", &vector, &options()).await.is_ok()).await;
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on_without_a_node_whose_disk_is_full_and_it_comes_back_with_room() {
    let Some((mut nodes, disk, client)) = start("0").await else { return };
    let collection = client.collection("default");
    let vector = [0.25; DIMENSION as usize];
    disk.leave(0);
    // More than a segment of the log, and more than the vector files have room for.
    let mut written = 0;
    for batch in 0..20 {
        let ids: Vec<String> = (0..1_000).map(|n| format!("{batch}-{n}")).collect();
        let puts: Vec<Put<'_>> = ids.iter().map(|id| Put { id, vector: &vector, payload: b"" }).collect();
        let result: Result<_, ClientError> = collection.put_batch(&puts, &options()).await;
        result.unwrap_or_else(|error| panic!("batch {batch}: {error}"));
        written += ids.len() as u64;
    }
    // It says why, whether it has stopped or halted its shards; it was not ended by a signal.
    let log = nodes.cluster.log("n1");
    wait_until("it says that there is no room", async || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("no room") || log.contains("No space"))
    })
    .await;
    assert!(!fs::read_to_string(&log).expect("a log").contains("panicked"));
    if nodes.cluster.process("n1").expect("known").is_some() {
        nodes.cluster.terminate("n1").expect("it stops when it is told to");
    } else {
        let status = nodes.cluster.wait_exit("n1", DEADLINE).expect("it has ended");
        assert_eq!(status.and_then(|status| status.code()), Some(1), "{status:?}");
    }

    disk.clear();
    nodes.cluster.start("n1").expect("it starts");
    let view = view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("digests are equal");
    assert_eq!(view.records(), written);
}
