//! A replica that is copied to a node that joins, beside a bare QUIC stream between two processes.

use super::report::{Report, Row, Target};
use super::{START_DEADLINE, memory, vectors};
use crate::cluster::{Cluster, Lifetime, Shape, cli, view};
use crate::{stats, workspace};
use anyhow::{Context, Result, ensure};
use slowdb_client::{BulkOptions, Client};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const DIMENSION: usize = 768;
const RECORDS: usize = 100_000;
/// Different vectors; records share them.
const VECTORS: usize = 2_000;
const LIMIT_MIB: u64 = 32;
const ARRIVE_DEADLINE: Duration = Duration::from_secs(180);
/// More than a copy needs.
const TOUCHED_BYTES: usize = 4 << 30;
const PAUSE: Duration = Duration::from_millis(100);

/// How fast one shard arrives on a second node, as fast as it can and with a limit.
pub(super) async fn measure(dir: &Path, program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let records = if quick { RECORDS / 4 } else { RECORDS };
    let megabytes = records * DIMENSION * 4 / 1_000_000;
    let rounds = if quick { 1 } else { 3 };
    let (mut bare, mut copied) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare.push(bare_stream(megabytes)?);
        copied.push(copy(dir, program, records, "unlimited").await?);
    }
    let row = |what: String, measured: f64, baseline: f64, target: Target| Row {
        what,
        unit: "MB/s".into(),
        measured: measured.into(),
        baseline: Some(baseline.into()),
        target,
    };
    report.add(row(
        format!("snapshot of {records} × {DIMENSION}-d, no limit, beside a bare stream"),
        stats::median(&copied),
        stats::median(&bare),
        Target::RatioAtLeast(0.7),
    ));
    let limited = copy(dir, program, records, &format!("{LIMIT_MIB}MiB")).await?;
    let limit = (LIMIT_MIB << 20) as f64 / 1e6;
    report.add(row(
        format!("the same with --snapshot-rate {LIMIT_MIB}MiB, beside the limit"),
        limited,
        limit,
        Target::RatioAtLeast(0.9),
    ));
    Ok(())
}

/// Megabytes a second of one stream, as the network layer measures it.
fn bare_stream(megabytes: usize) -> Result<f64> {
    let output = workspace::cargo()
        .args(["run", "--quiet", "--release", "--package", "slowdb-net", "--example", "throughput", "--"])
        .arg(megabytes.to_string())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "the bare stream could not be measured ({})", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text.lines().find_map(|line| line.strip_prefix("one stream")?.rsplit_once(": "));
    let rate = rate.and_then(|(_, rate)| rate.strip_suffix(" MB/s")?.parse().ok());
    rate.with_context(|| format!("the example said '{text}'"))
}

/// Megabytes a second at which all of a shard arrived on a node that joined.
async fn copy(dir: &Path, program: &Path, records: usize, rate: &str) -> Result<f64> {
    let dir = dir.join("cluster");
    cli::remove(&dir)?;
    let shape = Shape {
        nodes: 1,
        dimension: DIMENSION as u32,
        replication_factor: 2,
        num_shards: 1,
        snapshot_rate: Some(rate.to_owned()),
        ..Shape::default()
    };
    let mut cluster = Cluster::create(&dir, program, shape, Lifetime::Owned)?;
    cluster.start_all()?;
    let client = view::wait_ready(&cluster, START_DEADLINE).await?;
    fill(&client, records).await?;
    memory::touch(TOUCHED_BYTES)?;
    let id = cluster.add()?;
    cluster.start(&id)?;
    let whole = (records * DIMENSION * 4) as u64;
    let end = Instant::now() + ARRIVE_DEADLINE;
    let (bytes, millis) = loop {
        // The catalog arrives there too.
        let log = std::fs::read_to_string(cluster.log(&id))?;
        if let Some(shard) = arrived(&log).into_iter().find(|(bytes, _)| *bytes >= whole) {
            break shard;
        }
        ensure!(Instant::now() < end, "no copy arrived on the node that joined:\n{}", cluster.log_tail(&id));
        tokio::time::sleep(PAUSE).await;
    };
    println!("{bytes} bytes arrived in {millis} ms ({rate})");
    Ok(bytes as f64 / 1e3 / millis.max(1) as f64)
}

async fn fill(client: &Client, records: usize) -> Result<()> {
    let data = vectors(VECTORS, DIMENSION);
    let mut writer = client.collection("default").bulk_writer(BulkOptions::default()).await?;
    for n in 0..records {
        let at = n % VECTORS * DIMENSION;
        writer.put(&format!("record-{n}"), &data[at..at + DIMENSION], &[]).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Bytes and milliseconds of every snapshot that a node says in its log it took in.
fn arrived(log: &str) -> Vec<(u64, u64)> {
    let of = |line: &str| {
        let rest = line.split_once("took in a snapshot")?.1;
        let number = |name: &str| rest.split_once(name)?.1.split_whitespace().next()?.parse().ok();
        Some((number(" bytes=")?, number(" arrived_ms=")?))
    };
    log.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_how_long_a_snapshot_took() {
        let log = "2026-01-01T00:00:00Z  INFO connected node=n1\n2026-01-01T00:00:01Z  INFO took in a snapshot \
                   group=group 3 bytes=1000 arrived_ms=20 durable_ms=30\n";
        assert_eq!(arrived(log), [(1_000, 20)]);
        assert_eq!(arrived("took in a snapshot"), []);
    }
}
