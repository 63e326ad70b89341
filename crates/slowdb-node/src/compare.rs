//! `compare`: whether all replicas hold the same records.

use crate::args::CompareArgs;
use crate::failure::Failure;
use crate::output::{Output, visible};
use crate::records::PositionView;
use serde::Serialize;
use slowdb_client::{CompareOptions, Comparison, Difference};
use std::collections::BTreeMap;

#[derive(Serialize)]
struct ShardView {
    shard: u32,
    group: u64,
    equal: bool,
    /// Records at each node's replica.
    records: BTreeMap<String, u64>,
    /// Nodes that did not answer, and why.
    missing: BTreeMap<String, String>,
    differences: Vec<DifferenceView>,
    /// Ids that were written to so often that nothing is known about them.
    undecided: Vec<String>,
    /// Whether there may be more differences than were asked for.
    more: bool,
}

#[derive(Serialize)]
struct DifferenceView {
    id: String,
    /// What each node's replica holds.
    held: BTreeMap<String, Option<HeldView>>,
}

#[derive(Serialize)]
struct HeldView {
    version: PositionView,
    hash: String,
}

/// `compare`
pub(crate) async fn run(args: CompareArgs, output: Output) -> Result<(), Failure> {
    let collection = args.on.open().await?;
    let shards = match args.shard {
        Some(shard) => shard..shard + 1,
        None => 0..collection.num_shards().await?,
    };
    let options = CompareOptions { limit: args.limit as usize, ..CompareOptions::default() };
    let mut bad = 0;
    for shard in shards {
        let comparison = collection.compare(shard, &options).await?;
        bad += usize::from(!comparison.is_equal());
        output.print(&view(comparison), human)?;
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure::refused("not_equal", "the replicas of one shard are not known to be equal")),
        many => {
            let message = format!("the replicas of {many} shards are not known to be equal");
            Err(Failure::refused("not_equal", message))
        }
    }
}

fn view(comparison: Comparison) -> ShardView {
    let equal = comparison.is_equal();
    let Comparison { shard, group, replicas, missing, differences, undecided, more } = comparison;
    let records = replicas.into_iter().map(|replica| (replica.node, replica.records)).collect();
    let missing = missing.into_iter().map(|replica| (replica.node, replica.reason)).collect();
    let differences = differences.into_iter().map(difference).collect();
    ShardView { shard, group, equal, records, missing, differences, undecided, more }
}

fn difference(difference: Difference) -> DifferenceView {
    let record = |(position, hash): (_, [u8; 16])| HeldView {
        version: PositionView::from(position),
        hash: format!("{:032x}", u128::from_le_bytes(hash)),
    };
    let held = difference.held.into_iter().map(|held| (held.node, held.record.map(record)));
    DifferenceView { id: difference.id, held: held.collect() }
}

fn human(view: &ShardView) -> String {
    let counts: Vec<String> =
        view.records.iter().map(|(node, records)| format!("{node} {records}")).collect();
    let state = if view.equal {
        "equal"
    } else if view.differences.is_empty() {
        "not known"
    } else {
        "DIFFERENT"
    };
    let mut lines = vec![format!("shard {}: {state}; records: {}", view.shard, counts.join(", "))];
    lines.extend(view.missing.iter().map(|(node, why)| format!("  without node {node}: {why}")));
    for DifferenceView { id, held } in &view.differences {
        let what = |(node, held): (&String, &Option<HeldView>)| match held {
            Some(held) => format!("{node} {} {}", held.version, held.hash),
            None => format!("{node} nothing"),
        };
        let held: Vec<String> = held.iter().map(what).collect();
        lines.push(format!("  '{}': {}", visible(id), held.join(", ")));
    }
    lines.extend(view.undecided.iter().map(|id| format!("  '{}' is written to: undecided", visible(id))));
    if view.more {
        lines.push("  and there may be more: --limit".to_owned());
    }
    lines.join("\n")
}
