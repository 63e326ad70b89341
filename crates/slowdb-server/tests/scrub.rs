//! The scrub in the background of a node that runs.

mod common;

use common::{Cluster, assert_error, bytes_of, founding, get, id_in, put, write};
use slowdb_disk::Disk;
use slowdb_proto::{Code, NodeStatus, ReadLevel, Reply, RequestKind, WriteLevel};

const V: [f32; 2] = [1.0, 2.0];
const RECORDS: usize = 10;

/// Three nodes, one shard, some records in it that every node has.
fn filled() -> Cluster {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob", "cyd"], 2, 1));
    let leader = cluster.leader(0);
    for n in 0..RECORDS {
        let id = id_in(0, 1, n);
        cluster.written(leader, write(0, n as u64 + 1, WriteLevel::All), &put(&id, &V));
    }
    cluster
}

fn status(cluster: &mut Cluster, at: usize) -> NodeStatus {
    let Reply::Status(status) = cluster.ask(at, RequestKind::Status, b"").0 else { panic!("a status") };
    *status
}

/// Lets two rounds go by: the second one began after this was called.
fn scrubbed(cluster: &mut Cluster, at: usize) -> NodeStatus {
    let rounds = status(cluster, at).scrub.rounds;
    cluster.wait("two rounds", |cluster| status(cluster, at).scrub.rounds >= rounds + 2);
    status(cluster, at)
}

#[test]
fn a_round_reads_all_records_and_finds_them_good() {
    let mut cluster = filled();
    for at in 0..3 {
        let status = scrubbed(&mut cluster, at);
        let scrub = status.scrub;
        assert_eq!((scrub.records, scrub.bad, scrub.damaged), (RECORDS as u64, 0, 0), "{scrub:?}");
        assert!(scrub.bytes >= RECORDS as u64 * 64 && scrub.finished_ms_ago.is_some(), "{scrub:?}");
        assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    }
}

/// Flips a bit of a file of a node's store of shard 0.
fn flip(cluster: &mut Cluster, at: usize, file: &str, offset: u64) {
    let groups = status(cluster, at).groups;
    let replica = groups.iter().find(|group| group.group == 1).map(|group| group.replica);
    let of_replica = format!("{}.", replica.expect("it has one"));
    let disk = cluster.disk(at);
    let dir = disk.list("shards").expect("it is there").into_iter().find(|dir| dir.starts_with(&of_replica));
    disk.flip_bit(&format!("shards/{}/{file}", dir.expect("its store")), offset, 4)
        .expect("a record is there");
}

fn ids() -> Vec<String> {
    (0..RECORDS).map(|n| id_in(0, 1, n)).collect()
}

#[test]
fn what_a_scrub_finds_damaged_is_fetched_from_another_replica_and_is_good_after_a_restart_too() {
    let mut cluster = filled();
    let leader = cluster.leader(0);
    let follower = (leader + 1) % 3;
    // All were read once, and are trusted from then on.
    assert!(ids().iter().all(|id| cluster.get(follower, 0, id).is_some()));
    flip(&mut cluster, follower, "vectors", 3 * 64 + 1);
    cluster.wait("it is mended", |cluster| status(cluster, follower).scrub.mended == 1);
    for id in ids() {
        assert_eq!(cluster.get(follower, 0, &id).map(|(_, vector)| vector), Some(bytes_of(&V)));
    }
    let status = scrubbed(&mut cluster, follower);
    assert_eq!((status.scrub.bad, status.scrub.damaged, status.scrub.mended), (0, 0, 1));
    assert!(status.warnings.is_empty(), "{:?}", status.warnings);
    // It is checkpointed, without any write.
    (0..3_100).for_each(|_| cluster.tick());
    cluster.kill(follower);
    cluster.restart(follower);
    let status = scrubbed(&mut cluster, follower);
    assert_eq!((status.scrub.bad, status.scrub.mended), (0, 0));
    for id in ids() {
        assert_eq!(cluster.get(follower, 0, &id).map(|(_, vector)| vector), Some(bytes_of(&V)));
    }
}

#[test]
fn what_no_other_replica_has_is_not_taken() {
    let mut cluster = filled();
    for at in 0..3 {
        flip(&mut cluster, at, "vectors", 3 * 64 + 1);
    }
    for at in 0..3 {
        let status = scrubbed(&mut cluster, at);
        assert_eq!((status.scrub.damaged, status.scrub.mended), (1, 0), "{:?}", status.scrub);
    }
}

#[test]
fn a_scrub_finds_what_was_damaged_under_a_running_node_and_it_is_served_no_more() {
    let mut cluster = filled();
    let leader = cluster.leader(0);
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // All were read once, and are trusted from then on.
    let ids = ids();
    assert!(ids.iter().all(|id| cluster.get(follower, 0, id).is_some()));
    // The id of a record: nobody can be asked for it.
    flip(&mut cluster, follower, "heap", 0);

    let status = scrubbed(&mut cluster, follower);
    assert_eq!((status.scrub.bad, status.scrub.damaged), (1, 1), "{:?}", status.scrub);
    assert!(
        status.warnings.iter().any(|said| said.contains("shard 0 of 'default': 1 damaged")),
        "{status:?}"
    );
    let mut corrupt = 0;
    for id in &ids {
        match cluster.ask(follower, get(0, ReadLevel::One, &[id]), b"").0 {
            Reply::Records { .. } => {}
            Reply::Error(error) => {
                assert_error(&error, Code::Corrupt, "corrupt");
                corrupt += 1;
            }
            reply => panic!("wanted a record, got {reply:?}"),
        }
        assert_eq!(cluster.get(other, 0, id).map(|(_, vector)| vector), Some(bytes_of(&V)));
    }
    assert_eq!(corrupt, 1);
}
