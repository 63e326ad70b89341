//! Many shards to which nothing happens: what they take of a processor.

use super::START_DEADLINE;
use super::report::{Report, Row, Target};
use crate::cluster::{Cluster, Lifetime, Shape, cli, view};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SHARDS: u32 = 1_000;
/// Every shard's replicas compare digests once, half a minute after it was founded.
const SETTLE: Duration = Duration::from_secs(45);
const WATCH: Duration = Duration::from_secs(15);

/// The part of a core that each of three nodes takes with a replica of every shard.
pub(super) async fn measure(dir: &Path, program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let dir = dir.join("cluster");
    cli::remove(&dir)?;
    let shape = Shape { dimension: 128, num_shards: SHARDS, ..Shape::default() };
    let mut cluster = Cluster::create(&dir, program, shape, Lifetime::Owned)?;
    cluster.start_all()?;
    drop(view::wait_ready(&cluster, START_DEADLINE).await?);
    tokio::time::sleep(SETTLE).await;
    let watch = if quick { WATCH / 3 } else { WATCH };
    let start = Instant::now();
    let before = times(&cluster)?;
    tokio::time::sleep(watch).await;
    let after = times(&cluster)?;
    let elapsed = start.elapsed().as_secs_f64();
    let mut largest: f64 = 0.0;
    for ((id, before), (_, after)) in before.iter().zip(&after) {
        let share = |of: fn(&Times) -> u64| (of(after) - of(before)) as f64 / 1e7 / elapsed;
        let (ran, waited) = (share(|times| times.ran), share(|times| times.waited));
        println!("{id} ran for {ran:.2} % of the time, and waited {waited:.2} % of it for a core");
        largest = largest.max(ran);
    }
    report.add(Row {
        what: format!("{SHARDS} idle shards on three nodes, the node that takes most"),
        unit: "% of a core".into(),
        measured: largest.into(),
        baseline: None,
        target: Target::ValueBelow(5.0),
    });
    Ok(())
}

/// Nanoseconds that all threads of a process had on a core, and waited for one.
#[derive(Clone, Copy, Default)]
struct Times {
    ran: u64,
    waited: u64,
}

fn times(cluster: &Cluster) -> Result<Vec<(String, Times)>> {
    let of = |(id, process): (String, crate::process::ProcessId)| {
        let mut all = Times::default();
        for task in fs::read_dir(format!("/proc/{}/task", process.pid))? {
            // A thread that has ended meanwhile was none that lasts.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            let mut numbers = text.split_whitespace().map(str::parse::<u64>);
            let mut next =
                || numbers.next().context("schedstat is cut off")?.context("schedstat has numbers");
            let (ran, waited) = (next()?, next()?);
            all.ran += ran;
            all.waited += waited;
        }
        Ok((id, all))
    };
    cluster.running()?.into_iter().map(of).collect()
}
