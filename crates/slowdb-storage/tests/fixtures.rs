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

/// Name, digest, records.
type Fixture = (&'static str, Digest, u64);

const FORMAT_2: Fixture = ("format-2", Digest(94_515_537_786_785_306_080_476_513_056_840_441_051), 26);
const FORMAT_3: Fixture = ("format-3", Digest(222_901_758_299_772_596_086_969_535_143_525_064_331), 25);

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

/// Writes what is in a fixture: records replaced and deleted, over checkpoints, and one after the last. From format 3 on the
/// last ones are of few writes, so that the index is of several files.
fn fill(disk: &Arc<dyn Disk>, name: &str) -> Model {
    let mut store = Store::open(Arc::clone(disk), "s", options()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(2026));
    for _ in 0..3 {
        (0..25).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
        model.mark = b"a mark".to_vec();
        store.checkpoint(b"a mark").unwrap();
    }
    if name != FORMAT_2.0 {
        for writes in [4, 1] {
            (0..writes).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
            store.checkpoint(b"a mark").unwrap();
        }
    }
    let durable = model.clone();
    (0..5).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    durable
}

#[test]
fn a_store_of_each_format_is_read_written_and_verified() {
    if let Ok(new) = std::env::var("SLOWDB_NEW_FIXTURE") {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&new).unwrap());
        fill(&disk, &new);
    }
    for (name, digest, records) in [FORMAT_2, FORMAT_3] {
        let model = fill(&(Arc::new(SimDisk::new()) as Arc<dyn Disk>), name);
        // One write makes a delta above what is there, many a new base.
        for writes in [1, 50] {
            let (_dir, disk) = copy(name);
            let found = verify(&*disk, "s", |_| {}).unwrap();
            assert_eq!((found.bad, found.records, found.digest), (vec![], records, digest), "{name}");
            let mut store = Store::open(Arc::clone(&disk), "s", options()).unwrap();
            check(&store, &model, "as it was written");
            let (mut model, mut rng) = (model.clone(), Rng(1));
            (0..writes).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
            store.checkpoint(b"a mark").unwrap();
            drop(store);
            let files = disk.list("s").unwrap().iter().filter(|name| name.starts_with("index-")).count();
            assert_eq!(files > 1, writes == 1, "{name}, {writes} writes: {files} index files");
            check(&Store::open(disk, "s", options()).unwrap(), &model, "written to");
        }
    }
}

#[test]
fn an_unknown_format_is_refused_by_its_number() {
    for (format, copies) in [(1_u32, 1), (4, 2), (u32::MAX, 2)] {
        let (dir, disk) = copy(FORMAT_3.0);
        let path = dir.path().join("s/manifest");
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        (0..copies).for_each(|n| bytes[n * len / 2 + 8..][..4].copy_from_slice(&format.to_le_bytes()));
        // Of format 1 there was one copy, of any length.
        bytes.truncate(if copies == 1 { 152 } else { len });
        std::fs::write(&path, &bytes).unwrap();
        let refused = Store::open(Arc::clone(&disk), "s", options()).err().unwrap();
        let named = matches!(&refused, OpenError::UnknownFormat { file, found, known: 3 }
            if file == "s/manifest" && *found == format);
        assert!(named && refused.to_string().contains(&format.to_string()), "{refused}");
        let refused = verify(&*disk, "s", |_| {}).unwrap_err();
        assert!(matches!(refused, OpenError::UnknownFormat { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "it stays as it is");
    }
    // One copy that names another format is damage, which the other makes up for.
    let (dir, disk) = copy(FORMAT_3.0);
    let path = dir.path().join("s/manifest");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 4;
    std::fs::write(&path, &bytes).unwrap();
    let mut store = Store::open(disk, "s", options()).unwrap();
    assert_eq!(store.damage_at_open().len(), 1);
    store.put(b"x", (&[1.0; DIMENSION]).into(), b"", Version::default()).unwrap();
}
