//! Damage to a log on the disk: every flipped bit is reported, with its place, or does no harm.

mod wal_common;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use slowdb_disk::{Disk, SimDisk};
use slowdb_repl::wal::{
    Corruption, CorruptionKind, HardState, Record, Wal, WalError, WalOpenError, WalOptions, WalReadError,
};
use wal_common::{Model, Rng, copy_dir};

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 16 << 10,
        spare_segments: 2,
        log_id: 4711,
        #[cfg(feature = "canary")]
        chain_not_checked: false,
    }
}

fn open(disk: &SimDisk) -> Result<(Wal, Model), WalOpenError> {
    let (wal, recovered) = Wal::open(Arc::new(disk.clone()), "log", options())?;
    let model = Model::of(&recovered, &wal).expect("payloads can be read");
    Ok((wal, model))
}

/// At least three segments of entries of two groups, all synced, and what they give.
fn filled(disk: &SimDisk) -> (Wal, Model) {
    let (mut wal, mut model) = open(disk).expect("creates the log");
    let mut rng = Rng(3);
    for index in 1..=14u64 {
        let mut batch: Vec<Record> = (0..2)
            .map(|group| {
                let data = rng.bytes(300 + 90 * index as usize);
                Record::Entry { group, leader_term: 1, term: 1, index, kind: 0, data }
            })
            .collect();
        let state = HardState { term: 1, vote: 1, commit: index };
        batch.push(Record::HardState { group: 1, state });
        wal.append(&batch, &mut Vec::new()).expect("appends");
        wal.sync().expect("syncs");
        batch.iter().for_each(|record| model.apply(record));
    }
    assert!(wal.stats().segments >= 3);
    (wal, model)
}

fn copy_of(disk: &SimDisk) -> SimDisk {
    let copy = SimDisk::new();
    copy_dir(disk, &copy, "log");
    copy
}

#[test]
fn every_flipped_bit_is_reported_or_harmless() {
    let disk = SimDisk::new();
    let (wal, model) = filled(&disk);
    wal.close().expect("closes");
    let (mut reported, mut harmless) = (0, 0);
    for name in disk.list("log").expect("lists") {
        let path = format!("log/{name}");
        let len = disk.open(&path, false).expect("opens").len().expect("has a length");
        for offset in (0..len).step_by(3) {
            let copy = copy_of(&disk);
            copy.flip_bit(&path, offset, (offset % 8) as u8).expect("flips");
            match open(&copy) {
                Ok((_, found)) => {
                    assert_eq!(found, model, "byte {offset} of {path} was flipped and something is missing");
                    harmless += 1;
                }
                Err(WalOpenError::Corrupt(report)) => {
                    assert_eq!(report.file, path, "byte {offset} was flipped: {report}");
                    assert!(report.offset <= offset, "byte {offset} of {path} was flipped: {report}");
                    assert!(offset - report.offset < 64 + 1600, "byte {offset} of {path}: {report}");
                    reported += 1;
                }
                Err(error) => panic!("byte {offset} of {path} was flipped: {error}"),
            }
        }
    }
    println!("{reported} reported, {harmless} harmless");
    assert!(reported > 1000 && harmless > 1000);
}

/// A flip in what was synced last, with nothing written behind it, looks like a batch that never was synced. It
/// costs that batch and nothing else.
#[test]
fn without_a_mark_a_flip_costs_at_most_the_last_batch() {
    let disk = SimDisk::new();
    let (mut wal, before) = filled(&disk);
    let data = Bytes::from(vec![9; 500]);
    let last = Record::Entry { group: 0, leader_term: 1, term: 1, index: 15, kind: 0, data };
    let mut after = before.clone();
    after.apply(&last);
    let mut locations = Vec::new();
    wal.append(&[last], &mut locations).expect("appends");
    wal.sync().expect("syncs");
    drop(wal);
    let copy = copy_of(&disk);
    let mut flipped = 0;
    for name in disk.list("log").expect("lists") {
        let path = format!("log/{name}");
        let copy = copy_of(&disk);
        copy.flip_bit(&path, u64::from(locations[0].offset()) + 70, 1).expect("flips");
        match open(&copy) {
            Ok((_, found)) => {
                assert!(found == before || found == after);
                flipped += u32::from(found == before);
            }
            Err(error) => assert!(matches!(error, WalOpenError::Corrupt(_)), "{error}"),
        }
    }
    assert_eq!(flipped, 1, "only the flip in the newest segment cut the log");
    assert_eq!(open(&copy).expect("opens").1, after);
}

fn report_of(disk: &SimDisk) -> Corruption {
    match open(disk) {
        Err(WalOpenError::Corrupt(report)) => report,
        other => panic!("expected a report of corruption, found {other:?}"),
    }
}

#[test]
fn missing_truncated_doubled_and_foreign_segments_are_reported() {
    let disk = SimDisk::new();
    filled(&disk).0.close().expect("closes");
    let path = "log/00000002.seg";

    let copy = copy_of(&disk);
    copy.remove(path).expect("removes");
    assert!(matches!(report_of(&copy).what, CorruptionKind::MissingSegment { .. }));

    let copy = copy_of(&disk);
    copy.open(path, false).expect("opens").truncate(12_000).expect("truncates");
    assert!(matches!(report_of(&copy).what, CorruptionKind::FileLength { .. }));

    let copy = copy_of(&disk);
    let mut bytes = vec![0; 16 << 10];
    copy.open(path, false).expect("opens").read_at(&mut bytes, 0).expect("reads");
    let double = copy.open("log/00000009.seg", true).expect("creates");
    double.write_at(&[std::io::IoSlice::new(&bytes)], 0).expect("writes");
    assert!(matches!(report_of(&copy).what, CorruptionKind::Duplicate { .. }));

    let other = SimDisk::new();
    let other_options = WalOptions { log_id: 1, ..options() };
    drop(Wal::open(Arc::new(other.clone()), "log", other_options).expect("creates the other log"));
    let copy = copy_of(&disk);
    let mut bytes = vec![0; 16 << 10];
    other.open("log/00000001.seg", false).expect("opens").read_at(&mut bytes, 0).expect("reads");
    let foreign = copy.open("log/00000009.seg", true).expect("creates");
    foreign.write_at(&[std::io::IoSlice::new(&bytes)], 0).expect("writes");
    assert!(matches!(report_of(&copy).what, CorruptionKind::OtherLog { .. }));
}

#[test]
fn a_report_changes_nothing_and_names_the_groups() {
    let disk = SimDisk::new();
    filled(&disk).0.close().expect("closes");
    disk.flip_bit("log/00000001.seg", 8192, 0).expect("flips");
    let files = |disk: &SimDisk| -> BTreeMap<String, Vec<u8>> {
        let read = |name: String| {
            let file = disk.open(&format!("log/{name}"), false).expect("opens");
            let mut bytes = vec![0; file.len().expect("has a length") as usize];
            file.read_at(&mut bytes, 0).expect("reads");
            (name, bytes)
        };
        disk.list("log").expect("lists").into_iter().map(read).collect()
    };
    let before = files(&disk);
    let report = report_of(&disk);
    assert_eq!((report.file.as_str(), report.offset), ("log/00000001.seg", 8192));
    assert_eq!(report.what, CorruptionKind::RecordHeader);
    assert_eq!(report.groups, [0, 1]);
    assert_eq!(files(&disk), before);
}

/// A payload that is a copy of the log itself, headers and all, is not taken for records when the log is searched behind
/// a torn record.
#[test]
fn a_payload_that_imitates_records_is_not_believed() {
    let disk = SimDisk::new();
    let (mut wal, _) = filled(&disk);
    let mut bytes = vec![0; 6000];
    // In this log, which was opened once, files and segments have the same numbers.
    let newest = format!("log/{:08}.seg", wal.stats().active_segment);
    let file = disk.open(&newest, false).expect("opens");
    file.read_at(&mut bytes, 8192).expect("reads");
    let data = Bytes::from(bytes);
    let record = Record::Entry { group: 5, leader_term: 1, term: 1, index: 1, kind: 0, data };
    let mut locations = Vec::new();
    wal.append(&[record], &mut locations).expect("appends");
    drop(wal);
    // The torn record: its header is gone, its body is there.
    let segment = format!("log/{:08}.seg", locations[0].segment());
    disk.flip_bit(&segment, u64::from(locations[0].offset()), 0).expect("flips");
    let (_, found) = open(&disk).expect("a torn record is where the log ends");
    assert!(!found.groups.contains_key(&5));
}

#[test]
fn readers_verify_what_they_read_and_know_what_was_released() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("creates the log");
    let mut locations = Vec::new();
    for index in 1..=40u64 {
        let data = Bytes::from(vec![index as u8; 1000]);
        let entry = Record::Entry { group: 0, leader_term: 1, term: 1, index, kind: 0, data };
        wal.append(&[entry], &mut locations).expect("appends");
    }
    wal.sync().expect("syncs");
    let reader = wal.reader();
    disk.flip_bit("log/00000001.seg", u64::from(locations[0].offset()) + 100, 3).expect("flips");
    assert!(matches!(reader.read(locations[0]), Err(WalReadError::Damaged { segment: 1, .. })));
    assert_eq!(reader.read(locations[1]).expect("reads"), vec![2; 1000]);

    assert_eq!(wal.oldest_segment().pins[0].group, 0);
    let up_to = wal.pinned_by(2)[0].last_index;
    wal.append(&[Record::Compacted { group: 0, index: up_to, term: 1 }], &mut Vec::new()).expect("appends");
    assert_eq!(wal.release().expect("releases"), 2);
    assert!(matches!(reader.read(locations[0]), Err(WalReadError::Released { segment: 1 })));
    assert_eq!(reader.read(locations[39]).expect("reads"), vec![40; 1000]);
}

#[test]
fn limits_are_kept() {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("creates the log");
    let limit = options().data_bytes_max();
    let entry = |len: u64| {
        let data = Bytes::from(vec![1; len as usize]);
        Record::Entry { group: 0, leader_term: 1, term: 1, index: 1, kind: 0, data }
    };
    let mut locations = Vec::new();
    let refused = wal.append(&[entry(limit + 1)], &mut locations);
    assert!(matches!(refused, Err(WalError::Invalid(_))), "{refused:?}");
    wal.append(&[entry(limit)], &mut locations).expect("a record that fills a segment");
    assert_eq!(wal.reader().read(locations[0]).expect("reads").len() as u64, limit);
    wal.close().expect("closes");
    assert_eq!(open(&disk).expect("opens").1.groups[&0].entries.len(), 1);

    for segment_bytes in [0, 4096, 16384 + 1, 2 << 30] {
        let bad = WalOptions { segment_bytes, ..options() };
        let refused = Wal::open(Arc::new(disk.clone()), "log", bad);
        assert!(matches!(refused, Err(WalOpenError::Options(_))), "{segment_bytes}");
    }
    let bad = WalOptions { spare_segments: 0, ..options() };
    assert!(matches!(Wal::open(Arc::new(disk), "log", bad), Err(WalOpenError::Options(_))));
}

/// Many openings with little in between do not pile up segments.
#[test]
fn openings_do_not_pile_up() {
    let disk = SimDisk::new();
    for index in 1..=200u64 {
        let (mut wal, _) = open(&disk).expect("opens");
        let data = Bytes::from_static(b"little");
        let entry = Record::Entry { group: 0, leader_term: 1, term: 1, index, kind: 0, data };
        wal.append(&[entry], &mut Vec::new()).expect("appends");
        wal.sync().expect("syncs");
    }
    let (wal, model) = open(&disk).expect("opens");
    assert_eq!(model.groups[&0].entries.len(), 200);
    let stats = wal.stats();
    assert!(stats.segments <= 200 * 128 / (8 << 10) * 4 + 2, "{stats:?}");
    assert!(stats.spares <= options().spare_segments);
}
