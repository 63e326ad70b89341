//! Removing a store: a crash on the way leaves the store, or remains of it, but never a damaged store.

mod common;

use std::io;
use std::sync::Arc;

use common::{DIMENSION, Model, Rng, check, options, write};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::{OpenError, Presence, Store, presence, remove};

fn open(disk: &SimDisk) -> Result<Store, OpenError> {
    Store::open(Arc::new(disk.clone()), "a/s", options())
}

/// A store with checkpoints, the last one given up, and writes after it. The model is of the last durable one.
fn store(disk: &SimDisk, rng: &mut Rng) -> Model {
    let mut store = open(disk).unwrap();
    let mut now = Model::default();
    for _ in 0..2 {
        (0..rng.below(40)).for_each(|_| write(&mut store, &mut now, rng, 30));
        now.mark = rng.next().to_le_bytes().to_vec();
        store.checkpoint(&now.mark).unwrap();
    }
    let durable = now.clone();
    (0..rng.below(40)).for_each(|_| write(&mut store, &mut now, rng, 30));
    if rng.below(2) == 0 {
        let job = store.begin_checkpoint(b"given up").unwrap();
        disk.fail_sync_in(0);
        assert!(job.run().is_err());
    }
    durable
}

fn crash(disk: &SimDisk, rng: &mut Rng) -> SimDisk {
    let mut loss = Rng(rng.next());
    disk.crash(&mut || loss.next())
}

/// Whether the removed store is there after all, in which case it is whole. It never comes back.
fn look(disk: &SimDisk, model: &Model, gone: &mut bool, context: &str) -> Presence {
    let found = presence(disk, "a/s").unwrap_or_else(|e| panic!("{context}: {e}"));
    if found == Presence::Store {
        assert!(!*gone, "{context}: it came back");
        check(&open(disk).unwrap(), model, context);
    }
    *gone |= found != Presence::Store;
    found
}

/// Removes a store, with crashes at sync `k` of each try. Says whether one struck.
fn sweep(seed: u64, k: u64) -> bool {
    let context = format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test removal (sync {k})");
    let mut rng = Rng(seed);
    let mut disk = SimDisk::new();
    let model = store(&disk, &mut rng);
    let (mut gone, mut struck) = (false, false);
    for _ in 0..3 {
        disk.crash_at_sync(disk.syncs() + k);
        let removed = remove(&disk, "a/s");
        assert_eq!(removed.is_err(), disk.is_down(), "{context}: {removed:?}");
        struck |= removed.is_err();
        disk = crash(&disk, &mut rng);
        let found = look(&disk, &model, &mut gone, &context);
        assert!(removed.is_err() || found == Presence::Absent && !disk.exists("a/s").unwrap(), "{context}");
    }
    // Whatever is left, a store can be created in its place, with crashes on the way too.
    if gone {
        for k in 0..rng.below(8) {
            disk.crash_at_sync(disk.syncs() + k);
            match open(&disk) {
                Ok(store) => check(&store, &Model::default(), &context),
                Err(e) => assert!(matches!(e, OpenError::Io(_)) && disk.is_down(), "{context}: {e}"),
            }
            disk = crash(&disk, &mut rng);
            presence(&disk, "a/s").unwrap_or_else(|e| panic!("{context}: {e}"));
        }
        check(&open(&disk).unwrap(), &Model::default(), &context);
    }
    remove(&disk, "a/s").unwrap();
    assert!(!crash(&disk, &mut rng).exists("a/s").unwrap(), "{context}");
    struck
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SLOWDB_SEED") {
        Ok(seed) => vec![seed.parse().expect("SLOWDB_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn a_crash_at_any_sync_leaves_the_store_or_remains() {
    for seed in seeds(200) {
        let mut k = 0;
        while sweep(seed, k) {
            k += 1;
        }
        assert_eq!(k, 3, "seed {seed}: the syncs of a removal");
    }
}

#[test]
fn a_failed_sync_is_made_good_by_the_next_try() {
    for seed in seeds(50) {
        for n in 0..3 {
            let context =
                format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test removal (failed {n})");
            let mut rng = Rng(seed);
            let disk = SimDisk::new();
            let model = store(&disk, &mut rng);
            disk.fail_sync_in(n);
            assert!(remove(&disk, "a/s").is_err(), "{context}");
            let mut gone = true;
            look(&disk, &model, &mut gone, &context);
            remove(&disk, "a/s").unwrap();
            let disk = crash(&disk, &mut rng);
            assert!(!disk.exists("a/s").unwrap(), "{context}");
        }
    }
}

#[test]
fn what_a_directory_holds_is_told_without_changing_it() {
    let sim = SimDisk::new();
    let dir = tempfile::tempdir().unwrap();
    let disks: [Arc<dyn Disk>; 2] = [Arc::new(sim), Arc::new(RealDisk::open(dir.path()).unwrap())];
    for disk in disks {
        let is = |expected: Presence| assert_eq!(presence(&*disk, "s").unwrap(), expected);
        is(Presence::Absent);
        assert!(!disk.exists("s").unwrap());
        remove(&*disk, "s").unwrap();
        disk.create_dir_all("s").unwrap();
        is(Presence::Absent);
        disk.open("s/manifest.tmp", true).unwrap();
        is(Presence::Absent);
        let open = || Store::open(Arc::clone(&disk), "s", options()).unwrap();
        let mut store = open();
        is(Presence::Store);
        store.put(b"a", (&[1.0; DIMENSION]).into(), b"", Default::default()).unwrap();
        store.checkpoint(b"").unwrap();
        drop(store);

        // A removal that was cut short.
        disk.rename("s/manifest", "s/manifest.removed").unwrap();
        is(Presence::Remains);
        assert!(open().is_empty(), "remains are not a store: a new one is created");
        is(Presence::Store);
        remove(&*disk, "s").unwrap();
        remove(&*disk, "s").unwrap();
        assert!(!disk.exists("s").unwrap());

        // A manifest that was lost is another matter.
        drop(open());
        disk.remove("s/manifest").unwrap();
        let damaged = presence(&*disk, "s").unwrap_err();
        assert!(matches!(&damaged, OpenError::ManifestMissing { dir, .. } if dir == "s"), "{damaged}");
        remove(&*disk, "s").unwrap();
        is(Presence::Absent);
    }
}

#[test]
fn a_removal_reaches_nothing_but_the_store() {
    let disk = SimDisk::new();
    let in_root = Store::open(Arc::new(disk.clone()), "", options()).unwrap();
    drop(in_root);
    assert_eq!(remove(&disk, "").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(presence(&disk, "").unwrap(), Presence::Store);
    assert!(remove(&disk, "../s").is_err() && presence(&disk, "../s").is_err());
    drop(open(&disk).unwrap());
    drop(Store::open(Arc::new(disk.clone()), "a/other", options()).unwrap());
    disk.create_dir_all("a/s/inside").unwrap();
    disk.open("a/s/inside/f", true).unwrap();
    assert!(remove(&disk, "a/s").is_err(), "directories are nothing of the store's");
    assert!(disk.exists("a/s/inside/f").unwrap());
    disk.remove_dir_all("a/s/inside").unwrap();
    remove(&disk, "a/s").unwrap();
    assert_eq!(disk.list("a").unwrap(), ["other"]);
    assert_eq!(presence(&disk, "a/other").unwrap(), Presence::Store);
}
