//! Random operations, checkpoints and reopenings, compared with a model, on both disks.

mod common;

use std::sync::Arc;

use common::chain::Met;
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

/// Many checkpoints of a store, each of a few writes, with snapshots across them, reopened now and then.
fn run_levels(seed: u64, met: &mut Met) {
    let context = format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test model");
    let (rng, sim) = (&mut Rng(seed), SimDisk::new());
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut store = open(&disk);
    let mut model = Model::default();
    (0..600).for_each(|_| write(&mut store, &mut model, rng, 400));
    let mut durable = Model::default();
    for step in 0..120 {
        let few = [3, 3, 3, 30, 90][rng.below(5) as usize];
        let snapshot = store.snapshot().unwrap();
        let shown = model.records.clone();
        (0..rng.below(few)).for_each(|_| write(&mut store, &mut model, rng, 400));
        match rng.below(12) {
            0 => drop(store.begin_checkpoint(b"given up").unwrap()),
            1 => slow_checkpoint(&mut store, &mut model, &mut durable, rng, 400),
            2 => drop(store.compact(20_000).unwrap()),
            _ => {
                model.mark = vec![step];
                store.checkpoint(&model.mark).unwrap();
                durable = model.clone();
                met.look(&sim);
            }
        }
        let mut seen = std::collections::BTreeMap::new();
        let end = snapshot.read(0, |r| seen.insert(r.id.to_vec(), r.to_record()).is_none());
        assert!(end == Ok(None) && seen == shown, "{context}: a snapshot");
        drop(snapshot);
        if rng.below(6) == 0 {
            check(&store, &model, &context);
        }
        if rng.below(9) == 0 {
            drop(store);
            store = open(&disk);
            model = durable.clone();
            check(&store, &model, &context);
        }
    }
}

#[test]
fn a_store_whose_index_is_many_files_does_what_the_model_does() {
    let mut met = Met::default();
    for seed in seeds(30) {
        run_levels(seed, &mut met);
    }
    let all = met.bases > 30 && met.merges > 100 && met.most >= 4 && met.stale > 1000;
    assert!(all || std::env::var("SLOWDB_SEED").is_ok(), "{met:?}");
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
