//! Readers on other threads while the writer replaces, deletes and checkpoints, so that slots are reused all
//! the time. Nobody ever sees a half-written record, an old one again, or one id twice.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{DIMENSION, Rng, options};
use slowdb_disk::SimDisk;
use slowdb_storage::{Metric, Reader, RecordRef, SearchQuery, Store, Version};

const IDS: u64 = 20;

fn id(n: u64) -> Vec<u8> {
    format!("id {n}").into_bytes()
}

/// All components say which write of which id it was.
fn vector(n: u64, write: u64) -> [f32; DIMENSION] {
    [(n * 100_000 + write) as f32; DIMENSION]
}

fn check(n: u64, record: &RecordRef<'_>) -> u64 {
    let write = record.version.0[0];
    assert_eq!(record.id, id(n));
    assert_eq!(record.vector, vector(n, write), "torn or of another write");
    assert_eq!(record.payload, vec![write as u8; (write % 50) as usize]);
    write
}

fn read(reader: &Reader, seed: u64, stop: &AtomicBool) -> u64 {
    let mut rng = Rng(seed);
    let mut newest = vec![0; IDS as usize];
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        let n = rng.below(IDS);
        let write = reader.get_with(&id(n), |record| check(n, &record)).unwrap().expect("always there");
        assert!(write >= newest[n as usize], "id {n} went back from {} to {write}", newest[n as usize]);
        newest[n as usize] = write;
        if rounds % 8 != 0 {
            continue;
        }
        let snapshot = reader.snapshot();
        let mut seen = vec![false; IDS as usize];
        for record in snapshot.iter() {
            let record = record.unwrap();
            let n: u64 = std::str::from_utf8(&record.id[3..]).unwrap().parse().unwrap();
            check(n, &record);
            assert!(!std::mem::replace(&mut seen[n as usize], true), "id {n} twice in one snapshot");
        }
        assert!(seen.iter().all(|s| *s), "an id is missing in a snapshot: {seen:?}");
        let query = vector(n, newest[n as usize]);
        let first = snapshot.search(&SearchQuery::new(&query, IDS as usize, Metric::L2)).unwrap();
        assert_eq!(first[0].len(), IDS as usize);
        let again = snapshot.search(&SearchQuery::new(&query, IDS as usize, Metric::L2)).unwrap();
        assert_eq!(first, again, "a snapshot does not change");
    }
    rounds
}

#[test]
fn readers_see_whole_records_while_slots_are_reused() {
    let mut options = options();
    options.extent_bytes = 4096;
    let mut store = Store::open(Arc::new(SimDisk::new()), "s", options).unwrap();
    let put = |store: &mut Store, n: u64, write: u64| {
        let payload = vec![write as u8; (write % 50) as usize];
        store.put(&id(n), (&vector(n, write)).into(), &payload, Version([write, 0, 0])).unwrap();
    };
    (0..IDS).for_each(|n| put(&mut store, n, 1));
    let stop = AtomicBool::new(false);
    let rounds: u64 = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|seed| {
                let reader = store.reader();
                let stop = &stop;
                scope.spawn(move || read(&reader, seed, stop))
            })
            .collect();
        let mut rng = Rng(99);
        for write in 2..8_000 {
            put(&mut store, rng.below(IDS), write);
            if write % 100 == 0 {
                store.checkpoint(&[]).unwrap();
            }
            // On a machine with few cores, lets the readers in between.
            if write % 20 == 0 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|r| r.join().unwrap()).sum()
    });
    assert!(rounds > 0);
    let scrub = store.reader().scrub();
    assert_eq!((scrub.records, scrub.digest), (IDS, store.digest()));
    // What the readers held back is free now.
    let before = store.slots_used();
    for write in 8_000..8_000 + before {
        put(&mut store, write % IDS, write);
    }
    assert_eq!(store.slots_used(), before, "slots are reused");
}

#[test]
fn a_snapshot_keeps_what_it_shows() {
    let mut store = Store::open(Arc::new(SimDisk::new()), "s", options()).unwrap();
    (0..IDS).for_each(|n| {
        store.put(&id(n), (&vector(n, 1)).into(), b"\x01", Version([1, 0, 0])).unwrap();
    });
    let reader = store.reader();
    let snapshot = reader.snapshot();
    for write in 2..40 {
        (0..IDS / 2).for_each(|n| {
            store.put(&id(n), (&vector(n, write)).into(), b"", Version([write, 0, 0])).unwrap();
        });
        (IDS / 2..IDS).for_each(|n| {
            store.delete(&id(n)).unwrap();
        });
        store.checkpoint(b"").unwrap();
    }
    let mut seen: Vec<_> =
        snapshot.iter().map(|r| r.unwrap()).map(|r| (r.id.to_vec(), r.vector[0])).collect();
    seen.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let mut expected: Vec<_> = (0..IDS).map(|n| (id(n), vector(n, 1)[0])).collect();
    expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert_eq!(seen, expected);
    let before = store.slots_used();
    drop(snapshot);
    for write in 40..60 {
        store.put(&id(0), (&vector(0, write)).into(), b"", Version([write, 0, 0])).unwrap();
    }
    assert_eq!(store.slots_used(), before, "what the snapshot held back is used again");
}
