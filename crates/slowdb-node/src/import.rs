//! `import`: all records of a file.

use crate::args::ImportArgs;
use crate::bar;
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::rows::{Row, Rows};
use indicatif::ProgressBar;
use serde::Serialize;
use slowdb_client::{BulkOptions, BulkProgress, BulkReport, Collection};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Serialize)]
struct Imported {
    written: u64,
    /// Records that an earlier run had written.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u64>,
    seconds: f64,
}

/// `import FILE`
pub(crate) async fn run(args: ImportArgs, output: Output) -> Result<(), Failure> {
    let start = Instant::now();
    let rows = Rows::open(&args.file, args.ids.as_deref())?;
    let (client, collection, carried) = connect::client_and_collection(&args.on).await?;
    let dimension = collection.dimension().await?;
    if let Some(got) = rows.dimension().filter(|got| *got != dimension) {
        let message = format!(
            "{} has vectors of {got} components, the collection '{}' of {dimension}",
            args.file.display(),
            collection.name()
        );
        return Err(Failure::bad_input("wrong_dimension", message));
    }
    let progress = match &args.progress {
        Some(path) => {
            let ids = args.ids.as_deref();
            Some(Arc::new(Progress::open(path, &args.file, ids, &client, &collection)?))
        }
        None => None,
    };
    let bar = bar::records(rows.count(), output);
    let written = write_all(&args, &collection, rows, &bar, progress.as_ref()).await;
    bar.finish_and_clear();
    carried.save()?;
    let report = written?;
    if let Some(progress) = &progress {
        progress.done();
    }
    let imported = Imported {
        written: report.written,
        skipped: progress.map(|progress| progress.from()),
        seconds: start.elapsed().as_secs_f64(),
    };
    output.print(&imported, |i| {
        let rate = i.written as f64 / i.seconds.max(1e-9);
        let wait = report.shards.values().map(|shard| shard.wait_max).max().unwrap_or_default();
        let skipped = i.skipped.filter(|skipped| *skipped > 0);
        let skipped = skipped.map(|skipped| format!(" after {skipped} that were there")).unwrap_or_default();
        format!(
            "wrote {} records{skipped} in {:.1} s ({rate:.0} a second), into {} shards; longest wait for a batch \
             {} ms",
            i.written,
            i.seconds,
            report.shards.len(),
            wait.as_millis()
        )
    })
}

async fn write_all(
    args: &ImportArgs,
    collection: &Collection,
    mut rows: Rows,
    bar: &ProgressBar,
    progress: Option<&Arc<Progress>>,
) -> Result<BulkReport, Failure> {
    let from = progress.map_or(0, |progress| progress.from());
    let through = Arc::new(AtomicU64::new(0));
    let noted = {
        let (bar, through, progress) = (bar.clone(), Arc::clone(&through), progress.cloned());
        move |reached: BulkProgress| {
            bar.set_position(from + reached.written);
            through.store(reached.through, Ordering::Relaxed);
            if let Some(progress) = &progress {
                progress.reach(reached.through);
            }
        }
    };
    let options = BulkOptions {
        level: connect::write_options(&args.on)?.level,
        in_flight: args.in_flight,
        batch_writes: args.batch,
        progress: Some(Arc::new(noted)),
        ..BulkOptions::default()
    };
    let mut row = Row::default();
    for _ in 0..from {
        rows.next(&mut row)?;
    }
    let outcome = put_all(collection, options, &mut rows, &mut row).await;
    if let (Err(_), Some(progress)) = (&outcome, progress) {
        progress.save(through.load(Ordering::Relaxed))?;
    }
    outcome
}

async fn put_all(
    collection: &Collection,
    options: BulkOptions,
    rows: &mut Rows,
    row: &mut Row,
) -> Result<BulkReport, Failure> {
    let mut writer = collection.bulk_writer(options).await?;
    loop {
        match rows.next(row) {
            Ok(false) => return Ok(writer.finish().await?),
            Ok(true) => writer.put(&row.id, &row.vector, &row.payload).await?,
            // The file was checked as a whole; if it changes meanwhile, what was sent is still awaited.
            Err(failure) => {
                let report = writer.finish().await?;
                let message = format!("{} records were written, then: {}", report.written, failure.message);
                return Err(Failure { message, ..failure });
            }
        }
    }
}
