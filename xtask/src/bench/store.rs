//! The store as a library alone: what a put and a commit cost, how long opening takes, and what memory a vector takes.
//!
//! A commit is what makes puts durable without any log: the puts and a checkpoint. Opening and memory are looked at in
//! processes of their own (`store_process.rs`), which are killed where a crash is wanted. All files stay in the page cache.

use super::report::{Figure, Point, Report, Row, Target};
use super::store_process::{Said, StoreProcess};
use super::vectors;
use crate::chain::node::preallocated;
use crate::{stats, ui};
use anyhow::Result;
use slowdb_disk::{Disk, RealDisk};
use slowdb_storage::{Options, Store, VectorRef, Version};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

pub(super) const DIMENSION: usize = 128;
/// Different vectors; records share them.
const VECTORS: usize = 10_000;
/// Records written after the last checkpoint, before the process is killed.
const UNSYNCED: u64 = 100_000;
/// Times that a store is opened.
const OPENINGS: usize = 7;
/// Records between checkpoints while a store is filled.
const CHECKPOINT_EVERY: u64 = 1_000_000;
/// Room on the disk for each record: vector, id and index twice, and as much again as half of it to spare.
const BYTES_A_RECORD: u64 = 1_000;

/// Records to put, in any number.
pub(super) struct Records {
    components: Vec<f32>,
}

impl Records {
    pub(super) fn new() -> Records {
        Records { components: vectors(VECTORS, DIMENSION) }
    }

    fn vector(&self, nth: u64) -> &[f32] {
        &self.components[nth as usize % VECTORS * DIMENSION..][..DIMENSION]
    }

    /// Puts the records of these numbers.
    pub(super) fn put(&self, store: &mut Store, numbers: std::ops::Range<u64>) -> Result<()> {
        for n in numbers {
            let id = format!("id-{n:08}");
            store.put(id.as_bytes(), VectorRef::Floats(self.vector(n)), &[], Version([1, n, 0]))?;
        }
        Ok(())
    }

    /// Puts the first of them, with a checkpoint now and then and at the end.
    pub(super) fn fill(&self, store: &mut Store, records: u64) -> Result<()> {
        let mut next = 0;
        while next < records {
            let end = records.min(next + CHECKPOINT_EVERY);
            self.put(store, next..end)?;
            store.checkpoint(&[])?;
            next = end;
        }
        Ok(())
    }
}

/// Opens or creates the store in a directory.
pub(super) fn open(dir: &Path) -> Result<Store> {
    fs::create_dir_all(dir)?;
    Ok(Store::open(Arc::new(RealDisk::open(dir)?), "store", Options::new(DIMENSION))?)
}

/// A directory that goes when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(dir: PathBuf) -> Result<Scratch> {
        fs::create_dir_all(&dir)?;
        Ok(Scratch(dir))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The next bench removes what is left.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// All of it.
pub(super) fn measure(dir: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let records = Records::new();
    let sizes: [u64; 2] = if quick { [100_000, 1_000_000] } else { [1_000_000, 10_000_000] };
    puts(dir, sizes[0], &records, report)?;
    for held in [100_000, 1_000_000] {
        if held <= sizes[0] {
            commits(dir, held, quick, &records, report)?;
        }
    }
    for held in sizes {
        let free = RealDisk::open(dir)?.space()?.free;
        let needed = held * BYTES_A_RECORD;
        if free < needed {
            let what = format!("opening {} × {DIMENSION}-d", ui::thousands(held));
            report.left_out(&what, &format!("{needed} bytes of disk are needed, {free} are free"));
            continue;
        }
        openings(dir, held, report)?;
    }
    Ok(())
}

fn row(what: String, unit: &str, measured: Figure) -> Row {
    Row { what, unit: unit.into(), measured, baseline: None, target: Target::None }
}

/// Puts into a new store, nothing durable yet.
fn puts(dir: &Path, count: u64, records: &Records, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(dir.join("puts"))?;
    let mut store = open(scratch.path())?;
    let ids: Vec<String> = (0..count).map(|n| format!("id-{n:08}")).collect();
    let mut micros = Vec::with_capacity(ids.len());
    let start = Instant::now();
    let mut before = start;
    for (n, id) in (0..).zip(&ids) {
        store.put(id.as_bytes(), VectorRef::Floats(records.vector(n)), &[], Version([1, n, 0]))?;
        let now = Instant::now();
        micros.push((now - before).as_secs_f64() * 1e6);
        before = now;
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let count = ui::thousands(count);
    report.add(row(format!("put in process, {count} × {DIMENSION}-d"), "records/s", rate.into()));
    let p99 = Some(stats::percentile(&micros, 99.0));
    let each = Figure { value: stats::median(&micros), p99 };
    report.add(row("one of these".into(), "µs", each));
    Ok(())
}

/// Puts and a checkpoint, in turns with writing and syncing as many bytes of vectors into a file.
fn commits(dir: &Path, held: u64, quick: bool, records: &Records, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(dir.join("commits"))?;
    let mut store = open(scratch.path())?;
    ui::detail(format!("filling a store with {} records", ui::thousands(held)));
    records.fill(&mut store, held)?;
    let mut next = held;
    for (batch, rounds) in [(1, 60), (100, 40), (10_000, 10)] {
        let bytes = vec![7; batch as usize * DIMENSION * 4];
        let file = preallocated(&scratch.path().join("bare"), bytes.len() as u64)?;
        let (mut bare, mut stored) = (Vec::new(), Vec::new());
        for _ in 0..(if quick { rounds / 3 } else { rounds }) {
            let start = Instant::now();
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            bare.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            records.put(&mut store, next..next + batch)?;
            store.checkpoint(&[])?;
            stored.push(start.elapsed().as_secs_f64() * 1e6);
            next += batch;
        }
        let [measured, baseline] = [&stored, &bare].map(|micros| Figure {
            value: stats::median(micros),
            p99: Some(stats::percentile(micros, 99.0)),
        });
        let (batch_text, held_text) = (ui::thousands(batch), ui::thousands(held));
        report.add(Row {
            what: format!(
                "commit of {batch_text} to {held_text} × {DIMENSION}-d, beside write and fdatasync"
            ),
            unit: "µs".into(),
            measured,
            baseline: Some(baseline),
            target: Target::None,
        });
        report.plot(Point::new("commit", &format!("SlowDB, {held_text} held"), batch as f64, measured.value));
    }
    Ok(())
}

/// Opening after a checkpoint and after kills, and memory.
fn openings(dir: &Path, held: u64, report: &mut Report) -> Result<()> {
    let scratch = Scratch::new(dir.join("openings"))?;
    let text = ui::thousands(held);
    ui::detail(format!("filling a store with {text} records"));
    let filled = StoreProcess::start(scratch.path(), held, true)?.exit()?;
    ui::detail(format!("filled in {:.1} s", filled.put_seconds));
    let clean = (0..OPENINGS)
        .map(|_| StoreProcess::start(scratch.path(), 0, false)?.exit())
        .collect::<Result<Vec<Said>>>()?;
    // Each finds what the one before wrote after the checkpoint, and was killed over.
    StoreProcess::start(scratch.path(), UNSYNCED, false)?.kill()?;
    let crashed = (0..OPENINGS)
        .map(|_| StoreProcess::start(scratch.path(), UNSYNCED, false)?.kill())
        .collect::<Result<Vec<Said>>>()?;
    for said in clean.iter().chain(&crashed) {
        anyhow::ensure!(said.records == held, "{} records after opening, not {held}", said.records);
    }
    let millis = |all: &[Said]| -> Vec<f64> { all.iter().map(|said| said.open_seconds * 1e3).collect() };
    for (after, all) in [("a checkpoint", &clean), ("kill -9", &crashed)] {
        let value = stats::median(&millis(all));
        report.add(row(format!("open {text} × {DIMENSION}-d after {after}, warm"), "ms", value.into()));
        report.plot(Point::new("open", &format!("after {after}"), held as f64, value));
    }
    let redo: Vec<f64> = crashed.iter().map(|said| said.put_seconds * 1e3).collect();
    let lost = ui::thousands(UNSYNCED);
    let what = format!("putting the {lost} again that came after the checkpoint");
    report.add(row(what, "ms", stats::median(&redo).into()));
    let memory = |of: fn(&Said) -> u64, all: &[Said]| -> Figure {
        let each: Vec<f64> = all.iter().map(|said| of(said) as f64 / held as f64).collect();
        stats::median(&each).into()
    };
    let opened = memory(|said| said.opened_bytes, &clean);
    report.add(row(format!("memory of {text} × {DIMENSION}-d, opened"), "bytes/vector", opened));
    let written = memory(|said| said.written_bytes, &[filled]);
    report.add(row(format!("memory of {text} × {DIMENSION}-d, just written"), "bytes/vector", written));
    Ok(())
}
