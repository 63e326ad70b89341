//! Plans for 1,000 nodes and 100,000 shards of 3 replicas: first placement, a node more, a node drained.
//!
//! `cargo bench -p slowdb-benches --bench plan`. With and without zones: three zones of nearly equal size leave the
//! least room for choice, since every shard needs a node in each.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use slowdb_ring::{HashRing, NodeState, PlanNode, PlanShard, RingNode, plan};

const NODES: usize = 1_000;
const SHARDS: u32 = 100_000;
const FACTOR: u32 = 3;
const VIRTUAL_NODES: u32 = 3;

fn nodes(count: usize, zones: usize) -> Vec<PlanNode> {
    let node = |nth: usize| {
        let node = PlanNode::new(format!("node-{nth:04}"));
        if zones == 0 { node } else { node.with_zone(format!("zone-{}", nth % zones)) }
    };
    (0..count).map(node).collect()
}

fn plans(criterion: &mut Criterion) {
    let shards: Vec<PlanShard> = (0..u64::from(SHARDS)).map(|id| PlanShard::new(id, FACTOR)).collect();
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(10);
    for zones in [0, 3, 7] {
        let given = nodes(NODES, zones);
        let first = plan(&given, &shards, VIRTUAL_NODES).expect("a plan");
        let placed: Vec<PlanShard> = first.targets().map(|target| target.as_shard(FACTOR)).collect();
        let more = nodes(NODES + 1, zones);
        let mut drained = given.clone();
        drained[NODES / 2].state = NodeState::Draining;
        let cases = [
            ("first placement", &given, &shards),
            ("nothing to do", &given, &placed),
            ("one node more", &more, &placed),
            ("one node drained", &drained, &placed),
        ];
        for (name, nodes, shards) in cases {
            let copies = plan(nodes, shards, VIRTUAL_NODES).expect("a plan").copies();
            println!("{name}, {zones} zones: {copies} replicas to copy");
            group.bench_function(BenchmarkId::new(name, format!("{zones} zones")), |bencher| {
                bencher.iter(|| plan(black_box(nodes), black_box(shards), VIRTUAL_NODES));
            });
        }
    }
    let ring_nodes = (0..NODES).map(|nth| RingNode::new(format!("node-{nth:04}")));
    let ring = HashRing::new(ring_nodes, VIRTUAL_NODES).expect("a ring");
    group.bench_function("HashRing::place", |bencher| {
        bencher.iter(|| black_box(&ring).place(SHARDS, FACTOR as usize));
    });
    group.finish();
}

criterion_group!(benches, plans);
criterion_main!(benches);
