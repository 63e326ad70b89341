//! One contract, two disks: the same body runs on the real and on the simulated disk.
#![expect(unsafe_code, reason = "reads and writes through mappings")]

use std::io::{ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};

use slowdb_disk::{Disk, LockError, MAP_ALIGN, RealDisk, SimDisk};

fn contract(disk: &dyn Disk) {
    names(disk);
    bytes(disk);
    mappings(disk);
    space(disk);
    locks(disk);
    room(disk);
    bad_paths(disk);
}

fn names(disk: &dyn Disk) {
    assert_eq!(disk.open("x", false).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open("no/x", true).err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(disk.list("no").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.sync_dir("no").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.remove("no").unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename("no", "x").unwrap_err().kind(), ErrorKind::NotFound);
    disk.remove_dir_all("no").unwrap();
    disk.remove_dir_all("no/deeper").unwrap();

    disk.create_dir_all("a/b").unwrap();
    disk.create_dir_all("a/b").unwrap();
    assert!(disk.exists("a").unwrap() && disk.exists("a/b").unwrap() && !disk.exists("a/c").unwrap());
    disk.open("a/b/2", true).unwrap();
    disk.open("a/b/1", true).unwrap();
    disk.open("a/top", true).unwrap();
    assert_eq!(disk.list("a/b").unwrap(), ["1", "2"]);
    assert_eq!(disk.list("a").unwrap(), ["b", "top"]);
    assert!(disk.open("a/b", false).is_err(), "a directory is not a file");

    disk.open("a/b/1", false).unwrap().write_at(&[IoSlice::new(b"one")], 0).unwrap();
    disk.rename("a/b/1", "a/b/2").unwrap();
    disk.sync_dir("a/b").unwrap();
    assert_eq!(disk.list("a/b").unwrap(), ["2"]);
    assert_eq!(disk.open("a/b/2", false).unwrap().len().unwrap(), 3);
    assert_eq!(disk.rename("a/b/2", "a/2").unwrap_err().kind(), ErrorKind::InvalidInput);
    let open = disk.open("a/b/2", false).unwrap();
    disk.remove("a/b/2").unwrap();
    let mut buf = [0; 3];
    open.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"one", "an open file outlives its name");
    disk.remove_dir_all("a").unwrap();
    assert!(!disk.exists("a").unwrap() && !disk.exists("a/b").unwrap());
}

fn bytes(disk: &dyn Disk) {
    let file = disk.open("f", true).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(&[IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cde")], 3).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    let mut buf = [9; 8];
    file.read_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"\0\0\0abcde");
    assert_eq!(file.read_at(&mut buf, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);

    // More buffers than one system call takes.
    let many: Vec<[u8; 3]> = (0..3000u32).map(|n| [n as u8, (n >> 8) as u8, 7]).collect();
    let slices: Vec<IoSlice<'_>> = many.iter().map(|b| IoSlice::new(b)).collect();
    file.write_at(&slices, 4090).unwrap();
    let mut back = vec![0; 9000];
    file.read_at(&mut back, 4090).unwrap();
    assert_eq!(back, many.concat());

    file.allocate(0, 100).unwrap();
    assert_eq!(file.len().unwrap(), 13_090, "allocating never shortens");
    file.truncate(5).unwrap();
    file.allocate(0, 20_000).unwrap();
    let mut back = vec![9; 20_000];
    file.read_at(&mut back, 0).unwrap();
    assert_eq!(&back[..5], b"\0\0\0ab");
    assert!(back[5..].iter().all(|b| *b == 0), "what comes back after a cut is zero");
    assert_eq!(file.truncate(20_001).unwrap_err().kind(), ErrorKind::InvalidInput);
    file.sync().unwrap();
}

fn mappings(disk: &dyn Disk) {
    let file = disk.open("m", true).unwrap();
    let extent = 2 * MAP_ALIGN as usize;
    assert!(file.map(0, extent).is_err(), "nothing to map yet");
    file.allocate(0, 3 * extent as u64).unwrap();
    file.write_at(&[IoSlice::new(b"before")], MAP_ALIGN * 2).unwrap();
    assert!(file.map(4096, extent).is_err(), "alignment");
    assert!(file.map(0, 0).is_err() && file.map(MAP_ALIGN * 4, extent + 1).is_err());
    let first = file.map(0, extent).unwrap();
    let second = file.map(MAP_ALIGN * 2, extent).unwrap();
    let again = file.map(MAP_ALIGN * 2, extent).unwrap();
    assert_eq!((first.len(), second.len()), (extent, extent));
    // SAFETY: inside the mappings, which only this thread has.
    unsafe {
        assert_eq!(std::slice::from_raw_parts(second.as_ptr(), 6), b"before");
        first.as_ptr().add(extent - 1).write(42);
        first.as_ptr().add(4095).write(7);
        first.as_ptr().add(4096).write(7);
        first.clear(4096, extent - 4097);
        assert_eq!((first.as_ptr().add(4095).read(), first.as_ptr().add(4096).read()), (7, 0));
        assert_eq!(first.as_ptr().add(extent - 1).read(), 42, "what is not cleared stays");
        second.as_ptr().add(5).write(43);
        assert_eq!(again.as_ptr().add(5).read(), 43, "mappings of a range share its bytes");
    }
    assert!(
        // SAFETY: as above.
        catch_unwind(AssertUnwindSafe(|| unsafe { first.clear(1, extent) })).is_err(),
        "it ends inside the mapping"
    );
    file.sync().unwrap();
    drop((first, again));
    let mut buf = [0; 7];
    file.read_at(&mut buf, extent as u64 - 1).unwrap();
    assert_eq!(&buf, b"\x2abefor\x2b");

    drop(file);
    let file = disk.open("m", false).unwrap();
    let map = file.map(MAP_ALIGN * 2, extent).unwrap();
    disk.remove("m").unwrap();
    drop((file, second));
    // SAFETY: inside the mapping, which outlives file and name.
    assert_eq!(unsafe { map.as_ptr().add(5).read() }, 43);
}

fn space(disk: &dyn Disk) {
    let file = disk.open("space", true).unwrap();
    file.allocate(0, 4 * MAP_ALIGN).unwrap();
    let map = file.map(0, 4 * MAP_ALIGN as usize).unwrap();
    let byte = |chunk: usize| map.as_ptr().wrapping_add(chunk * MAP_ALIGN as usize + 5);
    // SAFETY: inside the mapping, which only this thread has.
    (0..4).for_each(|chunk| unsafe { byte(chunk).write(7) });
    assert!(file.give_back(4096, MAP_ALIGN).is_err() && file.give_back(0, 4096).is_err());
    assert!(file.give_back(MAP_ALIGN, 0).is_err());
    file.give_back(MAP_ALIGN, 2 * MAP_ALIGN).unwrap();
    // SAFETY: as above.
    let read = |chunk: usize| unsafe { byte(chunk).read() };
    assert_eq!([0, 3].map(read), [7, 7], "what is beside it stays");
    assert!([1, 2].map(read).iter().all(|b| [0, 7].contains(b)), "void: zero, or as it was");
    assert_eq!(file.len().unwrap(), 4 * MAP_ALIGN);
    file.allocate(MAP_ALIGN, MAP_ALIGN).unwrap();
    // SAFETY: as above.
    unsafe { byte(1).write(8) };
    file.sync().unwrap();
    assert_eq!([0, 1, 3].map(read), [7, 8, 7]);
    drop((map, file));
    disk.remove("space").unwrap();
}

fn room(disk: &dyn Disk) {
    let before = disk.space().unwrap();
    assert!(before.free <= before.total && before.total > 0, "{before:?}");
}

fn locks(disk: &dyn Disk) {
    let open = |name: &str| disk.open(name, true).unwrap();
    let (first, second, other) = (open("lock"), open("lock"), open("lock 2"));
    assert!(first.lock().unwrap() && other.lock().unwrap() && first.lock().unwrap());
    assert!(!second.lock().unwrap() && !second.lock().unwrap());
    drop(second);
    disk.rename("lock", "lock 2").unwrap();
    assert!(!open("lock 2").lock().unwrap(), "dropping a handle that had no lock unlocks nothing");
    assert!(open("lock").lock().unwrap(), "a new file of the same name is another file");
    let clone = std::sync::Arc::clone(&first);
    drop(first);
    assert!(!open("lock 2").lock().unwrap());
    drop(clone);
    assert!(open("lock 2").lock().unwrap());
    drop(other);
    disk.remove("lock").unwrap();
    disk.remove("lock 2").unwrap();
}

fn bad_paths(disk: &dyn Disk) {
    for path in ["", "/x", "../x", "a//b", "a/./b", "x/", "a\0b"] {
        assert_eq!(disk.open(path, true).err().unwrap().kind(), ErrorKind::InvalidInput, "{path:?}");
    }
    assert!(disk.create_dir_all("../x").is_err() && disk.remove_dir_all("").is_err());
    assert!(disk.list("").unwrap().contains(&"f".to_owned()));
}

#[test]
fn the_real_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&RealDisk::open(dir.path().join("deep/er")).unwrap());
}

#[test]
fn the_simulated_disk_keeps_the_contract() {
    contract(&SimDisk::new());
}

#[test]
fn a_root_is_locked_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let lock = disk.lock().unwrap();
    let err = RealDisk::open(dir.path()).unwrap().lock().unwrap_err();
    assert!(matches!(&err, LockError::InUse { root } if root == disk.root()), "{err}");
    drop(lock);
    drop(disk.lock().unwrap());
}
