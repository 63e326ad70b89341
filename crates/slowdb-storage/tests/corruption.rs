//! Flipped bits: in every byte of every file of a closed store. Each is found, or does no harm.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use common::{DIMENSION, Rng, options};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{
    CheckpointError, Corruption, Hit, Metric, OpenError, ReadError, Record, SearchQuery, Store, Version,
    WriteError,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

struct Closed {
    disk: SimDisk,
    records: BTreeMap<Vec<u8>, Record>,
    hits: Vec<Vec<Hit>>,
    digest: slowdb_storage::Digest,
}

const QUERY: [f32; DIMENSION] = [0.1, 0.2, 0.3, 0.4, 0.5];

/// A small store with two checkpoints behind it, some slots reused.
fn closed() -> Closed {
    let disk = SimDisk::new();
    let mut rng = Rng(3);
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let mut records = BTreeMap::new();
    for round in 0..3u64 {
        for n in 0..7u64 {
            let id = format!("id {n}").into_bytes();
            let vector = rng.vector(DIMENSION);
            let (payload, version) = (vec![n as u8; n as usize * 3], Version([round, n, 1]));
            store.put(&id, (&vector).into(), &payload, version).unwrap();
            records.insert(id, Record { vector, payload, version });
        }
        store.delete(format!("id {round}").as_bytes()).unwrap();
        records.remove(format!("id {round}").as_bytes());
        store.checkpoint(b"some mark").unwrap();
    }
    let hits = store.reader().search(&SearchQuery::new(&QUERY, 3, Metric::Cosine)).unwrap();
    let digest = store.digest();
    Closed { disk, records, hits, digest }
}

impl Closed {
    fn open(&self) -> Result<Store, OpenError> {
        Store::open(Arc::new(self.disk.clone()), "s", options())
    }

    /// Opens the damaged store and reads everything. What is not an error is right. Says what was found.
    fn read(&self, context: &str) -> Vec<Corruption> {
        match self.open() {
            Ok(store) => self.read_all(&store, context),
            Err(OpenError::Corrupt(corruption)) => vec![corruption],
            Err(e) => panic!("{context}: {e}"),
        }
    }

    fn read_all(&self, store: &Store, context: &str) -> Vec<Corruption> {
        assert_eq!(store.mark(), b"some mark", "{context}");
        assert_eq!((store.digest(), store.len()), (self.digest, self.records.len() as u64), "{context}");
        let reader = store.reader();
        let mut bad_records = BTreeSet::new();
        let mut unread = 0;
        for n in 0..7u64 {
            let id = format!("id {n}").into_bytes();
            match reader.get(&id) {
                Ok(record) => assert_eq!(record.as_ref(), self.records.get(&id), "{context}: get"),
                Err(ReadError::Corrupt(corruption)) => {
                    unread += 1;
                    bad_records.insert(corruption.slot);
                }
                Err(e) => panic!("{context}: {e}"),
            }
        }
        for record in reader.snapshot().iter() {
            match record {
                Ok(r) => assert_eq!(Some(&r.to_record()), self.records.get(r.id), "{context}: iterated"),
                Err(ReadError::Corrupt(corruption)) => {
                    bad_records.insert(corruption.slot);
                }
                Err(e) => panic!("{context}: {e}"),
            }
        }
        match reader.search(&SearchQuery::new(&QUERY, 3, Metric::Cosine)) {
            Ok(hits) => assert_eq!(hits, self.hits, "{context}: search"),
            Err(_) => assert!(!bad_records.is_empty(), "{context}: search"),
        }
        let scrub = reader.scrub();
        let found: BTreeSet<_> = scrub.bad.iter().filter_map(|bad| bad.slot).map(Some).collect();
        assert_eq!(found, bad_records, "{context}: the scrub says {:?}", scrub.bad);
        assert_eq!(scrub.digest == self.digest, found.is_empty(), "{context}");
        // All others were read and compared. An id that is not there cannot be told from a damaged one that
        // has its fingerprint, so no more than that one.
        assert!(found.len() <= 1 && unread <= 1, "{context}: {found:?}, {unread} ids could not be read");
        let mut bad = store.damage_at_open().to_vec();
        bad.extend(scrub.bad);
        bad.dedup();
        bad
    }
}

#[test]
fn a_record_whose_vector_is_damaged_is_replaced_or_deleted_as_if_it_were_not() {
    let closed = closed();
    let slots = closed.open().unwrap().slots_used();
    for slot in 0..slots {
        closed.disk.flip_bit("s/vectors", slot / 16 * 65_536 + slot % 16 * 64 + 1, 3).unwrap();
    }
    let mut store = closed.open().unwrap();
    let mut left = BTreeMap::new();
    for (n, (id, record)) in closed.records.iter().enumerate() {
        assert!(matches!(store.reader().get(id), Err(ReadError::Corrupt(_))));
        assert_eq!(store.version(id).unwrap(), Some(record.version));
        if n % 2 == 0 {
            assert_eq!(store.delete(id).unwrap(), Some(record.version));
        } else {
            let Record { vector, payload, version } = record;
            assert_eq!(store.put(id, vector.into(), payload, *version).unwrap(), Some(*version));
            left.insert(id, record);
        }
    }
    let scrub = store.reader().scrub();
    assert_eq!((scrub.digest, scrub.records, scrub.bad.len()), (store.digest(), left.len() as u64, 0));
    for (id, record) in left {
        assert_eq!(store.reader().get(id).unwrap().as_ref(), Some(record));
    }
}

#[test]
fn a_record_whose_id_was_damaged_after_it_was_read_does_not_pass_for_a_missing_one() {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    store.put(b"id", (&QUERY).into(), b"payload", Version::default()).unwrap();
    assert!(store.reader().get(b"id").unwrap().is_some());
    disk.flip_bit("s/heap", 0, 1).unwrap();
    let digest = store.digest();
    assert!(matches!(store.reader().get(b"id"), Err(ReadError::Corrupt(_))));
    let put = store.put(b"id", (&QUERY).into(), b"", Version::default());
    assert!(matches!(put, Err(WriteError::Corrupt(_))), "{put:?}");
    assert!(matches!(store.delete(b"id"), Err(WriteError::Corrupt(_))));
    assert_eq!((store.len(), store.digest()), (1, digest));
}

#[test]
fn every_flipped_byte_is_named_or_harmless_and_costs_one_record_at_most() {
    let closed = closed();
    assert_eq!(closed.read("intact"), []);
    let mut harmful = BTreeMap::new();
    let mut rng = Rng(11);
    for name in closed.disk.list("s").unwrap() {
        let path = format!("s/{name}");
        let len = closed.disk.open(&path, false).unwrap().len().unwrap();
        let kind = name.split('-').next().unwrap_or_default();
        for offset in 0..len {
            // Of the long rest of the data files, which no record uses, a sample.
            if offset > 4096 && ["heap", "slots", "vectors"].contains(&kind) && !offset.is_multiple_of(509) {
                continue;
            }
            let bit = rng.below(8) as u8;
            let context = format!("{path} byte {offset} bit {bit}");
            closed.disk.flip_bit(&path, offset, bit).unwrap();
            // Whatever it is, the store opens.
            let store = closed.open().unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = closed.read_all(&store, &context);
            drop(store);
            closed.disk.flip_bit(&path, offset, bit).unwrap();
            for corruption in &found {
                let (file, at) = (corruption.file.as_str(), corruption.offset);
                match kind {
                    // Which of the bytes of a record is wrong a hash cannot tell: it is named by its slot.
                    "heap" | "vectors" | "slots" => {
                        let slot = corruption.slot.unwrap_or_else(|| panic!("{context}: {corruption}"));
                        let expected = if file == "s/slots" { "s/slots" } else { "s/vectors" };
                        assert_eq!((file, at), (expected, u64::from(slot) * 64), "{context}: {corruption}");
                    }
                    _ => assert_eq!((file, at), (path.as_str(), offset / 4096 * 4096), "{context}"),
                }
            }
            *harmful.entry(kind.to_owned()).or_insert(0) += usize::from(!found.is_empty());
        }
    }
    assert_eq!(closed.read("repaired"), []);
    let records = closed.records.len();
    // Every byte of manifest and index counts, and those of live records.
    assert_eq!(harmful["manifest"], 2 * 4096);
    assert_eq!(harmful["index"], 4 * 4096);
    assert_eq!(harmful["slots"], records * 64);
    assert_eq!(harmful["vectors"], records * 64);
    let heap: usize = closed.records.iter().map(|(id, r)| id.len() + r.payload.len()).sum();
    assert_eq!(harmful["heap"], heap);
}

#[test]
fn the_next_checkpoint_repairs_what_was_there_twice_and_the_table() {
    let name =
        |disk: &SimDisk| disk.list("s").unwrap().into_iter().find(|n| n.starts_with("index-")).unwrap();
    // The manifest's copies, then head, table, and bitmaps of the index.
    let places = [("manifest", 30), ("manifest", 4196), ("", 9), ("", 4196), ("", 8200), ("", 12_300)];
    for (file, offset) in places {
        let closed = closed();
        let file = if file.is_empty() { name(&closed.disk) } else { file.into() };
        closed.disk.flip_bit(&format!("s/{file}"), offset, 5).unwrap();
        assert_eq!(closed.read("damaged").len(), 1, "{file} {offset}");
        let mut store = closed.open().unwrap();
        let (id, record) = closed.records.iter().next().unwrap();
        let (vector, payload) = (record.vector.as_slice(), record.payload.as_slice());
        store.put(id, vector.into(), payload, record.version).unwrap();
        store.checkpoint(b"some mark").unwrap();
        drop(store);
        assert_eq!(closed.read("repaired"), [], "{file} {offset}");
    }
}

#[test]
fn what_is_damaged_in_both_copies_is_refused_by_name() {
    for (page, what) in [(2, "checksum does not fit"), (0, "checksum does not fit")] {
        let closed = closed();
        let index = closed.disk.list("s").unwrap().into_iter().find(|n| n.starts_with("index-")).unwrap();
        let (file, copies) = if page == 0 { ("manifest".into(), [0, 4096]) } else { (index, [8192, 12_288]) };
        for offset in copies {
            closed.disk.flip_bit(&format!("s/{file}"), offset + 24, 0).unwrap();
        }
        let refused = closed.open().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains(&format!("s/{file}")) && refused.contains(what), "{refused}");
    }
}

#[test]
fn cut_files_and_missing_files_are_refused() {
    for (name, len) in [("manifest", 10), ("manifest", 0), ("vectors", 100), ("slots", 0), ("heap", 5000)] {
        let closed = closed();
        closed.disk.open(&format!("s/{name}"), false).unwrap().truncate(len).unwrap();
        assert!(!closed.read(name).is_empty(), "{name} cut to {len}");
    }
    let closed = closed();
    closed.disk.remove("s/manifest").unwrap();
    let opened = Store::open(Arc::new(closed.disk.clone()), "s", options());
    assert!(matches!(opened, Err(OpenError::ManifestMissing { .. })));
}

#[test]
fn a_record_whose_slot_is_damaged_is_not_overwritten_unseen() {
    let closed = closed();
    let (id, _) = closed.records.iter().next().unwrap();
    // The version of every record in the first extent: what the digest is to be without, and where its bytes are, is not
    // to be trusted either.
    for slot in 0..16 {
        closed.disk.flip_bit("s/slots", slot * 64, 0).unwrap();
    }
    let mut store = Store::open(Arc::new(closed.disk.clone()), "s", options()).unwrap();
    let put = store.put(id, (&QUERY).into(), b"", Version::default());
    assert!(matches!(put, Err(WriteError::Corrupt(_))), "{put:?}");
    assert!(store.version(id).is_err() && store.delete(id).is_err());
    assert_eq!(store.digest(), closed.digest);
}

const PAGE: usize = 4096;

/// Changes the words of a page of the index, checksum and all.
fn change_index(disk: &SimDisk, page: usize, change: impl FnOnce(&mut [u64])) {
    let name = disk.list("s").unwrap().into_iter().find(|name| name.starts_with("index-")).unwrap();
    let number = u64::from_str_radix(&name[6..], 16).unwrap();
    let file = disk.open(&format!("s/{name}"), false).unwrap();
    let mut bytes = [0; PAGE];
    file.read_at(&mut bytes, (page * PAGE) as u64).unwrap();
    let words = bytes[8..].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let mut words: Vec<u64> = words.collect();
    change(&mut words);
    let body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(page as u64);
    let sum = xxh3_64_with_seed(&body, seed).to_le_bytes();
    file.write_at(&[IoSlice::new(&sum), IoSlice::new(&body)], (page * PAGE) as u64).unwrap();
}

#[test]
fn a_bitmap_that_does_not_fit_the_manifest_is_refused() {
    let changes: [fn(&mut [u64]); 4] = [
        |words| words[0] &= words[0] - 1,
        |words| words[0] |= 1 << 40,
        |words| words[1] |= 1,
        // As many as the manifest says, but one of them is beyond the slots there are.
        |words| words[0] = words[0] & (words[0] - 1) | 1 << 63,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let closed = closed();
        change_index(&closed.disk, 2, change);
        let found = closed.read("bitmap");
        assert!(found.len() == 1 && found[0].what.contains("copies of the bitmap differ"), "{n}: {found:?}");
        change_index(&closed.disk, 3, change);
        let found = closed.read("bitmap");
        assert!(found.len() == 1 && found[0].what.contains("the bitmap does not fit"), "{n}: {found:?}");
    }
}

type Change = fn(&mut [u64]);

/// The first place that is not empty.
fn entry(words: &[u64]) -> usize {
    words.iter().position(|word| *word != 0).unwrap()
}

#[test]
fn an_index_that_does_not_lead_to_each_record_once_is_found_by_scrub_and_checkpoint() {
    let changes: [(&str, Change); 3] = [
        ("one is missing", |words| words[entry(words)] = 0),
        ("one twice", |words| {
            let (first, free) = (entry(words), words.iter().position(|word| *word == 0).unwrap());
            words[free] = words[first];
        }),
        ("one instead of another", |words| {
            let first = entry(words);
            let second = first + 1 + entry(&words[first + 1..]);
            words[second] = words[first];
        }),
    ];
    for (what, change) in changes {
        let closed = closed();
        change_index(&closed.disk, 1, change);
        let mut store = Store::open(Arc::new(closed.disk.clone()), "s", options()).unwrap();
        let scrub = store.reader().scrub();
        assert_eq!((scrub.bad.len(), scrub.digest), (1, closed.digest), "{what}");
        assert!(scrub.bad[0].to_string().contains("entries do not fit"), "{what}: {}", scrub.bad[0]);
        store.put(b"new", (&QUERY).into(), b"", Version::default()).unwrap();
        let failed = store.checkpoint(b"");
        assert!(
            matches!(&failed, Err(CheckpointError::Corrupt(found)) if *found == scrub.bad[0]),
            "{what}: {failed:?}"
        );
        assert_eq!(store.mark(), b"some mark");
    }
}

#[test]
fn a_scrub_reads_every_page_of_the_index() {
    let closed = closed();
    let store = Store::open(Arc::new(closed.disk.clone()), "s", options()).unwrap();
    let name = closed.disk.list("s").unwrap().into_iter().find(|name| name.starts_with("index-")).unwrap();
    let path = format!("s/{name}");
    let len = closed.disk.open(&path, false).unwrap().len().unwrap();
    assert_eq!(len, 4 * PAGE as u64);
    for page in 0..4 {
        closed.disk.flip_bit(&path, page * PAGE as u64 + 1000, 1).unwrap();
        let bad = store.reader().scrub().bad;
        assert!(bad.len() == 1 && bad[0].offset == page * PAGE as u64 && bad[0].file == path, "{bad:?}");
        closed.disk.flip_bit(&path, page * PAGE as u64 + 1000, 1).unwrap();
    }
    assert_eq!(store.reader().scrub().bad, []);
}

#[test]
fn a_slot_that_leads_to_the_same_bytes_elsewhere_is_damaged() {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    for n in 0..2 {
        store.put(b"a", (&QUERY).into(), b"p", Version([n, 0, 0])).unwrap();
    }
    store.checkpoint(b"").unwrap();
    drop(store);
    // Slot 1 holds the record, whose id and payload are at 2 in the heap; what is at 0 was that of the first put.
    disk.flip_bit("s/slots", 64 + 40, 1).unwrap();
    let mut store = Store::open(Arc::new(disk), "s", options()).unwrap();
    let found = store.reader().scrub().bad;
    assert!(found.len() == 1 && found[0].what.contains("checksum") && found[0].slot == Some(1), "{found:?}");
    assert!(store.reader().get(b"a").is_err() && store.delete(b"a").is_err());
}
