//! Plans against the promises of [`plan`].

use super::*;

fn nodes(count: usize) -> Vec<PlanNode> {
    (0..count).map(|nth| PlanNode::new(format!("n{nth:02}"))).collect()
}

fn placed(plan: &Plan, factor: u32) -> Vec<PlanShard> {
    plan.targets().map(|target| target.as_shard(factor)).collect()
}

#[test]
fn one_node_more_takes_its_share_and_no_more() {
    let shards: Vec<PlanShard> = (0..64).map(|id| PlanShard::new(id, 3)).collect();
    let first = plan(&nodes(5), &shards, 3).unwrap();
    let more = plan(&nodes(6), &placed(&first, 3), 3).unwrap();
    assert_eq!(more.copies(), 32);
    assert!(more.moves().iter().all(|it| it.add.as_deref() == Some("n05") && it.reason == Reason::Balance));
    assert!(plan(&nodes(6), &placed(&more, 3), 3).unwrap().is_empty());
}
