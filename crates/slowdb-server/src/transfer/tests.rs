//! A shard's state goes to another replica whole, or not at all.

use super::*;
use crate::envelope::Envelope;
use crate::shard::{ShardMachine, ShardPlace, WriteOutcome};
use slowdb_disk::SimDisk;
use slowdb_fuzz::Target;
use slowdb_proto::OpsBuilder;
use slowdb_repl::{AckLevel, Position, ProposalHeader, ProposalView};
use slowdb_storage::Options;
use std::sync::Arc;

const DIMENSION: usize = 3;

fn open(disk: &SimDisk, incarnation: u64) -> ShardMachine {
    let mut options = Options::new(DIMENSION);
    options.extent_bytes = 1 << 16;
    let place = ShardPlace { disk: Arc::new(disk.clone()), replica: 4, options };
    ShardMachine::open(place, incarnation).expect("it opens")
}

fn write(shard: &mut ShardMachine, index: u64, sequence: u64, retry: bool, body: &[u8]) -> WriteOutcome {
    try_write(shard, index, sequence, retry, body).expect("the disk works")
}

fn try_write(
    shard: &mut ShardMachine,
    index: u64,
    sequence: u64,
    retry: bool,
    body: &[u8],
) -> Result<WriteOutcome, ApplyError> {
    let (level, client) = (AckLevel::Quorum, [7; 16]);
    let header = ProposalHeader { level, retry, writes: 1, client, sequence, hlc: 0, origin: 1, late: None };
    let first = Position::new(2, index, 0);
    shard.apply(&ProposalView { header, first, body })
}

fn put(id: &str, payload: &[u8]) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.put(id, &[1.0, -2.0, id.len() as f32], payload).expect("a good put");
    batch.finish()
}

fn id(number: u64) -> String {
    format!("{}{number}", "x".repeat(number as usize % 40))
}

fn payload(number: u64) -> Vec<u8> {
    (0..number * 37 % 3_000).map(|byte| (byte + number) as u8).collect()
}

/// A shard with this many records written, a few of them deleted again.
fn filled(records: u64) -> ShardMachine {
    let mut shard = open(&SimDisk::new(), 0);
    for number in 0..records {
        write(&mut shard, 2 + number, number, false, &put(&id(number), &payload(number)));
    }
    for number in (0..records).step_by(7).skip(1) {
        let mut batch = OpsBuilder::new();
        batch.delete(&id(number)).expect("a good delete");
        write(&mut shard, 2 + records + number, records + number, false, &batch.finish());
    }
    shard
}

fn parts_of(shard: &ShardMachine) -> Vec<Vec<u8>> {
    let snapshot = shard.snapshot().expect("it can be shown");
    assert_eq!(snapshot.digest(), shard.digest());
    let (mut parts, mut cursor) = (Vec::new(), Some(0));
    while let Some(at) = cursor {
        let (mut part, mut again) = (Vec::new(), Vec::new());
        cursor = snapshot.read(at, &mut part).expect("the disk works");
        assert_eq!(snapshot.read(at, &mut again), Ok(cursor), "a part can be asked for twice");
        assert!(part == again && cursor.is_none_or(|next| next > at && next < u64::MAX));
        parts.push(part);
    }
    parts
}

/// What comes of these parts as the snapshot at an index.
fn take<P: AsRef<[u8]>>(machine: &ShardMachine, index: u64, parts: &[P]) -> Result<[u8; 16], ApplyError> {
    let mut staging = machine.stage(index)?;
    parts.iter().try_for_each(|part| staging.write(part.as_ref()))?;
    staging.finish()
}

#[test]
fn a_shard_arrives_as_it_was() {
    let source = filled(900);
    let parts = parts_of(&source);
    assert!(parts.len() > 3 && parts.iter().all(|part| part.len() <= PART_BYTES), "{}", parts.len());
    let disk = SimDisk::new();
    let mut machine = open(&disk, 0);
    write(&mut machine, 2, 9_999, false, &put("before", b"it goes"));
    let before = machine.digest();
    assert_eq!(take(&machine, 2_000, &parts), Ok(source.digest()));
    assert_eq!((machine.digest(), machine.held()), (before, 0), "what is staged is beside what is in use");
    machine.install(2_000).expect("it was staged");
    assert_eq!((machine.digest(), machine.held()), (source.digest(), 2_000));
    assert_eq!(machine.records(), source.records());
    for number in 0..900 {
        let (here, there) = (machine.reader(), source.reader());
        let record = |reader: &crate::read::ShardReader| {
            let shown = reader.records.get_with(id(number).as_bytes(), |record| {
                (record.vector.to_vec(), record.payload.to_vec(), record.version)
            });
            shown.expect("it is whole")
        };
        assert_eq!(record(&here), record(&there), "record {number}");
        let unwrapped = |payload: Vec<u8>| Envelope::unwrap(&payload).expect("it is wrapped").1.to_vec();
        let payload = record(&here).map(|(_, payload, _)| unwrapped(payload));
        assert!(payload.is_none_or(|payload| payload == self::payload(number)), "record {number}");
    }
    // It also knows what became of writes, and goes on like the one that it came from.
    let again = put("again", b"");
    let outcome = write(&mut machine, 2_001, 5, true, &again);
    let WriteOutcome::Done(result) = outcome else { panic!("{outcome:?}") };
    assert_eq!((result.first, result.replaced), (Position::new(2, 7, 0), 0));
    machine.forget();
    drop(machine);
    let machine = open(&disk.crash(&mut || 0), 2_000);
    assert_eq!((machine.digest(), machine.held()), (source.digest(), 2_000), "all of it is durable");
}

#[test]
fn an_empty_shard_is_one_part() {
    let source = filled(0);
    let parts = parts_of(&source);
    assert_eq!(parts.len(), 1);
    let mut machine = open(&SimDisk::new(), 0);
    assert_eq!(take(&machine, 1, &parts), Ok(source.digest()));
    machine.install(1).expect("it was staged");
    assert_eq!((machine.records(), machine.held()), (0, 1));
}

#[test]
fn a_second_attempt_begins_anew() {
    let source = filled(20);
    let parts = parts_of(&source);
    let machine = open(&SimDisk::new(), 0);
    let mut staging = machine.stage(90).expect("the disk works");
    staging.write(&parts[0]).expect("it is the mark");
    let mut other = vec![RECORDS];
    let record = |payload: &'static [u8]| RecordRef {
        id: b"of the first attempt",
        payload,
        vector: &[0.0; 3],
        version: Version::default(),
    };
    push_record(&mut other, &record(&[0; 9]));
    staging.write(&other).expect("it is a record");
    let mut bare = vec![RECORDS];
    push_record(&mut bare, &record(b""));
    let why = staging.write(&bare).expect_err("it does not say how it came to be");
    assert!(why.0.contains("how it came to be"), "{why}");
    drop(staging);
    assert_eq!(take(&machine, 90, &parts), Ok(source.digest()));
    assert!(machine.stage(0).is_err(), "the state in use is not written over");
}

#[test]
fn parts_out_of_order_are_refused() {
    let source = filled(20);
    let parts = parts_of(&source);
    let machine = open(&SimDisk::new(), 0);
    let (mark, records) = (&parts[0][..], &parts[1][..]);
    let cases: [(&str, Vec<&[u8]>); 7] = [
        ("no parts", vec![]),
        ("no mark", vec![records]),
        ("records before the mark", vec![records, mark]),
        ("a mark behind records", vec![mark, records, mark]),
        ("a part of nothing", vec![mark, &[]]),
        ("a part of another kind", vec![mark, &[3, 0, 0]]),
        ("a mark that is none", vec![&[MARK, 1, 2, 3], records]),
    ];
    for (what, parts) in cases {
        assert!(take(&machine, 90, &parts).is_err(), "{what}");
    }
    assert_ne!(take(&machine, 90, &[mark]), Ok(source.digest()), "records that are missing are missed");
    let why = take(&machine, 20, &parts).expect_err("it was made later than that").0;
    assert!(why.contains("a snapshot at 20 says that 36 is in it"), "{why}");
}

/// Whatever the bytes are: an error, or another digest than the one that was offered.
#[test]
fn damaged_records_are_noticed() {
    let source = filled(9);
    let parts = parts_of(&source);
    let machine = open(&SimDisk::new(), 0);
    let [mark, records] = &parts[..] else { panic!("two parts") };
    for len in 0..records.len() {
        assert_ne!(take(&machine, 90, &[mark, &records[..len]]), Ok(source.digest()), "{len} bytes");
    }
    let flip = |at: usize, bit: usize| {
        let mut bad = records.clone();
        bad[at] ^= 1 << bit;
        assert_ne!(take(&machine, 90, &[mark, &bad]), Ok(source.digest()), "byte {at}, bit {bit}");
    };
    // Every bit of the first record, one of every third byte of the others.
    (0..60).for_each(|at| (0..8).for_each(|bit| flip(at, bit)));
    (60..records.len()).step_by(3).for_each(|at| flip(at, at % 8));
    for len in [u32::MAX, u32::MAX - 30, 1 << 31, 65_537] {
        let mut bad = records.clone();
        bad[3..7].copy_from_slice(&len.to_le_bytes());
        assert!(take(&machine, 90, &[mark, &bad]).is_err(), "a payload of {len} bytes");
    }
}

#[test]
fn a_damaged_mark_does_no_harm() {
    let source = filled(9);
    let parts = parts_of(&source);
    let machine = open(&SimDisk::new(), 0);
    for len in 1..parts[0].len() {
        assert_ne!(take(&machine, 90, &[&parts[0][..len], &parts[1]]), Ok(source.digest()), "{len} bytes");
    }
    for at in 1..parts[0].len() {
        let mut bad = parts[0].clone();
        bad[at] ^= 1 << (at % 8);
        if take(&machine, 90, &[&bad, &parts[1]]) == Ok(source.digest()) {
            let mut other = open(&SimDisk::new(), 0);
            take(&other, 90, &[&bad, &parts[1]]).expect("it was taken before");
            other.install(90).expect("it was staged");
            assert_eq!((other.digest(), other.held()), (source.digest(), 90), "byte {at}");
        }
    }
}

/// Lengths of parts, and parts.
fn framed(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_le_bytes()[..], part].concat()).collect()
}

fn unframed(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (part, tail) = tail.split_at(tail.len().min(u32::from_le_bytes(*len) as usize));
        parts.push(part);
        rest = tail;
    }
    parts
}

/// What was taken in is whole: it is sent on as it came, and written to. Nothing else is taken in.
#[test]
fn fuzz_snapshot_parts() {
    let corpus = [0, 1, 9].map(|records| framed(&parts_of(&filled(records))));
    let target = Target::new("fuzz_snapshot_parts", corpus).cases(500).memory(16 << 20, 64);
    target.run(|bytes| {
        let mut machine = open(&SimDisk::new(), 0);
        let Ok(digest) = take(&machine, 90, &unframed(bytes)) else { return false };
        machine.install(90).expect("it was staged");
        assert_eq!((machine.digest(), machine.held()), (digest, 90));
        let other = open(&SimDisk::new(), 0);
        assert_eq!(take(&other, 90, &parts_of(&machine)), Ok(digest));
        // A mark of a later term than there is makes that an error, but a leader that lies about it could say anything.
        let _ = try_write(&mut machine, 91, 1, true, &put(&id(1), b"after"));
        true
    });
}
