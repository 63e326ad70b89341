//! What a cluster begins as.

use super::*;
use slowdb_disk::SimDisk;
use slowdb_proto::Metric;
use slowdb_repl::{AckLevel, Position, ProposalHeader};
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn founding(nodes: usize, replication_factor: u32) -> Founding {
    let node = |name: &&str| ((*name).to_owned(), format!("{name}.example:8000"));
    Founding {
        nodes: NAMES[..nodes].iter().map(node).collect(),
        zone: None,
        dimension: 4,
        metric: Metric::Cosine,
        num_shards: 16,
        virtual_nodes: 3,
        replication_factor,
    }
}

fn shards(nodes: usize, replication_factor: u32) -> Vec<ShardInfo> {
    let catalog = found(&founding(nodes, replication_factor), &BTreeMap::new(), ClusterId([1; 16]))
        .expect("it can be founded");
    assert_eq!(catalog.nodes.len(), nodes);
    let [collection] = &catalog.collections[..] else { panic!("one collection to begin with") };
    assert_eq!((collection.name.as_str(), collection.replication_factor), ("default", replication_factor));
    collection.shards.clone()
}

#[test]
fn every_size_of_cluster_is_sound() {
    for nodes in 1..=5 {
        for replication_factor in 1..=5 {
            let shards = shards(nodes, replication_factor);
            assert_eq!(shards.len(), 16);
            let replicas = nodes.min(replication_factor as usize);
            let mut ids: BTreeSet<u64> = (1..=nodes as u64).collect();
            let mut load: BTreeMap<&str, usize> = BTreeMap::new();
            for (number, shard) in (0..).zip(&shards) {
                let at = format!("{nodes} nodes, factor {replication_factor}, shard {number}");
                assert_eq!((shard.shard, shard.group), (number, 1 + u64::from(number)), "{at}");
                assert_eq!(shard.replicas.len(), replicas, "{at}");
                let hosts: BTreeSet<&str> = shard.replicas.iter().map(|r| r.node.as_str()).collect();
                assert_eq!(hosts.len(), replicas, "{at}: two replicas on one node");
                let voters = shard.replicas.iter().filter(|r| r.voter).count();
                assert_eq!(voters % 2, 1, "{at}: {voters} voters");
                assert!(voters + 1 >= replicas && shard.replicas[0].voter, "{at}");
                for replica in &shard.replicas {
                    assert!(ids.insert(replica.replica), "{at}: id {} twice", replica.replica);
                    *load.entry(&replica.node).or_default() += 1;
                }
            }
            let (most, least) = (load.values().max(), load.values().min());
            assert!(most.unwrap_or(&0) - least.unwrap_or(&0) <= 1, "{nodes} nodes: {load:?}");
        }
    }
}

#[test]
fn of_two_nodes_the_second_is_a_learner() {
    for shard in shards(2, 3) {
        let votes: Vec<bool> = shard.replicas.iter().map(|replica| replica.voter).collect();
        assert_eq!(votes, [true, false], "shard {}", shard.shard);
    }
    let catalog = catalog_membership(&founding(2, 3), "b").expect("b is a member");
    assert_eq!(catalog.own, ReplicaId(2));
    assert_eq!(catalog.members.iter().filter(|member| member.part.votes()).count(), 1);
}

#[test]
fn memberships_are_those_of_the_map() {
    assert_eq!(catalog_membership(&founding(3, 3), "stranger"), None);
    let membership = catalog_membership(&founding(3, 3), "c").expect("c is a member");
    assert!(membership.is_sound());
    assert_eq!(membership.own, ReplicaId(3));
    for shard in shards(5, 3) {
        for name in NAMES {
            let hosted = shard.replicas.iter().find(|replica| replica.node == name);
            let membership = shard_membership(&shard, name);
            assert_eq!(membership.as_ref().map(|m| m.own.0), hosted.map(|replica| replica.replica));
            assert!(membership.is_none_or(|m| m.is_sound() && m.members[0].part.votes()));
        }
    }
}

fn apply(machine: &mut CatalogMachine, index: u64, body: &[u8]) -> Result<(), ApplyError> {
    let header = ProposalHeader {
        level: AckLevel::Quorum,
        retry: false,
        writes: 1,
        client: [0; 16],
        sequence: 0,
        hlc: 0,
        origin: 1,
    };
    machine.apply(&ProposalView { header, first: Position::new(1, index, 0), body })
}

#[test]
fn the_first_founding_stands_and_survives() {
    let disk = SimDisk::new();
    let mut machine = CatalogMachine::open(Arc::new(disk.clone()), 0).expect("nothing is there yet");
    let first = found(&founding(3, 3), &BTreeMap::new(), ClusterId([1; 16])).expect("it can be founded");
    let second = found(&founding(2, 1), &BTreeMap::new(), ClusterId([2; 16])).expect("it can be founded");
    apply(&mut machine, 4, &CatalogChange::Found(first.clone()).encode()).expect("the disk works");
    apply(&mut machine, 5, &CatalogChange::Found(second).encode()).expect("the disk works");
    assert_eq!(machine.catalog(), &first);
    let disk = disk.crash(&mut || 0);
    let again = CatalogMachine::open(Arc::new(disk), 0).expect("it is whole");
    assert_eq!((again.catalog(), again.held()), (&first, 5));
    assert_eq!(again.digest(), machine.digest());
}

#[test]
fn bytes_that_are_no_change_are_an_error() {
    let mut machine = CatalogMachine::open(Arc::new(SimDisk::new()), 0).expect("nothing is there yet");
    let good =
        CatalogChange::Found(found(&founding(3, 3), &BTreeMap::new(), ClusterId([1; 16])).expect("founded"))
            .encode();
    for bad in [&b""[..], b"nonsense", &good[..good.len() - 8]] {
        assert!(apply(&mut machine, 1, bad).is_err());
    }
    assert_eq!(machine.catalog().cluster, None);
}

#[test]
fn a_zone_told_later_is_written_down() {
    let mut machine =
        CatalogMachine::open(Arc::new(SimDisk::new()), 0).expect("an empty disk is a new catalog");
    let zones = BTreeMap::from([("n1".to_owned(), "east".to_owned())]);
    let first = found(&founding(3, 3), &zones, ClusterId([1; 16])).expect("it can be founded");
    let names: Vec<String> = first.nodes.iter().map(|node| node.id.clone()).collect();
    apply(&mut machine, 1, &CatalogChange::Found(first).encode()).expect("it is a change");
    let change = CatalogChange::Zone { node: names[1].clone(), zone: "west".to_owned() };
    apply(&mut machine, 2, &change.encode()).expect("it is a change");
    assert_eq!(machine.catalog().nodes[1].zone.as_deref(), Some("west"));
    assert_eq!(machine.catalog().epoch, 2);
}
