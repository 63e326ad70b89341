//! What two stores do not have in common is found by the digests of ranges of ids.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{Model, Rng, open, write};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{Digest, RANGES, Store, Version, range_of};

fn store() -> Store {
    open(&(Arc::new(SimDisk::new()) as Arc<dyn Disk>))
}

/// Id, version and hash of every record in some ranges.
fn hashes(store: &Store, wanted: &BTreeSet<usize>) -> BTreeMap<Vec<u8>, (Version, u128)> {
    let reader = store.reader();
    let snapshot = reader.snapshot();
    let records = snapshot.record_hashes(|range| wanted.contains(&range));
    records
        .map(|record| {
            let record = record.expect("nothing is damaged");
            assert!(wanted.contains(&range_of(record.id)));
            (record.id.to_vec(), (record.version, record.hash))
        })
        .collect()
}

fn differing(one: &Store, other: &Store) -> BTreeSet<usize> {
    let digests = |store: &Store| store.reader().snapshot().range_digests().expect("nothing is damaged");
    let (one, other) = (digests(one), digests(other));
    (0..RANGES).filter(|range| one[*range] != other[*range]).collect()
}

#[test]
fn ranges_add_up_to_the_store_after_any_writes() {
    for seed in 0..20 {
        let (mut store, mut model, mut rng) = (store(), Model::default(), Rng(seed));
        for _ in 0..300 {
            write(&mut store, &mut model, &mut rng, 40);
        }
        let ranges = store.reader().snapshot().range_digests().expect("nothing is damaged");
        let sum = ranges.iter().fold(0_u128, |sum, range| sum.wrapping_add(range.digest.0));
        assert_eq!(Digest(sum), store.digest(), "seed {seed}");
        assert_eq!(ranges.iter().map(|range| range.records).sum::<u64>(), store.len(), "seed {seed}");
        for (n, range) in ranges.iter().enumerate() {
            let of_range = hashes(&store, &BTreeSet::from([n]));
            let sum = of_range.values().fold(0_u128, |sum, (_, hash)| sum.wrapping_add(*hash));
            assert_eq!((Digest(sum), of_range.len() as u64), (range.digest, range.records), "seed {seed}");
        }
        let all = hashes(&store, &(0..RANGES).collect());
        assert!(all.keys().eq(model.records.keys()), "seed {seed}");
    }
}

#[test]
fn two_stores_find_the_records_that_differ_and_no_others() {
    let (mut one, mut other) = (store(), store());
    let put = |store: &mut Store, n: u32, vector: f32| {
        let id = format!("record-{n}");
        store
            .put(id.as_bytes(), (&vec![vector; common::DIMENSION]).into(), b"p", Version([1, 2, 3]))
            .unwrap();
    };
    // In another order, so in other slots.
    (0..5_000).for_each(|n| put(&mut one, n, n as f32));
    (0..5_000).rev().for_each(|n| put(&mut other, n, n as f32));
    assert_eq!(differing(&one, &other), BTreeSet::new());
    put(&mut other, 77, 0.5);
    put(&mut one, 5_000, 0.5);
    other.delete(b"record-4999").unwrap();
    let ranges = differing(&one, &other);
    let (ones, others) = (hashes(&one, &ranges), hashes(&other, &ranges));
    assert!(ones.len() < 30, "{} records in {} ranges", ones.len(), ranges.len());
    let ids: BTreeSet<&Vec<u8>> = ones.keys().chain(others.keys()).collect();
    let found: Vec<&[u8]> =
        ids.into_iter().filter(|id| ones.get(*id) != others.get(*id)).map(|id| &id[..]).collect();
    assert_eq!(found, [&b"record-4999"[..], b"record-5000", b"record-77"]);
}

#[test]
fn ranges_of_ids_are_the_same_for_ever() {
    assert_eq!([&b"a"[..], b"b", b"record-77", &[0; 512]].map(range_of), [3194, 3680, 3214, 3443]);
}
