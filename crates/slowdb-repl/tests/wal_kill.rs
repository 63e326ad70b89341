//! A process that writes to a log on the real disk and is killed with -9 at any moment, again and again, over one
//! directory. What was synced is there, and nothing but a beginning of what was appended after it.
//!
//! A killed process leaves to the kernel what it has written, synced or not: what a power cut does to unsynced sectors is
//! shown by the sweep in `wal_crash.rs`. The writer is this test again, in a process of its own; all it does follows
//! from a seed, so it says no more than how many of its syncs were acknowledged.

mod wal_common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use slowdb_disk::RealDisk;
use slowdb_repl::wal::{Record, Wal, WalOptions};
use wal_common::{Model, Rng, draw_record};

/// Runs without `SLOWDB_RUNS`.
const RUNS: u64 = 10;
/// Syncs of one life; the kill comes before the last of them, or right after.
const SYNCS: u64 = 60;
/// The kill comes within this time after the sync that was drawn, in microseconds.
const KILL_WITHIN_US: u64 = 4_000;

/// What the writer is told: directory, seed of its life.
const WRITER: [&str; 2] = ["SLOWDB_KILL_DIR", "SLOWDB_KILL_LIFE"];
/// Each line of the writer's.
const ACKNOWLEDGED: &str = "acknowledged";
const TEST: &str = "a_writer_that_is_killed_at_any_moment_leaves_all_that_was_synced";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 16 << 10,
        spare_segments: 2,
        log_id: 77,
        #[cfg(feature = "canary")]
        chain_not_checked: false,
    }
}

fn open(dir: &Path) -> Result<(Wal, Model), String> {
    let disk = Arc::new(RealDisk::open(dir).map_err(|error| error.to_string())?);
    let (wal, recovered) = Wal::open(disk, "log", options()).map_err(|error| error.to_string())?;
    let model = Model::of(&recovered, &wal)?;
    Ok((wal, model))
}

/// What is done up to a sync: it follows from the seed of a life and what the log held.
struct Step {
    batches: Vec<Vec<Record>>,
    /// Something else is done before the sync.
    other: u64,
}

impl Step {
    /// Draws one, and takes what it appends into the model.
    fn draw(rng: &mut Rng, model: &mut Model) -> Self {
        let mut record = |rng: &mut Rng| {
            let record = draw_record(rng, model, options().data_bytes_max());
            model.apply(&record);
            record
        };
        let mut batch = |rng: &mut Rng| (0..1 + rng.below(6)).map(|_| record(rng)).collect();
        let batches = (0..1 + rng.below(4)).map(|_| batch(rng)).collect();
        Self { batches, other: rng.below(12) }
    }
}

/// Appends and syncs until it is killed or has done all, and says so after each sync: through a pipe, where what was said
/// stays when the process ends.
fn live(dir: &Path, seed: u64) {
    let (mut wal, mut model) = open(dir).unwrap();
    let mut rng = Rng(seed);
    eprintln!("{ACKNOWLEDGED}");
    for _ in 0..SYNCS {
        let step = Step::draw(&mut rng, &mut model);
        for batch in &step.batches {
            wal.append(batch, &mut Vec::new()).unwrap();
        }
        match step.other {
            0..=2 => drop(wal.release().unwrap()),
            3 => {
                wal.close().unwrap();
                wal = open(dir).unwrap().0;
            }
            _ => {}
        }
        wal.sync().unwrap();
        eprintln!("{ACKNOWLEDGED}");
        if step.other == 4 {
            wal.mark().unwrap();
        }
    }
}

/// Whether the log may hold this after a life that began with `model`, of which so many syncs were acknowledged: all
/// that they covered, and any beginning of what was to be covered by the next one.
fn is_possible(found: &Model, mut model: Model, seed: u64, acknowledged: u64) -> bool {
    let mut rng = Rng(seed);
    for _ in 0..acknowledged {
        Step::draw(&mut rng, &mut model);
    }
    let mut synced = model.clone();
    let more = if acknowledged < SYNCS { Step::draw(&mut rng, &mut model).batches } else { Vec::new() };
    more.iter().flatten().any(|record| {
        let same = synced == *found;
        synced.apply(record);
        same
    }) || synced == *found
}

/// Starts a writer and kills it. Gives how many syncs it acknowledged, or what it complained of.
fn kill_one(dir: &Path, life: u64, rng: &mut Rng) -> Result<u64, String> {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(WRITER[0], dir)
        .env(WRITER[1], life.to_string())
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
    // None: the kill comes while it opens the log.
    lines.by_ref().take(rng.below(SYNCS) as usize).for_each(|line| hear(line.unwrap()));
    thread::sleep(Duration::from_micros(rng.below(KILL_WITHIN_US)));
    writer.kill().unwrap();
    writer.wait().unwrap();
    lines.for_each(|line| hear(line.unwrap()));
    // The first one says that the log was opened.
    if complaints.is_empty() { Ok(u64::saturating_sub(said, 1)) } else { Err(complaints) }
}

/// Kills so many writers over one directory, and looks after each.
fn torture(dir: &Path, runs: u64, seed: u64) -> Result<(), String> {
    let mut rng = Rng(seed);
    let mut model = Model::default();
    let mut acknowledged_in_all = 0;
    for run in 1..=runs {
        let life = rng.next();
        let acknowledged = kill_one(dir, life, &mut rng)?;
        acknowledged_in_all += acknowledged;
        let context = |why: String| format!("run {run}, killed after {acknowledged} syncs: {why}");
        let disk = Arc::new(RealDisk::open(dir).map_err(|error| error.to_string())?);
        Wal::verify(disk, "log").map_err(|error| context(error.to_string()))?;
        let (wal, found) = open(dir).map_err(context)?;
        if !is_possible(&found, model, life, acknowledged) {
            return Err(context("not all that was synced, or more than was appended".into()));
        }
        drop(wal);
        model = found;
    }
    println!("{runs} writers killed, {acknowledged_in_all} syncs acknowledged, none lost");
    Ok(())
}

#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_all_that_was_synced() {
    if let Some(dir) = std::env::var_os(WRITER[0]) {
        // In the process that is to be killed.
        return live(Path::new(&dir), number(WRITER[1], 0));
    }
    let (runs, seed) = (number("SLOWDB_RUNS", RUNS), number("SLOWDB_SEED", 1));
    // Where the build is, which unlike the system's own place for such things is rarely in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if let Err(why) = torture(dir.path(), runs, seed) {
        panic!(
            "{why}; the log is in {}\nroughly again (moments are real time): \
             SLOWDB_SEED={seed} SLOWDB_RUNS={runs} cargo test -p slowdb-repl --test wal_kill",
            dir.keep().display()
        );
    }
}
