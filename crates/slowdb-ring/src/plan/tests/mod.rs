//! Plans against the promises of [`plan`].

mod cases;
mod properties;

use super::*;

pub(crate) fn nodes(count: usize) -> Vec<PlanNode> {
    (0..count).map(|nth| PlanNode::new(format!("n{nth:02}"))).collect()
}

pub(crate) fn new_shards(count: u64, factor: u32) -> Vec<PlanShard> {
    (0..count).map(|id| PlanShard::new(id, factor).with_bytes(10)).collect()
}

/// The shards as they are when the plan has been carried out.
pub(crate) fn carried_out(plan: &Plan, shards: &[PlanShard]) -> Vec<PlanShard> {
    shards.iter().map(|shard| plan.target(shard.id).unwrap().as_shard(shard.factor)).collect()
}

/// Replicas, and leads, of each node that the plan aims at.
pub(crate) fn counts(plan: &Plan) -> Vec<(u32, u32)> {
    let of = |node: &PlanNode| {
        let holds = plan.targets().filter(|target| target.replicas.contains(&node.id.as_str())).count();
        let leads = plan.targets().filter(|target| target.leader == Some(node.id.as_str())).count();
        (holds as u32, leads as u32)
    };
    plan.nodes().iter().map(of).collect()
}
