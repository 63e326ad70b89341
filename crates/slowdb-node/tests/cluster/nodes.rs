//! What the tests on real processes share: a cluster in a temporary directory, and the command line.

use serde_json::Value;
use slowdb_client::Client;
use slowdb_proto::{Freshness, GetRequest, Reply, RequestKind};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use xtask::cluster::{Cluster, Lifetime, Shape, view};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_slowdb-node");
/// How long anything awaited may take on a machine that is busy with other tests.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A cluster whose nodes end with the test, and whose logs are shown if the test fails.
pub(crate) struct Nodes {
    pub(crate) cluster: Cluster,
    _dir: TempDir,
}

impl Nodes {
    /// Lays out a cluster; nothing runs yet.
    pub(crate) fn create(shape: Shape) -> Nodes {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster =
            Cluster::create(&dir.path().join("cluster"), Path::new(PROGRAM), shape, Lifetime::Owned);
        Nodes { cluster: cluster.expect("a cluster is laid out"), _dir: dir }
    }

    /// Takes over a cluster that was laid out below a directory.
    pub(crate) fn of(cluster: Cluster, dir: TempDir) -> Nodes {
        Nodes { cluster, _dir: dir }
    }

    /// Starts three nodes and waits until every shard has a leader.
    pub(crate) async fn start(shape: Shape) -> (Nodes, Client) {
        let mut nodes = Nodes::create(shape);
        nodes.cluster.start_all().expect("the nodes start");
        let client = view::wait_ready(&nodes.cluster, DEADLINE).await.expect("the cluster forms");
        (nodes, client)
    }

    /// Runs a command against this cluster.
    pub(crate) fn cli(&self, args: &[&str]) -> Outcome {
        self.cli_with_input(args, "")
    }

    /// Runs a command with `--json` and gives all that it printed.
    pub(crate) fn cli_text(&self, args: &[&str]) -> String {
        match self.cli(args).json {
            Value::String(text) => text,
            object => object.to_string(),
        }
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn cli_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let certs = self.cluster.certs().display().to_string();
        let connect = self.cluster.addresses().join(",");
        let common = ["--connect", &connect, "--certs", &certs];
        run(&[args, &common].concat(), input)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for id in self.cluster.ids() {
                eprintln!("--- the end of {id}'s log:\n{}", self.cluster.log_tail(&id));
            }
        }
    }
}

/// Four shards are enough to spread leaders over three nodes.
pub(crate) fn small(dimension: u32) -> Shape {
    Shape { nodes: 3, dimension, replication_factor: 3, num_shards: 4, ..Shape::default() }
}

/// First group of the collection that is there from the start.
pub(crate) const FIRST_GROUP: u64 = 1;

/// Asks for the record `x` of a shard of the collection that is there from the start.
pub(crate) fn get(shard: u32, fresh: Freshness) -> RequestKind {
    RequestKind::Get(GetRequest {
        collection: "default".into(),
        first_group: FIRST_GROUP,
        shard,
        fresh,
        ids: vec!["x".into()],
    })
}

/// How a command ended, and the JSON object that it printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit: i32,
    pub(crate) json: Value,
}

impl Outcome {
    /// Its error code, or an empty text.
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    /// Its error message, or an empty text.
    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }
}

/// Runs the program with `--json`.
pub(crate) fn run(args: &[&str], input: &str) -> Outcome {
    let mut command = Command::new(PROGRAM);
    command.arg("--json").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    // What is no single object is kept as it is: lines of them, or what the message of a test that fails is to say.
    let json = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| format!("{}{}", text(&output.stdout), text(&output.stderr)).into());
    Outcome { exit: output.status.code().unwrap_or(-1), json }
}

/// A connection to one node that does not look for another one, unlike a client's.
pub(crate) struct Direct(xtask::direct::Direct);

impl Direct {
    /// Connects as a client.
    pub(crate) async fn to(cluster: &Cluster, node: &str) -> Direct {
        Direct(xtask::direct::Direct::to(cluster, node).await.expect("connected"))
    }

    /// Asks exactly this node, once. It may try for so long.
    pub(crate) async fn ask(&self, kind: RequestKind, body: Vec<u8>, timeout: Duration) -> (Reply, Vec<u8>) {
        self.0.ask(kind, body, timeout).await.expect("it answers")
    }
}
