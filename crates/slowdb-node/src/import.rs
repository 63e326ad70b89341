//! `import`: all vectors of a file.

use crate::args::ImportArgs;
use crate::connect;
use crate::failure::Failure;
use crate::ids::Ids;
use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use slowdb_client::vectors::Vectors;
use slowdb_client::{BulkOptions, BulkProgress, BulkReport, Collection};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Imported {
    written: u64,
    seconds: f64,
}

/// `import FILE`
pub(crate) async fn run(args: ImportArgs, output: Output) -> Result<(), Failure> {
    let start = Instant::now();
    let mut vectors = Vectors::open(&args.file)?;
    let ids = Ids::open(args.ids.as_deref(), vectors.rows())?;
    vectors.check()?;
    let (collection, carried) = connect::collection(&args.on).await?;
    let dimension = collection.dimension().await?;
    if dimension != vectors.dimension() {
        let got = vectors.dimension();
        let message = format!(
            "{} has vectors of {got} components, the collection '{}' of {dimension}",
            args.file.display(),
            collection.name()
        );
        return Err(Failure::bad_input("wrong_dimension", message));
    }
    let bar = progress_bar(vectors.rows(), output);
    let written = write_all(&args, &collection, vectors, ids, &bar).await;
    bar.finish_and_clear();
    carried.save()?;
    let report = written?;
    let imported = Imported { written: report.written, seconds: start.elapsed().as_secs_f64() };
    output.print(&imported, |i| {
        let rate = i.written as f64 / i.seconds.max(1e-9);
        let wait = report.shards.values().map(|shard| shard.wait_max).max().unwrap_or_default();
        format!(
            "wrote {} records in {:.1} s ({rate:.0} a second), into {} shards; longest wait for a batch {wait:.0?}",
            i.written,
            i.seconds,
            report.shards.len()
        )
    })
}

async fn write_all(
    args: &ImportArgs,
    collection: &Collection,
    mut vectors: Vectors,
    mut ids: Ids,
    bar: &ProgressBar,
) -> Result<BulkReport, Failure> {
    let shown = bar.clone();
    let options = BulkOptions {
        level: connect::write_options(&args.on)?.level,
        in_flight: args.in_flight,
        batch_writes: args.batch,
        progress: Some(Arc::new(move |progress: BulkProgress| shown.set_position(progress.written))),
        ..BulkOptions::default()
    };
    let mut writer = collection.bulk_writer(options).await?;
    let mut row = Vec::with_capacity(vectors.dimension());
    loop {
        // The files were checked as a whole; if they change meanwhile, what was sent is still awaited.
        let next = match vectors.next_row(&mut row) {
            Ok(false) => break,
            Ok(true) => ids.next(),
            Err(error) => Err(error.into()),
        };
        match next {
            Ok(id) => writer.put(&id, &row, b"").await?,
            Err(failure) => {
                let report = writer.finish().await?;
                let message = format!("{} records were written, then: {}", report.written, failure.message);
                return Err(Failure { message, ..failure });
            }
        }
    }
    Ok(writer.finish().await?)
}

/// On a terminal a bar on stderr; else, and with `--json`, nothing.
fn progress_bar(rows: u64, output: Output) -> ProgressBar {
    let target = if output.is_json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(rows), target);
    let style = "{bar:40} {percent:>3} %  {human_pos} of {human_len}  {per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(250));
    }
    bar
}
