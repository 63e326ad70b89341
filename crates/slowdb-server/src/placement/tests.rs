//! What becomes of nodes that come, go, drain and die.

mod settles;
mod world;

use super::*;
use crate::catalog::tests::founded;
use slowdb_proto::SettingsChange;
use world::World;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// The first founds a cluster, the others join.
fn joined(nodes: usize, num_shards: u32, replication_factor: u32) -> World {
    let mut world = World::new(founded(&NAMES[..1], num_shards, replication_factor));
    NAMES[1..nodes].iter().for_each(|name| world.join(name));
    world.settle("all have joined");
    world
}

/// Nodes of the replicas of a group that are wanted as this, sorted.
fn nodes_of(spec: &GroupSpec, wanted: Wanted) -> Vec<&str> {
    let mut nodes: Vec<&str> =
        spec.replicas.iter().filter(|r| r.wanted == wanted).map(|r| r.node.as_str()).collect();
    nodes.sort_unstable();
    nodes
}

fn changes(catalog: &Catalog) -> Vec<CatalogChange> {
    next_changes(catalog, &plan(catalog, &Sizes::new()).expect("it can be planned"))
}

#[test]
fn every_node_has_the_catalog_and_an_odd_number_votes_at_most_five() {
    for (nodes, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (7, 5)] {
        let world = joined(nodes, 2, 3);
        let own = &world.catalog.own;
        assert_eq!(own.replicas.len(), nodes, "{nodes} nodes");
        assert_eq!(nodes_of(own, Wanted::Voter).len(), voters, "{nodes} nodes: {own:?}");
    }
}

#[test]
fn a_lost_voter_of_the_catalog_keeps_its_vote_until_another_can_have_it() {
    let mut three = joined(3, 2, 3);
    three.down("c", true);
    three.settle("c is down");
    assert_eq!(nodes_of(&three.catalog.own, Wanted::Voter), ["a", "b", "c"], "there is no other");

    let mut four = joined(4, 2, 3);
    assert_eq!(nodes_of(&four.catalog.own, Wanted::Learner), ["d"]);
    four.down("c", true);
    four.settle("c is down");
    assert_eq!(nodes_of(&four.catalog.own, Wanted::Voter), ["a", "b", "d"]);
    assert_eq!(nodes_of(&four.catalog.own, Wanted::Learner), ["c"], "it may come back");
    four.down("c", false);
    four.settle("c is back");
    assert_eq!(nodes_of(&four.catalog.own, Wanted::Voter), ["a", "b", "d"], "who votes goes on voting");
}

#[test]
fn a_drained_node_has_no_vote_in_the_catalog_if_another_can_have_it() {
    let mut four = joined(4, 2, 3);
    four.state("a", NodeState::Draining);
    four.settle("a is drained");
    assert_eq!(nodes_of(&four.catalog.own, Wanted::Voter), ["b", "c", "d"]);
    assert_ne!(four.catalog.own.leader, "a");
    four.remove("a");
    four.settle("a is removed");
    assert_eq!(four.catalog.own.replicas.len(), 3);

    let mut three = joined(3, 2, 1);
    three.state("c", NodeState::Draining);
    three.settle("c is drained");
    assert_eq!(nodes_of(&three.catalog.own, Wanted::Voter), ["a", "b", "c"], "there is no other");
}

#[test]
fn a_lost_replica_keeps_its_vote_until_another_is_in_its_place() {
    let mut world = joined(3, 4, 3);
    world.down("c", true);
    world.settle("c is down, and there is nowhere to go");
    for (_, shard) in world.catalog.shards() {
        assert_eq!(nodes_of(&shard.spec, Wanted::Voter), ["a", "b", "c"]);
        assert_ne!(shard.spec.leader, "c");
    }
    world.join("d");
    world.settle("d takes over");
    for (_, shard) in world.catalog.shards() {
        assert_eq!(nodes_of(&shard.spec, Wanted::Voter), ["a", "b", "d"]);
    }
    world.down("c", false);
    world.settle("c is back, with nothing");
    let on_c = world.catalog.shards().filter(|(_, shard)| shard.spec.replica_on("c").is_some());
    assert_eq!(on_c.count(), 3, "and gets its share: 12 replicas, 4 nodes");
}

#[test]
fn a_live_learner_gets_the_vote_of_a_lost_voter() {
    let mut world = joined(4, 4, 4);
    let lost = nodes_of(&world.catalog.collections[0].shards[0].spec, Wanted::Voter)[0].to_owned();
    world.down(&lost, true);
    world.settle("a node is down, and there is nowhere to go");
    for (_, shard) in world.catalog.shards() {
        assert_eq!(nodes_of(&shard.spec, Wanted::Voter).len(), 3);
        assert_eq!(nodes_of(&shard.spec, Wanted::Learner), [lost.as_str()], "it may come back");
    }
    world.join("e");
    world.settle("a copy is made");
    for (_, shard) in world.catalog.shards() {
        assert_eq!(nodes_of(&shard.spec, Wanted::Voter).len(), 3);
        assert!(shard.spec.replica_on(&lost).is_none(), "there is another in its place");
    }
}

#[test]
fn who_is_to_lead_has_a_vote_even_if_the_node_that_led_is_down_and_another_replica_goes() {
    let joined = joined(5, 4, 4);
    let mut moved = 0;
    for shard in 0..4 {
        for goes in 0..4 {
            let mut catalog = joined.catalog.clone();
            let spec = &mut catalog.collections[0].shards[shard].spec;
            if spec.replicas[goes].node == spec.leader {
                continue;
            }
            spec.replicas[goes].wanted = Wanted::Gone;
            let leader = spec.leader.clone();
            catalog.nodes.iter_mut().filter(|node| node.id == leader).for_each(|node| node.down = true);
            for change in changes(&catalog) {
                let CatalogChange::Place { nodes, leader, .. } = &change else { continue };
                assert!(nodes.contains(&(leader.clone(), Wanted::Voter)), "{change:?}");
                moved += 1;
            }
        }
    }
    assert!(moved > 0, "there was something to decide");
}

#[test]
fn only_so_much_is_on_its_way_at_a_time() {
    let mut world = joined(3, 64, 3);
    assert!(changes(&world.catalog).is_empty());
    world.join("d");
    let comes = |world: &World, change: &CatalogChange| match change {
        CatalogChange::Place { group: group @ 1.., nodes, .. } => {
            let spec = world.catalog.spec(slowdb_repl::GroupId(*group)).expect("it is planned");
            nodes.iter().any(|(node, _)| spec.replica_on(node).is_none())
        }
        _ => false,
    };
    let to_come = changes(&world.catalog).iter().filter(|change| comes(&world, change)).count();
    assert_eq!(to_come, INCOMING_MAX, "one node takes in no more at a time");
    ["e", "f", "g"].iter().for_each(|name| world.join(name));
    let to_come = changes(&world.catalog);
    assert_eq!(
        to_come.iter().filter(|change| comes(&world, change)).count(),
        MOVES_MAX,
        "nor does the cluster"
    );
    to_come.into_iter().for_each(|change| world.decide(change));
    while world.look() {}
    let moving = world.catalog.shards().filter(|(_, shard)| !shard.spec.is_settled());
    assert_eq!(moving.count(), MOVES_MAX, "no other begins before one of them is done");
    world.settle("all have their share");
}

#[test]
fn a_change_is_decided_on_an_epoch() {
    let mut world = joined(3, 4, 2);
    world.join("d");
    let first = changes(&world.catalog);
    first.iter().for_each(|change| world.decide(change.clone()));
    for change in first {
        let refused = world.catalog.change(change).expect_err("it was decided already");
        assert!(refused.contains("something else was decided"), "{refused}");
    }
}

/// One shard with one replica, on its way from one node to another. Gives where from and where to.
fn half_way(nodes: usize) -> (World, String, String) {
    let mut world = joined(nodes, 1, 1);
    let spec = &world.catalog.collections[0].shards[0].spec;
    let (group, from) = (spec.group, spec.leader.clone());
    world.state(&from, NodeState::Draining);
    let change = changes(&world.catalog)
        .into_iter()
        .find(|change| matches!(change, CatalogChange::Place { group: placed, .. } if *placed == group));
    world.decide(change.expect("it is to be moved"));
    let to = world.catalog.collections[0].shards[0].spec.leader.clone();
    assert_ne!(from, to);
    (world, from, to)
}

#[test]
fn a_move_that_is_called_off_does_not_strand_the_shard() {
    let (mut world, from, to) = half_way(2);
    world.state(&from, NodeState::Active);
    world.state(&to, NodeState::Draining);
    assert!(!changes(&world.catalog).iter().any(|c| matches!(c, CatalogChange::Place { group: 1.., .. })));
    world.settle("it goes there, and comes back");
    let spec = &world.catalog.collections[0].shards[0].spec;
    assert_eq!(nodes_of(spec, Wanted::Voter), [from]);
}

#[test]
fn a_move_whose_target_dies_goes_elsewhere() {
    let (mut world, from, to) = half_way(3);
    world.down(&to, true);
    world.settle("it goes elsewhere");
    let spec = &world.catalog.collections[0].shards[0].spec;
    let third = NAMES.iter().find(|name| **name != from && **name != to).expect("there are three");
    assert_eq!(nodes_of(spec, Wanted::Voter), [*third]);
    assert_eq!(spec.replicas.len(), 1);
}

/// The planner would leave it where it came from. That replica is on its way out already, so the shard would wait for the
/// dead node for ever, and the dead node could not be removed.
#[test]
fn a_move_whose_target_dies_goes_elsewhere_though_its_source_may_hold_replicas_again() {
    let (mut world, from, to) = half_way(3);
    world.state(&from, NodeState::Active);
    world.down(&to, true);
    world.settle("it goes elsewhere");
    let spec = &world.catalog.collections[0].shards[0].spec;
    let third = NAMES.iter().find(|name| **name != from && **name != to).expect("there are three");
    assert_eq!(nodes_of(spec, Wanted::Voter), [*third]);
    assert_eq!(spec.replicas.len(), 1);
}

fn factor(name: &str, factor: u32) -> CatalogChange {
    let settings = SettingsChange::default();
    CatalogChange::Alter { name: name.to_owned(), replication_factor: Some(factor), settings }
}

/// Two replicas are to come, and then not. Who leads has heard of the first only, and adds one; that it did is reported
/// when the catalog wants neither any more. The other must not be forgotten: it may be added yet.
#[test]
fn a_leader_that_knows_less_adds_nobody_who_is_forgotten() {
    let mut world = joined(3, 1, 1);
    world.decide(factor("default", 3));
    assert!(world.look());
    let stale = world.catalog.collections[0].shards[0].spec.clone();
    let (group, since) = (stale.group, stale.epoch);
    let came = |world: &World| world.catalog.collections[0].shards[0].spec.replicas.len();
    assert_eq!(came(&world), 3);
    world.decide(factor("default", 1));
    let leader = stale.founders[0].1.clone();
    let (nodes, reason) = (vec![(leader.clone(), Wanted::Voter)], String::new());
    world.decide(CatalogChange::Place { group, since, nodes, leader, reason });
    for added in 1..=2 {
        assert!(world.turn(group, Some(&stale)), "it adds number {added}");
        assert_eq!(came(&world), 3, "after number {added}");
    }
    world.settle("nobody is left who thinks otherwise");
    assert_eq!(came(&world), 1);
}

#[test]
fn a_new_collection_goes_to_nodes_that_may_take_it() {
    let mut world = joined(4, 2, 3);
    world.state("a", NodeState::Cordoned);
    world.state("b", NodeState::Draining);
    world.down("c", true);
    let placed = first_placement(&world.catalog, 3, 2).expect("there is one node");
    assert_eq!(placed, vec![vec!["d".to_owned()]; 3]);
    world.state("d", NodeState::Cordoned);
    let why = first_placement(&world.catalog, 3, 2).expect_err("there is none");
    assert!(why.contains("no node can take in a replica"), "{why}");
}
