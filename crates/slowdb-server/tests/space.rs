//! What a node does whose disk is nearly full, and what others do for its sake.

mod common;

use common::{Cluster, FIRST_GROUP, MIN_FREE, assert_error, founding, id_in, put, write};
use slowdb_proto::{
    Admin, Code, ErrorReply, NodeState, OpsBuilder, ReadLevel, Reply, RequestKind, SearchRequest,
    SpaceStatus, WriteLevel,
};

const V: [f32; 2] = [1.0, 2.0];

fn three() -> Cluster {
    Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 2))
}

/// Leaves a node with room for so many bytes.
fn leave(cluster: &Cluster, at: usize, free: u64) {
    let disk = cluster.disk(at);
    disk.set_capacity(Some(disk.bytes_used() + free));
}

fn space(cluster: &mut Cluster, at: usize) -> SpaceStatus {
    let Reply::Status(status) = cluster.ask(at, RequestKind::Status, b"").0 else { panic!("a status") };
    assert_eq!(status.space.refuses_writes, status.warnings.iter().any(|said| said.contains("nearly full")));
    status.space
}

fn pass(cluster: &mut Cluster, ticks: u32) {
    (0..ticks).for_each(|_| cluster.tick());
}

/// Tries to put a record of shard 0.
fn try_put(cluster: &mut Cluster, at: usize, sequence: u64) -> Result<(), ErrorReply> {
    let id = id_in(0, 2, sequence as usize);
    let asked = RequestKind::Write(write(0, sequence, WriteLevel::Quorum));
    match cluster.ask(at, asked, &put(&id, &V)).0 {
        Reply::Written(_) => Ok(()),
        Reply::Error(error) => Err(error),
        other => panic!("wanted an answer to a write, got {other:?}"),
    }
}

#[test]
fn a_leader_without_room_refuses_puts_and_goes_on_with_all_else() {
    let mut cluster = three();
    let leader = cluster.leader(0);
    try_put(&mut cluster, leader, 1).expect("there is room");
    assert!(!space(&mut cluster, leader).refuses_writes);

    leave(&cluster, leader, MIN_FREE - 1);
    cluster.wait("it notices", |cluster| space(cluster, leader).refuses_writes);
    let SpaceStatus { free_bytes, low_bytes, enough_bytes, .. } = space(&mut cluster, leader);
    assert!(free_bytes.is_some_and(|free| free < MIN_FREE), "{free_bytes:?}");
    assert_eq!((low_bytes, enough_bytes), (MIN_FREE, MIN_FREE + MIN_FREE / 4));
    let refused = try_put(&mut cluster, leader, 2).expect_err("there is no room");
    assert_error(
        &refused,
        Code::LowSpace,
        "64.0 MiB are free, and writes are taken again when there are 80.0 MiB",
    );
    assert!(refused.code.is_retryable() && refused.retry_after_ms > 0);

    // What gives space back, and what takes none.
    let known = id_in(0, 2, 1);
    assert!(cluster.get(leader, 0, &known).is_some());
    let search = SearchRequest {
        collection: "default".to_owned(),
        first_group: FIRST_GROUP,
        shards: vec![0],
        fresh: slowdb_proto::Freshness::at(ReadLevel::Quorum),
        metric: None,
        k: 1,
    };
    let query: Vec<u8> = V.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (found, _) = cluster.ask(leader, RequestKind::Search(search), &query);
    assert!(matches!(found, Reply::Hits { .. }), "{found:?}");
    let mut batch = OpsBuilder::new();
    batch.delete(&known).expect("a good delete");
    cluster.written(leader, write(0, 3, WriteLevel::Quorum), &batch.finish());
    assert!(cluster.get(leader, 0, &known).is_none());

    // A little more than the mark is not enough.
    leave(&cluster, leader, MIN_FREE + MIN_FREE / 8);
    pass(&mut cluster, 200);
    assert_eq!(try_put(&mut cluster, leader, 4).expect_err("not enough").code, Code::LowSpace);
    leave(&cluster, leader, 2 * MIN_FREE);
    cluster.wait("there is room", |cluster| !space(cluster, leader).refuses_writes);
    try_put(&mut cluster, leader, 5).expect("there is room");
}

#[test]
fn a_leader_refuses_for_the_sake_of_a_follower_as_long_as_that_one_says_so() {
    let mut cluster = three();
    let leader = cluster.leader(0);
    let follower = (leader + 1) % 3;
    leave(&cluster, follower, MIN_FREE / 2);
    cluster.wait("it notices", |cluster| space(cluster, follower).refuses_writes);
    assert!(!space(&mut cluster, leader).refuses_writes);
    let refused = try_put(&mut cluster, leader, 1).expect_err("one replica has no room");
    let name = ["ada", "bob", "cyd"][follower];
    assert_error(&refused, Code::LowSpace, &format!("the disk of node {name}"));
    pass(&mut cluster, 500);
    assert_eq!(try_put(&mut cluster, leader, 2).expect_err("it goes on saying so").code, Code::LowSpace);

    // Nothing is to be spared on a node that is away.
    cluster.kill(follower);
    let mut sequence = 3;
    cluster.wait("the word is forgotten", |cluster| {
        sequence += 1;
        let leader = cluster.leader(0);
        try_put(cluster, leader, sequence).is_ok()
    });
    cluster.restart(follower);
    cluster.wait("it says so again", |cluster| {
        sequence += 1;
        let leader = cluster.leader(0);
        try_put(cluster, leader, sequence).is_err_and(|error| error.code == Code::LowSpace)
    });
    cluster.disk(follower).set_capacity(None);
    cluster.wait("there is room", |cluster| {
        sequence += 1;
        let leader = cluster.leader(0);
        try_put(cluster, leader, sequence).is_ok()
    });
}

#[test]
fn a_node_without_room_gets_no_replicas() {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob", "cyd", "dan"], 2, 8));
    cluster.settled("founded");
    let replicas = |cluster: &mut Cluster, node: &str| {
        let view = cluster.view();
        view.nodes.iter().find(|known| known.id == node).expect("a node of the cluster").replicas
    };
    let before = replicas(&mut cluster, "ada");
    leave(&cluster, 0, MIN_FREE / 2);
    cluster.wait("it notices", |cluster| space(cluster, 0).refuses_writes);
    pass(&mut cluster, 100);
    let drain = Admin::SetNodeState { node: "bob".to_owned(), state: NodeState::Draining };
    let Reply::Admin(_) = cluster.admin(drain, false) else { panic!("it can be drained") };
    pass(&mut cluster, 1_000);
    assert_eq!(replicas(&mut cluster, "ada"), before);
    assert!(replicas(&mut cluster, "bob") > 0, "there is nowhere else to go");
    cluster.disk(0).set_capacity(None);
    cluster.wait("all goes where there is room", |cluster| replicas(cluster, "bob") == 0);
    assert!(replicas(&mut cluster, "ada") > before);
}
