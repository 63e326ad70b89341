//! What only the simulated disk does: crashes and the other faults of its contract.

use std::collections::BTreeSet;

use super::*;

fn splitmix(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) {
    file.write_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn read(disk: &SimDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path, false).unwrap();
    let mut buf = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut buf, 0).unwrap();
    buf
}

/// A disk with the synced file `f` of `len` bytes, all 1.
fn disk_with_file(len: usize) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new();
    let file = disk.open("f", true).unwrap();
    write(&*file, &vec![1; len], 0);
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

#[test]
fn a_crash_can_lose_any_subset_of_the_unsynced_sectors_and_nothing_else() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..400 {
        let (disk, file) = disk_with_file(4 * SECTOR_BYTES);
        // Sectors 0 and 1 whole, sector 2 in part; sector 3 stays.
        write(&*file, &[2; 2 * SECTOR_BYTES + 10], 0);
        let after = read(&disk.crash(&mut splitmix(seed)), "f");
        assert_eq!(after.len(), 4 * SECTOR_BYTES, "seed {seed}");
        let kept: Vec<bool> = after.chunks(SECTOR_BYTES).map(|sector| sector[0] == 2).collect();
        for (n, sector) in after.chunks(SECTOR_BYTES).enumerate() {
            let changed = [SECTOR_BYTES, SECTOR_BYTES, 10, 0][n];
            let expected = if kept[n] { 2 } else { 1 };
            assert!(sector[..changed].iter().all(|b| *b == expected), "seed {seed} sector {n} is torn");
            assert!(sector[changed..].iter().all(|b| *b == 1), "seed {seed} sector {n} changed");
        }
        outcomes.insert(kept);
    }
    assert_eq!(outcomes.len(), 8, "every subset of three sectors can be lost: {outcomes:?}");
}

#[test]
#[expect(unsafe_code, reason = "writes through a mapping")]
fn what_is_written_through_a_mapping_is_lost_and_kept_by_sectors_too() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (disk, file) = disk_with_file(65_536);
        let map = file.map(0, 65_536).unwrap();
        // SAFETY: inside the mapping, and no other thread has it.
        unsafe {
            map.as_ptr().write_bytes(2, SECTOR_BYTES);
            map.as_ptr().add(40_960).write_bytes(2, SECTOR_BYTES);
        }
        file.sync().unwrap();
        // SAFETY: as above.
        unsafe {
            map.as_ptr().write_bytes(3, SECTOR_BYTES);
            map.as_ptr().add(40_960).write_bytes(3, SECTOR_BYTES);
        }
        let after = read(&disk.crash(&mut splitmix(seed)), "f");
        assert!(after[512..40_960].iter().all(|b| *b == 1), "seed {seed}");
        outcomes.insert((after[0], after[40_960]));
        // SAFETY: the mapping outlives the crash; what is written goes nowhere.
        unsafe { map.as_ptr().write_bytes(9, 65_536) };
    }
    assert_eq!(outcomes, BTreeSet::from([(2, 2), (2, 3), (3, 2), (3, 3)]));
}

#[test]
fn unsynced_names_are_kept_or_not_each_on_its_own_and_renames_are_atomic() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..400 {
        let (disk, _) = disk_with_file(1);
        disk.open("new", true).unwrap();
        disk.open("tmp", true).unwrap();
        disk.rename("tmp", "f").unwrap();
        let disk = disk.crash(&mut splitmix(seed));
        let names = disk.list("").unwrap();
        assert!(names.contains(&"f".to_owned()), "seed {seed}: the target of a rename is always there");
        outcomes.insert((names, disk.open("f", false).unwrap().len().unwrap()));
    }
    let with = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        outcomes,
        BTreeSet::from([
            (with(&["f"]), 0),
            (with(&["f"]), 1),
            (with(&["f", "new"]), 0),
            (with(&["f", "new"]), 1),
            (with(&["f", "tmp"]), 1),
            (with(&["f", "new", "tmp"]), 1),
        ])
    );
}

#[test]
fn synced_names_stay_and_lengths_are_old_or_new_or_between() {
    let mut lengths = BTreeSet::new();
    for seed in 0..100 {
        let (disk, file) = disk_with_file(100);
        disk.remove("f").unwrap();
        disk.open("g", true).unwrap();
        disk.sync_dir("").unwrap();
        let after = disk.crash(&mut splitmix(seed));
        assert_eq!(after.list("").unwrap(), ["g"], "seed {seed}");
        drop(file);

        let (disk, file) = disk_with_file(100);
        write(&*file, &[2; 1000], 100);
        let after = read(&disk.crash(&mut splitmix(seed)), "f");
        assert!((100..=1100).contains(&after.len()) && after[..100] == [1; 100], "seed {seed}");
        lengths.insert(after.len());
    }
    assert!(lengths.contains(&100) && lengths.contains(&1100) && lengths.len() > 4, "{lengths:?}");
}

#[test]
fn a_cut_that_was_not_synced_may_come_back_but_never_as_garbage() {
    for seed in 0..100 {
        let (disk, file) = disk_with_file(10_000);
        file.truncate(100).unwrap();
        file.allocate(0, 10_000).unwrap();
        let mut seen = vec![9; 10_000];
        file.read_at(&mut seen, 0).unwrap();
        assert!(seen[..100] == [1; 100] && seen[100..].iter().all(|b| *b == 0));
        let after = read(&disk.crash(&mut splitmix(seed)), "f");
        assert_eq!(after.len(), 10_000);
        assert!(after[..100] == [1; 100] && after[100..].iter().all(|b| *b <= 1), "seed {seed}");
    }
}

#[test]
fn handles_from_before_a_crash_are_dead() {
    let (disk, file) = disk_with_file(10);
    assert!(file.lock().unwrap());
    let new = disk.crash(&mut splitmix(1));
    let locked = new.open("f", false).unwrap();
    assert!(locked.lock().unwrap() && file.lock().is_err());
    assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(file.sync().is_err() && disk.open("f", false).is_err());
    drop(file);
    assert!(!new.open("f", false).unwrap().lock().unwrap(), "an old handle unlocks nothing");
    assert_eq!(read(&new, "f"), [1; 10]);
}

#[test]
fn the_power_goes_at_the_chosen_sync_and_comes_back_with_the_crash() {
    let (disk, file) = disk_with_file(10);
    assert_eq!(disk.syncs(), 2);
    disk.crash_at_sync(3);
    file.sync().unwrap();
    write(&*file, &[2; 10], 0);
    assert!(!disk.is_down());
    assert!(file.sync().is_err() && disk.is_down());
    assert!(file.len().is_err() && disk.list("").is_err());
    let disk = disk.crash(&mut || 0);
    assert_eq!(read(&disk, "f"), [1; 10], "the sync that failed wrote nothing for certain");
}

#[test]
fn a_failed_sync_drops_what_looks_clean_from_then_on() {
    let (disk, file) = disk_with_file(10);
    write(&*file, &[2; 10], 0);
    disk.fail_sync_in(0);
    assert!(file.sync().is_err());
    assert_eq!(read(&disk, "f"), [2; 10], "still read back");
    file.sync().unwrap();
    let disk = disk.crash(&mut || 1);
    assert_eq!(read(&disk, "f"), [1; 10], "but never written, though everything else is kept");
}

#[test]
#[expect(unsafe_code, reason = "writes through a mapping")]
fn a_failed_sync_drops_mapped_pages_until_they_are_written_again() {
    let (disk, file) = disk_with_file(131_072);
    let map = file.map(65_536, 65_536).unwrap();
    // SAFETY: inside the mapping, and no other thread has it.
    unsafe { map.as_ptr().write_bytes(2, 8192) };
    disk.fail_sync_in(0);
    assert!(file.sync().is_err());
    // SAFETY: as above.
    unsafe { map.as_ptr().write_bytes(3, 1) };
    file.sync().unwrap();
    let after = read(&disk.crash(&mut || 0), "f");
    assert_eq!((after[65_536], after[65_537], after[65_536 + 4096]), (3, 2, 1));
}

#[test]
fn full_disks_and_failed_writes_are_errors() {
    let (disk, file) = disk_with_file(10);
    disk.set_capacity(Some(12));
    assert_eq!(file.allocate(0, 13).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[IoSlice::new(&[7; 5])], 8).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&disk, "f"), [1; 10]);
    file.allocate(0, 12).unwrap();
    assert_eq!(disk.bytes_used(), 12);
    disk.set_capacity(Some(20));
    assert_eq!(disk.space().unwrap(), Space { free: 8, total: 20 });
    disk.set_capacity(Some(5));
    assert_eq!(disk.space().unwrap(), Space { free: 0, total: 5 });
    disk.set_capacity(None);
    disk.fail_write_in(0);
    assert!(file.write_at(&[IoSlice::new(&[7; 4]), IoSlice::new(&[8; 4])], 0).is_err());
    assert_eq!(read(&disk, "f"), [7, 7, 7, 7, 1, 1, 1, 1, 1, 1, 0, 0]);
    disk.flip_bit("f", 0, 7).unwrap();
    assert_eq!(read(&disk, "f")[0], 7 ^ 128);
    assert!(disk.flip_bit("f", 12, 0).is_err());
}

#[test]
fn the_same_random_source_gives_the_same_disk() {
    let run = |seed| {
        let (disk, file) = disk_with_file(20_000);
        write(&*file, &[2; 20_000], 50);
        disk.open("g", true).unwrap();
        let disk = disk.crash(&mut splitmix(seed));
        (disk.list("").unwrap(), read(&disk, "f"))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn a_removal_that_was_not_synced_is_made_durable_by_the_next_try() {
    for draw in [0, 1] {
        let disk = SimDisk::new();
        disk.create_dir_all("a/b").unwrap();
        disk.open("a/b/f", true).unwrap();
        disk.sync_dir("a/b").unwrap();
        disk.fail_sync_in(0);
        assert!(disk.remove_dir_all("a/b").is_err() && !disk.exists("a/b").unwrap());
        disk.remove_dir_all("a/b").unwrap();
        let disk = disk.crash(&mut || draw);
        assert!(!disk.exists("a/b").unwrap());

        disk.create_dir_all("a/b").unwrap();
        disk.fail_sync_in(0);
        assert!(disk.remove_dir_all("a/b").is_err());
        disk.create_dir_all("a/b").unwrap();
        assert!(disk.crash(&mut || draw).exists("a/b").unwrap(), "created again, durably");
    }
}

#[test]
fn removed_files_cost_nothing_once_the_removal_is_durable() {
    let (disk, file) = disk_with_file(100);
    disk.remove("f").unwrap();
    assert_eq!(disk.shared().files.len(), 1);
    disk.sync_dir("").unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [1], "an open file lives on without a name");
    drop(file);
    assert_eq!(disk.shared().files.len(), 0);
}

#[test]
fn space_that_was_given_back_counts_until_it_is_allocated_again() {
    let chunk = crate::MAP_ALIGN;
    let disk = SimDisk::new();
    let file = disk.open("f", true).unwrap();
    file.allocate(0, 4 * chunk).unwrap();
    file.write_at(&[IoSlice::new(&vec![1; 4 * chunk as usize])], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.set_capacity(Some(4 * chunk + 1));
    file.give_back(chunk, 2 * chunk).unwrap();
    assert_eq!((disk.bytes_used(), file.len().unwrap()), (2 * chunk, 4 * chunk));
    let other = disk.open("g", true).unwrap();
    other.allocate(0, chunk + 1).unwrap();
    let full = file.allocate(chunk, 2 * chunk);
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.allocate(2 * chunk, 1).unwrap();
    assert_eq!(disk.bytes_used(), 4 * chunk + 1);
    // It was not synced: after a crash the bytes may be there again.
    let bytes = read(&disk.crash(&mut || 0), "f");
    assert!(bytes.iter().all(|b| *b == 1));
}
