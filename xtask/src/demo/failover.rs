//! What the demo says of a killed leader.

use crate::cluster::{Cluster, view};
use crate::failover::{Kill, KillPlan, kill_busiest_leader};
use crate::ui::{Said, seconds, thousands};
use anyhow::ensure;
use slowdb_client::{Client, Collection};
use std::time::Duration;

const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);

/// Kills the node that leads most shards while writes go on.
pub(super) async fn kill_under_load(cluster: &mut Cluster, client: &Client) -> Said<Kill> {
    let plan = KillPlan { prefix: "demo-load".into(), lanes_per_shard: 2, before: 50, after: 50 };
    let kill = kill_busiest_leader(cluster, client, &plan).await?;
    let said = format!(
        "{} killed; its shards refused writes for {} (median), {} at most",
        kill.victim,
        seconds(kill.median()),
        seconds(kill.longest())
    );
    Ok((kill, said))
}

/// The affected shards, a few a line.
pub(super) fn lines(kill: &Kill) -> Vec<String> {
    let one = |(shard, window): &(u32, Duration)| format!("shard {shard:>2} {:>7}", seconds(*window));
    kill.windows.chunks(4).map(|four| four.iter().map(one).collect::<Vec<_>>().join("   ")).collect()
}

/// Reads back everything that was acknowledged around the kill.
pub(super) async fn verify(collection: &Collection, kill: &Kill) -> Said<()> {
    let verified = kill.written.verify(collection).await?;
    let said = format!(
        "{} acknowledged, none lost; {} ids read; {} not acknowledged",
        thousands(verified.acked),
        thousands(verified.ids),
        thousands(kill.written.failed())
    );
    Ok(((), said))
}

/// Waits until all replicas of all shards are at one position with one digest; then there are that many
/// records.
pub(super) async fn catch_up(cluster: &Cluster, client: &Client, records: Option<usize>) -> Said<()> {
    let view = view::wait_equal(client, cluster, CATCH_UP_DEADLINE).await?;
    let shape = cluster.shape();
    let replicas = shape.num_shards * shape.replication_factor;
    let found = view.records();
    if let Some(wanted) = records {
        ensure!(found == wanted as u64, "{found} records instead of {wanted}");
    }
    Ok(((), format!("{replicas} replicas, digests equal; {} records", thousands(found))))
}
