//! What opening refuses it leaves as it is, and nothing is opened twice.

mod common;

use std::sync::Arc;

use common::{DIMENSION, Model, Rng, check, content, options, write};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::{OpenError, Store, Version, remove};

fn open(disk: &Arc<dyn Disk>) -> Result<Store, OpenError> {
    Store::open(Arc::clone(disk), "s", options())
}

fn disks() -> (tempfile::TempDir, [Arc<dyn Disk>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let real = RealDisk::open(dir.path()).unwrap();
    (dir, [Arc::new(SimDisk::new()), Arc::new(real)])
}

/// A store with a checkpoint.
fn store(disk: &Arc<dyn Disk>) -> (Store, Model) {
    let mut store = open(disk).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(2));
    (0..40).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    model.mark = b"mark".to_vec();
    store.checkpoint(b"mark").unwrap();
    (store, model)
}

fn is_in_use(disk: &Arc<dyn Disk>) -> bool {
    match open(disk) {
        Err(OpenError::InUse { dir }) => dir == "s",
        Err(e) => panic!("{e}"),
        Ok(_) => false,
    }
}

#[test]
fn nothing_is_opened_while_anything_of_an_earlier_opening_lives() {
    let (_dir, disks) = disks();
    for disk in disks {
        let (mut old, model) = store(&disk);
        assert!(is_in_use(&disk));
        let (reader, snapshot) = (old.reader(), old.snapshot().unwrap());
        old.put(b"more", (&[1.0; DIMENSION]).into(), b"", Version::default()).unwrap();
        let job = old.begin_checkpoint(b"late").unwrap();
        drop(old);
        assert!(is_in_use(&disk));
        drop(snapshot);
        assert!(is_in_use(&disk));
        drop(job);
        assert!(is_in_use(&disk));
        let clone = reader.clone();
        drop(reader);
        assert!(is_in_use(&disk), "a reader");
        let other = Store::open(Arc::clone(&disk), "other", options()).unwrap();
        drop(clone);
        check(&open(&disk).unwrap(), &model, "opened again");
        drop(other);
    }
}

#[test]
fn a_crash_ends_what_was_open() {
    let disk = SimDisk::new();
    let (old, model) = store(&(Arc::new(disk.clone()) as Arc<dyn Disk>));
    let reader = old.reader();
    let disk: Arc<dyn Disk> = Arc::new(disk.crash(&mut || 0));
    let new = open(&disk).unwrap();
    check(&new, &model, "after the crash");
    drop((old, reader));
    assert!(is_in_use(&disk), "what is from before the crash gives nothing free");
}

#[test]
fn a_store_that_was_removed_while_it_is_read_makes_way_for_another() {
    let (_dir, disks) = disks();
    for disk in disks {
        let (old, model) = store(&disk);
        let (reader, snapshot) = (old.reader(), old.snapshot().unwrap());
        let digest = old.digest();
        // As when a node takes over a copy of the store: made beside it, then used in its place.
        let mut copy = Store::open(Arc::clone(&disk), "copy", options()).unwrap();
        drop(old);
        let walk = reader.snapshot();
        let mut records = walk.iter();
        let first = records.next().unwrap().unwrap();
        remove(&*disk, "s").unwrap();
        assert!(!disk.exists("s").unwrap());
        assert_eq!(model.records[first.id], first.to_record());
        assert_eq!(records.filter(Result::is_ok).count(), model.records.len() - 1);
        let next = snapshot.read(0, |record| {
            copy.put(record.id, record.vector.into(), record.payload, record.version).unwrap();
            true
        });
        assert_eq!(next, Ok(None));
        assert_eq!((copy.digest(), copy.len()), (digest, model.records.len() as u64));
        let scrub = reader.scrub();
        assert_eq!((scrub.bad, scrub.digest), (vec![], digest));
        // The old bytes are not those of a new store of the same name.
        let (new, _) = store(&disk);
        assert_eq!(new.len(), reader.len());
        for (id, record) in &model.records {
            assert_eq!(reader.get(id).unwrap().as_ref(), Some(record));
        }
    }
}

type Damage = dyn Fn(&SimDisk);

#[test]
fn what_is_refused_stays_as_it_is() {
    let damage: [(&str, &Damage); 7] = [
        ("vectors gone", &|disk| disk.remove("s/vectors").unwrap()),
        ("slots gone", &|disk| disk.remove("s/slots").unwrap()),
        ("heap gone", &|disk| disk.remove("s/heap").unwrap()),
        ("heap cut", &|disk| disk.open("s/heap", false).unwrap().truncate(7).unwrap()),
        ("index gone", &|disk| disk.remove("s/index-0000000000000001").unwrap()),
        ("bitmap damaged twice", &|disk| {
            [8192, 12_288]
                .map(|at| disk.flip_bit("s/index-0000000000000001", at, 3).unwrap())
                .into_iter()
                .collect()
        }),
        ("another dimension", &|_| {}),
    ];
    for (what, damage) in damage {
        let disk = SimDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        drop(store(&shared));
        damage(&disk);
        // What an opening that succeeds takes away.
        for remains in ["index-00000000000000ff", "manifest.tmp"] {
            disk.open(&format!("s/{remains}"), true).unwrap();
        }
        let (before, syncs) = (content(&disk), disk.syncs());
        let dimension = if what == "another dimension" { DIMENSION + 1 } else { DIMENSION };
        let mut asked = options();
        asked.dimension = dimension;
        let refused = Store::open(Arc::clone(&shared), "s", asked);
        assert!(refused.is_err(), "{what}");
        assert_eq!((content(&disk), disk.syncs()), (before, syncs), "{what}");
    }
}
