//! Flipped bits: in every byte of every file of a closed store. Each is found, or does no harm.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use common::chain::{IndexFile, PAGE, chain, index_name};
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
    /// All that there ever were.
    ids: BTreeSet<Vec<u8>>,
    hits: Vec<Vec<Hit>>,
    digest: slowdb_storage::Digest,
}

const QUERY: [f32; DIMENSION] = [0.1, 0.2, 0.3, 0.4, 0.5];

/// A small store with two checkpoints behind it, some slots reused.
fn closed() -> Closed {
    closed_after(&[7, 7, 7])
}

/// One whose index is a base and two deltas above it, the lower with entries for slots that the upper put other records
/// into.
fn closed_with_deltas() -> Closed {
    let closed = closed_after(&[60, 8, 1]);
    let chain = chain(&closed.disk);
    assert!(
        chain.len() == 3 && chain[0].puts.iter().any(|slot| chain[2].entries.contains(slot)),
        "{chain:?}"
    );
    closed
}

/// With a checkpoint after so many puts each, and the delete of one record that was there.
fn closed_after(rounds: &[u64]) -> Closed {
    let disk = SimDisk::new();
    let mut rng = Rng(3);
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let (mut records, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for (round, puts) in (0..).zip(rounds) {
        for n in 0..*puts {
            let id = format!("id {n}").into_bytes();
            let vector = rng.vector(DIMENSION);
            let (payload, version) = (vec![n as u8; n as usize * 3], Version([round, n, 1]));
            store.put(&id, (&vector).into(), &payload, version).unwrap();
            records.insert(id.clone(), Record { vector, payload, version });
            ids.insert(id);
        }
        store.delete(format!("id {round}").as_bytes()).unwrap();
        records.remove(format!("id {round}").as_bytes());
        store.checkpoint(b"some mark").unwrap();
    }
    let hits = store.reader().search(&SearchQuery::new(&QUERY, 3, Metric::Cosine)).unwrap();
    let digest = store.digest();
    Closed { disk, records, ids, hits, digest }
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
        for id in &self.ids {
            match reader.get(id) {
                Ok(record) => assert_eq!(record.as_ref(), self.records.get(id), "{context}: get"),
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
    flip_each_byte(&closed());
}

#[test]
fn every_flipped_byte_of_a_store_with_deltas_is_named_or_harmless_and_costs_one_record_at_most() {
    flip_each_byte(&closed_with_deltas());
}

fn flip_each_byte(closed: &Closed) {
    assert_eq!(closed.read("intact"), []);
    let mut harmful = BTreeMap::new();
    let (mut rng, mut index_bytes) = (Rng(11), 0);
    for name in closed.disk.list("s").unwrap() {
        let path = format!("s/{name}");
        let len = closed.disk.open(&path, false).unwrap().len().unwrap();
        let kind = name.split('-').next().unwrap_or_default();
        index_bytes += if kind == "index" { len as usize } else { 0 };
        for offset in 0..len {
            // Of the long rest of the data files, which no record uses, a sample.
            let rest = if kind == "heap" { 8192 } else { 4096 };
            let in_data = ["heap", "slots", "vectors"].contains(&kind);
            if in_data && offset % 65_536 > rest && !offset.is_multiple_of(509) {
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
                        let place = u64::from(slot) / 64 * 65_536 + u64::from(slot) % 64 * 64;
                        assert_eq!((file, at), (expected, place), "{context}: {corruption}");
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
    assert_eq!(harmful["index"], index_bytes);
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

/// Changes the words of a page of the only index file, checksum and all.
fn change_index(disk: &SimDisk, page: usize, change: impl FnOnce(&mut [u64])) {
    change_file(disk, chain(disk)[0].number, page, change);
}

fn change_file(disk: &SimDisk, number: u64, page: usize, change: impl FnOnce(&mut [u64])) {
    let name = index_name(number);
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
        assert!(found.len() == 1 && found[0].what.contains("the copies differ"), "{n}: {found:?}");
        change_index(&closed.disk, 3, change);
        let found = closed.read("bitmap");
        let what = ["not as many as the manifest says", "slots that do not exist"];
        assert!(found.len() == 1 && what.iter().any(|w| found[0].what.contains(w)), "{n}: {found:?}");
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
fn lists_and_heads_of_deltas_that_fit_nothing_are_refused() {
    // Of a delta with two puts or more: words of the head, then of the list.
    let changes: [(&str, bool, Change); 11] = [
        ("the head does not fit", true, |words| words[2] += 1),
        ("its length does not fit", true, |words| words[3] += 1),
        ("its length does not fit", true, |words| words[3] = u64::MAX),
        ("the head does not fit", true, |words| words[4] += 1),
        ("the head does not fit", true, |words| words[5] = words[2]),
        ("the head does not fit", true, |words| words[6] = u64::MAX),
        ("the head does not fit", true, |words| words[7] = u64::MAX),
        ("the head does not fit", true, |words| words[8] = words[4] + 1),
        ("not in order", false, |words| words[0] = words[0].rotate_left(32)),
        ("not in order", false, |words| words[0] |= 0xffff_ffff),
        ("not in order", false, |words| words[0] |= 0xffff_ffff << 32),
    ];
    for (what, in_head, change) in changes {
        for n in [0, 1] {
            let closed = closed_after(&[90, 13, 2]);
            let file = &chain(&closed.disk)[n];
            assert!(file.below > 0 && file.puts.len() > 1, "{file:?}");
            let pages = if in_head { [0, 1] } else { [3, 4] };
            change_file(&closed.disk, file.number, pages[1], change);
            let refused = closed.read(what);
            assert!(refused.len() == 1 && refused[0].what.contains("differ"), "{what}: {refused:?}");
            change_file(&closed.disk, file.number, pages[0], change);
            let refused = closed.read(what);
            let file = format!("s/{}", index_name(file.number));
            assert!(refused.len() == 1 && refused[0].what.contains(what), "{what}: {refused:?}");
            assert_eq!(refused[0].file, file, "{what}");
        }
    }
    // The slots that live are counted in the end, whichever file is wrong: here one that died did not.
    let closed = closed_with_deltas();
    let file = &chain(&closed.disk)[0];
    let last = file.puts.len() + file.died.len() - 1;
    for page in [3, 4] {
        change_file(&closed.disk, file.number, page, |words| {
            assert!(file.died.len() == 2 && last.is_multiple_of(2), "{file:?}");
            words[last / 2] -= 1;
        });
    }
    let refused = closed.read("another died");
    assert!(refused.len() == 1, "{refused:?}");
}

#[test]
fn heads_of_deltas_of_an_unknown_format_are_refused_by_number() {
    let closed = closed_with_deltas();
    let file = &chain(&closed.disk)[1];
    (0..2).for_each(|page| change_file(&closed.disk, file.number, page, |words| words[1] = 9));
    let refused = closed.open().err();
    assert!(
        matches!(&refused, Some(OpenError::UnknownFormat { found: 9, file: f, .. }) if f.ends_with(&index_name(file.number))),
        "{refused:?}"
    );
}

#[test]
fn a_delta_that_does_not_lead_to_each_slot_it_put_is_found_by_scrub_and_checkpoint() {
    for (n, puts) in [(0, 1), (1, 1), (2, 1), (1, 40)] {
        let closed = closed_with_deltas();
        let file = &chain(&closed.disk)[n];
        let page = 1 + usize::from(file.below > 0);
        change_file(&closed.disk, file.number, page, |words| words[entry(words)] = 0);
        let mut store = closed.open().unwrap();
        let scrub = store.reader().scrub();
        assert_eq!((scrub.bad.len(), scrub.digest), (1, closed.digest), "{n}");
        assert!(scrub.bad[0].file.ends_with(&index_name(file.number)), "{:?}", scrub.bad);
        for n in 0..puts {
            store.put(&[n], (&QUERY).into(), b"", Version::default()).unwrap();
        }
        let failed = store.checkpoint(b"");
        assert!(
            matches!(&failed, Err(CheckpointError::Corrupt(found)) if *found == scrub.bad[0]),
            "{failed:?}"
        );
    }
}

#[test]
fn a_checkpoint_after_damage_was_met_in_any_file_makes_a_new_base() {
    let pages = |file: &IndexFile| if file.below > 0 { 5 } else { 4 };
    for n in 0..3 {
        let whole = closed_with_deltas();
        for page in 0..pages(&chain(&whole.disk)[n]) {
            let closed = closed_with_deltas();
            let number = chain(&closed.disk)[n].number;
            closed.disk.flip_bit(&format!("s/{}", index_name(number)), page * 4096 + 100, 5).unwrap();
            assert_eq!(closed.read("damaged").len(), 1);
            let mut store = closed.open().unwrap();
            // Of all ids, so that every page is met.
            closed.ids.iter().for_each(|id| drop(store.reader().get(id).unwrap()));
            let (id, record) = closed.records.iter().next().unwrap();
            store.put(id, (&record.vector).into(), &record.payload, record.version).unwrap();
            store.checkpoint(b"some mark").unwrap();
            drop(store);
            assert_eq!(chain(&closed.disk).len(), 1, "file {n}, page {page}");
            assert_eq!(closed.read("repaired"), [], "file {n}, page {page}");
        }
    }
}

#[test]
fn an_id_whose_old_slot_holds_a_damaged_record_of_another_is_still_known_to_be_missing() {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    for n in 0..40 {
        store.put(&[n], (&QUERY).into(), b"", Version::default()).unwrap();
    }
    store.checkpoint(b"").unwrap();
    store.delete(&[3]).unwrap();
    store.checkpoint(b"").unwrap();
    // Slot 3, which the base has an entry of the deleted id for.
    store.put(b"new", (&QUERY).into(), b"", Version::default()).unwrap();
    store.checkpoint(b"").unwrap();
    drop(store);
    let chain = chain(&disk);
    assert!(chain[0].puts == [3] && chain[chain.len() - 1].entries.contains(&3), "{chain:?}");
    disk.flip_bit("s/vectors", 3 * 64, 1).unwrap();
    let mut store = Store::open(Arc::new(disk), "s", options()).unwrap();
    assert!(store.reader().get(b"new").is_err());
    assert_eq!(store.reader().get(&[3]).unwrap(), None);
    assert_eq!(store.put(&[3], (&QUERY).into(), b"", Version::default()).unwrap(), None);
}

#[test]
fn a_scrub_reads_every_page_of_the_index() {
    let closed = closed_with_deltas();
    let store = Store::open(Arc::new(closed.disk.clone()), "s", options()).unwrap();
    for file in chain(&closed.disk) {
        let path = format!("s/{}", index_name(file.number));
        let len = closed.disk.open(&path, false).unwrap().len().unwrap();
        for page in 0..len / PAGE as u64 {
            closed.disk.flip_bit(&path, page * PAGE as u64 + 1000, 1).unwrap();
            let bad = store.reader().scrub().bad;
            assert!(bad.len() == 1 && bad[0].offset == page * PAGE as u64 && bad[0].file == path, "{bad:?}");
            closed.disk.flip_bit(&path, page * PAGE as u64 + 1000, 1).unwrap();
        }
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
