//! Snapshots show the state of their moment, whatever is written, checkpointed and reused meanwhile.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use common::{DIMENSION, Model, Rng, options, write};
use proptest::prelude::*;
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{
    CheckpointDone, Corruption, Record, SNAPSHOTS_MAX, Snapshot, SnapshotError, Store, Version,
};

type Records = BTreeMap<Vec<u8>, Record>;
/// What one read shows, and where to go on.
type Chunk = (Vec<(Vec<u8>, Record)>, Option<u64>);

const fn is_for_any_thread<T: Send + Sync + 'static>() {}
const _: () = is_for_any_thread::<Snapshot>();

fn open() -> Store {
    common::open(&(Arc::new(SimDisk::new()) as Arc<dyn Disk>))
}

fn id(n: u64) -> Vec<u8> {
    format!("id {n}").into_bytes()
}

/// Puts a record that says which write of which id it is.
fn put(store: &mut Store, records: &mut Records, n: u64, write: u64) {
    let record = Record {
        vector: vec![(n * 100_000 + write) as f32; DIMENSION],
        payload: vec![write as u8; (write % 50) as usize],
        version: Version([write, n, 0]),
    };
    store.put(&id(n), (&record.vector).into(), &record.payload, record.version).unwrap();
    records.insert(id(n), record);
}

/// One read from a cursor, as much as fits in `bytes_max`.
fn chunk(snapshot: &Snapshot, from: u64, bytes_max: usize) -> Result<Chunk, Corruption> {
    let (mut chunk, mut bytes) = (Vec::new(), 0);
    let next = snapshot.read(from, |record| {
        bytes += record.id.len() + record.payload.len() + record.vector.len() * 4;
        let fits = bytes <= bytes_max;
        if fits || chunk.is_empty() {
            chunk.push((record.id.to_vec(), record.to_record()));
        }
        fits
    })?;
    Ok((chunk, next))
}

/// Everything, in chunks, each of them read twice.
fn read_all(snapshot: &Snapshot, bytes_max: usize) -> Records {
    let (mut records, mut cursor) = (Records::new(), Some(0));
    while let Some(from) = cursor {
        let (part, next) = chunk(snapshot, from, bytes_max).unwrap();
        assert_eq!((&part, next), (&chunk(snapshot, from, bytes_max).unwrap().0, next), "read again");
        assert!(!part.is_empty() || snapshot.is_empty(), "every read gets on");
        let bytes = |r: &(Vec<u8>, Record)| r.0.len() + r.1.payload.len() + r.1.vector.len() * 4;
        assert!(part.len() <= 1 || part.iter().map(bytes).sum::<usize>() <= bytes_max);
        for (id, record) in part {
            assert!(records.insert(id, record).is_none(), "a record twice");
        }
        cursor = next;
    }
    records
}

/// Compares a snapshot with what it must show, and its digest with that of a store made from what it shows.
fn check(snapshot: &Snapshot, expected: &Records, bytes_max: usize) {
    let records = read_all(snapshot, bytes_max);
    assert_eq!(&records, expected);
    assert_eq!((snapshot.len(), snapshot.dimension()), (expected.len() as u64, DIMENSION));
    let mut copy = open();
    for (id, record) in &records {
        copy.put(id, (&record.vector).into(), &record.payload, record.version).unwrap();
    }
    assert_eq!((copy.digest(), copy.len()), (snapshot.digest(), snapshot.len()));
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        seed: u64,
    },
    Checkpoint,
    BeginCheckpoint,
    FinishCheckpoint,
    Take,
    /// Drops one of the snapshots.
    Drop(usize),
    /// Reads one of the snapshots.
    Read {
        which: usize,
        bytes_max: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        40 => any::<u64>().prop_map(|seed| Step::Write { seed }),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::BeginCheckpoint),
        2 => Just(Step::FinishCheckpoint),
        3 => Just(Step::Take),
        2 => any::<usize>().prop_map(Step::Drop),
        2 => (any::<usize>(), 0..2000usize).prop_map(|(which, bytes_max)| Step::Read { which, bytes_max }),
    ];
    prop::collection::vec(step, 0..400)
}

struct World {
    store: Store,
    model: Model,
    begun: Option<CheckpointDone>,
    /// With what they must show.
    snapshots: Vec<(Snapshot, Records)>,
}

impl World {
    fn step(&mut self, step: Step, ids: u64) {
        match step {
            Step::Write { seed } => write(&mut self.store, &mut self.model, &mut Rng(seed), ids),
            Step::Checkpoint => {
                self.begun = None;
                self.store.checkpoint(b"").unwrap();
            }
            Step::BeginCheckpoint => {
                self.begun = None;
                self.begun = Some(self.store.begin_checkpoint(b"").unwrap().run().unwrap());
            }
            Step::FinishCheckpoint => {
                if let Some(done) = self.begun.take() {
                    self.store.finish_checkpoint(done).unwrap();
                }
            }
            Step::Take => {
                self.snapshots.push((self.store.snapshot().unwrap(), self.model.records.clone()));
            }
            Step::Drop(which) if !self.snapshots.is_empty() => {
                self.snapshots.swap_remove(which % self.snapshots.len());
            }
            Step::Read { which, bytes_max } if !self.snapshots.is_empty() => {
                let (snapshot, expected) = &self.snapshots[which % self.snapshots.len()];
                check(snapshot, expected, bytes_max);
            }
            Step::Drop(_) | Step::Read { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_shows_its_moment(steps in steps(), ids in 1..30u64) {
        let mut world =
            World { store: open(), model: Model::default(), begun: None, snapshots: Vec::new() };
        for step in steps {
            world.step(step, ids);
        }
        for (snapshot, expected) in &world.snapshots {
            check(snapshot, expected, 500);
        }
        common::check(&world.store, &Model { mark: world.store.mark().to_vec(), ..world.model }, "the store");
    }
}

#[test]
fn a_kept_snapshot_costs_at_most_its_own_slots_and_gives_them_back() {
    const IDS: u64 = 40;
    let mut store = open();
    let mut now = Records::new();
    (0..IDS).for_each(|n| put(&mut store, &mut now, n, 1));
    store.checkpoint(b"").unwrap();
    let before = now.clone();
    let snapshot = store.snapshot().unwrap();
    let later = |store: &mut Store, now: &mut Records, from: u64, to: u64| {
        for write in from..to {
            (0..IDS).for_each(|n| put(store, now, n, write));
            store.checkpoint(b"").unwrap();
        }
    };
    later(&mut store, &mut now, 2, 6);
    let used = store.slots_used();
    later(&mut store, &mut now, 6, 60);
    assert_eq!(store.slots_used(), used, "what was written after the snapshot was taken is reused");
    assert!(used <= 4 * IDS, "{used} slots");
    check(&snapshot, &before, 300);
    let (second, third) = (store.snapshot().unwrap(), store.snapshot().unwrap());
    drop((snapshot, third));
    let at_second = now.clone();
    later(&mut store, &mut now, 60, 120);
    // A write that looks only at slots that are held takes a new one, which happens a few times at most.
    assert!(store.slots_used() <= used + IDS / 16, "the second holds as many as the first did");
    let used = store.slots_used();
    check(&second, &at_second, 300);
    drop(second);

    // Everything that was held is used again before the files grow.
    (0..IDS).for_each(|n| {
        store.delete(&id(n)).unwrap();
    });
    store.checkpoint(b"").unwrap();
    let mut more = Records::new();
    (1000..1000 + used).for_each(|n| put(&mut store, &mut more, n, 1));
    assert_eq!((store.slots_used(), store.len()), (used, used));
}

#[test]
fn readers_and_snapshots_do_not_take_each_others_places() {
    let mut store = open();
    let mut now = Records::new();
    (0..10).for_each(|n| put(&mut store, &mut now, n, 1));
    let mut snapshots: Vec<_> = (0..SNAPSHOTS_MAX).map(|_| store.snapshot().unwrap()).collect();
    let err = store.snapshot().unwrap_err();
    assert_eq!(err, SnapshotError::TooMany);
    assert_eq!(err.to_string(), "64 snapshots of the store are held: drop one before the next is taken");
    let reader = store.reader();
    let reads: Vec<_> = (0..100).map(|_| reader.snapshot()).collect();
    assert!(reads.iter().all(|read| read.iter().count() == 10));
    drop(reads);
    snapshots.pop();
    let moment = now.clone();
    (0..10).for_each(|n| put(&mut store, &mut now, n, 2));
    snapshots.push(store.snapshot().unwrap());
    check(&snapshots[0], &moment, 300);
    check(&snapshots[SNAPSHOTS_MAX - 1], &now, 300);
    assert!(store.snapshot().is_err());
}

#[test]
fn snapshots_are_read_on_other_threads_while_slots_are_reused() {
    const IDS: u64 = 30;
    let mut store = open();
    let mut now = Records::new();
    (0..IDS).for_each(|n| put(&mut store, &mut now, n, 1));
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (sender, receiver) = mpsc::sync_channel::<(Snapshot, Records)>(2);
                scope.spawn(move || {
                    for (snapshot, expected) in receiver {
                        for bytes_max in [0, 400, usize::MAX] {
                            check(&snapshot, &expected, bytes_max);
                        }
                    }
                });
                sender
            })
            .collect();
        let mut rng = Rng(3);
        for write in 2..6000 {
            put(&mut store, &mut now, rng.below(IDS), write);
            if write % 70 == 0 {
                store.checkpoint(b"").unwrap();
            }
            // Full queues are left alone: the writer waits for nobody.
            if write % 50 == 0 {
                let which = &senders[(write / 50 % 2) as usize];
                let _ = which.try_send((store.snapshot().unwrap(), now.clone()));
            }
            if write % 20 == 0 {
                std::thread::yield_now();
            }
        }
        senders[0].send((store.snapshot().unwrap(), now.clone())).unwrap();
    });
    assert!(store.slots_used() < 1000, "{} slots for {IDS} records", store.slots_used());
    assert_eq!(read_all(&store.snapshot().unwrap(), 300), now);
}

#[test]
fn a_read_stops_where_it_is_told_to() {
    let mut store = open();
    let mut now = Records::new();
    let empty = store.snapshot().unwrap();
    assert!(empty.is_empty());
    assert_eq!(empty.read(0, |_| unreachable!()).unwrap(), None);
    (0..4).for_each(|n| put(&mut store, &mut now, n, 1));
    store.delete(&id(1)).unwrap();
    let snapshot = store.snapshot().unwrap();
    let read = |from, count: usize| {
        let mut ids = Vec::new();
        let next = snapshot.read(from, |record| {
            ids.push(record.id.to_vec());
            ids.len() < count
        });
        (ids, next.unwrap())
    };
    // The first is used up though it says stop; a later one that says stop is shown again.
    assert_eq!(read(0, 1), (vec![id(0)], Some(2)));
    assert_eq!(read(0, 2), (vec![id(0), id(2)], Some(2)));
    assert_eq!(read(2, 1), (vec![id(2)], Some(3)));
    assert_eq!(read(3, 1), (vec![id(3)], None), "nothing is left, so there is no more to read");
    assert_eq!(read(0, 9), (vec![id(0), id(2), id(3)], None));
    for beyond in [4, 5, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(read(beyond, 9), (vec![], None));
    }
}

#[test]
fn a_snapshot_outlives_the_store_and_its_directory() {
    let disk = SimDisk::new();
    let mut store = common::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>));
    let mut now = Records::new();
    (0..20).for_each(|n| put(&mut store, &mut now, n, 1));
    store.checkpoint(b"").unwrap();
    (0..20).for_each(|n| put(&mut store, &mut now, n, 2));
    let snapshot = store.snapshot().unwrap();
    drop(store);
    slowdb_storage::remove(&disk, "s").unwrap();
    check(&snapshot, &now, 100);
}

#[test]
fn damage_is_an_error_that_names_the_slot() {
    let disk = SimDisk::new();
    let open = || Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    let mut store = open();
    (0..5).for_each(|n| put(&mut store, &mut Records::new(), n, 1));
    store.checkpoint(b"").unwrap();
    drop(store);
    // The stride is 64 bytes.
    disk.flip_bit("s/vectors", 3 * 64, 4).unwrap();
    let store = open();
    let snapshot = store.snapshot().unwrap();
    let mut seen = Vec::new();
    let damaged = snapshot.read(0, |record| {
        seen.push(record.id.to_vec());
        true
    });
    assert_eq!(damaged.unwrap_err().slot, Some(3));
    assert_eq!(seen, [id(0), id(1), id(2)]);
}
