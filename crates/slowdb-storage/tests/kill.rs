//! A process that writes to a store on the real disk and is killed with -9 at any moment, again and again, over one
//! directory. What it acknowledged is there, what it never wrote is not, and every byte fits its checksum.
//!
//! A killed process leaves to the kernel what it has written, synced or not. So this shows that files are in order
//! after every single instruction, mapped ones too; what a power cut does to unsynced sectors is shown by the sweeps in
//! `crash.rs`.
//!
//! The writer is this test again, in a process of its own. All it does follows from a seed, so it says no more than how
//! many checkpoints were acknowledged, and the parent knows what there is to be found.

mod common;

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Model, Rng, check, options, write};
use slowdb_disk::{Disk, RealDisk, SimDisk};
use slowdb_storage::{Store, verify};

/// Runs without `SLOWDB_RUNS`.
const RUNS: u64 = 10;
/// Checkpoints of one life; the kill comes before the last of them, or right after.
const CHECKPOINTS: u64 = 40;
/// The kill comes within this time after the checkpoint that was drawn, in microseconds.
const KILL_WITHIN_US: u64 = 4_000;
const IDS: u64 = 40;

/// What the writer is told: directory, seed of its life, whether it has the planted bug.
const WRITER: [&str; 3] = ["SLOWDB_KILL_DIR", "SLOWDB_KILL_LIFE", "SLOWDB_KILL_CANARY"];
/// Begins each line of the writer's.
const ACKNOWLEDGED: &str = "acknowledged";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn disk(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(RealDisk::open(dir).unwrap())
}

/// Content of a store, as the writer and its parent both know it.
fn content(store: &Store) -> Model {
    let reader = store.reader();
    let snapshot = reader.snapshot();
    let records = snapshot.iter().map(|record| record.unwrap()).map(|r| (r.id.to_vec(), r.to_record()));
    Model { records: records.collect(), mark: store.mark().to_vec() }
}

/// What is written from one checkpoint to the next: it follows from the seed of a life.
struct Step {
    before: Writes,
    /// While the checkpoint is made.
    meanwhile: Writes,
    mark: Vec<u8>,
    compact: u64,
}

struct Writes {
    seed: u64,
    count: u64,
}

impl Step {
    fn draw(rng: &mut Rng) -> Self {
        let before = Writes { seed: rng.next(), count: rng.below(40) };
        let meanwhile = Writes { seed: rng.next(), count: rng.below(40) };
        Self { before, meanwhile, mark: rng.next().to_le_bytes().to_vec(), compact: rng.below(50_000) }
    }
}

impl Writes {
    fn apply(&self, store: &mut Store, model: &mut Model) {
        let mut rng = Rng(self.seed);
        (0..self.count).for_each(|_| write(store, model, &mut rng, IDS));
    }
}

/// Writes and checkpoints until it is killed or has done all. Says so after each acknowledgement: through a pipe, where
/// what was said stays when the process ends.
fn live(dir: &Path, seed: u64, canary: bool) {
    let mut options = options();
    options.canary_reuse_early = canary;
    let mut store = Store::open(disk(dir), "s", options).unwrap();
    let mut model = content(&store);
    let mut rng = Rng(seed);
    eprintln!("{ACKNOWLEDGED}");
    for _ in 0..CHECKPOINTS {
        let step = Step::draw(&mut rng);
        step.before.apply(&mut store, &mut model);
        let snapshot = store.snapshot().unwrap();
        store.compact(step.compact).unwrap();
        let job = store.begin_checkpoint(&step.mark).unwrap();
        let done = thread::scope(|scope| {
            let running = scope.spawn(|| job.run());
            step.meanwhile.apply(&mut store, &mut model);
            running.join().unwrap()
        });
        let done = done.unwrap();
        eprintln!("{ACKNOWLEDGED}");
        store.finish_checkpoint(done).unwrap();
        // Its slots are used again from here on.
        drop(snapshot);
        store.compact(step.compact).unwrap();
    }
}

/// What the store may hold after a life that began with `model`, of which so many checkpoints were acknowledged: the
/// last of them, or the next one.
fn possible(model: &Model, seed: u64, acknowledged: u64) -> Vec<Model> {
    let mut store = Store::open(Arc::new(SimDisk::new()), "s", options()).unwrap();
    for (id, record) in &model.records {
        store.put(id, (&record.vector).into(), &record.payload, record.version).unwrap();
    }
    let (mut model, mut rng) = (model.clone(), Rng(seed));
    let mut states = vec![model.clone()];
    for _ in 0..CHECKPOINTS.min(acknowledged + 1) {
        let step = Step::draw(&mut rng);
        step.before.apply(&mut store, &mut model);
        model.mark = step.mark;
        states.push(model.clone());
        step.meanwhile.apply(&mut store, &mut model);
    }
    states.split_off(acknowledged as usize)
}

/// Starts a writer and kills it. Gives how many checkpoints it acknowledged, or what it complained of.
fn kill_one(test: &str, dir: &Path, life: u64, canary: bool, rng: &mut Rng) -> Result<u64, String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(WRITER[0], dir)
        .env(WRITER[1], life.to_string())
        .env(WRITER[2], u64::from(canary).to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(writer.stderr.take().unwrap()).lines();
    let (mut said, mut complaints) = (0, String::new());
    let mut hear = |line: String| match line.as_str() {
        ACKNOWLEDGED => said += 1,
        other => complaints.extend([other, "\n"]),
    };
    // None: the kill comes while it opens the store.
    lines.by_ref().take(rng.below(CHECKPOINTS) as usize).for_each(|line| hear(line.unwrap()));
    thread::sleep(Duration::from_micros(rng.below(KILL_WITHIN_US)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    lines.for_each(|line| hear(line.unwrap()));
    // A writer with the planted bug may notice it by itself; what counts is what it leaves behind. The first line says
    // that the store was opened.
    if complaints.is_empty() || canary { Ok(u64::saturating_sub(said, 1)) } else { Err(complaints) }
}

/// Kills so many writers over one directory, and looks after each.
fn torture(test: &str, dir: &Path, runs: u64, seed: u64, canary: bool) -> Result<(), String> {
    let mut rng = Rng(seed);
    let mut model = Model::default();
    let mut acknowledged_in_all = 0;
    for run in 1..=runs {
        let life = rng.next();
        let acknowledged = kill_one(test, dir, life, canary, &mut rng)?;
        acknowledged_in_all += acknowledged;
        let context = format!("run {run}, killed after {acknowledged} checkpoints");
        let verified = verify(&*disk(dir), "s", |_| {}).map_err(|e| format!("{context}: {e}"))?;
        if !verified.bad.is_empty() {
            return Err(format!("{context}: {:?}", verified.bad));
        }
        let store = Store::open(disk(dir), "s", options()).map_err(|e| format!("{context}: {e}"))?;
        let possible = possible(&model, life, acknowledged);
        let Some(found) = possible.into_iter().find(|state| state.mark == store.mark()) else {
            return Err(format!("{context}: neither the last checkpoint nor the next one is there"));
        };
        check(&store, &found, &context);
        if (verified.records, verified.digest) != (store.len(), store.digest()) {
            return Err(format!("{context}: the digest of the bytes is another"));
        }
        model = found;
    }
    println!("{runs} writers killed, {acknowledged_in_all} checkpoints acknowledged, none lost");
    Ok(())
}

/// In the process that is to be killed: does what it is told, and says so.
fn is_writer() -> bool {
    let Some(dir) = std::env::var_os(WRITER[0]) else { return false };
    live(Path::new(&dir), number(WRITER[1], 0), number(WRITER[2], 0) > 0);
    true
}

fn directory() -> tempfile::TempDir {
    // Where the build is, which unlike the system's own place for such things is rarely in memory.
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_its_last_checkpoint_or_the_next_one() {
    if is_writer() {
        return;
    }
    let test = "a_writer_that_is_killed_at_any_moment_leaves_its_last_checkpoint_or_the_next_one";
    let (runs, seed) = (number("SLOWDB_RUNS", RUNS), number("SLOWDB_SEED", 1));
    let dir = directory();
    let outcome = catch_unwind(AssertUnwindSafe(|| torture(test, dir.path(), runs, seed, false)));
    if !matches!(outcome, Ok(Ok(()))) {
        panic!(
            "{outcome:?}; the store is in {}\nroughly again (moments are real time): \
             SLOWDB_SEED={seed} SLOWDB_RUNS={runs} cargo test -p slowdb-storage --test kill",
            dir.keep().display()
        );
    }
}

#[test]
fn slots_that_are_used_again_too_early_are_noticed_when_the_writer_is_killed() {
    if is_writer() {
        return;
    }
    let test = "slots_that_are_used_again_too_early_are_noticed_when_the_writer_is_killed";
    let caught = |seed| {
        let dir = directory();
        let outcome = catch_unwind(AssertUnwindSafe(|| torture(test, dir.path(), 10, seed, true)));
        !matches!(outcome, Ok(Ok(())))
    };
    assert!((0..5).any(caught), "the planted bug went unnoticed");
}
