//! Space comes back: files do not grow with what was replaced and deleted, on both disks.

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use common::{DIMENSION, Model, Rng, check};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::{Compaction, Options, Record, Store, Version};

/// Sixty-four slots to 4096 bytes of vectors; 65,536 bytes of files to an extent of slots or vectors.
fn options() -> Options {
    let mut options = Options::new(DIMENSION);
    options.extent_bytes = 65_536;
    options
}

/// A disk, and how many bytes of it are in use.
struct World {
    disk: Arc<dyn Disk>,
    used: Box<dyn Fn() -> u64>,
}

fn worlds() -> (tempfile::TempDir, [World; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let real: Arc<dyn Disk> = Arc::new(RealDisk::open(dir.path()).unwrap());
    let sim = SimDisk::new();
    let root = dir.path().to_owned();
    let used = Box::new(move || blocks(&root));
    let real = World { disk: real, used };
    let handle = sim.clone();
    let sim = World { disk: Arc::new(sim), used: Box::new(move || handle.bytes_used()) };
    (dir, [real, sim])
}

/// The space that all files below a directory take on the file system.
fn blocks(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let bytes = |entry: std::fs::DirEntry| match entry.metadata().unwrap() {
        dir if dir.is_dir() => blocks(&entry.path()),
        file => file.blocks() * 512,
    };
    entries.map(bytes).sum()
}

fn put(store: &mut Store, model: &mut Model, rng: &mut Rng, n: u64, version: u64) {
    let id = format!("record {n}").into_bytes();
    let vector = rng.vector(DIMENSION);
    let payload = vec![version as u8; rng.below(1200) as usize];
    let version = Version([version, n, 0]);
    store.put(&id, (&vector).into(), &payload, version).unwrap();
    model.records.insert(id, Record { vector, payload, version });
}

/// Compacts to the end, and makes it durable.
fn settle(store: &mut Store) -> Compaction {
    let mut all = Compaction::default();
    for _ in 0..4 {
        loop {
            let done = store.compact(100_000).unwrap();
            all.records_moved += done.records_moved;
            all.bytes_returned += done.bytes_returned;
            if !done.has_more {
                break;
            }
        }
        store.checkpoint(b"").unwrap();
    }
    all
}

/// What the records take in a store that never held anything else.
fn live_size(model: &Model) -> u64 {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    for (id, record) in &model.records {
        store.put(id, (&record.vector).into(), &record.payload, record.version).unwrap();
    }
    store.checkpoint(b"").unwrap();
    disk.bytes_used()
}

#[test]
fn after_ten_times_its_size_in_writes_a_store_takes_less_than_half_more_than_its_records() {
    let (_dir, worlds) = worlds();
    for world in worlds {
        let records = 8000;
        let mut store = Store::open(Arc::clone(&world.disk), "s", options()).unwrap();
        let (mut model, mut rng) = (Model::default(), Rng(1));
        (0..records).for_each(|n| put(&mut store, &mut model, &mut rng, n, 0));
        let mut most = 0;
        for round in 1..=100 {
            for _ in 0..records / 10 {
                let n = rng.below(records);
                put(&mut store, &mut model, &mut rng, n, round);
            }
            // Twice as many bytes as were written, before each checkpoint.
            store.compact(records / 10 * 700 * 2).unwrap();
            store.checkpoint(b"").unwrap();
            most = most.max((world.used)());
        }
        check(&store, &model, "after the churn");
        let live = live_size(&model);
        println!("live {live}, at most {most}, at the end {}", (world.used)());
        assert!(most * 2 < live * 3, "{most} bytes for {live}");
        drop(store);
        let store = Store::open(Arc::clone(&world.disk), "s", options()).unwrap();
        check(&store, &model, "opened again");
        assert!((world.used)() * 2 < live * 3, "opening takes nothing back");
    }
}

#[test]
fn what_was_deleted_is_given_back_and_used_again() {
    let (_dir, worlds) = worlds();
    for world in worlds {
        let mut store = Store::open(Arc::clone(&world.disk), "s", options()).unwrap();
        let (mut model, mut rng) = (Model::default(), Rng(2));
        (0..30_000).for_each(|n| put(&mut store, &mut model, &mut rng, n, 0));
        store.checkpoint(b"").unwrap();
        let full = (world.used)();
        for n in (0..30_000).filter(|n| n % 10 > 0) {
            let id = format!("record {n}").into_bytes();
            store.delete(&id).unwrap();
            model.records.remove(&id);
        }
        store.checkpoint(b"").unwrap();
        let digest = store.digest();
        let done = settle(&mut store);
        assert!(done.records_moved > 0 && done.records_moved <= 3000, "{done:?}");
        assert_eq!(store.digest(), digest, "the records are the same");
        check(&store, &model, "compacted");
        let (less, live) = ((world.used)(), live_size(&model));
        assert!(less * 2 < live * 3, "{less} bytes for {live}, of {full}");
        assert!(full - less <= done.bytes_returned + 100_000, "{done:?} of {full}, now {less}");
        drop(store);
        let mut store = Store::open(Arc::clone(&world.disk), "s", options()).unwrap();
        check(&store, &model, "opened again");
        assert!((world.used)() <= less, "opening takes nothing back");
        let slots = store.slots_used();
        (0..30_000).filter(|n| n % 10 > 0).for_each(|n| put(&mut store, &mut model, &mut rng, n, 1));
        assert_eq!(store.slots_used(), slots, "extents that were given back come before new ones");
        store.checkpoint(b"").unwrap();
        assert!((world.used)() < full + full / 8);
        check(&store, &model, "full again");
        assert_eq!(settle(&mut store), Compaction::default(), "there is nothing to gain");
    }
}

#[test]
fn readers_and_snapshots_keep_what_they_show() {
    let (_dir, worlds) = worlds();
    for world in worlds {
        let mut store = Store::open(Arc::clone(&world.disk), "s", options()).unwrap();
        let (mut model, mut rng) = (Model::default(), Rng(3));
        (0..3000).for_each(|n| put(&mut store, &mut model, &mut rng, n, 0));
        store.checkpoint(b"").unwrap();
        let reader = store.reader();
        let (snapshot, before) = (store.snapshot().unwrap(), model.clone());
        for n in (0..3000).filter(|n| n % 7 > 0) {
            let id = format!("record {n}").into_bytes();
            store.delete(&id).unwrap();
            model.records.remove(&id);
        }
        let short = reader.snapshot();
        let shown = model.clone();
        settle(&mut store);
        (0..900).for_each(|n| put(&mut store, &mut model, &mut rng, n * 5, 1));
        settle(&mut store);
        let mut seen = Model { mark: before.mark.clone(), ..Model::default() };
        let end =
            snapshot.read(0, |record| seen.records.insert(record.id.to_vec(), record.to_record()).is_none());
        assert_eq!(end, Ok(None));
        assert!(seen == before, "the snapshot shows what there was");
        let seen =
            short.iter().map(|record| record.unwrap()).map(|r| (r.id.to_vec(), r.to_record())).collect();
        assert!(shown == Model { records: seen, ..shown.clone() }, "and so does a read under way");
        drop((short, snapshot));
        let done = settle(&mut store);
        assert!(done.bytes_returned > 0, "it was they that held it back: {done:?}");
        check(&store, &model, "compacted");
    }
}

#[test]
fn a_damaged_record_stays_where_it_is_and_holds_up_nothing_else() {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(4));
    (0..5000).for_each(|n| put(&mut store, &mut model, &mut rng, n, 0));
    store.checkpoint(b"").unwrap();
    drop(store);
    // The vector of record 30, which is in the first extent.
    disk.flip_bit("s/vectors", 30 * 64 + 3, 1).unwrap();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    for n in (0..5000).filter(|n| n % 10 > 0) {
        store.delete(format!("record {n}").as_bytes()).unwrap();
    }
    store.checkpoint(b"").unwrap();
    let full = disk.bytes_used();
    let done = settle(&mut store);
    assert!(done.records_moved > 300 && disk.bytes_used() < full / 2, "{done:?}, {full}");
    let reader = store.reader();
    assert!(reader.get(b"record 30").is_err());
    let scrub = reader.scrub();
    assert_eq!((scrub.records, scrub.bad.len(), scrub.bad[0].slot), (499, 1, Some(30)));
    assert_eq!(settle(&mut store).records_moved, 0, "it is not tried again and again");
}

#[test]
fn without_room_to_move_records_nothing_is_lost() {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(5));
    (0..6000).for_each(|n| put(&mut store, &mut model, &mut rng, n, 0));
    store.checkpoint(b"").unwrap();
    for n in (0..6000).filter(|n| n % 5 > 0) {
        let id = format!("record {n}").into_bytes();
        store.delete(&id).unwrap();
        model.records.remove(&id);
    }
    store.checkpoint(b"").unwrap();
    disk.set_capacity(Some(disk.bytes_used()));
    let full = store.compact(u64::MAX);
    assert!(matches!(full, Err(slowdb_storage::WriteError::NoSpace(_))), "{full:?}");
    check(&store, &model, "full");
    disk.set_capacity(None);
    store.checkpoint(b"").unwrap();
    settle(&mut store);
    check(&store, &model, "room again");
    let live = live_size(&model);
    assert!(disk.bytes_used() * 2 < live * 3, "{} bytes for {live}", disk.bytes_used());
}
