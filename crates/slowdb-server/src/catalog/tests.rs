//! What a cluster begins as, and the catalog on its way to disk and to other nodes.

use super::*;
use slowdb_disk::SimDisk;
use slowdb_proto::{Metric, Wanted};
use slowdb_repl::{AckLevel, Position, ProposalHeader, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn founding(nodes: &[&str], num_shards: u32, replication_factor: u32) -> Founding {
    let node = |name: &&str| ((*name).to_owned(), format!("{name}.example:8000"));
    Founding {
        nodes: nodes.iter().map(node).collect(),
        zone: None,
        dimension: 4,
        metric: Metric::Cosine,
        num_shards,
        virtual_nodes: 3,
        replication_factor,
        weight: 1,
    }
}

/// A cluster as these nodes found it.
pub(crate) fn founded(nodes: &[&str], num_shards: u32, replication_factor: u32) -> Catalog {
    let founding = founding(nodes, num_shards, replication_factor);
    found(&founding, &BTreeMap::new(), ClusterId([1; 16])).expect("it can be founded")
}

fn shards(nodes: usize, replication_factor: u32) -> Vec<Shard> {
    let catalog = founded(&NAMES[..nodes], 16, replication_factor);
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
            for (number, Shard { shard, spec }) in (0..).zip(&shards) {
                let at = format!("{nodes} nodes, factor {replication_factor}, shard {number}");
                assert_eq!((*shard, spec.group), (number, 1 + u64::from(number)), "{at}");
                assert_eq!((spec.epoch, spec.reported, spec.is_settled()), (1, (0, 0), true), "{at}");
                assert_eq!(spec.replicas.len(), replicas, "{at}");
                let hosts: BTreeSet<&str> = spec.replicas.iter().map(|r| r.node.as_str()).collect();
                assert_eq!(hosts.len(), replicas, "{at}: two replicas on one node");
                let voters = spec.replicas.iter().filter(|r| r.wanted == Wanted::Voter).count();
                assert_eq!(voters % 2, 1, "{at}: {voters} voters");
                assert!(voters + 1 >= replicas, "{at}");
                let first = &spec.replicas[0];
                assert_eq!((first.wanted, &first.node), (Wanted::Voter, &spec.leader), "{at}");
                for replica in &spec.replicas {
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
fn ids_go_on_where_the_founding_ended() {
    let catalog = founded(&NAMES, 16, 3);
    assert_eq!((catalog.epoch, catalog.own.epoch, catalog.next_group), (1, 1, 17));
    let used = catalog.shards().flat_map(|(_, shard)| &shard.spec.replicas).chain(&catalog.own.replicas);
    assert_eq!(used.map(|replica| replica.replica).max(), Some(catalog.next_replica - 1));
}

#[test]
fn of_two_nodes_the_second_is_a_learner() {
    for shard in shards(2, 3) {
        let info = shard.to_info();
        let votes: Vec<bool> = info.replicas.iter().map(|replica| replica.voter).collect();
        assert_eq!(votes, [true, false], "shard {}", shard.shard);
        assert_eq!(info.replicas[0].node, shard.spec.leader);
    }
    let catalog = catalog_membership(&founding(&NAMES[..2], 16, 3), "b").expect("b is a member");
    assert_eq!(catalog.own, ReplicaId(2));
    assert_eq!(catalog.members.iter().filter(|member| member.part.votes()).count(), 1);
}

#[test]
fn memberships_are_those_of_the_map() {
    assert_eq!(catalog_membership(&founding(&NAMES[..3], 16, 3), "stranger"), None);
    let membership = catalog_membership(&founding(&NAMES[..3], 16, 3), "c").expect("c is a member");
    assert!(membership.is_sound());
    assert_eq!(membership.own, ReplicaId(3));
    for shard in shards(5, 3) {
        for name in NAMES {
            let hosted = shard.spec.replicas.iter().find(|replica| replica.node == name);
            let membership = shard.spec.first_membership(name);
            assert_eq!(membership.as_ref().map(|m| m.own.0), hosted.map(|replica| replica.replica));
            assert!(membership.is_none_or(|m| m.is_sound() && m.members[0].part.votes()));
        }
    }
}

fn open(disk: &SimDisk, incarnation: u64) -> CatalogMachine {
    CatalogMachine::open(Arc::new(disk.clone()), incarnation).expect("it is whole")
}

fn apply(machine: &mut CatalogMachine, index: u64, body: &[u8]) -> Result<Result<(), String>, ApplyError> {
    let header = ProposalHeader {
        level: AckLevel::Quorum,
        retry: false,
        writes: 1,
        client: [0; 16],
        sequence: 0,
        hlc: 0,
        origin: 1,
        late: None,
    };
    machine.apply(&ProposalView { header, first: Position::new(1, index, 0), body })
}

fn changed(machine: &mut CatalogMachine, index: u64, change: &CatalogChange) -> Result<(), String> {
    let outcome = apply(machine, index, &change.encode()).expect("the disk works");
    machine.end_of_entry(index).expect("the disk works");
    outcome
}

/// An entry can carry several changes, and the power can go between two of them.
#[test]
fn a_crash_in_the_middle_of_an_entry_loses_none_of_its_changes() {
    let disk = SimDisk::new();
    let mut machine = open(&disk, 0);
    changed(&mut machine, 2, &CatalogChange::Found(founded(&NAMES[..3], 16, 3))).expect("it is the first");
    let down = |node: &str| CatalogChange::Down { node: node.to_owned(), down: true }.encode();
    apply(&mut machine, 3, &down("a")).expect("the disk works").expect("there is a node a");
    drop(machine);
    let mut machine = open(&disk.crash(&mut || 0), 0);
    assert_eq!(machine.held(), 2, "the entry comes again, with all it carries");
    for node in ["a", "b"] {
        apply(&mut machine, 3, &down(node)).expect("the disk works").expect("there is such a node");
    }
    machine.end_of_entry(3).expect("the disk works");
    let again = open(&disk.crash(&mut || 0), 0);
    assert_eq!(again.held(), 3);
    assert!(again.catalog().nodes[..2].iter().all(|node| node.down));
}

#[test]
fn the_first_founding_stands_and_survives() {
    let disk = SimDisk::new();
    let mut machine = open(&disk, 0);
    let first = founded(&NAMES[..3], 16, 3);
    let second = found(&founding(&NAMES[..2], 16, 1), &BTreeMap::new(), ClusterId([2; 16]));
    let second = CatalogChange::Found(second.expect("it can be founded"));
    assert_eq!(changed(&mut machine, 4, &CatalogChange::Found(first.clone())), Ok(()));
    let refused = changed(&mut machine, 5, &second).expect_err("there is a cluster");
    assert!(refused.contains("founded already"), "{refused}");
    assert_eq!(machine.catalog(), &first);
    let disk = disk.crash(&mut || 0);
    let again = open(&disk, 0);
    assert_eq!((again.catalog(), again.held()), (&first, 4), "what has no effect is not written down");
    assert_eq!(again.digest(), machine.digest());
}

#[test]
fn bytes_that_are_no_change_are_an_error() {
    let mut machine = open(&SimDisk::new(), 0);
    let good = CatalogChange::Found(founded(&NAMES[..3], 16, 3)).encode();
    for bad in [&b""[..], b"nonsense", &good[..good.len() - 8]] {
        assert!(apply(&mut machine, 1, bad).is_err());
    }
    assert_eq!((machine.catalog().cluster, machine.held()), (None, 0));
}

#[test]
fn a_zone_told_later_is_written_down() {
    let mut machine = open(&SimDisk::new(), 0);
    let zones = BTreeMap::from([("a".to_owned(), "east".to_owned())]);
    let first = found(&founding(&NAMES[..3], 16, 3), &zones, ClusterId([1; 16])).expect("it can be founded");
    assert_eq!(changed(&mut machine, 1, &CatalogChange::Found(first)), Ok(()));
    let change = CatalogChange::Zone { node: "b".to_owned(), zone: "west".to_owned() };
    assert_eq!(changed(&mut machine, 2, &change), Ok(()));
    let zones: Vec<_> = machine.catalog().nodes.iter().map(|node| node.zone.as_deref()).collect();
    assert_eq!(zones, [Some("east"), Some("west"), None]);
    assert_eq!(machine.catalog().epoch, 2);
}

/// A machine that holds a cluster, as of index 7.
fn holding(disk: &SimDisk) -> CatalogMachine {
    let mut machine = open(disk, 0);
    assert_eq!(changed(&mut machine, 7, &CatalogChange::Found(founded(&NAMES, 300, 3))), Ok(()));
    machine
}

fn parts_of(machine: &CatalogMachine) -> Vec<Vec<u8>> {
    let snapshot = machine.snapshot();
    let (mut parts, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let mut part = Vec::new();
        cursor = snapshot.read(at, &mut part).expect("memory can be read");
        parts.push(part);
    }
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>() as u64, snapshot.bytes());
    parts
}

#[test]
fn a_snapshot_becomes_the_catalog_when_it_is_installed() {
    let source = holding(&SimDisk::new());
    let disk = SimDisk::new();
    let machine = open(&disk, 0);
    let mut staging = machine.stage(7);
    for part in parts_of(&source) {
        staging.write(&part).expect("it is not too large");
    }
    assert_eq!(staging.finish().expect("the disk works"), source.digest());
    drop(machine);

    // The power goes before the log says that it is in use, and after.
    let disk = disk.crash(&mut || 0);
    assert_eq!(open(&disk, 0).held(), 0, "what is staged is not in use");
    let machine = open(&disk, 7);
    assert_eq!((machine.held(), machine.digest()), (7, source.digest()));
    drop(machine);
    let mut machine = open(&disk.crash(&mut || 0), 7);
    assert_eq!(machine.catalog(), source.catalog());
    let change = CatalogChange::Down { node: "a".to_owned(), down: true };
    assert_eq!(changed(&mut machine, 8, &change), Ok(()));
    assert!(machine.install(9).is_err(), "nothing was staged under that name");
    assert_eq!(machine.held(), 8, "and what was there is there");
}

#[test]
fn parts_that_are_no_catalog_are_an_error() {
    let source = holding(&SimDisk::new());
    let whole = parts_of(&source).concat();
    let disk = SimDisk::new();
    let machine = open(&disk, 0);
    let take = |bytes: &[u8]| {
        let mut staging = machine.stage(7);
        staging.write(bytes).and_then(|()| staging.finish())
    };
    assert!(take(b"").is_err() && take(b"nonsense").is_err());
    for cut in (0..whole.len()).step_by(997) {
        assert!(take(&whole[..cut]).is_err(), "{cut} of {} bytes", whole.len());
    }
    for at in (0..whole.len()).step_by(61) {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        assert_ne!(take(&bad).ok(), Some(source.digest()), "byte {at}");
    }
    assert!(CatalogMachine::open(Arc::new(disk), 7).is_ok(), "the last that was whole is staged");
}
