//! Prints where 16 shards go on five nodes in three zones, what a sixth node changes, and why.

use slowdb_ring::{PlanError, PlanNode, PlanShard, plan, shard_of};

fn main() -> Result<(), PlanError> {
    let mut nodes: Vec<PlanNode> =
        [("ada", "east"), ("bob", "east"), ("cyd", "west"), ("dee", "west"), ("eve", "north")]
            .map(|(id, zone)| PlanNode::new(id).with_zone(zone))
            .into();
    let shards: Vec<PlanShard> = (0..16).map(|id| PlanShard::new(id, 3).with_bytes(1 << 20)).collect();
    let first = plan(&nodes, &shards, 3)?;
    for target in first.targets() {
        let leader = target.leader.unwrap_or("nobody");
        println!("shard {:2}: {}, led by {leader}", target.shard, target.replicas.join(", "));
    }
    for node in first.nodes() {
        let holds = first.targets().filter(|target| target.replicas.contains(&node.id.as_str())).count();
        println!("{} holds {holds} replicas", node.id);
    }
    println!("`doc-1` is in shard {}", shard_of(b"doc-1", 16));

    let placed: Vec<PlanShard> = first.targets().map(|target| target.as_shard(3)).collect();
    nodes.push(PlanNode::new("fay").with_zone("north"));
    let more = plan(&nodes, &placed, 3)?;
    print!("\nwith `fay`: {more}");
    if let Some(first) = more.moves().first() {
        for node in more.nodes() {
            println!(
                "{}",
                more.explain(first.shard, &node.id).into_iter().map(|it| it.to_string()).collect::<String>()
            );
        }
    }
    Ok(())
}
