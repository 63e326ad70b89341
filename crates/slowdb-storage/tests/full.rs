//! Which errors say no more than that there is no room, and which leave open what is on the disk.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use common::faults::{FaultyDisk, Op};
use common::{DIMENSION, Model, Rng, check, options, write};
use slowdb_disk::Disk;
use slowdb_storage::{CheckpointError, Store, Version, WriteError};

const FULL: [ErrorKind; 3] = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge];

fn open(disk: &FaultyDisk) -> Store {
    Store::open(Arc::new(disk.clone()), "s", options()).unwrap()
}

/// A store with a checkpoint, and writes after it. The models are of the checkpoint and of now.
fn store(disk: &FaultyDisk) -> (Store, Model, Model) {
    let mut store = open(disk);
    let (mut model, mut rng) = (Model::default(), Rng(4));
    (0..50).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    model.mark = b"durable".to_vec();
    store.checkpoint(b"durable").unwrap();
    let durable = model.clone();
    (0..50).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    (store, durable, model)
}

#[test]
fn a_sync_that_says_that_the_disk_is_full_poisons_the_store() {
    for kind in FULL {
        let syncs = ["vectors", "slots", "heap", "index-", "manifest.tmp"].map(|name| (Op::Sync, name));
        for (op, name) in syncs.into_iter().chain([(Op::SyncDir, "")]) {
            let context = format!("{kind} of {op:?} {name}");
            let disk = FaultyDisk::new();
            let (mut store, durable, _) = store(&disk);
            disk.fail(op, name, kind);
            let failed = store.checkpoint(b"failed");
            assert!(
                disk.has_failed() && matches!(failed, Err(CheckpointError::Io(_))),
                "{context}: {failed:?}"
            );
            let again = store.checkpoint(b"lost");
            assert!(matches!(again, Err(CheckpointError::Poisoned(_))), "{context}: {again:?}");
            drop(store);
            let sim = disk.sim.crash(&mut || 0);
            check(&Store::open(Arc::new(sim), "s", options()).unwrap(), &durable, &context);
        }
    }
}

#[test]
fn a_checkpoint_without_room_is_tried_again() {
    for kind in FULL {
        for op in [Op::Allocate, Op::Write] {
            for name in ["index-", "manifest.tmp"] {
                let context = format!("{kind} of {op:?} {name}");
                let disk = FaultyDisk::new();
                let (mut store, _, mut model) = store(&disk);
                disk.fail(op, name, kind);
                let failed = store.checkpoint(b"failed");
                assert!(
                    disk.has_failed() && matches!(failed, Err(CheckpointError::NoSpace(_))),
                    "{context}: {failed:?}"
                );
                store.checkpoint(b"again").unwrap_or_else(|e| panic!("{context}: {e}"));
                drop(store);
                model.mark = b"again".to_vec();
                let sim = disk.sim.crash(&mut || 0);
                check(&Store::open(Arc::new(sim), "s", options()).unwrap(), &model, &context);
            }
        }
    }
}

#[test]
fn a_write_without_room_is_tried_again_whatever_is_full() {
    for kind in FULL {
        for name in ["heap", "slots", "vectors"] {
            let disk = FaultyDisk::new();
            let mut store = open(&disk);
            let mut put = || store.put(b"a", (&[1.0; DIMENSION]).into(), b"", Version::default());
            disk.fail(Op::Allocate, name, kind);
            let refused = put();
            assert!(matches!(refused, Err(WriteError::NoSpace(_))), "{kind} of {name}: {refused:?}");
            put().unwrap();
            store.checkpoint(b"").unwrap();
            drop(store);
            assert_eq!(open(&disk).len(), 1);
            assert!(disk.exists("s").unwrap());
        }
    }
}
