//! What the tests share: a random source, a model of a store, and their comparison.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part")]

pub(crate) mod chain;
pub(crate) mod faults;

use std::collections::BTreeMap;
use std::sync::Arc;

use slowdb_disk::Disk;
use slowdb_storage::{Metric, Options, Record, SearchQuery, Store, Version};

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.below(2001) as f32 / 1000.0 - 1.0).collect()
    }
}

/// What a store must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) records: BTreeMap<Vec<u8>, Record>,
    pub(crate) mark: Vec<u8>,
}

pub(crate) const DIMENSION: usize = 5;

pub(crate) fn options() -> Options {
    let mut options = Options::new(DIMENSION);
    // Sixteen slots an extent, so that there are many.
    options.extent_bytes = 4096;
    options.hash_seed = 7;
    options
}

pub(crate) fn open(disk: &Arc<dyn Disk>) -> Store {
    Store::open(Arc::clone(disk), "s", options()).unwrap()
}

/// A put of random things under one of `ids` ids, or a delete.
pub(crate) fn write(store: &mut Store, model: &mut Model, rng: &mut Rng, ids: u64) {
    let id = format!("id {}", rng.below(ids)).into_bytes();
    if rng.below(4) == 0 {
        let expected = model.records.remove(&id).map(|r| r.version);
        assert_eq!(store.delete(&id).unwrap(), expected);
        return;
    }
    let vector = rng.vector(DIMENSION);
    let payload = vec![rng.next() as u8; if rng.below(3) == 0 { rng.below(300) as usize } else { 0 }];
    let version = Version([rng.below(10), rng.next(), 0]);
    let replaced = if rng.below(2) == 0 {
        store.put(&id, (&vector).into(), &payload, version).unwrap()
    } else {
        // At an odd address.
        let bytes: Vec<u8> = [0].into_iter().chain(vector.iter().flat_map(|x| x.to_le_bytes())).collect();
        store.put(&id, slowdb_storage::VectorRef::LeBytes(&bytes[1..]), &payload, version).unwrap()
    };
    let before = model.records.insert(id, Record { vector, payload, version });
    assert_eq!(replaced, before.map(|r| r.version));
}

/// Compares everything that can be read.
pub(crate) fn check(store: &Store, model: &Model, context: &str) {
    let reader = store.reader();
    assert_eq!(reader.len(), model.records.len() as u64, "{context}: number of records");
    assert_eq!(store.mark(), model.mark, "{context}: mark");
    let mut found = BTreeMap::new();
    for record in reader.snapshot().iter() {
        let record = record.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert!(found.insert(record.id.to_vec(), record.to_record()).is_none(), "{context}: an id twice");
    }
    assert_eq!(found, model.records, "{context}: iterated");
    for (id, record) in &model.records {
        assert_eq!(reader.get(id).unwrap().as_ref(), Some(record), "{context}: get");
        assert_eq!(store.version(id).unwrap(), Some(record.version), "{context}: version");
    }
    for n in 0..40 {
        let id = format!("id {n}").into_bytes();
        assert_eq!(reader.get(&id).unwrap().as_ref(), model.records.get(&id), "{context}: get id {n}");
    }
    let scrub = reader.scrub();
    assert_eq!((scrub.bad, scrub.digest), (vec![], store.digest()), "{context}: digest");
    check_search(store, model, context);
}

fn check_search(store: &Store, model: &Model, context: &str) {
    let query: Vec<f32> = (0..DIMENSION).map(|n| n as f32 * 0.3 - 0.5).collect();
    let mut expected: Vec<(f32, Vec<u8>)> = model
        .records
        .iter()
        .map(|(id, r)| (r.vector.iter().zip(&query).map(|(a, b)| (a - b) * (a - b)).sum(), id.clone()))
        .collect();
    expected.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let hits = store.reader().search(&SearchQuery::new(&query, 4, Metric::L2)).unwrap();
    assert_eq!(hits[0].len(), expected.len().min(4), "{context}: hits");
    for (hit, (score, id)) in hits[0].iter().zip(&expected) {
        // Sums in another order may differ in the last bits, and swap ids that are equally near.
        assert!((hit.score - score).abs() < 1e-5, "{context}: {hit:?} where {score} {id:?} was expected");
        assert_eq!(model.records[&hit.id].version, hit.version, "{context}: version of a hit");
    }
}

/// Changes the body of both copies of the manifest, checksums and all.
pub(crate) fn change_manifest(disk: &slowdb_disk::SimDisk, change: impl FnOnce(&mut [u8])) {
    let file = disk.open("s/manifest", false).unwrap();
    let len = file.len().unwrap() / 2;
    let mut copy = vec![0; len as usize];
    file.read_at(&mut copy, 0).unwrap();
    let body_len = u64::from_le_bytes(copy[16..24].try_into().unwrap()) as usize;
    change(&mut copy[40..40 + body_len]);
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&copy[..24]);
    hasher.update(&copy[40..40 + body_len]);
    copy[24..40].copy_from_slice(&hasher.digest128().to_le_bytes());
    let copy = std::io::IoSlice::new(&copy);
    file.write_at(&[copy, copy], 0).unwrap();
}

/// Everything in the directory `s`, as far as it can be seen through the disk.
pub(crate) fn content(disk: &slowdb_disk::SimDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let file = disk.open(&format!("s/{name}"), false).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        (name, bytes)
    };
    disk.list("s").unwrap().into_iter().map(read).collect()
}
