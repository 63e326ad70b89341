//! The log is given back: groups that rest, and nodes that are away, keep only so much of it.

mod common;

use common::{Cluster, founding, id_in, write};
use slowdb_proto::{OpsBuilder, WriteLevel};
use slowdb_repl::Limits;

const SHARDS: u32 = 4;
const DIMENSION: u32 = 64;
const SEGMENT_BYTES: u64 = 64 << 10;
const ENTRY_BYTES: usize = 32 << 10;
/// Together many times what a log keeps.
const BATCHES: u64 = 250;

fn three() -> Cluster {
    let founding = founding(&["ada", "bob", "cyd"], DIMENSION, SHARDS);
    let mut cluster =
        Cluster::start_with_log(&founding, (SEGMENT_BYTES, ENTRY_BYTES)).until_founded(&founding);
    // Something is in every shard.
    for shard in 0..SHARDS {
        write_batch(&mut cluster, shard, 1);
    }
    cluster.settled("every replica is there");
    cluster
}

fn write_batch(cluster: &mut Cluster, shard: u32, sequence: u64) {
    let mut batch = OpsBuilder::new();
    for n in 0..40 {
        let id = id_in(shard, SHARDS, n);
        batch.put(&id, &[sequence as f32 + 1.0; DIMENSION as usize], b"").expect("a good put");
    }
    let leader = cluster.leader(shard);
    cluster.written(leader, write(shard, sequence, WriteLevel::Quorum), &batch.finish());
}

/// Writes to one shard alone, and gives the log time to be given back.
fn write_much(cluster: &mut Cluster, nodes: &[usize]) {
    for sequence in 2..BATCHES {
        write_batch(cluster, 0, sequence);
        cluster.tick();
    }
    let most = Limits::default().retained_segments as usize + 2;
    cluster.wait("old segments are given back", |cluster| {
        nodes.iter().all(|node| cluster.segments(*node) <= most)
    });
}

#[test]
fn groups_that_rest_do_not_keep_the_log_of_those_that_do_not() {
    let mut cluster = three();
    // Others lead from now on: what says so is the last entry of the groups that rest.
    for node in 0..3 {
        cluster.kill(node);
        for shard in 0..SHARDS {
            cluster.leader(shard);
        }
        cluster.catalog_leader();
        cluster.restart(node);
        cluster.settled("it is back");
    }
    write_much(&mut cluster, &[0, 1, 2]);
    // What rested goes on.
    for shard in 1..SHARDS {
        write_batch(&mut cluster, shard, 2);
    }
}

#[test]
fn a_node_that_is_away_keeps_only_so_much_of_the_log_and_comes_back() {
    let mut cluster = three();
    let away = (0..3).find(|node| *node != cluster.leader(0)).expect("others follow");
    cluster.kill(away);
    let others: Vec<usize> = (0..3).filter(|node| *node != away).collect();
    write_much(&mut cluster, &others);
    cluster.restart(away);
    for shard in 0..SHARDS {
        let leader = cluster.leader(shard);
        cluster.wait("it has everything again", |cluster| {
            cluster.state(away, shard) == cluster.state(leader, shard)
        });
    }
}
