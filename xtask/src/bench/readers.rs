//! Gets at `quorum` of many readers at once beside those of one, in turns.

use super::report::{Report, Row, Target};
use super::{requests, stats};
use anyhow::{Result, ensure};
use slowdb_client::{Client, Collection, ReadLevel, ReadOptions};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;

/// Readers at once. All are of one client.
const READERS: usize = 64;
/// Gets of a turn of one reader, and of each of many.
const GETS: usize = 200;

/// How many gets a second many readers are answered, beside how many one is.
pub(super) async fn measure(client: &Client, quick: bool, report: &mut Report) -> Result<()> {
    let turns = if quick { 4 } else { 15 };
    let collection = client.collection("default");
    let ids: Arc<[String]> = requests::write_records(&collection).await?.into();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for turn in 0..=turns {
        let (one, many) = (rate(&collection, &ids, 1).await?, rate(&collection, &ids, READERS).await?);
        // The first turn warms up and does not count.
        if turn > 0 {
            alone.push(one);
            together.push(many);
        }
    }
    report.add(Row {
        what: format!("get at quorum, {READERS} readers at once beside one"),
        unit: "gets/s".into(),
        measured: stats::median(&together).into(),
        baseline: Some(stats::median(&alone).into()),
        target: Target::TimesAtLeast(5.0),
    });
    Ok(())
}

/// Gets a second of so many readers, each asking for the next record once it has the last.
async fn rate(collection: &Collection, ids: &Arc<[String]>, readers: usize) -> Result<f64> {
    let mut running = JoinSet::new();
    let start = Instant::now();
    for reader in 0..readers {
        let (collection, ids) = (collection.clone(), Arc::clone(ids));
        running.spawn(async move {
            let options = ReadOptions { level: Some(ReadLevel::Quorum), timeout: None };
            for n in 0..GETS {
                let id = &ids[(reader * GETS + n) * 7 % ids.len()];
                ensure!(collection.get(id, &options).await?.is_some(), "{id} is not there");
            }
            Ok(())
        });
    }
    while let Some(reader) = running.join_next().await {
        reader??;
    }
    Ok((readers * GETS) as f64 / start.elapsed().as_secs_f64())
}
