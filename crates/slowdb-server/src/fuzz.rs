//! Hostile bytes for the files of a node and for what nodes tell each other. Those of a shard's snapshot are in
//! `transfer/tests.rs`, texts of a hello in `identity/tests.rs`.

use crate::catalog::tests::founded;
use crate::catalog::{CatalogChange, CatalogMachine, Report};
use crate::envelope::Envelope;
use crate::identity::{Founding, Identity};
use crate::tend::Told;
use slowdb_disk::{Disk, SimDisk};
use slowdb_fuzz::Target;
use slowdb_proto::{ClusterId, Metric, NodeState, Position, SettingsChange, Standing, Wanted, WriteLevel};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

fn read(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name, false).expect("it is there");
    let mut bytes = vec![0; file.len().expect("the disk works") as usize];
    file.read_at(&mut bytes, 0).expect("the disk works");
    bytes
}

fn disk_with(name: &str, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    let file = disk.open(name, true).expect("the disk works");
    file.write_at(&[IoSlice::new(bytes)], 0).expect("the disk works");
    disk
}

/// Makes length and checksum of a file that is replaced as a whole right again.
fn reseal(bytes: &mut [u8]) {
    let len = bytes.len() as u64;
    if let Some((head, content)) = bytes.split_first_chunk_mut::<24>() {
        head[8..16].copy_from_slice(&(len - 24).to_le_bytes());
        let mut hasher = Xxh3::new();
        hasher.update(&head[..16]);
        hasher.update(content);
        head[16..].copy_from_slice(&hasher.digest().to_le_bytes());
    }
}

fn identities() -> [Identity; 2] {
    let fresh = Identity {
        node: "n1".into(),
        storage: [2; 16],
        cluster: None,
        founding: Founding::default(),
        joined: None,
        known: Vec::new(),
        peers: BTreeMap::new(),
    };
    let founding = Founding {
        nodes: vec![("n1".into(), "localhost:8000".into()), ("n2".into(), "n2.example:8000".into())],
        zone: Some("east".into()),
        dimension: 3,
        metric: Metric::L2,
        ..Founding::default()
    };
    let old = Identity {
        cluster: Some(ClusterId([1; 16])),
        founding,
        joined: Some(9),
        known: vec![("n2".into(), "n2.example:8000".into())],
        peers: (0..20).map(|n| (format!("n{n}"), [n; 16])).collect(),
        ..fresh.clone()
    };
    [fresh, old]
}

#[test]
fn fuzz_identity() {
    let corpus = identities().map(|identity| {
        let disk = SimDisk::new();
        identity.save(&disk).expect("the disk works");
        read(&disk, "identity")
    });
    let target = Target::new("fuzz_identity", corpus).memory(1 << 20, 32).reseal(|bytes| reseal(bytes));
    target.run(|bytes| {
        let Ok(Some(identity)) = Identity::load(&disk_with("identity", bytes)) else { return false };
        let disk = SimDisk::new();
        identity.save(&disk).expect("the disk works");
        assert_eq!(Identity::load(&disk).expect("just written"), Some(identity));
        true
    });
}

fn changes() -> Vec<CatalogChange> {
    let (node, name) = (|| "a".to_owned(), || "default".to_owned());
    let catalog = founded(&["a", "b", "c"], 4, 3);
    let collection = &catalog.collections[0];
    let members = vec![(1, Standing::Voter), (2, Standing::Changing)];
    let (address, zone) = (|| "z:1".to_owned(), Some("east".to_owned()));
    let settings = SettingsChange::default();
    vec![
        CatalogChange::Join { node: "d".to_owned(), storage: [3; 16], address: address(), zone, weight: 2 },
        CatalogChange::Zone { node: node(), zone: "east".to_owned() },
        CatalogChange::State { node: node(), state: NodeState::Draining },
        CatalogChange::Down { node: node(), down: true },
        CatalogChange::Remove { node: node() },
        CatalogChange::Place {
            group: 1,
            since: 1,
            nodes: vec![(node(), Wanted::Voter), ("b".to_owned(), Wanted::Learner)],
            leader: node(),
            reason: "a test".to_owned(),
        },
        CatalogChange::Report(Report { group: 1, index: 8, intent: 1, members }),
        CatalogChange::Create {
            name: "other".to_owned(),
            dimension: 3,
            metric: Metric::L1,
            replication_factor: 2,
            settings: collection.settings,
            shards: vec![vec![node(), "b".to_owned()], vec!["c".to_owned()]],
        },
        CatalogChange::Drop { name: name() },
        CatalogChange::Alter { name: name(), replication_factor: Some(2), settings },
        CatalogChange::Move { node: node(), address: address() },
        CatalogChange::Found(catalog),
    ]
}

/// A change that is laid out well is taken in or refused, whatever it says, also by a cluster that it made.
#[test]
fn fuzz_catalog_change() {
    let corpus = changes().into_iter().map(|change| change.encode());
    Target::new("fuzz_catalog_change", corpus).memory(1 << 20, 64).run(|bytes| {
        let Ok(change) = CatalogChange::decode(bytes) else { return false };
        assert_eq!(CatalogChange::decode(&change.encode()), Ok(change.clone()));
        let mut catalog = founded(&["a", "b", "c"], 4, 3);
        let before = catalog.clone();
        if catalog.change(change).is_err() {
            assert_eq!(catalog, before, "what is refused changes nothing");
        }
        true
    });
}

/// The catalog as another node sends it, and as it is read at the next start.
#[test]
fn fuzz_catalog_snapshot() {
    let catalogs = [founded(&["a"], 1, 1), founded(&["a", "b", "c"], 4, 3)];
    let corpus = catalogs.map(|catalog| {
        rkyv::to_bytes::<rkyv::rancor::Error>(&catalog).expect("memory holds a catalog").into_vec()
    });
    Target::new("fuzz_catalog_snapshot", corpus).cases(2_000).memory(1 << 20, 128).run(|bytes| {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let mut machine = CatalogMachine::open(Arc::clone(&disk), 0).expect("it is new");
        let mut staging = machine.stage(7);
        if staging.write(bytes).and_then(|()| staging.finish()).is_err() {
            return false;
        }
        machine.install(7).expect("it was staged");
        let again = CatalogMachine::open(disk, 7).expect("it was written");
        assert_eq!((again.catalog(), again.held()), (machine.catalog(), 7));
        true
    });
}

/// What leaders are told by other nodes.
#[test]
fn fuzz_told() {
    let members = vec![(1, Standing::Voter), (2, Standing::Learner)];
    let told = [
        Told::Report(Report { group: 1, index: 8, intent: 4, members }),
        Told::Progress(vec![(4, 5, 6), (7, 8, 9)]),
        Told::LowSpace { free: 7, enough: 8 },
        Told::Vacant { epoch: 9 },
    ];
    Target::new("fuzz_told", told.map(|told| told.encode())).run(|bytes| {
        let Some(told) = Told::decode(bytes) else { return false };
        let again = told.encode();
        assert_eq!(Told::decode(&again).expect("just laid out").encode(), again);
        true
    });
}

#[test]
fn fuzz_envelope() {
    let late = Some(Position::new(3, 4, 5));
    let made = [(WriteLevel::One, late), (WriteLevel::Quorum, None), (WriteLevel::All, None)];
    let corpus = made.map(|(level, was)| {
        let mut bytes = Vec::new();
        Envelope { level, hlc: 77, was }.wrap(b"payload", &mut bytes);
        bytes
    });
    Target::new("fuzz_envelope", corpus).run(|bytes| {
        let Some((made, payload)) = Envelope::unwrap(bytes) else { return false };
        let mut again = Vec::new();
        made.wrap(payload, &mut again);
        assert_eq!(again, bytes, "one layout for each");
        true
    });
}
