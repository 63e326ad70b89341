//! Which changes fit, and what the others are refused with.

use super::*;
use crate::catalog::tests::founded;
use slowdb_proto::{Standing, WriteLevel};

/// Three nodes that founded a cluster with 2 shards of 2 replicas.
fn catalog() -> Catalog {
    founded(&["a", "b", "c"], 2, 2)
}

fn join(node: &str, storage: u8, address: &str) -> CatalogChange {
    let (node, address) = (node.to_owned(), address.to_owned());
    CatalogChange::Join { node, storage: [storage; 16], address, zone: None, weight: 2 }
}

fn place(group: u64, since: u64, nodes: &[&str]) -> CatalogChange {
    let nodes: Vec<_> = nodes.iter().map(|node| ((*node).to_owned(), Wanted::Voter)).collect();
    let leader = nodes.first().map(|(node, _)| node.clone()).unwrap_or_default();
    CatalogChange::Place { group, since, nodes, leader, reason: "a test".to_owned() }
}

fn create(name: &str, dimension: u32, shards: &[&[&str]]) -> CatalogChange {
    let nodes = |nodes: &&[&str]| nodes.iter().map(|node| (*node).to_owned()).collect();
    CatalogChange::Create {
        name: name.to_owned(),
        dimension,
        metric: Metric::L2,
        replication_factor: 2,
        settings: CollectionSettings::default(),
        shards: shards.iter().map(nodes).collect(),
    }
}

fn alter(name: &str, replication_factor: Option<u32>, settings: SettingsChange) -> CatalogChange {
    CatalogChange::Alter { name: name.to_owned(), replication_factor, settings }
}

fn remove(node: &str) -> CatalogChange {
    CatalogChange::Remove { node: node.to_owned() }
}

fn takes(catalog: &mut Catalog, change: CatalogChange) {
    let epoch = catalog.epoch;
    let what = format!("{change:?}");
    assert_eq!(catalog.change(change), Ok(()), "{what}");
    assert_eq!(catalog.epoch, epoch + 1, "{what}");
}

/// It has no effect at all, and says why.
fn refuses(catalog: &mut Catalog, change: CatalogChange, why: &str) {
    let (before, what) = (catalog.clone(), format!("{change:?}"));
    let refusal = catalog.change(change).expect_err(&what);
    assert!(refusal.contains(why), "wanted '{why}' in: {refusal}");
    assert_eq!(*catalog, before, "{what} was refused and had an effect");
}

/// The group is as it is wanted, and says so.
fn settle(catalog: &mut Catalog, group: u64) {
    let spec = catalog.spec_mut(group).expect("it is there");
    let members = spec.staying().map(|replica| {
        let learns = replica.wanted == Wanted::Learner;
        (replica.replica, if learns { Standing::Learner } else { Standing::Voter })
    });
    let (index, intent) = (spec.reported.0 + 1, spec.epoch);
    let report = Report { group, index, intent, members: members.collect() };
    takes(catalog, CatalogChange::Report(report));
    assert!(catalog.spec_mut(group).is_some_and(|spec| spec.is_settled()));
}

#[test]
fn every_change_comes_back_from_its_bytes() {
    let report = Report { group: 1, index: 2, intent: 3, members: vec![(4, Standing::Changing)] };
    let changes = [
        CatalogChange::Found(catalog()),
        join("d", 4, "d:1"),
        CatalogChange::Zone { node: "a".to_owned(), zone: "east".to_owned() },
        CatalogChange::State { node: "a".to_owned(), state: NodeState::Draining },
        CatalogChange::Down { node: "a".to_owned(), down: true },
        remove("a"),
        place(1, 2, &["a", "b"]),
        CatalogChange::Report(report),
        create("x", 3, &[&["a"], &["b", "c"]]),
        CatalogChange::Drop { name: "x".to_owned() },
        alter("x", Some(3), SettingsChange::default()),
    ];
    for change in changes {
        assert_eq!(CatalogChange::decode(&change.encode()), Ok(change));
    }
}

#[test]
fn settings_change_alone_and_only_to_what_fits() {
    let mut catalog = catalog();
    let before = catalog.collections[0].clone();
    let one = SettingsChange { write_level: Some(WriteLevel::One), ..SettingsChange::default() };
    takes(&mut catalog, alter("default", None, one));
    let settings = CollectionSettings { write_level: WriteLevel::One, ..before.settings };
    assert_eq!(catalog.collections[0], Collection { settings, ..before.clone() });
    let floor = SettingsChange { write_floor: Some(WriteLevel::Quorum), ..SettingsChange::default() };
    refuses(&mut catalog, alter("default", Some(1), floor), "below their floor quorum");
    refuses(&mut catalog, alter("other", None, floor), "no collection is called 'other'");
    let both = SettingsChange { write_level: Some(WriteLevel::All), ..floor };
    takes(&mut catalog, alter("default", None, both));
    assert_eq!(catalog.collections[0].settings, both.of(before.settings));
}

#[test]
fn before_the_founding_there_is_nothing_to_change() {
    let mut none = Catalog::default();
    refuses(&mut none, remove("a"), "there is no cluster yet");
    refuses(&mut none, join("d", 4, "d:1"), "there is no cluster yet");
    let mut founded = catalog();
    refuses(&mut founded, CatalogChange::Found(catalog()), "founded already");
}

#[test]
fn a_node_that_joins_gets_the_catalog_and_may_move() {
    let mut catalog = catalog();
    takes(&mut catalog, join("bb", 4, "d:1"));
    let nodes: Vec<&str> = catalog.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(nodes, ["a", "b", "bb", "c"], "sorted");
    let new = catalog.node("bb").expect("it joined");
    assert_eq!((new.weight, new.state, new.down, new.storage), (2, NodeState::Active, false, Some([4; 16])));
    let replica = catalog.own.replica_on("bb").expect("it gets the catalog");
    assert_eq!((replica.wanted, replica.standing), (Wanted::Learner, Standing::None));
    let (replica, next) = (replica.replica, catalog.next_replica);

    takes(&mut catalog, join("bb", 4, "elsewhere:1"));
    assert_eq!(catalog.node("bb").map(|node| node.address.as_str()), Some("elsewhere:1"));
    assert_eq!(
        (catalog.own.replica_on("bb").map(|r| r.replica), catalog.next_replica),
        (Some(replica), next)
    );
}

#[test]
fn who_may_not_join_is_told_why() {
    let mut catalog = catalog();
    takes(&mut catalog, join("d", 4, "d:1"));
    refuses(&mut catalog, join("d", 5, "d:1"), "there is a node d with another storage path");
    refuses(&mut catalog, join("a", 5, "a:1"), "there is a node a with another storage path");
    refuses(&mut catalog, join("e", 5, "d:1"), "node d is at d:1 already");
    takes(&mut catalog, join("e", 5, "e:1"));
    refuses(&mut catalog, join("e", 5, "d:1"), "node d is at d:1 already");

    takes(&mut catalog, remove("d"));
    refuses(&mut catalog, join("d", 4, "d:1"), "its copy of the catalog is still on its way out");
    refuses(&mut catalog, join("d", 6, "d:1"), "its copy of the catalog is still on its way out");
    settle(&mut catalog, CATALOG.0);
    refuses(&mut catalog, join("d", 4, "d:1"), "belonged to a node that was removed");
    refuses(&mut catalog, join("f", 4, "f:1"), "belonged to a node that was removed");
    takes(&mut catalog, join("d", 6, "d:1"));
    let replica = catalog.own.replica_on("d").expect("it gets the catalog");
    assert_eq!(replica.replica, catalog.next_replica - 1, "under an id that was never used");
}

#[test]
fn what_is_said_of_a_node_is_said_of_one_that_there_is() {
    let mut catalog = catalog();
    let node = || "z".to_owned();
    refuses(&mut catalog, CatalogChange::Zone { node: node(), zone: node() }, "there is no node z");
    let state = NodeState::Cordoned;
    refuses(&mut catalog, CatalogChange::State { node: node(), state }, "there is no node z");
    refuses(&mut catalog, CatalogChange::Down { node: node(), down: true }, "there is no node z");
    refuses(&mut catalog, remove("z"), "there is no node z");
    takes(&mut catalog, CatalogChange::State { node: "a".to_owned(), state });
    takes(&mut catalog, CatalogChange::Down { node: "b".to_owned(), down: true });
    assert_eq!((catalog.nodes[0].state, catalog.nodes[1].down), (state, true));
}

#[test]
fn only_an_empty_node_can_be_removed() {
    let mut catalog = catalog();
    takes(&mut catalog, join("d", 4, "d:1"));
    let group = catalog.collections[0].shards[0].spec.group;
    let since = catalog.spec_mut(group).expect("it is there").epoch;
    takes(&mut catalog, place(group, since, &["c", "d"]));
    refuses(&mut catalog, remove("d"), "still has a replica of shard 0 of 'default'");
    let since = catalog.spec_mut(group).expect("it is there").epoch;
    takes(&mut catalog, place(group, since, &["c"]));
    refuses(&mut catalog, remove("d"), "still has a replica of shard 0 of 'default'");
    settle(&mut catalog, group);
    takes(&mut catalog, remove("d"));
    assert_eq!(catalog.own.replica_on("d").map(|replica| replica.wanted), Some(Wanted::Gone));
    // Its vote may still count: it is spoken to until it has none.
    assert!(catalog.node("d").is_some_and(|node| node.leaving) && catalog.removed.is_empty());
    refuses(&mut catalog, remove("d"), "is being removed already");
    refuses(&mut catalog, remove("a"), "node d is being removed");
    settle(&mut catalog, 0);
    assert_eq!((catalog.node("d"), catalog.removed.len()), (None, 1));

    let mut alone = founded(&["a"], 1, 1);
    takes(&mut alone, CatalogChange::Drop { name: "default".to_owned() });
    refuses(&mut alone, remove("a"), "is needed for a majority in the catalog: 0 of its 1 voters");
}

#[test]
fn a_placement_is_taken_if_nothing_else_was_decided() {
    let mut catalog = catalog();
    let spec = catalog.collections[0].shards[0].spec.clone();
    let (group, since) = (spec.group, spec.epoch);
    refuses(&mut catalog, place(99, since, &["a"]), "there is no such group");
    refuses(&mut catalog, place(group, since, &["a", "z"]), "there is no node z");
    refuses(&mut catalog, place(group, since, &[]), "which is to lead, would have no vote");
    let learners = spec.replicas.iter().map(|r| (r.node.clone(), Wanted::Learner)).collect();
    let leader = spec.leader.clone();
    let change = CatalogChange::Place { group, since, nodes: learners, leader, reason: String::new() };
    refuses(&mut catalog, change, "which is to lead, would have no vote");
    refuses(&mut catalog, place(group, since + 1, &["a"]), "something else was decided meanwhile");

    takes(&mut catalog, place(group, since, &["a", "b", "c"]));
    refuses(&mut catalog, place(group, since, &["a"]), "something else was decided meanwhile");
    let since = catalog.epoch;
    refuses(&mut catalog, place(group, since, &["a", "b", "c"]), "it is as it is wanted");
}

#[test]
fn those_that_are_to_go_are_no_votes_to_count_on() {
    let mut catalog = founded(&["a", "b"], 1, 1);
    let spec = &catalog.collections[0].shards[0].spec;
    let (group, since, from) = (spec.group, spec.epoch, spec.leader.clone());
    let to = if from == "a" { "b" } else { "a" };
    takes(&mut catalog, place(group, since, &[to]));
    let since = catalog.epoch;
    refuses(&mut catalog, place(group, since, &[&from]), "which is to lead, would have no vote");
    settle(&mut catalog, group);
    takes(&mut catalog, place(group, since, &[&from]));
}

#[test]
fn a_report_is_noted_once() {
    let mut catalog = catalog();
    let spec = &catalog.collections[0].shards[0].spec;
    let members: Vec<_> = spec.replicas.iter().map(|r| (r.replica, r.standing)).collect();
    let report = |group, index| Report { group, index, intent: 0, members: members.clone() };
    refuses(&mut catalog, CatalogChange::Report(report(99, 1)), "there is no such group");
    takes(&mut catalog, CatalogChange::Report(report(1, 5)));
    refuses(&mut catalog, CatalogChange::Report(report(1, 5)), "it was known");
    refuses(&mut catalog, CatalogChange::Report(report(1, 4)), "it was known");
    takes(&mut catalog, CatalogChange::Report(report(1, 6)));
}

#[test]
fn collections_come_and_go_and_their_ids_do_not_come_back() {
    let mut catalog = catalog();
    refuses(
        &mut catalog,
        create("default", 4, &[&["a"]]),
        "there is a collection 'default' already, of another",
    );
    refuses(&mut catalog, create("new", 4, &[]), "nodes that there are not");
    refuses(&mut catalog, create("new", 4, &[&["a"], &[]]), "nodes that there are not");
    refuses(&mut catalog, create("new", 4, &[&["a"], &["z"]]), "nodes that there are not");
    takes(&mut catalog, create("new", 4, &[&["a", "b"], &["c"]]));
    refuses(&mut catalog, create("new", 4, &[&["a"]]), "there is a collection 'new' already");
    let new = catalog.collection("new").expect("it was created");
    let groups: Vec<_> = new.shards.iter().map(|shard| (shard.shard, shard.spec.group)).collect();
    assert_eq!(groups, [(0, 3), (1, 4)]);
    let (group, replica) = (catalog.next_group, catalog.next_replica);

    refuses(&mut catalog, CatalogChange::Drop { name: "old".to_owned() }, "no collection is called 'old'");
    takes(&mut catalog, CatalogChange::Drop { name: "new".to_owned() });
    assert_eq!((catalog.collection("new"), catalog.next_group, catalog.next_replica), (None, group, replica));
    takes(&mut catalog, create("new", 4, &[&["a"]]));
    let shard = &catalog.collection("new").expect("it was created").shards[0];
    assert_eq!((shard.spec.group, shard.spec.replicas[0].replica), (group, replica));
}

#[test]
fn the_factor_is_that_of_a_collection_that_there_is() {
    let mut catalog = catalog();
    let factor = |name: &str| alter(name, Some(3), SettingsChange::default());
    refuses(&mut catalog, factor("old"), "no collection is called 'old'");
    takes(&mut catalog, factor("default"));
    assert_eq!(catalog.collections[0].replication_factor, 3);
}
