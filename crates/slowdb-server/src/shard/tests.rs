//! What a checkpoint writes beside the records, where as much is kept as there can be.

use super::*;
use crate::conflicts::Became;
use slowdb_disk::SimDisk;
use slowdb_proto::WriteLevel;
use slowdb_proto::limits::{CONFLICT_BYTES_MAX, PAYLOAD_BYTES_MAX, TOMBSTONE_BYTES_MAX};
use std::time::Instant;

fn open() -> ShardMachine {
    let mut options = Options::new(1);
    options.extent_bytes = 1 << 16;
    let place = ShardPlace { disk: Arc::new(SimDisk::new()), replica: 4, options };
    ShardMachine::open(place, 0).expect("it opens")
}

/// Results of so many batches, which is a full window, every 512th with so many writes that changed nothing.
fn fill_window(dedup: &mut DedupWindow) {
    for sequence in 0..8_192_u64 {
        let first = Position::new(2, sequence + 2, 0);
        let unmet = if sequence.is_multiple_of(512) { 1_000 } else { 0 };
        let unmet = (0..unmet).map(|write| Unmet { write, current: Some(first) }).collect();
        dedup.remember([(sequence % 7) as u8; 16], sequence, WriteResult { first, replaced: 0, unmet });
    }
}

fn laid_out(machine: &ShardMachine) -> Vec<u8> {
    let start = Instant::now();
    let mark = rkyv::to_bytes::<RkyvError>(&machine.mark()).expect("memory holds it").into_vec();
    println!("a mark of {} bytes was laid out in {:?}", mark.len(), start.elapsed());
    mark
}

#[test]
fn a_mark_has_a_bound() {
    let mut machine = open();
    fill_window(&mut machine.beside.dedup);
    let window = laid_out(&machine).len();
    assert!(window < 2 << 20, "{window} bytes");

    let made = Envelope { level: WriteLevel::One, hlc: 7, was: None };
    for index in 0..TOMBSTONE_BYTES_MAX as u64 / 64 {
        machine.beside.tombstones.bury(&format!("{index:032}"), Position::new(2, index + 2, 0), made);
    }
    let value = || Value::Put { vector: vec![0; 4], payload: vec![1; PAYLOAD_BYTES_MAX] };
    for index in 2.. {
        let id = format!("{index:032}");
        if !machine.beside.conflicts.has_room(Conflict::bytes_of(&id, value().bytes())) {
            break;
        }
        let (was, decided) = (Position::new(2, index, 0), Position::new(3, index, 0));
        let (became, loser) = (Became::Lost, Some(value()));
        let conflict = Conflict { was, id, became, decided, met: None, made, loser, sibling: true };
        machine.beside.conflicts.note(conflict).expect("there is room");
    }
    let mark = laid_out(&machine);
    assert!(mark.len() > CONFLICT_BYTES_MAX && mark.len() < 24 << 20, "{} bytes", mark.len());
    let again = decode_mark(&mark).expect("it is sound");
    let again = Beside::of(again, 1).expect("it is sound");
    assert_eq!(again.digest(&machine.store), machine.digest());
}
