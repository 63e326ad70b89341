//! The examples do what they claim, and so does that of the client, which needs a node to speak with.

#[path = "../../slowdb-client/examples/first_steps.rs"]
#[expect(dead_code, reason = "tests have a main of their own")]
mod first_steps;
#[path = "../examples/replication.rs"]
#[expect(dead_code, reason = "tests have a main of their own")]
mod replication;
#[path = "../examples/sharding.rs"]
#[expect(dead_code, reason = "tests have a main of their own")]
mod sharding;

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_writes_the_follower_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    replication::run(dir.path()).await.expect("as claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_to_a_node_that_joins() {
    let dir = tempfile::tempdir().expect("a directory");
    sharding::run(dir.path()).await.expect("as claimed");
}

/// The client's README shows what this runs.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_steps_of_a_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = slowdb::ShardManager::builder("n1", dir.path(), 3).start().await.expect("a node");
    let address = node.address().to_string();
    first_steps::run(address, &dir.path().join("certs")).await.expect("as claimed");
    node.stop().await.expect("stopped");

    let readme = include_str!("../../slowdb-client/README.md");
    let shown = readme.split("```rust").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let run = include_str!("../../slowdb-client/examples/first_steps.rs");
    let steps = shown.split_once("let vectors").expect("its steps").1;
    assert!(
        run.contains(steps.trim_end().trim_end_matches('}').trim_end()),
        "the README shows something else:\n{steps}"
    );
}
