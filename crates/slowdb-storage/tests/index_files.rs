//! Index files that no checkpoint refers to do not stay, whatever became of the checkpoints they were for.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use common::chain::chain;
use common::faults::{FaultyDisk, Op};
use common::{DIMENSION, Model, Rng, check, options, write};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{CheckpointError, Store, Version};

struct World {
    disk: FaultyDisk,
    store: Store,
    model: Model,
    rng: Rng,
}

fn index_name(number: u64) -> String {
    format!("index-{number:016x}")
}

impl World {
    /// A store with one checkpoint.
    fn new() -> Self {
        let disk = FaultyDisk::new();
        let store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
        let mut world = Self { disk, store, model: Model::default(), rng: Rng(8) };
        world.checkpoint(b"first");
        world
    }

    fn write(&mut self) {
        (0..20).for_each(|_| write(&mut self.store, &mut self.model, &mut self.rng, 30));
    }

    fn checkpoint(&mut self, mark: &[u8]) {
        self.write();
        self.store.checkpoint(mark).unwrap();
        self.model.mark = mark.to_vec();
    }

    /// What is in the directory beside the data files and the manifest.
    fn others(&self) -> Vec<String> {
        let mut names = self.disk.list("s").unwrap();
        names.retain(|name| !["heap", "manifest", "slots", "vectors"].contains(&name.as_str()));
        names
    }

    /// Closes the store and checks that the checkpoint with this mark is found after a crash.
    fn crash(self) {
        drop(self.store);
        let disk = self.disk.sim.crash(&mut || 0);
        check(&Store::open(Arc::new(disk), "s", options()).unwrap(), &self.model, "after a crash");
    }
}

#[test]
fn a_checkpoint_that_fails_takes_its_files_away() {
    let mut world = World::new();
    for name in ["index-", "manifest.tmp"] {
        for op in [Op::Allocate, Op::Write] {
            world.write();
            world.disk.fail(op, name, ErrorKind::StorageFull);
            let failed = world.store.checkpoint(b"failed");
            assert!(matches!(failed, Err(CheckpointError::NoSpace(_))), "{op:?} {name}: {failed:?}");
            assert_eq!(world.others(), [index_name(1)], "{op:?} {name}");
        }
    }
    // Without a new index.
    world.checkpoint(b"second");
    world.disk.fail(Op::Write, "manifest.tmp", ErrorKind::StorageFull);
    assert!(world.store.checkpoint(b"failed").is_err());
    assert_eq!(world.others(), [index_name(6)]);
    world.disk.fail(Op::Sync, "manifest.tmp", ErrorKind::Other);
    assert!(matches!(world.store.checkpoint(b"failed"), Err(CheckpointError::Io(_))));
    assert_eq!(world.others(), [index_name(6)]);
    world.crash();
}

#[test]
fn what_a_failed_checkpoint_could_not_remove_the_next_one_does() {
    let mut world = World::new();
    world.write();
    let job = world.store.begin_checkpoint(b"failed").unwrap();
    world.disk.sim.set_capacity(Some(world.disk.sim.bytes_used() + 3 * 4096));
    world.disk.fail(Op::Remove, "index-", ErrorKind::PermissionDenied);
    assert!(matches!(job.run().err(), Some(CheckpointError::NoSpace(_))));
    world.disk.sim.set_capacity(None);
    assert!(world.disk.has_failed());
    assert_eq!(world.others(), [1, 2].map(index_name));
    let job = world.store.begin_checkpoint(b"not run").unwrap();
    assert_eq!(world.others(), [index_name(1)], "removed before anything is written");
    drop(job);
    world.checkpoint(b"second");
    assert_eq!(world.others(), [index_name(4)]);
    world.crash();
}

#[test]
fn a_checkpoint_that_is_durable_but_was_never_finished_keeps_its_index_until_the_next() {
    let mut world = World::new();
    for n in 2..5 {
        world.write();
        let job = world.store.begin_checkpoint(b"unfinished").unwrap();
        let needed = [1, n - 1].map(index_name);
        assert_eq!(world.others(), &needed[usize::from(n == 2)..], "that of readers, that of the manifest");
        drop(job.run().unwrap());
    }
    assert_eq!(world.others(), [1, 3, 4].map(index_name));
    let durable = Model { mark: b"unfinished".to_vec(), ..world.model.clone() };
    // One that fails does not take away what is durable.
    world.write();
    world.disk.fail(Op::Write, "index-", ErrorKind::StorageFull);
    assert!(world.store.checkpoint(b"failed").is_err());
    assert_eq!(world.others(), [1, 4].map(index_name));
    drop(world.store.begin_checkpoint(b"not run").unwrap());
    assert_eq!(world.others(), [1, 4].map(index_name));
    World { model: durable, ..world }.crash();

    let mut world = World::new();
    world.write();
    drop(world.store.begin_checkpoint(b"unfinished").unwrap().run().unwrap());
    world.checkpoint(b"last");
    assert_eq!(world.others(), [index_name(3)]);
    world.crash();
}

#[test]
fn a_checkpoint_whose_publishing_failed_keeps_its_index() {
    let mut world = World::new();
    world.write();
    let job = world.store.begin_checkpoint(b"second").unwrap();
    // The first sync of the directory is before the manifest gets its name.
    let syncs = world.disk.sim.syncs();
    world.disk.sim.fail_sync_in(6);
    assert!(matches!(job.run().err(), Some(CheckpointError::Io(_))));
    assert_eq!(world.disk.sim.syncs(), syncs + 7, "the sync that failed is the last one");
    assert_eq!(world.others(), [1, 2].map(index_name));
    drop(world.store);
    let store = Store::open(Arc::new(world.disk.clone()), "s", options()).unwrap();
    world.model.mark = b"second".to_vec();
    check(&store, &world.model, "its name is there, and durable now");
}

/// A new base became durable and was never finished, and the next checkpoint is a delta above the files before it.
#[test]
fn a_checkpoint_above_the_files_that_readers_have_finds_them_there() {
    let disk = SimDisk::new();
    let open = |disk: SimDisk| Store::open(Arc::new(disk), "s", options()).unwrap();
    let mut store = open(disk.clone());
    let put = |store: &mut Store, n: u32| {
        let vector = vec![n as f32; DIMENSION];
        store.put(format!("id {n}").as_bytes(), (&vector).into(), b"", Version::default()).unwrap();
    };
    (0..40).for_each(|n| put(&mut store, n));
    store.checkpoint(b"base").unwrap();
    (0..2).for_each(|n| put(&mut store, n));
    store.checkpoint(b"delta").unwrap();
    assert_eq!(chain(&disk).len(), 2);
    (40..140).for_each(|n| put(&mut store, n));
    drop(store.begin_checkpoint(b"durable").unwrap().run().unwrap());
    assert_eq!(chain(&disk).len(), 1, "a base");
    (40..140).for_each(|n| assert!(store.delete(format!("id {n}").as_bytes()).unwrap().is_some()));
    put(&mut store, 2);
    store.checkpoint(b"last").unwrap();
    assert!(chain(&disk).len() > 1, "a delta");
    drop(store);
    let store = open(disk);
    let found = (0..140).filter(|n| store.reader().get(format!("id {n}").as_bytes()).unwrap().is_some());
    assert_eq!((found.count(), store.len(), store.mark()), (40, 40, &b"last"[..]));
}
