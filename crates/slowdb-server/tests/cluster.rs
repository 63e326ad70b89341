//! A cluster that grows, shrinks, heals and moves.

mod common;

use common::{Cluster, founding, get, id_in, put, write};
use slowdb_proto::{
    Admin, AdminRequest, Code, CollectionSettings, Meant, NodeState, ReadLevel, Reply, RequestKind,
    SettingsChange, Standing, WriteLevel,
};

const V: [f32; 2] = [1.0, 2.0];

fn one() -> Cluster {
    Cluster::founded(&founding(&["ada"], 2, 4))
}

fn grown() -> Cluster {
    let mut cluster = one();
    for shard in 0..4 {
        let id = id_in(shard, 4, 0);
        cluster.written(0, write(shard, 1, WriteLevel::Quorum), &put(&id, &V));
    }
    cluster.join("bob", None);
    cluster.join("cyd", None);
    cluster.settled("three replicas of everything");
    cluster
}

fn remove(node: &str, lost: bool) -> Admin {
    Admin::RemoveNode { node: node.into(), lost }
}

/// Removes a node that is up, as soon as it has said that it keeps nothing.
fn remove_empty(cluster: &mut Cluster, node: &str) {
    cluster.wait("it is removed", |cluster| match cluster.admin(remove(node, false), false) {
        Reply::Admin(_) => true,
        Reply::Error(error) if error.code == Code::Unavailable => {
            assert!(error.message.contains("has not said yet"), "{error}");
            false
        }
        other => panic!("{other:?}"),
    });
}

/// Every node that is said to hold a shard has the record that was written first, and digests are equal.
fn check_replicas(cluster: &mut Cluster, wanted: usize) {
    for shard in 0..4 {
        let leader = cluster.leader(shard);
        let Reply::Map(map) = cluster.ask(leader, RequestKind::Map, b"").0 else { panic!("a map") };
        let replicas: Vec<String> =
            map.collections[0].shards[shard as usize].replicas.iter().map(|r| r.node.clone()).collect();
        assert_eq!(replicas.len(), wanted, "shard {shard}: {replicas:?}");
        let id = id_in(shard, 4, 0);
        let digest = cluster.state(leader, shard);
        for node in replicas {
            let at = cluster.at(&node);
            cluster.wait("the same state", |cluster| cluster.state(at, shard).2 == digest.2);
            assert!(cluster.get(at, shard, &id).is_some(), "shard {shard} on {node}");
        }
    }
}

#[test]
fn one_node_becomes_three() {
    let mut cluster = grown();
    check_replicas(&mut cluster, 3);
    let view = cluster.view();
    assert!(view.nodes.iter().all(|node| node.replicas == 4 && node.catalog == Standing::Voter), "{view:?}");
    // And survives the loss of any of them.
    cluster.kill(0);
    let leader = cluster.leader(2);
    let id = id_in(2, 4, 1);
    cluster.written(leader, write(2, 9, WriteLevel::Quorum), &put(&id, &V));
}

#[test]
fn with_two_nodes_the_second_has_no_vote() {
    let mut cluster = one();
    cluster.join("bob", None);
    cluster.settled("two replicas of everything");
    let Reply::Map(map) = cluster.ask(0, RequestKind::Map, b"").0 else { panic!("a map") };
    for shard in &map.collections[0].shards {
        let votes: Vec<bool> = shard.replicas.iter().map(|replica| replica.voter).collect();
        assert_eq!(votes.iter().filter(|votes| **votes).count(), 1, "{shard:?}");
        assert_eq!(votes.len(), 2);
    }
    let Reply::Status(status) = cluster.ask(0, RequestKind::Status, b"").0 else { panic!("a status") };
    assert!(status.warnings.iter().any(|w| w.contains("one voter")), "{:?}", status.warnings);
}

#[test]
fn five_nodes_share_the_load() {
    let mut cluster = grown();
    cluster.join("dan", None);
    cluster.join("eve", None);
    cluster.settled("balance");
    check_replicas(&mut cluster, 3);
    let view = cluster.view();
    let held: Vec<u32> = view.nodes.iter().map(|node| node.replicas).collect();
    assert!(held.iter().all(|held| (2..=3).contains(held)), "{held:?}");
    assert_eq!(held.iter().sum::<u32>(), 12);
}

#[test]
fn a_drained_node_is_empty_and_can_be_removed() {
    let mut cluster = grown();
    cluster.join("dan", None);
    cluster.settled("balance");
    let refused = cluster.admin(remove("bob", false), false);
    assert!(
        matches!(&refused, Reply::Error(e) if e.code == Code::Refused && e.message.contains("still has")),
        "{refused:?}"
    );
    let drain = Admin::SetNodeState { node: "bob".into(), state: NodeState::Draining };
    let Reply::Admin(dry) = cluster.admin(drain.clone(), true) else { panic!("a plan") };
    assert!(!dry.changed && dry.moves.iter().all(|it| it.from.as_deref() == Some("bob")), "{dry:?}");
    let Reply::Admin(done) = cluster.admin(drain, false) else { panic!("it is drained") };
    assert!(done.changed && done.moves == dry.moves);
    cluster.settled("an empty node");
    let view = cluster.view();
    assert_eq!(
        view.nodes.iter().find(|node| node.id == "bob").map(|node| (node.replicas, node.leads)),
        Some((0, 0))
    );
    check_replicas(&mut cluster, 3);
    let refused = cluster.admin(remove("bob", true), false);
    assert!(
        matches!(&refused, Reply::Error(e) if e.code == Code::Refused && e.message.contains("is not down")),
        "{refused:?}"
    );
    remove_empty(&mut cluster, "bob");
    cluster.wait("three nodes", |cluster| cluster.view().nodes.len() == 3);
    // It is refused should it come back.
    let refused = cluster.ask_to_join("bob", 1, None);
    assert!(matches!(&refused, Reply::Error(e) if e.message.contains("was removed")), "{refused:?}");
}

#[test]
fn a_dead_node_is_replaced_and_a_returning_one_dropped() {
    let mut cluster = grown();
    cluster.join("dan", None);
    cluster.settled("balance");
    let victim = cluster.at("cyd");
    cluster.kill(victim);
    cluster.wait("it is noticed", |cluster| cluster.view().nodes.iter().any(|node| node.down));
    cluster.settled("three live replicas of everything");
    check_replicas(&mut cluster, 3);
    let view = cluster.view();
    assert_eq!(view.nodes.iter().find(|node| node.id == "cyd").map(|node| node.replicas), Some(0));
    cluster.restart(victim);
    cluster.wait("it is heard again", |cluster| cluster.view().nodes.iter().all(|node| !node.down));
    cluster.settled("balance");
    check_replicas(&mut cluster, 3);
    let view = cluster.view();
    assert!(view.nodes.iter().all(|node| node.replicas == 3), "{view:?}");
}

#[test]
fn a_node_that_returns_in_time_keeps_its_replicas() {
    let mut cluster = grown();
    let before: Vec<u64> = replicas(&mut cluster);
    cluster.kill(1);
    let leader = cluster.leader(0);
    cluster.written(leader, write(0, 7, WriteLevel::Quorum), &put(&id_in(0, 4, 3), &V));
    cluster.restart(1);
    cluster.settled("nothing to do");
    check_replicas(&mut cluster, 3);
    assert_eq!(replicas(&mut cluster), before);
}

fn replicas(cluster: &mut Cluster) -> Vec<u64> {
    let leader = cluster.catalog_leader();
    let Reply::Map(map) = cluster.ask(leader, RequestKind::Map, b"").0 else { panic!("a map") };
    let mut ids: Vec<u64> =
        map.collections[0].shards.iter().flat_map(|shard| shard.replicas.iter().map(|r| r.replica)).collect();
    ids.sort_unstable();
    ids
}

fn replication_factor(factor: u32) -> Admin {
    let settings = SettingsChange::default();
    Admin::AlterCollection { name: "default".into(), replication_factor: Some(factor), settings }
}

#[test]
fn the_replication_factor_can_be_changed() {
    let mut cluster = grown();
    assert!(matches!(cluster.admin(replication_factor(1), false), Reply::Admin(_)));
    cluster.settled("one replica of everything");
    check_replicas(&mut cluster, 1);
    assert!(matches!(cluster.admin(replication_factor(3), false), Reply::Admin(_)));
    cluster.settled("three replicas of everything");
    check_replicas(&mut cluster, 3);
}

#[test]
fn collections_come_and_go() {
    let mut cluster = grown();
    let create = Admin::CreateCollection {
        name: "images".into(),
        dimension: 3,
        metric: slowdb_proto::Metric::L2,
        num_shards: 2,
        replication_factor: 3,
        settings: CollectionSettings::default(),
    };
    assert!(matches!(cluster.admin(create.clone(), false), Reply::Admin(done) if done.changed));
    assert!(matches!(cluster.admin(create, false), Reply::Error(e) if e.code == Code::Refused));
    cluster.settled("its replicas");
    let map = |cluster: &mut Cluster| match cluster.ask(0, RequestKind::Map, b"").0 {
        Reply::Map(map) => map,
        other => panic!("wanted a map, got {other:?}"),
    };
    cluster.wait("leaders of its shards", |cluster| {
        let map = map(cluster);
        let images = map.collections.iter().find(|collection| collection.name == "images");
        images.is_some_and(|images| images.shards.iter().all(|shard| shard.leader.is_some()))
    });
    assert!(matches!(cluster.admin(Admin::DropCollection { name: "images".into() }, false), Reply::Admin(_)));
    cluster.wait("it is gone", |cluster| map(cluster).collections.len() == 1);
    for at in 0..3 {
        let disk = cluster.disk(at);
        cluster.wait("its files are gone", |_| {
            slowdb_disk::Disk::list(&disk, "shards").expect("the disk works").len() == 4
        });
    }
}

#[test]
fn zones_are_not_shared_while_another_is_free() {
    let mut cluster = one();
    for (name, zone) in [("bob", "east"), ("cyd", "east"), ("dan", "west"), ("eve", "north")] {
        cluster.join(name, Some(zone));
    }
    cluster.settled("balance");
    let Reply::Map(map) = cluster.ask(0, RequestKind::Map, b"").0 else { panic!("a map") };
    for shard in &map.collections[0].shards {
        let nodes: Vec<&str> = shard.replicas.iter().map(|r| r.node.as_str()).collect();
        assert!(!(nodes.contains(&"bob") && nodes.contains(&"cyd")), "shard {}: {nodes:?}", shard.shard);
    }
}

#[test]
fn who_may_not_join_is_told_why() {
    let mut cluster = grown();
    let refused = |reply: Reply, says: &str| match reply {
        Reply::Error(error) => assert!(error.message.contains(says), "wanted '{says}' in: {error}"),
        other => panic!("wanted '{says}', got {other:?}"),
    };
    refused(cluster.ask_to_join("bob", 77, None), "another storage path");
    refused(cluster.ask_to_join("ada", 77, None), "another storage path");
    // The same again is no harm.
    assert!(matches!(cluster.ask_to_join("bob", 1, None), Reply::Joined(_)));
}

#[test]
fn explanations_name_what_is_next() {
    let mut cluster = grown();
    let leader = cluster.catalog_leader();
    let shard = slowdb_proto::Explain::Shard { collection: "default".into(), shard: 1 };
    let Reply::Explained(lines) = cluster.ask(leader, RequestKind::Explain(shard), b"").0 else {
        panic!("sentences")
    };
    assert!(lines.last().is_some_and(|line| line.contains("nothing is planned")), "{lines:#?}");
    let node = slowdb_proto::Explain::Node { node: "bob".into() };
    let Reply::Explained(lines) = cluster.ask(leader, RequestKind::Explain(node), b"").0 else {
        panic!("sentences")
    };
    assert_eq!(lines.len(), 6, "{lines:#?}");
}

#[test]
fn a_replica_that_is_on_its_way_answers_nothing() {
    let mut cluster = one();
    let id = id_in(0, 4, 0);
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    let at = cluster.join("bob", None);
    for _ in 0..400 {
        let Some(reply) = cluster.try_get(at, get(0, ReadLevel::One, &[&id])) else { continue };
        match reply {
            Reply::Records { records, .. } => {
                assert!(records[0].is_some(), "nothing was passed off for everything")
            }
            Reply::Error(error) => assert!(error.code.is_retryable(), "{error}"),
            other => panic!("{other:?}"),
        }
        cluster.tick();
    }
    assert!(cluster.get(at, 0, &id).is_some());
}

#[test]
fn nodes_are_removed_one_after_the_other_and_never_the_majority() {
    let mut cluster = grown();
    for node in ["bob", "cyd"] {
        cluster.join(if node == "bob" { "dan" } else { "eve" }, None);
    }
    cluster.settled("balance");
    for node in ["bob", "cyd"] {
        let drain = Admin::SetNodeState { node: node.into(), state: NodeState::Draining };
        assert!(matches!(cluster.admin(drain, false), Reply::Admin(_)));
    }
    cluster.settled("two empty nodes");
    remove_empty(&mut cluster, "bob");
    // At once the next: refused until the first is gone, and then it goes.
    cluster.wait("the second is removed too", |cluster| match cluster.admin(remove("cyd", false), false) {
        Reply::Admin(_) => true,
        Reply::Error(error) if error.code == Code::Refused => {
            assert!(error.message.contains("is being removed"), "{error}");
            false
        }
        other => panic!("{other:?}"),
    });
    cluster.wait("three nodes", |cluster| cluster.view().nodes.len() == 3);
    cluster.settled("all is well");
    check_replicas(&mut cluster, 3);
}

#[test]
fn a_node_that_is_needed_for_the_catalogs_majority_is_not_removed() {
    let mut cluster = one();
    assert!(matches!(cluster.admin(replication_factor(1), false), Reply::Admin(_)));
    cluster.join("bob", None);
    cluster.join("cyd", None);
    cluster.settled("balance");
    for node in ["bob", "cyd"] {
        let drain = Admin::SetNodeState { node: node.into(), state: NodeState::Draining };
        assert!(matches!(cluster.admin(drain, false), Reply::Admin(_)));
    }
    cluster.settled("two empty nodes");
    let view = cluster.view();
    let voters = view.nodes.iter().filter(|node| node.catalog == Standing::Voter).count();
    assert_eq!(voters, 3, "{view:?}");
    let bob = cluster.at("bob");
    cluster.kill(bob);
    cluster.wait("it is noticed", |cluster| cluster.view().nodes.iter().any(|node| node.down));
    let refused = cluster.admin(remove("cyd", false), false);
    assert!(
        matches!(&refused, Reply::Error(e) if e.message.contains("needed for a majority")),
        "{refused:?}"
    );
    let refused = cluster.admin(remove("bob", false), false);
    assert!(
        matches!(&refused, Reply::Error(e) if e.code == Code::Refused && e.message.contains("--lost")),
        "{refused:?}"
    );
    assert!(matches!(cluster.admin(remove("bob", true), false), Reply::Admin(_)));
    cluster.wait("two nodes", |cluster| cluster.view().nodes.len() == 2);
}

#[test]
fn a_dead_node_stays_dead_whoever_leads_the_catalog() {
    let mut cluster = grown();
    cluster.join("dan", None);
    cluster.settled("balance");
    let victim = cluster.at("cyd");
    cluster.kill(victim);
    cluster.wait("it is noticed", |cluster| cluster.view().nodes.iter().any(|node| node.down));
    for _ in 0..6 {
        let leader = cluster.catalog_leader();
        cluster.kill(leader);
        for _ in 0..60 {
            cluster.tick();
            for at in cluster.running() {
                if let Some(Reply::Cluster(view)) = cluster.try_get(at, RequestKind::Cluster) {
                    let cyd =
                        view.nodes.iter().find(|node| node.id == "cyd").expect("it is part of the cluster");
                    assert!(cyd.down, "nobody heard it");
                }
            }
        }
        cluster.restart(leader);
    }
}

/// The disk is lost, and there are no more nodes than replicas.
#[test]
fn a_lost_disk_is_replaced_under_another_id_at_the_same_address() {
    let mut cluster = grown();
    let victim = cluster.at("cyd");
    cluster.kill(victim);
    cluster.wait("it is noticed", |cluster| cluster.view().nodes.iter().any(|node| node.down));
    let refused = cluster.ask_to_join("cyd", 77, None);
    assert!(matches!(&refused, Reply::Error(e) if e.message.contains("under another")), "{refused:?}");
    cluster.join_at("dan", "cyd:8000");
    cluster.wait("its replicas are rebuilt there", |cluster| {
        let view = cluster.view();
        view.moves.is_empty() && view.nodes.iter().any(|node| node.id == "cyd" && node.replicas == 0)
    });
    check_replicas(&mut cluster, 3);
    assert!(matches!(cluster.admin(remove("cyd", true), false), Reply::Admin(_)));
    cluster.wait("three nodes", |cluster| cluster.view().nodes.len() == 3);
}

/// The reply of the first attempt was lost, and somebody made another one before the second.
#[test]
fn a_change_that_is_sent_again_does_not_meet_a_successor_of_that_name() {
    let mut cluster = grown();
    let create = || Admin::CreateCollection {
        name: "images".into(),
        dimension: 4,
        metric: slowdb_proto::Metric::L2,
        num_shards: 1,
        replication_factor: 3,
        settings: CollectionSettings::default(),
    };
    let group = |cluster: &mut Cluster| {
        let leader = cluster.catalog_leader();
        let Reply::Map(map) = cluster.ask(leader, RequestKind::Map, b"").0 else { panic!("a map") };
        map.collections.iter().find(|it| it.name == "images").and_then(|it| it.first_group())
    };
    assert!(matches!(cluster.admin(create(), false), Reply::Admin(done) if done.changed));
    let meant = group(&mut cluster).map(Meant::Collection);
    assert!(meant.is_some());
    let drop = || Admin::DropCollection { name: "images".into() };
    let send = |cluster: &mut Cluster, admin| cluster.admin_of(AdminRequest { admin, meant, dry_run: false });
    assert!(matches!(send(&mut cluster, drop()), Reply::Admin(done) if done.changed));
    let Reply::Admin(again) = send(&mut cluster, drop()) else { panic!("it is gone, as was wanted") };
    assert!(!again.changed && again.notes[0].contains("is gone already"), "{again:?}");
    assert!(matches!(cluster.admin(create(), false), Reply::Admin(done) if done.changed));
    let successor = group(&mut cluster);
    let Reply::Admin(again) = send(&mut cluster, drop()) else { panic!("it is gone, as was wanted") };
    assert!(!again.changed && again.notes[0].contains("left alone"), "{again:?}");
    let settings = SettingsChange::default();
    let alter = Admin::AlterCollection { name: "images".into(), replication_factor: Some(1), settings };
    let refused = send(&mut cluster, alter);
    assert!(
        matches!(&refused, Reply::Error(e) if e.code == Code::Refused && e.message.contains("is gone already")),
        "{refused:?}"
    );
    assert_eq!(group(&mut cluster), successor);

    let node = |state| Admin::SetNodeState { node: "bob".into(), state };
    let other = |admin| AdminRequest { admin, meant: Some(Meant::Node([77; 16])), dry_run: false };
    for admin in [node(NodeState::Draining), remove("bob", false)] {
        let refused = cluster.admin_of(other(admin));
        assert!(
            matches!(&refused, Reply::Error(e) if e.code == Code::Refused && e.message.contains("not part")),
            "{refused:?}"
        );
    }
    assert!(cluster.view().nodes.iter().all(|node| node.state == NodeState::Active));
}
