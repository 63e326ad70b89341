//! Import, reading back, searching: each compared with what went in.

use super::Input;
use crate::dataset::Dataset;
use crate::truth::Truth;
use crate::ui::{Said, bar, thousands};
use anyhow::{bail, ensure};
use slowdb_client::{BulkOptions, BulkProgress, Collection, ReadOptions, SearchOptions, WriteOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Records asked for at once.
const CHUNK: usize = 1_000;
const DELETES_IN_FLIGHT: usize = 32;
/// For one bulk request or search, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes all vectors at `quorum`.
pub(super) async fn import(collection: &Collection, data: &Dataset) -> Said<()> {
    let start = Instant::now();
    let bar = bar(data.len() as u64, "vectors");
    let shown = bar.clone();
    let progress = Arc::new(move |progress: BulkProgress| shown.set_position(progress.written));
    let options = BulkOptions { timeout: Some(PATIENCE), progress: Some(progress), ..BulkOptions::default() };
    let mut writer = collection.bulk_writer(options).await?;
    for (id, vector) in data.ids.iter().zip(data.vectors()) {
        writer.put(id, vector, &[]).await?;
    }
    let report = writer.finish().await?;
    bar.finish_and_clear();
    ensure!(report.written == data.len() as u64, "{} of {} were written", report.written, data.len());
    let rate = report.written as f64 / start.elapsed().as_secs_f64();
    Ok(((), format!("{} vectors at quorum, {} a second", thousands(report.written), thousands(rate as u64))))
}

/// Reads every vector at `quorum` and compares it bit for bit.
pub(super) async fn read_back(collection: &Collection, data: &Dataset) -> Said<()> {
    let options = ReadOptions { timeout: Some(PATIENCE), ..ReadOptions::default() };
    for (n, ids) in data.ids.chunks(CHUNK).enumerate() {
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let records = collection.get_many(&names, &options).await?.records;
        for ((row, id), record) in (n * CHUNK..).zip(ids).zip(records) {
            let Some(record) = record else { bail!("{id:?} is not there") };
            let wrote = data.vector(row).iter().map(|x| x.to_bits());
            let read = record.vector.iter().map(|x| x.to_bits());
            ensure!(
                record.vector.len() == data.dimension && wrote.eq(read),
                "{id:?} is not what was written"
            );
        }
    }
    Ok(((), format!("{} vectors, bit for bit", thousands(data.len() as u64))))
}

/// Searches and compares with exact ground truth.
pub(super) async fn search(collection: &Collection, input: &Input, truth: &Truth<'_>) -> Said<()> {
    let queries: Vec<f32> = input.queries.concat();
    let options = SearchOptions { k: input.k, timeout: Some(PATIENCE), ..SearchOptions::default() };
    let start = Instant::now();
    let found = collection.search(&queries, &options).await?;
    let took = start.elapsed();
    ensure!(found.results.len() == input.queries.len(), "{} answers", found.results.len());
    let mut right = 0;
    let mut wrong = None;
    for (query, hits) in found.results.iter().enumerate() {
        let hits: Vec<(String, f32)> = hits.iter().map(|hit| (hit.id.clone(), hit.score)).collect();
        right += truth.right(query, &hits);
        wrong = wrong.or(truth.check(query, &hits).err());
    }
    let recall = right as f64 / truth.wanted() as f64;
    if let Some(error) = wrong {
        return Err(error.context(format!("recall is {recall:.4}")));
    }
    ensure!(right == truth.wanted(), "recall is {recall:.4}");
    let each = took.as_secs_f64() * 1e3 / input.queries.len() as f64;
    let count = thousands(input.queries.len() as u64);
    Ok(((), format!("{count} queries, recall 1.0 against exact truth, {each:.1} ms each")))
}

/// Removes what the load wrote, so that the collection holds what was imported and nothing else.
pub(super) async fn remove(collection: &Collection, ids: &[&str]) -> Said<()> {
    let mut lanes = JoinSet::new();
    for lane in 0..DELETES_IN_FLIGHT {
        let ids: Vec<String> =
            ids.iter().skip(lane).step_by(DELETES_IN_FLIGHT).map(|id| (*id).to_owned()).collect();
        let collection = collection.clone();
        lanes.spawn(async move {
            let options = WriteOptions { timeout: Some(PATIENCE), ..WriteOptions::default() };
            for id in ids {
                collection.delete(&id, &options).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    for chunk in ids.chunks(CHUNK) {
        let found = collection.get_many(chunk, &ReadOptions::default()).await?.records;
        if let Some((id, _)) = chunk.iter().zip(found).find(|(_, record)| record.is_some()) {
            bail!("{id:?} was deleted and is still there");
        }
    }
    Ok(((), format!("{} ids deleted again, and gone", thousands(ids.len() as u64))))
}
