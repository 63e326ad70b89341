//! Stores that were written by each format that there was, byte by byte: they stay readable, or are refused by name.
//!
//! A new format gets a new directory, written by `SLOWDB_NEW_FIXTURE=tests/fixtures/format-N cargo test -p
//! slowdb-storage --test fixtures`. What is there is never written again.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{DIMENSION, Model, Rng, check, options, write};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::{Digest, OpenError, Store, Version, verify};

/// Of the newest format.
const NEWEST: &str = "format-2";
const DIGEST: Digest = Digest(94_515_537_786_785_306_080_476_513_056_840_441_051);
const RECORDS: u64 = 26;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy to write to.
fn copy(name: &str) -> (tempfile::TempDir, Arc<dyn Disk>) {
    let to = tempfile::tempdir().unwrap();
    std::fs::create_dir(to.path().join("s")).unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.path().join("s").join(file.file_name())).unwrap();
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(to.path()).unwrap());
    (to, disk)
}

/// Writes what is in a fixture: records replaced and deleted, over checkpoints, and one after the last.
fn fill(disk: &Arc<dyn Disk>) -> Model {
    let mut store = Store::open(Arc::clone(disk), "s", options()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(2026));
    for _ in 0..3 {
        (0..25).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
        model.mark = b"a mark".to_vec();
        store.checkpoint(b"a mark").unwrap();
    }
    let durable = model.clone();
    (0..5).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    durable
}

#[test]
fn a_store_of_the_newest_format_is_read_written_and_verified() {
    if let Ok(new) = std::env::var("SLOWDB_NEW_FIXTURE") {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&new).unwrap());
        fill(&disk);
    }
    let model = fill(&(Arc::new(SimDisk::new()) as Arc<dyn Disk>));
    let (_dir, disk) = copy(NEWEST);
    let found = verify(&*disk, "s", |_| {}).unwrap();
    assert_eq!((found.bad, found.records, found.digest), (vec![], RECORDS, DIGEST));
    let mut store = Store::open(Arc::clone(&disk), "s", options()).unwrap();
    check(&store, &model, "as it was written");
    let (mut model, mut rng) = (model, Rng(1));
    (0..50).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    store.checkpoint(b"a mark").unwrap();
    drop(store);
    check(&Store::open(disk, "s", options()).unwrap(), &model, "written to");
}

#[test]
fn an_unknown_format_is_refused_by_its_number() {
    for (format, copies) in [(1_u32, 1), (3, 2), (u32::MAX, 2)] {
        let (dir, disk) = copy(NEWEST);
        let path = dir.path().join("s/manifest");
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        (0..copies).for_each(|n| bytes[n * len / 2 + 8..][..4].copy_from_slice(&format.to_le_bytes()));
        // Of format 1 there was one copy, of any length.
        bytes.truncate(if copies == 1 { 152 } else { len });
        std::fs::write(&path, &bytes).unwrap();
        let refused = Store::open(Arc::clone(&disk), "s", options()).err().unwrap();
        let named = matches!(&refused, OpenError::UnknownFormat { file, found, known: 2 }
            if file == "s/manifest" && *found == format);
        assert!(named && refused.to_string().contains(&format.to_string()), "{refused}");
        let refused = verify(&*disk, "s", |_| {}).unwrap_err();
        assert!(matches!(refused, OpenError::UnknownFormat { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it stays as it is");
    }
    // One copy that names another format is damage, which the other makes up for.
    let (dir, disk) = copy(NEWEST);
    let path = dir.path().join("s/manifest");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 3;
    std::fs::write(&path, &bytes).unwrap();
    let mut store = Store::open(disk, "s", options()).unwrap();
    assert_eq!(store.damage_at_open().len(), 1);
    store.put(b"x", (&[1.0; DIMENSION]).into(), b"", Version::default()).unwrap();
}
