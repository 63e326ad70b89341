//! Either the old content or the new one, and nothing that was damaged.

use super::*;
use slowdb_disk::SimDisk;

const MAGIC: [u8; 4] = *b"TEST";

fn damaged(disk: &SimDisk) -> String {
    match read(disk, "file", MAGIC) {
        Err(SealError::Damaged(what)) => what,
        Err(SealError::Io(error)) => panic!("an error of the disk: {error}"),
        Ok(content) => panic!("taken for whole: {content:?}"),
    }
}

#[test]
fn content_comes_back() {
    let disk = SimDisk::new();
    assert!(read(&disk, "file", MAGIC).expect("no file is no error").is_none());
    for content in [&b"first"[..], b"", &[7; 5000]] {
        write(&disk, "file", MAGIC, content).expect("the disk works");
        let again = read(&disk, "file", MAGIC).expect("it is whole").expect("it is there");
        assert_eq!(&again[..], content);
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let disk = SimDisk::new();
    write(&disk, "file", MAGIC, b"some content").expect("the disk works");
    let len = disk.open("file", false).expect("it is there").len().expect("the disk works");
    for at in 0..len {
        for bit in 0..8 {
            disk.flip_bit("file", at, bit).expect("it is in the file");
            damaged(&disk);
            disk.flip_bit("file", at, bit).expect("it is in the file");
        }
    }
    assert!(read(&disk, "file", MAGIC).is_ok(), "all bits are back");
}

#[test]
fn every_truncation_is_noticed() {
    let disk = SimDisk::new();
    write(&disk, "file", MAGIC, b"some content").expect("the disk works");
    let file = disk.open("file", false).expect("it is there");
    for len in (0..file.len().expect("the disk works")).rev() {
        file.truncate(len).expect("it is longer");
        damaged(&disk);
    }
}

#[test]
fn another_kind_or_version_is_named() {
    let disk = SimDisk::new();
    write(&disk, "file", *b"ELSE", b"content").expect("the disk works");
    assert!(damaged(&disk).contains("does not begin"));
    write(&disk, "file", MAGIC, b"content").expect("the disk works");
    disk.flip_bit("file", 4, 1).expect("it is in the file");
    assert!(damaged(&disk).contains("version 3"), "{}", damaged(&disk));
}

/// Crashes at every sync of a replacement, with every kind of loss that a few draws give.
#[test]
fn a_crash_leaves_the_old_content_or_the_new() {
    for seed in 0..32_u64 {
        let mut at = 0;
        loop {
            let disk = SimDisk::new();
            write(&disk, "file", MAGIC, b"old").expect("the disk works");
            disk.crash_at_sync(disk.syncs() + at);
            let written = write(&disk, "file", MAGIC, b"new");
            let mut state = seed.wrapping_mul(31).wrapping_add(at);
            let disk = disk.crash(&mut || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state >> 33
            });
            let content = read(&disk, "file", MAGIC).expect("it is whole").expect("it is there");
            if written.is_ok() {
                assert_eq!(&content[..], b"new", "seed {seed}: written means durable");
                break;
            }
            assert!([&b"old"[..], b"new"].contains(&&content[..]), "seed {seed}, sync {at}: {content:?}");
            // What an interrupted replacement left behind does not stop the next one.
            write(&disk, "file", MAGIC, b"newer").expect("the disk works");
            at += 1;
        }
        assert!(at >= 2, "a replacement syncs the file and its directory");
    }
}

#[test]
fn what_is_read_at_a_start_stays_whatever_a_failed_sync_has_left() {
    for syncs in 0..2 {
        let disk = SimDisk::new();
        write(&disk, "file", MAGIC, b"old").expect("the disk works");
        // The file's own sync fails, or that of the directory.
        disk.fail_sync_in(syncs);
        assert!(write(&disk, "file", MAGIC, b"new").is_err());
        let read_at_start = recover(&disk, "file", MAGIC).expect("it is whole").expect("it is there");
        let after = read(&disk.crash(&mut || 0), "file", MAGIC).expect("it is whole").expect("it is there");
        assert_eq!(&after[..], &read_at_start[..], "after {syncs} syncs");
    }
}
