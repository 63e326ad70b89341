//! Reading everything: of a closed store, and of an open one in steps.

mod common;

use std::sync::Arc;

use common::{DIMENSION, Model, Rng, check, options, write};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{Digest, OpenError, Progress, Reader, Scrubber, Store, Verified, Version, verify};

fn filled(disk: &SimDisk) -> (Store, Model) {
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(6));
    for _ in 0..3 {
        (0..60).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
        model.mark = b"mark".to_vec();
        store.checkpoint(b"mark").unwrap();
    }
    (store, model)
}

#[test]
fn a_closed_store_is_verified_without_being_changed() {
    let disk = SimDisk::new();
    let (store, model) = filled(&disk);
    let digest = store.digest();
    let refused = verify(&disk, "s", |_| {}).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(store);
    let (names, used, syncs) = (disk.list("s").unwrap(), disk.bytes_used(), disk.syncs());
    let mut last = Progress::default();
    let found = verify(&disk, "s", |progress| last = progress).unwrap();
    let records = model.records.len() as u64;
    assert_eq!((found.bad, found.records, found.digest), (vec![], records, digest));
    assert_eq!((last.records, last.records_total, last.bytes), (records, records, found.bytes));
    assert_eq!((disk.list("s").unwrap(), disk.bytes_used(), disk.syncs()), (names, used, syncs));
    assert_eq!(verify(&disk, "nothing", |_| {}).unwrap(), Verified::default());
    let empty = Store::open(Arc::new(disk.clone()), "empty", options()).unwrap();
    drop(empty);
    assert_eq!(verify(&disk, "empty", |_| {}).unwrap().dimension, DIMENSION);
}

#[test]
fn verifying_names_every_place_that_is_damaged() {
    let disk = SimDisk::new();
    let (store, model) = filled(&disk);
    let shown: Vec<Vec<u8>> =
        store.reader().snapshot().iter().take(2).map(|record| record.unwrap().id.to_vec()).collect();
    drop(store);
    let slot_of = |id: &[u8]| {
        let heap = disk.open("s/heap", false).unwrap();
        let slots = disk.open("s/slots", false).unwrap();
        (0..1000_u32).find(|slot| {
            let (mut meta, mut found) = ([0; 64], vec![0; id.len()]);
            let at = u64::from(slot / 16) * 65_536 + u64::from(slot % 16) * 64;
            slots.read_at(&mut meta, at).is_ok()
                && usize::from(u16::from_le_bytes([meta[52], meta[53]])) == id.len()
                && heap.read_at(&mut found, u64::from_le_bytes(meta[40..48].try_into().unwrap())).is_ok()
                && found == id
        })
    };
    let index = disk.list("s").unwrap().into_iter().find(|name| name.starts_with("index-")).unwrap();
    let slot = slot_of(&shown[0]).unwrap();
    let vector = u64::from(slot / 16) * 65_536 + u64::from(slot % 16) * 64;
    disk.flip_bit("s/vectors", vector + 63, 0).unwrap();
    disk.flip_bit("s/manifest", 4096 + 100, 0).unwrap();
    disk.flip_bit(&format!("s/{index}"), 4096 + 17, 0).unwrap();
    disk.flip_bit(&format!("s/{index}"), 3 * 4096 + 17, 0).unwrap();
    let found = verify(&disk, "s", |_| {}).unwrap();
    let bad: Vec<(&str, u64)> = found.bad.iter().map(|bad| (bad.file.as_str(), bad.offset)).collect();
    let index = format!("s/{index}");
    let expected = [("s/manifest", 4096), (&index, 3 * 4096), (&index, 4096), ("s/vectors", vector)];
    // The padding of a vector is in no record's hash: it is named where it is. Slots come after the rest.
    assert_eq!(bad, expected);
    assert_eq!(found.records, model.records.len() as u64 - 1);
}

#[test]
fn a_scrub_in_steps_finds_what_a_scrub_at_once_finds_whatever_is_written_meanwhile() {
    let disk = SimDisk::new();
    let (mut store, mut model) = filled(&disk);
    let mut rng = Rng(9);
    for budget in [0, 100, 5000, u64::MAX] {
        let all = store.reader().scrub();
        let mut scrubber = Scrubber::new(store.snapshot().unwrap());
        let mut steps = 1;
        while scrubber.step(budget) {
            steps += 1;
            (0..5).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
            if steps % 7 == 0 {
                store.checkpoint(b"mark").unwrap();
            }
        }
        assert_eq!(*scrubber.found(), all, "{budget} bytes a step");
        assert_eq!(scrubber.found().digest, scrubber.snapshot().digest());
        let expected = match budget {
            0 | 100 => all.records..all.records + 12,
            u64::MAX => 1..2,
            _ => 2..all.records,
        };
        assert!(expected.contains(&steps), "{steps} steps of {budget} bytes, {} records", all.records);
    }
    check(&store, &model, "after the scrubs");
}

#[test]
fn a_scrub_in_steps_names_what_is_damaged() {
    let disk = SimDisk::new();
    let (store, model) = filled(&disk);
    drop(store);
    for slot in 0..16 {
        disk.flip_bit("s/vectors", slot * 64 + 1, 2).unwrap();
    }
    let store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let mut scrubber = Scrubber::new(store.snapshot().unwrap());
    while scrubber.step(300) {}
    let found = scrubber.found();
    assert_eq!(*found, store.reader().scrub());
    assert!(!found.bad.is_empty() && found.bad.iter().all(|bad| bad.slot.is_some_and(|slot| slot < 16)));
    assert_eq!(found.records + found.bad.len() as u64, model.records.len() as u64);
    assert_ne!(found.digest, scrubber.snapshot().digest());
}

#[test]
fn what_was_served_before_it_was_damaged_is_served_no_more_once_a_scrub_found_it() {
    let disk = SimDisk::new();
    let (store, model) = filled(&disk);
    let reader = store.reader();
    // Every record was looked at, and is trusted from then on.
    let served = |reader: &Reader| {
        model.records.keys().filter(|id| reader.get(id).is_ok_and(|record| record.is_some())).count()
    };
    assert_eq!(served(&reader), model.records.len());
    let scrubbed = || {
        let mut scrubber = Scrubber::new(store.snapshot().unwrap());
        while scrubber.step(300) {}
        (scrubber.found().bad.len(), scrubber.bytes_read())
    };
    let (_, bytes) = scrubbed();
    for slot in 0..16 {
        disk.flip_bit("s/vectors", slot * 64 + 1, 2).unwrap();
    }
    let (bad, bytes_with_bad) = scrubbed();
    assert!(bad > 0 && bytes > 0);
    assert_eq!(bytes, bytes_with_bad, "what is damaged was read as well");
    assert_eq!(served(&reader), model.records.len() - bad);
}

#[test]
fn a_manifest_whose_sums_do_not_fit_its_records_is_found() {
    let disk = SimDisk::new();
    let (mut store, _) = filled(&disk);
    assert_ne!(store.digest(), Digest::default());
    store.put(b"more", (&[1.0; DIMENSION]).into(), b"", Version::default()).unwrap();
    store.checkpoint(b"").unwrap();
    drop(store);
    // The digest in both copies, with checksums that fit.
    common::change_manifest(&disk, |body| {
        let at = body.len() - 96 + 48;
        body[at] ^= 1;
    });
    let found = verify(&disk, "s", |_| {}).unwrap();
    assert!(found.bad.len() == 1 && found.bad[0].what.contains("digest"), "{:?}", found.bad);
}
