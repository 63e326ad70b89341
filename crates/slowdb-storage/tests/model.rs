//! Random operations, checkpoints and reopenings, compared with a model, on both disks.

mod common;

use std::sync::Arc;

use common::{Model, Rng, check, open, write};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::Store;

/// Runs one seed. What is reopened is what the last checkpoint held.
fn run(seed: u64, disk: &Arc<dyn Disk>) {
    let context = format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test model");
    let rng = &mut Rng(seed);
    let mut store = open(disk);
    let mut model = Model::default();
    let mut durable = model.clone();
    let ids = 2 + rng.below(60);
    for step in 0..400 {
        match rng.below(100) {
            0..3 => {
                model.mark = vec![step as u8; rng.below(2000) as usize];
                store.checkpoint(&model.mark.clone()).unwrap();
                durable = model.clone();
            }
            3..6 => slow_checkpoint(&mut store, &mut model, &mut durable, rng, ids),
            6 => drop(store.begin_checkpoint(b"given up").unwrap()),
            7..10 => {
                drop(store);
                store = open(disk);
                model = durable.clone();
                check(&store, &model, &context);
            }
            10..14 => check(&store, &model, &context),
            _ => write(&mut store, &mut model, rng, ids),
        }
    }
    check(&store, &model, &context);
}

/// A checkpoint with writes between its steps.
fn slow_checkpoint(store: &mut Store, model: &mut Model, durable: &mut Model, rng: &mut Rng, ids: u64) {
    let mark = vec![9; rng.below(5) as usize];
    let job = store.begin_checkpoint(&mark).unwrap();
    let frozen = model.clone();
    assert!(store.begin_checkpoint(b"").is_err(), "one at a time");
    (0..rng.below(30)).for_each(|_| write(store, model, rng, ids));
    let done = job.run().unwrap();
    (0..rng.below(30)).for_each(|_| write(store, model, rng, ids));
    *durable = Model { mark: mark.clone(), ..frozen };
    if rng.below(4) > 0 {
        store.finish_checkpoint(done).unwrap();
        model.mark = mark;
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SLOWDB_SEED") {
        Ok(seed) => vec![seed.parse().expect("SLOWDB_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn a_store_on_the_simulated_disk_does_what_the_model_does() {
    for seed in seeds(150) {
        run(seed, &(Arc::new(SimDisk::new()) as Arc<dyn Disk>));
    }
}

#[test]
fn a_store_on_the_real_disk_does_what_the_model_does() {
    for seed in seeds(8) {
        let dir = tempfile::tempdir().unwrap();
        run(seed, &(Arc::new(RealDisk::open(dir.path()).unwrap()) as Arc<dyn Disk>));
    }
}
