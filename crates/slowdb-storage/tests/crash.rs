//! Crashes at every sync point, with any subset of what was not synced lost; failed syncs and full disks.

mod common;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::chain::Met;
use common::{Model, Rng, check, options, write};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{CheckpointError, OpenError, Record, Snapshot, Store, Version, WriteError};

/// What a store may hold after a crash.
struct Expected {
    /// The last checkpoint that was acknowledged.
    acknowledged: Model,
    /// One that was begun after it, and may have become durable.
    attempted: Option<Model>,
    /// What the open store holds.
    now: Model,
    /// What compactions did.
    moved: u64,
    returned: u64,
    /// Slots that were used again beside snapshots that are kept.
    reused: u64,
    /// The disk of this life, and what checkpoints made of the index.
    disk: SimDisk,
    met: Met,
}

impl Expected {
    fn nothing() -> Self {
        Self {
            acknowledged: Model::default(),
            attempted: None,
            now: Model::default(),
            moved: 0,
            returned: 0,
            reused: 0,
            disk: SimDisk::new(),
            met: Met::default(),
        }
    }

    /// Checks a store that was just opened.
    fn settle(&mut self, store: &Store, context: &str) {
        let attempted = self.attempted.take().filter(|m| m.mark == store.mark());
        let model = attempted.unwrap_or_else(|| self.acknowledged.clone());
        check(store, &model, context);
        self.acknowledged = model.clone();
        self.now = model;
    }
}

/// Writes and checkpoints until something fails or `steps` are done. Every checkpoint has its own mark.
fn live(
    store: &mut Store,
    expected: &mut Expected,
    rng: &mut Rng,
    steps: u64,
) -> Result<(), CheckpointError> {
    let model = &mut expected.now;
    for _ in 0..steps {
        (0..rng.below(25)).for_each(|_| write(store, model, rng, 30));
        model.mark = rng.next().to_le_bytes().to_vec();
        expected.attempted = Some(model.clone());
        let job = store.begin_checkpoint(&model.mark)?;
        let checkpointed = model.clone();
        (0..rng.below(10)).for_each(|_| write(store, model, rng, 30));
        let done = job.run()?;
        expected.acknowledged = checkpointed;
        expected.attempted = None;
        (0..rng.below(10)).for_each(|_| write(store, model, rng, 30));
        store.finish_checkpoint(done)?;
        model.mark = store.mark().to_vec();
    }
    Ok(())
}

/// Likewise, with so much that is large and goes again that extents are emptied, given back and used again.
fn live_in_much_space(
    store: &mut Store,
    expected: &mut Expected,
    rng: &mut Rng,
    steps: u64,
) -> Result<(), CheckpointError> {
    let model = &mut expected.now;
    let mut compact = |store: &mut Store, rng: &mut Rng| {
        let done = store.compact(rng.below(400_000)).expect("the disk has room");
        expected.moved += done.records_moved;
        expected.returned += done.bytes_returned;
    };
    for step in 0..steps {
        for n in 0..120 {
            let id = format!("id {}", rng.below(200)).into_bytes();
            let vector = rng.vector(common::DIMENSION);
            let payload = vec![n; rng.below(20_000) as usize];
            let version = Version([step, rng.next(), 0]);
            if store.put(&id, (&vector).into(), &payload, version).is_err() {
                return Ok(());
            }
            model.records.insert(id, Record { vector, payload, version });
        }
        for id in model.records.keys().cloned().collect::<Vec<_>>() {
            if rng.below(8) > 0 {
                store.delete(&id).expect("deletes need no room");
                model.records.remove(&id);
            }
        }
        for _ in 0..3 {
            model.mark = rng.next().to_le_bytes().to_vec();
            expected.attempted = Some(model.clone());
            let job = store.begin_checkpoint(&model.mark)?;
            compact(store, rng);
            let done = job.run()?;
            expected.acknowledged = model.clone();
            expected.attempted = None;
            compact(store, rng);
            store.finish_checkpoint(done)?;
            compact(store, rng);
        }
    }
    Ok(())
}

/// Likewise, of more records and with few changes from one checkpoint to the next, so that there are several index files,
/// and slots that are used again are those of entries further down.
fn live_in_small_steps(
    store: &mut Store,
    expected: &mut Expected,
    rng: &mut Rng,
    steps: u64,
) -> Result<(), CheckpointError> {
    let model = &mut expected.now;
    while model.records.len() < 60 {
        write(store, model, rng, 90);
    }
    for step in 0..steps * 4 {
        (0..rng.below(4)).for_each(|_| write(store, model, rng, 90));
        if step % 5 == 3 {
            (0..12).for_each(|_| write(store, model, rng, 90));
        }
        model.mark = rng.next().to_le_bytes().to_vec();
        expected.attempted = Some(model.clone());
        let job = store.begin_checkpoint(&model.mark)?;
        let checkpointed = model.clone();
        (0..rng.below(3)).for_each(|_| write(store, model, rng, 90));
        let done = job.run()?;
        expected.acknowledged = checkpointed;
        expected.attempted = None;
        if rng.below(6) == 0 {
            // Durable, and never finished: the next one goes on from the one before.
            continue;
        }
        store.finish_checkpoint(done)?;
        model.mark = store.mark().to_vec();
        expected.met.look(&expected.disk);
    }
    Ok(())
}

/// Snapshots that are kept, each with what it has to show.
#[derive(Default)]
struct Kept {
    snapshots: Vec<(Snapshot, BTreeMap<Vec<u8>, Record>)>,
    /// Slots that were used again beside them.
    reused: u64,
}

impl Kept {
    fn change(&mut self, store: &Store, model: &Model, rng: &mut Rng) {
        if self.snapshots.len() > 2 || rng.below(3) == 0 && !self.snapshots.is_empty() {
            self.snapshots.swap_remove(rng.below(self.snapshots.len() as u64) as usize);
        }
        self.snapshots.push((store.snapshot().expect("there are few"), model.records.clone()));
    }

    /// Writes, and looks at what is shown after it.
    fn write(&mut self, store: &mut Store, model: &mut Model, rng: &mut Rng) {
        let (slots, digest) = (store.slots_used(), store.digest());
        (0..rng.below(12)).for_each(|_| {
            let before = (store.slots_used(), store.digest());
            write(store, model, rng, 30);
            self.reused += u64::from(store.digest() != before.1 && store.slots_used() == before.0);
        });
        if (store.slots_used(), store.digest()) != (slots, digest) {
            self.check();
        }
    }

    fn check(&self) {
        for (snapshot, records) in &self.snapshots {
            let mut found = BTreeMap::new();
            let end =
                snapshot.read(0, |record| found.insert(record.id.to_vec(), record.to_record()).is_none());
            assert_eq!(end, Ok(None), "a snapshot shows no id twice, and nothing damaged");
            assert_eq!(found, *records, "a snapshot shows the records of its moment");
        }
    }
}

/// Likewise, with snapshots that are kept while slots are used again.
fn live_beside_snapshots(
    store: &mut Store,
    expected: &mut Expected,
    rng: &mut Rng,
    steps: u64,
) -> Result<(), CheckpointError> {
    let mut kept = Kept::default();
    let lived = live_with(&mut kept, store, expected, rng, steps * 2);
    // Also if the disk has failed: what is in memory is what it was.
    kept.check();
    expected.reused += kept.reused;
    lived
}

fn live_with(
    kept: &mut Kept,
    store: &mut Store,
    expected: &mut Expected,
    rng: &mut Rng,
    steps: u64,
) -> Result<(), CheckpointError> {
    let model = &mut expected.now;
    for _ in 0..steps {
        kept.change(store, model, rng);
        kept.write(store, model, rng);
        model.mark = rng.next().to_le_bytes().to_vec();
        expected.attempted = Some(model.clone());
        let job = store.begin_checkpoint(&model.mark)?;
        let checkpointed = model.clone();
        kept.write(store, model, rng);
        let done = job.run()?;
        expected.acknowledged = checkpointed;
        expected.attempted = None;
        kept.write(store, model, rng);
        store.finish_checkpoint(done)?;
        model.mark = store.mark().to_vec();
        kept.write(store, model, rng);
    }
    Ok(())
}

fn open(disk: &SimDisk, canary: bool) -> Result<Store, OpenError> {
    let mut options = options();
    options.canary_reuse_early = canary;
    Store::open(Arc::new(disk.clone()) as Arc<dyn Disk>, "s", options)
}

type Life = fn(&mut Store, &mut Expected, &mut Rng, u64) -> Result<(), CheckpointError>;

/// Three lives, each ended by a crash at the sync `k` after its beginning, or at its end if it makes fewer.
/// Says whether a crash came at a sync.
fn sweep(live: Life, seed: u64, k: u64, canary: bool) -> bool {
    let context = format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test crash (sync {k})");
    let mut rng = Rng(seed);
    let mut disk = SimDisk::new();
    let mut expected = Expected::nothing();
    let mut struck = false;
    for life in 0..3 {
        let context = format!("{context}, life {life}");
        disk.crash_at_sync(disk.syncs() + k);
        (expected.disk, expected.met) = (disk.clone(), Met::default());
        let failed = match open(&disk, canary) {
            Ok(mut store) => {
                expected.settle(&store, &context);
                live(&mut store, &mut expected, &mut rng, 3).is_err()
            }
            Err(e) => {
                assert!(matches!(e, OpenError::Io(_)), "{context}: {e}");
                true
            }
        };
        assert_eq!(failed, disk.is_down(), "{context}: only the power fails");
        struck |= failed;
        let mut loss = Rng(rng.next());
        disk = disk.crash(&mut || loss.next());
    }
    let store = open(&disk, canary).unwrap_or_else(|e| panic!("{context}: {e}"));
    expected.settle(&store, &context);
    struck
}

/// Three lives, in each of which the sync `k` after its beginning fails, that of an opening too; now and then with a crash
/// in between. Says whether one failed.
fn failing(live: Life, seed: u64, k: u64) -> bool {
    let context = format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test crash (failed sync {k})");
    let mut rng = Rng(seed);
    let mut disk = SimDisk::new();
    let mut expected = Expected::nothing();
    let mut struck = false;
    for life in 0..3 {
        let context = format!("{context}, life {life}");
        let at = disk.syncs() + k;
        disk.fail_sync_in(k);
        let failed = match open(&disk, false) {
            Ok(mut store) => {
                expected.settle(&store, &context);
                let failed = live(&mut store, &mut expected, &mut rng, 3).is_err();
                assert_eq!(failed, store.poisoned().is_some(), "{context}");
                failed
            }
            Err(e) => {
                assert!(matches!(e, OpenError::Io(_)), "{context}: {e}");
                true
            }
        };
        assert_eq!(failed, disk.syncs() > at, "{context}: nothing else is wrong with the disk");
        struck |= failed;
        if rng.below(3) == 0 {
            let mut loss = Rng(rng.next());
            disk = disk.crash(&mut || loss.next());
        }
    }
    // A failure that did not come about comes no more, and what is seen now is durable.
    disk.fail_sync_in(u64::MAX / 2);
    expected.settle(&open(&disk, false).unwrap_or_else(|e| panic!("{context}: {e}")), &context);
    let mut loss = Rng(rng.next());
    let disk = disk.crash(&mut || loss.next());
    expected.settle(&open(&disk, false).unwrap_or_else(|e| panic!("{context}: {e}")), &context);
    struck
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SLOWDB_SEED") {
        Ok(seed) => vec![seed.parse().expect("SLOWDB_SEED is a number")],
        Err(_) => (0..count).collect(),
    }
}

#[test]
fn a_crash_at_any_sync_leaves_the_last_checkpoint_or_the_one_under_way() {
    for seed in seeds(60) {
        // Until a life makes fewer syncs than that.
        let mut k = 0;
        while sweep(live, seed, k, false) {
            k += 1;
        }
        assert!(k > 15, "seed {seed}: only {k} syncs were tried");
    }
}

#[test]
fn a_crash_at_any_sync_leaves_a_chain_of_index_files_that_is_whole() {
    let mut met = Met::default();
    for seed in seeds(25) {
        let disk = SimDisk::new();
        let mut store = open(&disk, false).unwrap();
        let mut expected = Expected { disk, ..Expected::nothing() };
        live_in_small_steps(&mut store, &mut expected, &mut Rng(seed), 3).unwrap();
        met.bases += expected.met.bases;
        met.deltas += expected.met.deltas;
        met.merges += expected.met.merges;
        met.stale += expected.met.stale;
        met.most = met.most.max(expected.met.most);
        let mut k = 0;
        while sweep(live_in_small_steps, seed, k, false) {
            k += 1;
        }
        assert!(k > 60, "seed {seed}: only {k} syncs were tried");
    }
    let all = met.bases > 25 && met.deltas > 100 && met.merges > 25 && met.most > 2 && met.stale > 50;
    assert!(all || std::env::var("SLOWDB_SEED").is_ok(), "{met:?}");
}

#[test]
fn a_crash_at_any_sync_between_compactions_loses_nothing() {
    for seed in seeds(20) {
        let mut store = open(&SimDisk::new(), false).unwrap();
        let mut expected = Expected::nothing();
        live_in_much_space(&mut store, &mut expected, &mut Rng(seed), 3).unwrap();
        assert!(
            expected.moved > 5 && expected.returned > 500_000,
            "seed {seed}: {} {}",
            expected.moved,
            expected.returned
        );
        let mut k = 0;
        while sweep(live_in_much_space, seed, k, false) {
            k += 1;
        }
        assert!(k > 40, "seed {seed}: only {k} syncs were tried");
    }
}

#[test]
fn a_crash_at_any_sync_beside_snapshots_loses_nothing_and_they_show_their_moments() {
    for seed in seeds(30) {
        let mut store = open(&SimDisk::new(), false).unwrap();
        let mut expected = Expected::nothing();
        live_beside_snapshots(&mut store, &mut expected, &mut Rng(seed), 3).unwrap();
        assert!(expected.reused > 20, "seed {seed}: {} slots were used again", expected.reused);
        let mut k = 0;
        while sweep(live_beside_snapshots, seed, k, false) {
            k += 1;
        }
        assert!(k > 30, "seed {seed}: only {k} syncs were tried");
    }
}

#[test]
fn reusing_slots_too_early_is_caught_by_the_sweeps() {
    for live in [live as Life, live_in_much_space, live_in_small_steps, live_beside_snapshots] {
        let caught =
            |seed| (0..60).any(|k| catch_unwind(AssertUnwindSafe(|| sweep(live, seed, k, true))).is_err());
        assert!((0..5).any(caught), "the planted bug went unnoticed");
    }
}

#[test]
fn after_a_failed_sync_the_store_refuses_writes_and_goes_on_reading() {
    for seed in seeds(20) {
        for n in 0..7 {
            let context =
                format!("SLOWDB_SEED={seed} cargo test -p slowdb-storage --test crash (failed {n})");
            let mut rng = Rng(seed);
            let disk = SimDisk::new();
            let mut expected = Expected::nothing();
            let mut store = open(&disk, false).unwrap();
            live(&mut store, &mut expected, &mut rng, 2).unwrap();
            disk.fail_sync_in(n);
            let failed = live(&mut store, &mut expected, &mut rng, 5);
            assert!(matches!(failed, Err(CheckpointError::Io(_))), "{context}: {failed:?}");
            assert!(store.poisoned().is_some());
            let put = store.put(b"x", (&[1.0; common::DIMENSION]).into(), b"", Default::default());
            assert!(matches!(put, Err(WriteError::Poisoned(_))), "{context}: {put:?}");
            assert!(matches!(store.delete(b"x"), Err(WriteError::Poisoned(_))));
            assert!(matches!(store.checkpoint(b""), Err(CheckpointError::Poisoned(_))));
            assert_eq!(store.reader().snapshot().iter().filter(Result::is_err).count(), 0);
            drop(store);
            // Reopened without a crash, then written to, then crashed.
            let mut store = open(&disk, false).unwrap();
            expected.settle(&store, &context);
            // What it holds now is durable, whatever was: writes over free slots do not reach it.
            if rng.below(2) == 0 {
                (0..60).for_each(|_| write(&mut store, &mut expected.now, &mut rng, 30));
            } else {
                live(&mut store, &mut expected, &mut rng, 2).unwrap();
            }
            let mut loss = Rng(rng.next());
            let disk = disk.crash(&mut || loss.next());
            expected.settle(&open(&disk, false).unwrap(), &context);
        }
    }
}

#[test]
fn a_failed_sync_anywhere_leaves_the_last_checkpoint_or_the_one_under_way() {
    let lives = [(live as Life, 30, 15), (live_in_much_space, 6, 40), (live_beside_snapshots, 10, 30)];
    for (live, count, least) in lives {
        for seed in seeds(count) {
            let mut k = 0;
            while failing(live, seed, k) {
                k += 1;
            }
            assert!(k > least, "seed {seed}: only {k} syncs were tried");
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_and_checkpoints_and_harms_nothing() {
    let disk = SimDisk::new();
    let mut store = open(&disk, false).unwrap();
    let mut model = Model::default();
    let mut rng = Rng(1);
    (0..40).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    store.checkpoint(b"").unwrap();
    disk.set_capacity(Some(disk.bytes_used() + 1000));
    let refused = (0..5000u64).find_map(|n| {
        let version = Version([n, 0, 0]);
        let vector = rng.vector(common::DIMENSION);
        let id = format!("more {n}").into_bytes();
        match store.put(&id, (&vector).into(), b"", version) {
            Ok(_) => {
                let record = Record { vector, payload: vec![], version };
                model.records.insert(id, record);
                None
            }
            Err(e) => Some(e),
        }
    });
    assert!(matches!(refused, Some(WriteError::NoSpace(_))), "{refused:?}");
    check(&store, &model, "full");
    let full = store.checkpoint(b"full");
    assert!(matches!(full, Err(CheckpointError::NoSpace(_))), "{full:?}");
    assert!(store.poisoned().is_none());
    disk.set_capacity(None);
    (0..100).for_each(|_| write(&mut store, &mut model, &mut rng, 30));
    model.mark = b"room".to_vec();
    store.checkpoint(b"room").unwrap();
    check(&store, &model, "room again");
    let store = open(&disk.crash(&mut || 0), false).unwrap();
    check(&store, &model, "after a crash");
}
