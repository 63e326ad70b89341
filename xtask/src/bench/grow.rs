//! A node is added under load, then all nodes are restarted one after another: what the load notices of it.
//!
//! The load is open: writes are sent when they are due, whether or not earlier ones were answered, at a quarter of what
//! the cluster takes at most. Each is measured from when it was due.

use super::report::{Report, Row, Target};
use super::{Running, vectors};
use crate::movement;
use crate::rolling;
use crate::stats;
use anyhow::{Result, ensure};
use slowdb_client::{BulkOptions, Collection, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const DIMENSION: usize = 128;
/// Records that are there, and have to be copied in part.
const RECORDS: usize = 200_000;
/// Writers that find out what the cluster takes at most.
const WRITERS: usize = 64;
const CAPACITY_FOR: Duration = Duration::from_secs(3);
const QUIET_FOR: Duration = Duration::from_secs(10);
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// p99 of the load while a node joins and takes over its share, beside p99 before.
pub(super) async fn measure(running: &mut Running, quick: bool, report: &mut Report) -> Result<()> {
    let collection = running.client.collection("default");
    let records = if quick { RECORDS / 10 } else { RECORDS };
    fill(&collection, records).await?;
    let capacity = capacity(&collection).await?;
    let pause = Duration::from_secs_f64(4.0 / capacity);

    let quiet = OpenLoad::start(&collection, pause, "quiet");
    tokio::time::sleep(if quick { QUIET_FOR / 5 } else { QUIET_FOR }).await;
    let quiet = quiet.stop().await?;

    let before = running.client.cluster().await?;
    let load = OpenLoad::start(&collection, pause, "grow");
    let start = Instant::now();
    let id = running.cluster.add()?;
    running.cluster.start(&id)?;
    let count = before.nodes.len() + 1;
    let after = movement::settled(&running.client, SETTLE_DEADLINE, |view| view.nodes.len() == count).await?;
    let took = start.elapsed();
    let grown = load.stop().await?;
    ensure!(grown.failed == 0, "{} of {} writes failed", grown.failed, grown.micros.len());

    let moved = movement::held(&after, &id);
    let fewest = before.nodes.iter().map(|node| node.replicas).sum::<u32>() / count as u32;
    ensure!(moved == fewest, "{moved} replicas moved, {fewest} would have done");
    let row = |what: &str, unit: &str, measured, baseline, target| Row {
        what: what.into(),
        unit: unit.into(),
        measured,
        baseline,
        target,
    };
    let p99 = |micros: &[f64]| stats::percentile(micros, 99.0);
    report.add(row(
        "load while a node is added, of capacity",
        "writes/s",
        (capacity / 4.0).into(),
        None,
        Target::None,
    ));
    report.add(row(
        "p99 while a node is added, beside quiet",
        "µs",
        p99(&grown.micros).into(),
        Some(p99(&quiet.micros).into()),
        Target::RatioAtMost(2.0),
    ));
    report.add(row("replicas moved, the fewest possible", "", f64::from(moved).into(), None, Target::None));
    report.add(row("adding a node", "s", took.as_secs_f64().into(), None, Target::None));

    let load = OpenLoad::start(&collection, pause, "rolling");
    let took = rolling::restart_all(&mut running.cluster, &running.client).await?;
    let restarted = load.stop().await?;
    ensure!(restarted.failed == 0, "{} of {} writes failed", restarted.failed, restarted.micros.len());
    report.add(row(
        "p99 while all nodes are restarted in turn, beside quiet",
        "µs",
        p99(&restarted.micros).into(),
        Some(p99(&quiet.micros).into()),
        Target::RatioAtMost(2.0),
    ));
    let took: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
    report.add(row(
        "restarting a node until it has caught up",
        "s",
        stats::median(&took).into(),
        None,
        Target::None,
    ));
    Ok(())
}

async fn fill(collection: &Collection, records: usize) -> Result<()> {
    let data = vectors(10_000, DIMENSION);
    let mut writer = collection.bulk_writer(BulkOptions::default()).await?;
    for n in 0..records {
        let at = n % 10_000 * DIMENSION;
        writer.put(&format!("record-{n}"), &data[at..at + DIMENSION], &[]).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Single puts a second with many writers, each waiting for its answer.
async fn capacity(collection: &Collection) -> Result<f64> {
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let vector: Arc<Vec<f32>> = Arc::new(vectors(1, DIMENSION));
    let mut writers = JoinSet::new();
    for lane in 0..WRITERS {
        let (collection, stop, done, vector) =
            (collection.clone(), Arc::clone(&stop), Arc::clone(&done), Arc::clone(&vector));
        writers.spawn(async move {
            let mut n = 0u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                collection
                    .put(&format!("capacity-{lane}-{}", n % 100), &vector, &WriteOptions::default())
                    .await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    let start = Instant::now();
    tokio::time::sleep(CAPACITY_FOR).await;
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(rate)
}

/// What an open load saw.
struct Seen {
    micros: Vec<f64>,
    failed: u64,
}

/// Writes that are sent at even intervals.
struct OpenLoad {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Seen>>,
}

impl OpenLoad {
    fn start(collection: &Collection, pause: Duration, prefix: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (collection, stopped) = (collection.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let vector: Arc<Vec<f32>> = Arc::new(vectors(1, DIMENSION));
            let mut writes = JoinSet::new();
            let mut seen = Seen { micros: Vec::new(), failed: 0 };
            let mut due = tokio::time::Instant::now();
            for n in 0u64.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                due += pause;
                tokio::time::sleep_until(due).await;
                let (collection, vector) = (collection.clone(), Arc::clone(&vector));
                writes.spawn(async move {
                    let options = WriteOptions { timeout: Some(REQUEST_WITHIN), ..WriteOptions::default() };
                    let put = collection.put(&format!("{prefix}-{}", n % 10_000), &vector, &options).await;
                    (put.is_ok(), due.elapsed())
                });
                while let Some(done) = writes.try_join_next() {
                    seen.note(done?);
                }
            }
            while let Some(done) = writes.join_next().await {
                seen.note(done?);
            }
            Ok(seen)
        });
        OpenLoad { stop, task }
    }

    async fn stop(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

impl Seen {
    fn note(&mut self, (acked, took): (bool, Duration)) {
        self.failed += u64::from(!acked);
        self.micros.push(took.as_secs_f64() * 1e6);
    }
}
