//! What a node prints when it listens.

use crate::nodes::{PROGRAM, run};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A node on a free port, killed at the end of the test.
struct Node {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Node {
    fn start(dir: &Path, id: &str, json: &[&str]) -> Node {
        let mut command = Command::new(PROGRAM);
        command.args(json).args(["start", "--node-id", id, "--host", "127.0.0.1", "--port", "0"]);
        command.args(["--dimension", "2", "--num-shards", "1"]);
        command.arg("--storage-path").arg(dir.join("data")).arg("--certs").arg(dir.join("certs"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Node { child, stdout }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        line
    }

    /// Kills it, and gives what else it printed.
    fn rest(mut self) -> String {
        self.child.kill().expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        rest
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Either call fails only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_node_prints_its_address_when_it_listens() {
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().join("certs").display().to_string();
    assert_eq!(run(&["certs", "create", &certs], "").exit, 0);

    let mut node = Node::start(dir.path(), "n1", &["--json"]);
    let line = node.line();
    let printed: Value = serde_json::from_str(&line).expect("one JSON object");
    assert_eq!(printed["node"], "n1");
    assert_eq!(printed["storage_path"], dir.path().join("data").display().to_string());
    let address = printed["address"].as_str().expect("text");
    // It is the address that it is reached at.
    let put = run(&["put", "a", "--vector", "1,2", "--connect", address, "--certs", &certs], "");
    assert_eq!(put.exit, 0, "{put:?}");
    assert_eq!(node.rest(), "", "log messages go to stderr");

    let mut node = Node::start(dir.path(), "n2", &[]);
    let line = node.line();
    let end = format!(" (storage {})\n", dir.path().join("data").display());
    assert!(line.starts_with("node n2 listening on 127.0.0.1:") && line.ends_with(&end), "{line}");
}
