//! Hostile bytes for the log: headers, and whole sequences of records whose checksums and chain are right.

use super::super::format::{
    HEADER_AREA, HeaderCopy, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, body_check,
    record_bytes, u32_at, u64_at,
};
use super::super::{HardState, Record, Recovered, Wal, WalOptions};
use bytes::Bytes;
use slowdb_disk::{Disk, SimDisk};
use slowdb_fuzz::Target;
use std::io::IoSlice;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

const SEGMENT: &str = "log/00000001.seg";

fn open(disk: &SimDisk) -> Option<(Wal, Recovered)> {
    let options = WalOptions { segment_bytes: 16 << 10, log_id: 4711, ..WalOptions::default() };
    Wal::open(Arc::new(disk.clone()), "log", options).ok()
}

/// A life with every kind of record.
fn records() -> Vec<Record> {
    let entry = |group, index, term| {
        let data = Bytes::from(vec![index as u8; 30 * index as usize]);
        Record::Entry { group, leader_term: term, term, index, kind: 0, data }
    };
    let state = |term, commit| HardState { term, vote: 1, commit };
    let data = || Bytes::from_static(b"membership");
    vec![
        Record::Config { group: 1, data: data() },
        entry(1, 1, 1),
        entry(1, 2, 1),
        Record::HardState { group: 1, state: state(1, 1) },
        Record::Overtaken { group: 1, term: 1, index: 2, data: Bytes::from_static(&[0; 24]) },
        entry(1, 2, 2),
        entry(1, 3, 2),
        Record::HardState { group: 1, state: state(2, 3) },
        Record::Settled { group: 1, term: 1, index: 2, offset: 0 },
        Record::Compacted { group: 1, index: 2, term: 2 },
        Record::Config { group: 2, data: data() },
        entry(2, 1, 1),
        Record::Removed { group: 2 },
        Record::Snapshot { group: 3, index: 40, term: 3, data: data() },
        entry(3, 41, 3),
    ]
}

fn image(disk: &SimDisk) -> Vec<u8> {
    let file = disk.open(SEGMENT, false).expect("it is there");
    let mut bytes = vec![0; file.len().expect("the disk works") as usize];
    file.read_at(&mut bytes, 0).expect("the disk works");
    bytes
}

/// A log of one segment, and what is in it.
fn logged(records: &[Record]) -> SimDisk {
    let disk = SimDisk::new();
    let (mut wal, _) = open(&disk).expect("it is new");
    for record in records {
        wal.append(std::slice::from_ref(record), &mut Vec::new()).expect("a correct group appends this");
        wal.sync().expect("the disk works");
    }
    disk
}

fn segment_header(image: &[u8]) -> SegmentHeader {
    let header = image.first_chunk::<SEGMENT_HEADER>().expect("it is longer");
    let HeaderCopy::Valid(header) = SegmentHeader::decode(header) else { panic!("it is valid") };
    header
}

/// The area of records up to the end of the last.
fn area(image: &[u8]) -> Vec<u8> {
    let mut at = HEADER_AREA as usize;
    while u64_at(image, at) != 0 {
        at += record_bytes(u64::from(u32_at(image, at + 32))) as usize;
    }
    image[HEADER_AREA as usize..at].to_vec()
}

/// Makes the checksums and the chain right, as far as there are records.
fn reseal(header: &SegmentHeader, area: &mut [u8]) {
    let (mut at, mut chain) = (0, header.chain_start());
    while let Some(head) = area.get(at..at + RECORD_HEADER) {
        let body_bytes = u32_at(head, 32);
        let Some(body) = area.get(at + RECORD_HEADER..).and_then(|rest| rest.get(..body_bytes as usize))
        else {
            return;
        };
        let record = RecordHeader {
            chain,
            body_check: body_check(body),
            watermark: u32_at(head, 24),
            opening: u32_at(head, 28),
            body_bytes,
            kind_byte: head[36],
            kind: head[37],
            group: u64_at(head, 40),
            term: u64_at(head, 48),
            index: u64_at(head, 56),
        };
        let mut sealed = Vec::new();
        chain = record.encode(header.seed(), HEADER_AREA + at as u32, &mut sealed);
        area[at..at + RECORD_HEADER].copy_from_slice(&sealed);
        at += record_bytes(u64::from(body_bytes)) as usize;
    }
}

/// What is recovered, but for the places.
fn summary(wal: &Wal, recovered: &Recovered) -> String {
    let groups = recovered.groups.iter().map(|(id, group)| {
        let entries = group.entries.iter().map(|entry| {
            let data = wal.reader().read(entry.location).expect("what is recovered can be read");
            (entry.index, entry.term, entry.kind, data)
        });
        (id, group.hard_state, group.config.clone(), group.compacted, entries.collect::<Vec<_>>())
    });
    let groups: Vec<_> = groups.collect();
    format!("{groups:?} {:?} {:?}", recovered.removed, recovered.overtaken)
}

/// Whatever records are there, the log opens, or says why not; and what it found is found again.
#[test]
fn fuzz_wal_records() {
    let all = records();
    let template = image(&logged(&[]));
    let header = segment_header(&template);
    let mut corpus: Vec<_> = (1..=all.len()).map(|taken| area(&image(&logged(&all[..taken])))).collect();
    corpus.push(Vec::new());
    let target = Target::new("fuzz_wal_records", corpus).cases(1_500).memory(2 << 20, 64);
    target.reseal(|area| reseal(&header, area)).run(|area| {
        let disk = logged(&[]);
        let mut bytes = template.clone();
        let taken = area.len().min(bytes.len() - HEADER_AREA as usize);
        bytes[HEADER_AREA as usize..][..taken].copy_from_slice(&area[..taken]);
        let file = disk.open(SEGMENT, false).expect("it is there");
        file.write_at(&[IoSlice::new(&bytes)], 0).expect("the disk works");
        let Some((wal, recovered)) = open(&disk) else { return false };
        let found = summary(&wal, &recovered);
        drop(wal);
        let (wal, recovered) = open(&disk).expect("it was opened before");
        assert_eq!(summary(&wal, &recovered), found);
        true
    });
}

#[test]
fn fuzz_wal_segment_header() {
    let header = segment_header(&image(&logged(&[])));
    let later =
        SegmentHeader { sequence: 9, prev_sequence: 8, prev_end: HEADER_AREA + 64, opening: 3, ..header };
    let target =
        Target::new("fuzz_wal_segment_header", [header, later].map(|header| header.encode().to_vec()));
    let reseal = |bytes: &mut Vec<u8>| {
        if bytes.len() >= SEGMENT_HEADER {
            let sum = xxh3_64(&bytes[..88]);
            bytes[88..96].copy_from_slice(&sum.to_le_bytes());
        }
    };
    target.reseal(reseal).run(|bytes| {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else { return false };
        let HeaderCopy::Valid(header) = SegmentHeader::decode(bytes) else { return false };
        assert_eq!(header.encode(), *bytes, "one encoding for each");
        true
    });
}
