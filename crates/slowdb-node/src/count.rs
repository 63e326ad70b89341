//! `count`: how many records there are.

use crate::args::CountArgs;
use crate::connect::{collection, read_options};
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use slowdb_client::CountOptions;

#[derive(Serialize)]
struct CountView {
    records: u64,
    shards: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

/// `count`
pub(crate) async fn run(args: CountArgs, output: Output) -> Result<(), Failure> {
    let level = read_options(&args.on)?.level;
    let (collection, carried) = collection(&args.on).await?;
    let options = CountOptions {
        level,
        prefix: args.prefix.unwrap_or_default(),
        min_coverage: args.min_coverage,
        ..CountOptions::default()
    };
    let counted = collection.count(&options).await?;
    for missing in &counted.missing {
        eprintln!("without shard {}: {}", missing.shard, missing.reason);
    }
    let view = CountView { records: counted.records, shards: counted.shards.len(), session: carried.save()? };
    output.print(&view, |view| view.records.to_string())
}
