//! Prints where 16 shards go on five nodes in three zones, and what a sixth node changes.

use slowdb_ring::{HashRing, RingError, RingNode, shard_of};

fn main() -> Result<(), RingError> {
    let mut nodes: Vec<RingNode> =
        [("ada", "east"), ("bob", "east"), ("cyd", "west"), ("dee", "west"), ("eve", "north")]
            .map(|(name, zone)| RingNode::new(name).with_zone(zone))
            .into();
    let before = HashRing::new(nodes.clone(), 3)?.place(16, 3)?;
    for shard in 0..16 {
        println!("shard {shard:2}: {}", before.replicas(shard).collect::<Vec<_>>().join(", "));
    }
    for node in before.nodes() {
        println!("{node} holds {} replicas", before.shards_on(node).count());
    }
    println!("`doc-1` is in shard {}", shard_of(b"doc-1", 16));

    nodes.push(RingNode::new("fay").with_zone("north"));
    let after = HashRing::new(nodes, 3)?.place(16, 3)?;
    println!("with `fay`, {} of {} replicas would move", after.moves_from(&before), 16 * 3);
    Ok(())
}
