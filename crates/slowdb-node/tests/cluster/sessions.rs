//! Sessions that go from one command to the next, while the leader is killed and the replicas are at different places.

use crate::nodes::{DEADLINE, Nodes, run, small};
use slowdb_ring::shard_of;
use xtask::cluster::view;

const DIMENSION: u32 = 4;
/// Reads in a row, so that all replicas are asked.
const READS: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_its_own_writes_across_a_failover_on_every_replica() {
    let shape = small(DIMENSION);
    let shard = shard_of(b"x", shape.num_shards);
    let (mut nodes, client) = Nodes::start(shape).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("session").display().to_string();
    let deadline = format!("{}s", DEADLINE.as_secs());
    let in_session = |nodes: &Nodes, args: &[&str], session: &str| {
        let outcome = nodes.cli(&[args, &["--session", session, "--timeout", &deadline]].concat());
        assert_eq!(outcome.exit, 0, "{args:?}: {outcome:?}");
        outcome.json
    };
    let first = in_session(&nodes, &["put", "x", "--vector", "1,1,1,1"], &file);
    assert!(first["session"].is_string(), "{first}");
    let leader = view::View::of(&client).await.leaders()[&shard].clone();
    nodes.cluster.kill(&leader).expect("it ran");
    in_session(&nodes, &["put", "x", "--vector", "2,2,2,2"], &file);
    // The old leader comes back behind the others; whoever is asked waits, or another one is.
    nodes.cluster.start(&leader).expect("it starts");
    let mut token = String::new();
    for _ in 0..READS {
        let record = in_session(&nodes, &["get", "x", "--consistency", "session"], &file);
        assert_eq!(record["vector"][0], 2.0, "{record}");
        record["session"].as_str().expect("it is handed on").clone_into(&mut token);
    }
    // Its text alone is enough, elsewhere, and for a node that has to catch up first.
    let address = nodes.cluster.address(&leader).expect("it is known");
    let certs = nodes.cluster.certs().display().to_string();
    let only =
        ["get", "x", "--session", &token, "--connect", &address, "--certs", &certs, "--timeout", &deadline];
    let record = run(&only, "").json;
    assert_eq!(record["vector"][0], 2.0, "{record}");
}
