//! Slots are not used again under reads that can get at them: a model check of the store as it is, with the atomics
//! between its writer and its readers in the hands of a scheduler that tries orders of their steps.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{DIMENSION, Rng, open};
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, Runner, thread};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{CANARY_IGNORE_READS, Reader, Record, RecordRef, Store, Version};

const ID: [&[u8]; 3] = [b"a", b"b", b"c"];
const READS: usize = 3;

#[derive(Clone, Copy)]
enum Step {
    Put(usize),
    Delete(usize),
    Checkpoint,
}

/// Replaces, deletes and checkpoints, so that slots are used again out of the overlay, out of the index, and of deleted
/// ids.
const STEPS: [Step; 14] = [
    Step::Put(0),
    Step::Put(1),
    Step::Put(0),
    Step::Put(0),
    Step::Checkpoint,
    Step::Put(0),
    Step::Delete(1),
    Step::Put(2),
    Step::Checkpoint,
    Step::Put(0),
    Step::Put(1),
    Step::Put(2),
    Step::Delete(0),
    Step::Put(0),
];

type Records = BTreeMap<Vec<u8>, Record>;

fn record(id: usize, step: usize) -> Record {
    let payload = vec![step as u8; 8 + id];
    Record { vector: vec![step as f32; DIMENSION], payload, version: Version([step as u64, id as u64, 0]) }
}

/// What there is before each step, and in the end.
fn history() -> Vec<Records> {
    let mut now = Records::new();
    let mut all = vec![now.clone()];
    for (n, step) in STEPS.into_iter().enumerate() {
        match step {
            Step::Put(id) => drop(now.insert(ID[id].to_vec(), record(id, n))),
            Step::Delete(id) => drop(now.remove(ID[id])),
            Step::Checkpoint => {}
        }
        all.push(now.clone());
    }
    all
}

fn write(store: &mut Store, done: &AtomicUsize) {
    for (n, step) in STEPS.into_iter().enumerate() {
        match step {
            Step::Put(id) => {
                let Record { vector, payload, version } = record(id, n);
                store.put(ID[id], (&vector).into(), &payload, version).unwrap();
            }
            Step::Delete(id) => drop(store.delete(ID[id]).unwrap()),
            Step::Checkpoint => store.checkpoint(&[n as u8]).unwrap(),
        }
        done.store(n + 1, Ordering::SeqCst);
    }
}

/// A copy, made in two halves with others in between.
fn copy(record: RecordRef<'_>) -> Record {
    let vector = record.vector.to_vec();
    thread::yield_now();
    let later = record.to_record();
    assert_eq!(later.vector, vector, "a record changed under a read");
    later
}

/// What is read was there at a moment between the beginning of the read and its end.
fn read(reader: &Reader, history: &[Records], done: &AtomicUsize) {
    for n in 0..READS {
        let first = done.load(Ordering::SeqCst);
        let moments = || &history[first..history.len().min(done.load(Ordering::SeqCst) + 2)];
        for id in ID {
            let found = reader.get_with(id, |record| {
                assert_eq!(record.id, id);
                copy(record)
            });
            let found = found.expect("nothing is damaged");
            assert!(
                moments().iter().any(|then| then.get(id) == found.as_ref()),
                "read {n}: {id:?} {found:?}"
            );
        }
        let first = done.load(Ordering::SeqCst);
        let snapshot = reader.snapshot();
        let mut found = Records::new();
        for record in snapshot.iter() {
            let record = record.expect("nothing is damaged");
            let id = record.id.to_vec();
            assert!(found.insert(id, copy(record)).is_none(), "read {n}: an id twice");
        }
        let moments = &history[first..history.len().min(done.load(Ordering::SeqCst) + 2)];
        assert!(moments.contains(&found), "read {n}: {found:?}");
    }
}

/// Lets each thread go on for a run of steps whose length is of any order of magnitude. A read is a few steps and a
/// checkpoint is hundreds, and what goes wrong does so where one stands still within a few while another does much:
/// changes at every step, or at a few in thousands, hardly ever find such a place.
struct Bursts {
    rng: Rng,
    tries: usize,
    left: u64,
}

impl Scheduler for Bursts {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.tries = self.tries.checked_sub(1)?;
        self.left = 0;
        Some(Schedule::new(self.rng.next()))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, _: bool) -> Option<TaskId> {
        self.left = self.left.saturating_sub(1);
        if self.left > 0
            && let Some(task) = runnable.iter().find(|task| Some(task.id()) == current)
        {
            return Some(task.id());
        }
        self.left = [1, 3, 10, 30, 100, 300][self.rng.below(6) as usize];
        Some(runnable[self.rng.below(runnable.len() as u64) as usize].id())
    }

    fn next_u64(&mut self) -> u64 {
        self.rng.next()
    }
}

/// How many orders of a writer and two readers are tried.
const TRIES: usize = 10_000;

/// Returns how often a slot was used again.
fn check(seed: u64) -> usize {
    let reused = Arc::new(AtomicUsize::new(0));
    let history = Arc::new(history());
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    let scheduler = Bursts { rng: Rng(seed), tries: TRIES, left: 0 };
    let reuses = Arc::clone(&reused);
    Runner::new(scheduler, config).run(move || {
        let mut store = open(&(Arc::new(SimDisk::new()) as Arc<dyn Disk>));
        let done = Arc::new(AtomicUsize::new(0));
        let reading: Vec<_> = (0..2)
            .map(|_| {
                let (reader, history, done) = (store.reader(), Arc::clone(&history), Arc::clone(&done));
                thread::spawn(move || read(&reader, &history, &done))
            })
            .collect();
        write(&mut store, &done);
        let puts = STEPS.iter().filter(|step| matches!(step, Step::Put(_))).count();
        reuses.fetch_add(puts - store.slots_used() as usize, Ordering::Relaxed);
        reading.into_iter().for_each(|thread| thread.join().unwrap());
    });
    reused.load(Ordering::Relaxed)
}

fn seed() -> u64 {
    let seed = std::env::var("SLOWDB_SEED").map_or(1, |seed| seed.parse().expect("SLOWDB_SEED is a number"));
    println!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --features model --test reclamation");
    seed
}

#[test]
fn readers_see_whole_records_of_their_moment_in_any_order_of_steps() {
    let reused = check(seed());
    println!("slots used again: {reused}");
    assert!(reused > TRIES, "only {reused} slots were used again: the orders tried say little");
}

#[test]
fn using_slots_again_under_reads_is_caught() {
    CANARY_IGNORE_READS.set(true);
    let seed = seed();
    std::panic::catch_unwind(|| check(seed)).expect_err("the planted bug went unnoticed");
}
