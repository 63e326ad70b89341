//! Bulk writes at `quorum` beside the bare chain that moves and syncs the same bytes.

use super::report::{Report, Row, Target};
use super::{memory, vectors};
use crate::chain::driver::Chain;
use crate::stats;
use anyhow::Result;
use bytes::Bytes;
use slowdb_client::{BulkOptions, Client};
use slowdb_proto::OpsBuilder;
use std::time::{Duration, Instant};

const BATCH: usize = 1_000;
const IN_FLIGHT: usize = 8;
/// More than a turn needs on all nodes.
const TOUCHED_BYTES: usize = 2 << 30;

/// In turns: so many vectors through the chain, as many into SlowDB.
pub(super) async fn measure(
    chain: &Chain,
    client: &Client,
    dimension: usize,
    quick: bool,
    report: &mut Report,
) -> Result<()> {
    let rounds = if quick { 3 } else { 7 };
    let count = (if quick { 6_400_000 } else { 12_800_000 }) / dimension / BATCH * BATCH;
    let components = vectors(count, dimension);
    let ids = |round: usize| (0..count).map(|n| format!("r{round}-{n:08}")).collect::<Vec<_>>();
    let bodies = bodies(&ids(0), &components, dimension)?;
    let (mut bare, mut stored) = (Vec::new(), Vec::new());
    // The first round warms both up and does not count.
    for round in 0..=rounds {
        memory::touch(TOUCHED_BYTES)?;
        let (_, took) = chain.write_all(&bodies, IN_FLIGHT).await?;
        bare.push(count as f64 / took.as_secs_f64());
        memory::touch(TOUCHED_BYTES)?;
        let took = write(client, &ids(round), &components, dimension).await?;
        stored.push(count as f64 / took.as_secs_f64());
    }
    report.add(Row {
        what: format!("ingest {dimension}-d, {BATCH} a batch, {IN_FLIGHT} in flight"),
        unit: "vectors/s".into(),
        measured: stats::median(&stored[1..]).into(),
        baseline: Some(stats::median(&bare[1..]).into()),
        target: Target::RatioAtLeast(0.6),
    });
    Ok(())
}

/// The bytes that the client sends for these vectors, in batches.
fn bodies(ids: &[String], components: &[f32], dimension: usize) -> Result<Vec<Bytes>> {
    let mut bodies = Vec::new();
    for (ids, vectors) in ids.chunks(BATCH).zip(components.chunks(BATCH * dimension)) {
        let mut ops = OpsBuilder::new();
        for (id, vector) in ids.iter().zip(vectors.chunks(dimension)) {
            ops.put(id, vector, &[])?;
        }
        bodies.push(Bytes::from(ops.finish()));
    }
    Ok(bodies)
}

pub(super) async fn write(
    client: &Client,
    ids: &[String],
    components: &[f32],
    dimension: usize,
) -> Result<Duration> {
    let options = BulkOptions {
        batch_writes: BATCH,
        in_flight: IN_FLIGHT,
        timeout: Some(Duration::from_secs(30)),
        ..BulkOptions::default()
    };
    let start = Instant::now();
    let mut writer = client.collection("default").bulk_writer(options).await?;
    for (id, vector) in ids.iter().zip(components.chunks(dimension)) {
        writer.put(id, vector, &[]).await?;
    }
    let report = writer.finish().await?;
    let took = start.elapsed();
    anyhow::ensure!(report.written == ids.len() as u64, "only {} were written", report.written);
    Ok(took)
}
