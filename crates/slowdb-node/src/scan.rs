//! `scan`: all records.

use crate::args::ScanArgs;
use crate::connect::{collection, read_options};
use crate::failure::Failure;
use crate::output::{Output, visible};
use crate::payload::PayloadView;
use crate::records::PositionView;
use serde::Serialize;
use slowdb_client::ScanOptions;

const PAGE: usize = 1_000;

#[derive(Serialize)]
struct RecordView<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadView>,
    position: PositionView,
    /// The position as `--if-version` takes it.
    version: String,
    shard: u32,
}

/// `scan`
pub(crate) async fn run(args: ScanArgs, output: Output) -> Result<(), Failure> {
    let level = read_options(&args.on)?.level;
    let (collection, carried) = collection(&args.on).await?;
    let mut left = args.limit.unwrap_or(usize::MAX);
    let options = ScanOptions {
        level,
        prefix: args.prefix.unwrap_or_default(),
        vectors: args.vectors,
        payloads: args.payloads,
        page: left.clamp(1, PAGE),
        min_coverage: args.min_coverage,
        ..ScanOptions::default()
    };
    let mut scan = collection.scan(options).await?;
    while left > 0
        && let Some(page) = scan.next_page().await?
    {
        for record in page.records.iter().take(left) {
            let view = RecordView {
                id: &record.id,
                vector: record.vector.as_deref(),
                payload: record.payload.as_deref().and_then(PayloadView::of),
                position: record.position.into(),
                version: record.position.to_string(),
                shard: page.at.shard,
            };
            output.print(&view, human)?;
        }
        left = left.saturating_sub(page.records.len());
    }
    for missing in scan.missing() {
        eprintln!("without shard {}: {}", missing.shard, missing.reason);
    }
    carried.save()?;
    Ok(())
}

fn human(view: &RecordView<'_>) -> String {
    let vector = view.vector.map(|vector| {
        let components: Vec<String> = vector.iter().map(f32::to_string).collect();
        format!("  {}", components.join(","))
    });
    let payload = view.payload.as_ref().map(|payload| format!("  {payload}"));
    format!("{}{}{}", visible(view.id), vector.unwrap_or_default(), payload.unwrap_or_default())
}
