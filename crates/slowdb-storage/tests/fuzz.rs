//! Hostile bytes in the files of a closed store, checksums made right: opened and read, nothing panics, nothing takes
//! memory without bound, and what goes on working can be written to.

mod common;

use common::{DIMENSION, Rng, content, open, options};
use slowdb_disk::{Disk, SimDisk};
use slowdb_fuzz::Target;
use slowdb_storage::{Metric, SearchQuery, Store, Version};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

const HEAD_BYTES: usize = 40;
const PAGE_BYTES: usize = 4096;
const SLOT_BYTES: usize = 64;
/// Whatever is in the files, a store takes no more beside them, and what is mapped of them.
const MEMORY: usize = 64 << 20;

/// The files of a store with some records, some slots used twice.
fn files(records: u64) -> BTreeMap<String, Vec<u8>> {
    stored(records, &[])
}

/// Likewise; then so many puts for each further checkpoint.
fn stored(records: u64, further: &[u64]) -> BTreeMap<String, Vec<u8>> {
    let disk = SimDisk::new();
    let seam: Arc<dyn Disk> = Arc::new(disk.clone());
    let (mut store, mut rng) = (open(&seam), Rng(3));
    let all = [records, records];
    for (round, count) in (0..).zip(all.iter().chain(further)) {
        for n in 0..*count {
            let payload = vec![n as u8; n as usize % 7 * 3];
            let vector = rng.vector(DIMENSION);
            let id = format!("id {n}");
            store.put(id.as_bytes(), (&vector).into(), &payload, Version([round, n, 1])).unwrap();
        }
        store.checkpoint(b"some mark").unwrap();
    }
    drop(store);
    content(&disk)
}

fn disk_of(files: &BTreeMap<String, Vec<u8>>) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all("s").unwrap();
    for (name, bytes) in files {
        let file = disk.open(&format!("s/{name}"), true).unwrap();
        file.allocate(0, bytes.len() as u64).unwrap();
        file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
    }
    disk
}

/// Whether the store opens. Then all of it is read, written to, checkpointed, and opened once more.
fn opens(files: &BTreeMap<String, Vec<u8>>) -> bool {
    let disk: Arc<dyn Disk> = Arc::new(disk_of(files));
    let Ok(mut store) = Store::open(Arc::clone(&disk), "s", options()) else { return false };
    let reader = store.reader();
    for n in 0..10 {
        let _ = reader.get(format!("id {n}").as_bytes());
    }
    reader.snapshot().iter().take(1_000).for_each(|record| drop(record.map(|record| record.to_record())));
    let query = [0.5; DIMENSION];
    let _ = reader.search(&SearchQuery::new(&query, 3, Metric::Cosine));
    reader.scrub();
    drop(reader);
    let written = store.put(b"after", (&query).into(), b"payload", Version([9, 9, 9]));
    let _ = (store.delete(b"id 1"), store.compact(1 << 20));
    if written.is_ok() && store.checkpoint(b"later").is_ok() {
        drop(store);
        let store = Store::open(disk, "s", options()).expect("just written");
        assert_eq!(store.mark(), b"later");
        assert_eq!(store.reader().get(b"after").unwrap().expect("just written").vector, query);
    }
    true
}

/// A manifest with this body, checksums and all.
fn manifest(body: &[u8]) -> Vec<u8> {
    let mut copy = b"SLOWDBMF\x03\0\0\0\0\0\0\0".to_vec();
    copy.extend_from_slice(&(body.len() as u64).to_le_bytes());
    let mut hasher = Xxh3::new();
    hasher.update(&copy);
    hasher.update(body);
    copy.extend_from_slice(&hasher.digest128().to_le_bytes());
    copy.extend_from_slice(body);
    copy.resize(copy.len().next_multiple_of(PAGE_BYTES), 0);
    copy.repeat(2)
}

#[test]
fn fuzz_manifest() {
    let store = files(7);
    let body = |manifest: &[u8]| {
        let len = u64::from_le_bytes(manifest[16..24].try_into().unwrap()) as usize;
        manifest[HEAD_BYTES..HEAD_BYTES + len].to_vec()
    };
    assert_eq!(manifest(&body(&store["manifest"])), store["manifest"], "as it is documented");
    let corpus = [body(&store["manifest"])];
    Target::new("fuzz_manifest", corpus).cases(1_000).memory(MEMORY, 16).run(|body| {
        let mut files = store.clone();
        files.insert("manifest".to_owned(), manifest(body));
        opens(&files)
    });
}

/// As it lies on the disk, two copies and heads, so that lengths are hostile as well.
#[test]
fn fuzz_manifest_file() {
    let store = files(7);
    let target = Target::new("fuzz_manifest_file", [store["manifest"].clone()]);
    target.cases(500).memory(MEMORY, 16).run(|bytes| {
        let mut files = store.clone();
        files.insert("manifest".to_owned(), bytes.to_vec());
        opens(&files)
    });
}

/// Of one file with this beginning of its name.
fn damage_in(target: &'static str, name: &str, reseal: impl Fn(&mut Vec<u8>)) {
    damage_in_file(target, files(7), name, reseal);
}

fn damage_in_file(
    target: &'static str,
    store: BTreeMap<String, Vec<u8>>,
    name: &str,
    reseal: impl Fn(&mut Vec<u8>),
) {
    let name = store.keys().rfind(|key| key.starts_with(name)).expect("it is there").clone();
    // What is used of it is at its beginning.
    let used = store[&name].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (used, rest) = store[&name].split_at(used);
    let corpus = [used.to_vec(), store[&name].clone()];
    Target::new(target, corpus).cases(500).memory(MEMORY, 16).reseal(reseal).run(|bytes| {
        let mut files = store.clone();
        let len = used.len() + rest.len();
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().max(len), 0);
        files.insert(name.clone(), bytes);
        opens(&files)
    });
}

#[test]
fn fuzz_slots() {
    damage_in("fuzz_slots", "slots", |bytes| {
        for (slot, meta) in (0..).zip(bytes.as_chunks_mut::<SLOT_BYTES>().0) {
            let check = xxh3_64_with_seed(&meta[..56], slot);
            meta[56..].copy_from_slice(&check.to_le_bytes());
        }
    });
}

/// The newest index file.
fn damage_in_index(target: &'static str, store: BTreeMap<String, Vec<u8>>, files: usize) {
    let names: Vec<&String> = store.keys().filter(|name| name.starts_with("index-")).collect();
    assert_eq!(names.len(), files);
    let newest = names[files - 1]["index-".len()..].to_owned();
    let number = u64::from_str_radix(&newest, 16).expect("its number");
    damage_in_file(target, store, "index-", |bytes| {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        for (page, bytes) in (0..).zip(bytes.as_chunks_mut::<PAGE_BYTES>().0) {
            let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page);
            let check = xxh3_64_with_seed(&bytes[8..], seed);
            bytes[..8].copy_from_slice(&check.to_le_bytes());
        }
    });
}

#[test]
fn fuzz_index() {
    damage_in_index("fuzz_index", files(7), 1);
}

#[test]
fn fuzz_index_delta() {
    damage_in_index("fuzz_index_delta", stored(60, &[5, 1]), 3);
}

#[test]
fn fuzz_heap() {
    damage_in("fuzz_heap", "heap", |_| {});
}

#[test]
fn fuzz_vectors() {
    damage_in("fuzz_vectors", "vectors", |_| {});
}
