//! The examples do what they claim.

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
