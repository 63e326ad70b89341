//! Situations by name.

use super::*;

fn reasons(plan: &Plan) -> Vec<(u64, Reason)> {
    plan.moves().iter().map(|it| (it.shard, it.reason)).collect()
}

#[test]
fn one_node_more_takes_its_share_and_no_more() {
    let shards = new_shards(64, 3);
    let first = plan(&nodes(5), &shards, 3).unwrap();
    assert_eq!((first.copies(), first.bytes()), (192, 1920));
    let more = plan(&nodes(6), &carried_out(&first, &shards), 3).unwrap();
    assert_eq!(more.copies(), 32);
    assert!(more.moves().iter().all(|it| it.add.as_deref() == Some("n05") && it.reason == Reason::Balance));
}

#[test]
fn a_drained_node_gives_up_what_it_has_and_nothing_else_moves() {
    let shards = new_shards(64, 3);
    let first = plan(&nodes(6), &shards, 3).unwrap();
    let mut nodes = nodes(6);
    nodes[2].state = NodeState::Draining;
    let drain = plan(&nodes, &carried_out(&first, &shards), 3).unwrap();
    assert_eq!(drain.copies(), 32);
    assert!(drain.moves().iter().all(|it| it.remove.as_deref() == Some("n02") && it.reason == Reason::Drain));
    assert_eq!(counts(&drain)[2], (0, 0));
    assert_eq!(drain.shortfalls().count(), 0);
}

#[test]
fn what_lost_most_heals_first() {
    let mut nodes = nodes(6);
    nodes[0].state = NodeState::Down;
    nodes[1].state = NodeState::Down;
    let shards = [
        PlanShard::new(1, 3).on(["n00", "n02", "n03"]),
        PlanShard::new(2, 3).on(["n04", "n05", "n01"]),
        PlanShard::new(3, 3).on(["n00", "n01", "n04"]),
    ];
    let plan = plan(&nodes, &shards, 3).unwrap();
    let healing: Vec<(u64, Reason)> =
        [3, 3, 1, 2].map(|shard| (shard, Reason::UnderReplicated)).into_iter().collect();
    assert_eq!(reasons(&plan), healing);
    assert_eq!(plan.moves()[2].remove.as_deref(), Some("n00"), "the lost one is replaced");
    assert!(plan.targets().all(|target| target.replicas.len() == 3 && target.leader != Some("n00")));
}

#[test]
fn a_shard_without_a_live_replica_is_left_alone() {
    let mut nodes = nodes(4);
    nodes[0].state = NodeState::Down;
    let shards = [PlanShard::new(7, 2).on(["n00"]), PlanShard::new(8, 2).on(["n01", "n02"])];
    let plan = plan(&nodes, &shards, 3).unwrap();
    assert_eq!(plan.stranded().collect::<Vec<_>>(), [7]);
    assert_eq!(plan.target(7).unwrap().replicas, ["n00"]);
    assert_eq!((plan.target(7).unwrap().leader, plan.copies(), plan.shortfalls().count()), (None, 0, 0));
    assert_eq!(plan.explain(7, "n00").unwrap().why, Why::Stranded);
    assert!(plan.to_string().contains("shard 7: all its replicas are on nodes that are down"));
}

#[test]
fn too_few_nodes_hold_what_they_can_and_say_so() {
    let shards = new_shards(4, 3);
    let plan = plan(&nodes(2), &shards, 3).unwrap();
    assert!(plan.targets().all(|target| target.replicas == ["n00", "n01"]));
    let short: Vec<Shortfall> = plan.shortfalls().collect();
    assert_eq!(short.len(), 4);
    assert_eq!(short[0], Shortfall { shard: 0, wanted: 3, placed: 2 });
    assert_eq!(short[0].to_string(), "shard 0: 2 of 3 replicas, there are no more nodes to hold them");
}

#[test]
fn a_node_is_not_drained_while_there_is_no_other_place() {
    let mut nodes = nodes(3);
    nodes[1].state = NodeState::Draining;
    let shards = [PlanShard::new(0, 3).on(["n00", "n01", "n02"]), PlanShard::new(1, 1).on(["n01"])];
    let plan = plan(&nodes, &shards, 3).unwrap();
    assert_eq!(plan.target(0).unwrap().replicas, ["n00", "n01", "n02"]);
    assert_eq!(reasons(&plan), [(1, Reason::Drain)]);
    assert_eq!(plan.shortfalls().collect::<Vec<_>>(), [Shortfall { shard: 0, wanted: 3, placed: 2 }]);
    let why = plan.explain(0, "n01").unwrap().why;
    assert_eq!(why, Why::HeldBack { state: NodeState::Draining, wanted: 3 });
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_gets_nothing() {
    let shards = new_shards(30, 3);
    let first = plan(&nodes(4), &shards, 3).unwrap();
    let placed = carried_out(&first, &shards);
    let mut nodes = nodes(6);
    nodes[0].state = NodeState::Cordoned;
    let second = plan(&nodes, &placed, 3).unwrap();
    let (before, after) = (counts(&first), counts(&second));
    assert_eq!(before[0], after[0]);
    assert!(
        second
            .moves()
            .iter()
            .all(|it| { it.add.as_deref() != Some("n00") && it.remove.as_deref() != Some("n00") })
    );
    let held: Vec<u32> = after[1..].iter().map(|(held, _)| *held).collect();
    assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 1, "{held:?}");
    let none = placed.iter().find(|shard| !shard.replicas.contains(&"n00".to_owned())).unwrap();
    let why = second.explain(none.id, "n00").unwrap().why;
    assert_eq!(why, Why::TakesNothing { state: NodeState::Cordoned });
}

#[test]
fn replicas_that_share_a_zone_move_to_a_free_one() {
    let zones = ["a", "a", "b", "b", "c", "c"];
    let nodes: Vec<PlanNode> =
        nodes(6).into_iter().zip(zones).map(|(node, zone)| node.with_zone(zone)).collect();
    let shards =
        [PlanShard::new(0, 3).on(["n00", "n01", "n02"]), PlanShard::new(1, 3).on(["n03", "n04", "n05"])];
    let plan = plan(&nodes, &shards, 3).unwrap();
    assert_eq!(reasons(&plan), [(0, Reason::Zone), (1, Reason::Zone)]);
    for target in plan.targets() {
        let places =
            target.replicas.iter().map(|id| plan.nodes().iter().position(|node| node.id == *id).unwrap());
        let mut used: Vec<&str> = places.map(|place| zones[place]).collect();
        used.dedup();
        assert_eq!(used, ["a", "b", "c"]);
    }
    let other = plan.target(0).unwrap();
    let (stays, free) = (other.replicas[0], if other.replicas[0] == "n00" { "n01" } else { "n00" });
    assert!(matches!(plan.explain(0, stays).unwrap().why, Why::Stays { .. }));
    let why = plan.explain(0, free).unwrap();
    assert!(matches!(why.why, Why::Leaves { reason: Reason::Zone, to: Some(_) }), "{why}");
}

#[test]
fn a_lowered_factor_removes_from_the_fullest() {
    let shards = [
        PlanShard::new(0, 2).on(["n00", "n01", "n02"]),
        PlanShard::new(1, 2).on(["n00", "n01", "n02"]),
        PlanShard::new(2, 2).on(["n00", "n01", "n02"]),
    ];
    let plan = plan(&nodes(3), &shards, 3).unwrap();
    assert_eq!(reasons(&plan), [0, 1, 2].map(|shard| (shard, Reason::OverReplicated)));
    assert_eq!(counts(&plan), [(2, 1); 3]);
    assert_eq!((plan.copies(), plan.bytes()), (0, 0));
}

#[test]
fn a_raised_factor_adds_before_it_balances() {
    let shards: Vec<PlanShard> = (0..6).map(|id| PlanShard::new(id, 2).on(["n00"])).collect();
    let plan = plan(&nodes(3), &shards, 3).unwrap();
    assert_eq!(counts(&plan), [(4, 2); 3]);
    assert_eq!(plan.copies(), 8, "four of six stay, and twelve are wanted");
    assert_eq!(reasons(&plan)[0], (0, Reason::UnderReplicated));
    let balance = plan.moves().iter().filter(|it| it.reason == Reason::Balance);
    assert!(balance.clone().all(|it| it.remove.as_deref() == Some("n00")));
    assert_eq!(balance.count(), 2, "what was missing is added first, and then two of six leave");
}

#[test]
fn a_leader_hands_over_before_it_goes() {
    let mut nodes = nodes(3);
    nodes[0].state = NodeState::Draining;
    let plan = plan(&nodes, &[PlanShard::new(4, 2).on(["n00", "n01"]).with_bytes(5)], 3).unwrap();
    let lines: Vec<String> = plan.steps().iter().map(Step::to_string).collect();
    assert_eq!(
        lines,
        [
            "shard 4: copy 5 bytes to `n02` (the node is being drained)",
            "shard 4: lead from `n00` to `n02`",
            "shard 4: remove from `n00` (the node is being drained)",
        ]
    );
    assert_eq!(
        plan.explain(4, "n02").unwrap().to_string(),
        format!(
            "shard 4, node `n02`: has no replica; it comes in place of `n00`: the node is being drained; next: {}; \
             then: {}; then: {}",
            lines[0], lines[1], lines[2]
        )
    );
    assert_eq!(plan.to_string().lines().next(), Some("1 replicas to copy (5 bytes), 1 leads to hand over"));
}

#[test]
fn leads_are_spread_without_moving_replicas() {
    let shards: Vec<PlanShard> = (0..9).map(|id| PlanShard::new(id, 3).on(["n00", "n01", "n02"])).collect();
    let plan = plan(&nodes(3), &shards, 3).unwrap();
    assert_eq!((plan.moves().len(), plan.transfers().len()), (0, 6));
    assert_eq!(counts(&plan), [(9, 3); 3]);
    assert!(matches!(plan.steps()[0], Step::Lead(_)));
}

#[test]
fn weights_decide_shares() {
    let mut nodes = nodes(3);
    nodes[0].weight = 2;
    let plan = plan(&nodes, &new_shards(40, 1), 3).unwrap();
    assert_eq!(counts(&plan), [(20, 20), (10, 10), (10, 10)]);
}

#[test]
fn what_does_not_exist_is_not_explained() {
    let plan = plan(&nodes(3), &new_shards(1, 1), 3).unwrap();
    assert_eq!(plan.explain(1, "n00"), None);
    assert_eq!(plan.explain(0, "n09"), None);
    assert!(plan.target(1).is_none());
}

#[test]
fn mistakes_are_named() {
    let fails = |nodes: &[PlanNode], shards: &[PlanShard]| plan(nodes, shards, 3).unwrap_err();
    let two = nodes(2);
    let n0 = || "n00".to_owned();
    assert_eq!(fails(&[], &[]), PlanError::NoNodes);
    assert_eq!(fails(&[PlanNode::new("")], &[]), PlanError::EmptyNodeId);
    assert_eq!(fails(&[two[0].clone(), two[0].clone()], &[]), PlanError::DuplicateNode { node: n0() });
    assert_eq!(fails(&[PlanNode::new("n00").with_weight(0)], &[]), PlanError::ZeroWeight { node: n0() });
    let shard = PlanShard::new(3, 1);
    assert_eq!(fails(&two, &[shard.clone(), shard]), PlanError::DuplicateShard { shard: 3 });
    assert_eq!(fails(&two, &[PlanShard::new(3, 0)]), PlanError::ZeroFactor { shard: 3 });
    let unknown = PlanShard::new(3, 1).on(["n00", "who"]);
    assert_eq!(fails(&two, &[unknown]), PlanError::UnknownNode { shard: 3, node: "who".into() });
    let twice = PlanShard::new(3, 1).on(["n00", "n00"]);
    assert_eq!(fails(&two, &[twice]), PlanError::DuplicateReplica { shard: 3, node: n0() });
    let mut stray = PlanShard::new(3, 1).on(["n00"]);
    stray.leader = Some("n01".into());
    assert_eq!(fails(&two, &[stray]), PlanError::LeaderWithoutReplica { shard: 3, leader: "n01".into() });
    assert_eq!(plan(&two, &[], 0).unwrap_err(), PlanError::Ring(crate::RingError::NoVirtualNodes));
    assert!(matches!(
        fails(&nodes(300), &(0..60_000).map(|id| PlanShard::new(id, 300)).collect::<Vec<_>>()),
        PlanError::TooManyReplicas { replicas: 18_000_000, .. }
    ));
    assert!(plan(&two, &[], 3).unwrap().is_empty(), "no shards, nothing to do");
}

#[test]
fn nobody_can_hold_anything() {
    let mut nodes = nodes(2);
    nodes[0].state = NodeState::Draining;
    nodes[1].state = NodeState::Down;
    let shards = [PlanShard::new(0, 2).on(["n00", "n01"]), PlanShard::new(1, 2)];
    let plan = plan(&nodes, &shards, 3).unwrap();
    assert!(plan.is_empty());
    assert_eq!(plan.target(0).unwrap().replicas, ["n00", "n01"]);
    assert_eq!(plan.target(1).unwrap().replicas.len(), 0);
    assert_eq!(plan.shortfalls().count(), 2);
}
