//! What the guarantees cost: the nodes beside nodes that are built without them, in turns.
//!
//! The other nodes are the same program with the feature `unguarded`, which is there for this alone: no memory of earlier
//! writes for retries, no table of terms, no tombstones, no levels and times of records, no hashes and digests. They
//! replicate and sync as ever. Both clusters run all the time; the turns go with, without, without, with, and so on.

use super::report::{Figure, Report, Row, Target};
use super::{Running, ingest, vectors};
use crate::workspace;
use crate::{cluster::view, stats};
use anyhow::{Context, Result};
use slowdb_client::WriteOptions;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DIMENSION: usize = 128;
/// Records of a turn of bulk writes.
const BULK: usize = 100_000;
/// Writes of a turn of single puts: few, so that whatever else the machine does falls on both sides alike.
const PUTS: usize = 50;
/// Turns of single puts for each of bulk writes.
const PUT_TURNS: usize = 12;
const SETTLE_DEADLINE: Duration = Duration::from_secs(60);

/// Builds the other nodes' program. To be done before the program under test is built, which takes its place.
pub(super) fn unguarded_program(dir: &Path) -> Result<PathBuf> {
    let built = workspace::build_node(&["--features", "unguarded"])?;
    let kept = dir.join("slowdb-node-unguarded");
    fs::copy(&built, &kept).with_context(|| format!("{} cannot be kept", built.display()))?;
    Ok(kept)
}

/// One of the two clusters, and what its turns came to.
struct Side {
    running: Running,
    bulk: Turns,
    single: Puts,
}

/// Single puts, over all turns.
#[derive(Default)]
struct Puts {
    /// Seconds that each took.
    seconds: Vec<f64>,
    /// CPU time of all nodes in the turns, in seconds.
    cpu_seconds: f64,
}

/// Turns of bulk writes.
#[derive(Default)]
struct Turns {
    /// Seconds that a turn took, for each of its records.
    seconds: Vec<f64>,
    /// CPU time of all nodes in a turn until all had applied it, in seconds for each of its records.
    cpu_seconds: Vec<f64>,
}

/// How much slower bulk writes and single puts are with guarantees than without, and what CPU time they take.
pub(super) async fn measure(
    dir: &Path,
    program: &Path,
    unguarded: &Path,
    quick: bool,
    report: &mut Report,
) -> Result<()> {
    let rounds = if quick { 2 } else { 10 };
    let with = Side::start(dir, program).await?;
    let without = Side::start(&dir.join("unguarded"), unguarded).await?;
    let mut sides = [with, without];
    let components = vectors(BULK, DIMENSION);
    // The first round warms up and does not count.
    for round in 0..=rounds {
        for side in order(round) {
            sides[side].bulk(round, &components).await?;
        }
    }
    for turn in 0..=rounds * PUT_TURNS {
        for side in order(turn) {
            sides[side].single(turn, &components[..DIMENSION]).await?;
        }
    }
    let [with, without] = sides;
    let bulk = [&with, &without].map(|side| &side.bulk);
    let single = [&with, &without].map(|side| &side.single);
    let rate = bulk.map(|turns| Figure::from(1.0 / stats::median(&turns.seconds[1..])));
    let micros = |seconds: f64| Figure::from(seconds * 1e6);
    let bulk_cpu = bulk.map(|turns| micros(stats::median(&turns.cpu_seconds[1..])));
    let single_p50 = single.map(|puts| micros(stats::median(&puts.seconds[PUTS..])));
    let single_cpu = single.map(|puts| micros(puts.cpu_seconds / puts.seconds.len() as f64));
    let at_most = Target::RatioAtMost(1.05);
    for (what, unit, [measured, baseline], target) in [
        ("ingest 128-d, beside no guarantees", "vectors/s", rate, Target::RatioAtLeast(0.95)),
        ("the nodes' CPU time for that", "µs/vector", bulk_cpu, at_most),
        ("single put, beside no guarantees", "µs", single_p50, at_most),
        ("the nodes' CPU time for that", "µs/put", single_cpu, at_most),
    ] {
        let (what, unit) = (what.to_owned(), unit.to_owned());
        report.add(Row { what, unit, measured, baseline: Some(baseline), target });
    }
    Ok(())
}

/// With and without, or the other way round.
fn order(round: usize) -> [usize; 2] {
    if round.is_multiple_of(2) { [0, 1] } else { [1, 0] }
}

impl Side {
    async fn start(dir: &Path, program: &Path) -> Result<Side> {
        let running = Running::start(dir, program, DIMENSION as u32).await?;
        Ok(Side { running, bulk: Turns::default(), single: Puts::default() })
    }

    /// A turn of bulk writes of new records.
    async fn bulk(&mut self, round: usize, components: &[f32]) -> Result<()> {
        let ids: Vec<String> = (0..BULK).map(|n| format!("r{round}-{n:08}")).collect();
        let before = self.cpu()?;
        let took = ingest::write(&self.running.client, &ids, components, DIMENSION).await?;
        self.bulk.seconds.push(took.as_secs_f64() / BULK as f64);
        self.bulk.cpu_seconds.push(self.cpu_since(before).await? / BULK as f64);
        Ok(())
    }

    /// A turn of single puts, one after the other.
    async fn single(&mut self, turn: usize, vector: &[f32]) -> Result<()> {
        let collection = self.running.client.collection("default");
        let before = self.cpu()?;
        for n in 0..PUTS {
            let id = format!("single-{turn}-{n:08}");
            let start = Instant::now();
            collection.put(&id, vector, &WriteOptions::default()).await?;
            self.single.seconds.push(start.elapsed().as_secs_f64());
        }
        self.single.cpu_seconds += (self.cpu()? - before).as_secs_f64();
        Ok(())
    }

    /// CPU time of all nodes so far.
    fn cpu(&self) -> Result<Duration> {
        let running = self.running.cluster.running()?;
        running.iter().map(|(id, process)| process.cpu().with_context(|| format!("{id} ended"))).sum()
    }

    /// Seconds of CPU time since then, once all replicas have applied everything.
    async fn cpu_since(&self, before: Duration) -> Result<f64> {
        view::wait_equal(&self.running.client, &self.running.cluster, SETTLE_DEADLINE).await?;
        Ok((self.cpu()? - before).as_secs_f64())
    }
}
