//! A rolling restart: each node is told to stop, started again, and caught up before it is the next one's turn.

use crate::cluster::{Cluster, view};
use crate::movement;
use crate::ui::seconds;
use anyhow::{Context, Result, bail};
use slowdb_client::Client;
use std::time::{Duration, Instant};

/// For one node to stop, start, and have all its replicas where the others' are.
const NODE_DEADLINE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// Restarts every node. Gives how long each took until it was caught up.
///
/// # Errors
/// A node does not stop, start or catch up in time, or replicas differ.
pub async fn restart_all(cluster: &mut Cluster, client: &Client) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for id in cluster.ids() {
        let start = Instant::now();
        let status = cluster.terminate(&id)?;
        if let Some(status) = status.filter(|status| !status.success()) {
            bail!("{id} was told to stop and ended with {status}:\n{}", cluster.log_tail(&id));
        }
        cluster.start(&id)?;
        caught_up(cluster, client, start + NODE_DEADLINE)
            .await
            .with_context(|| format!("{id} was restarted:\n{}", cluster.log_tail(&id)))?;
        took.push(start.elapsed());
    }
    Ok(took)
}

/// Waits until every node answers, every shard has a leader, nothing moves, and each shard's replicas were seen equal.
async fn caught_up(cluster: &Cluster, client: &Client, end: Instant) -> Result<()> {
    let left = || end.saturating_duration_since(Instant::now());
    let what = "every node answers and every shard has a leader";
    view::wait(client, what, left(), |view| {
        cluster.check_alive()?;
        Ok(view.is_complete(cluster))
    })
    .await?;
    movement::settled(client, left(), |view| view.nodes.iter().all(|node| !node.down)).await?;
    loop {
        match movement::equal_replicas(client).await? {
            Ok(_) => return Ok(()),
            Err(why) if Instant::now() > end => {
                bail!("not caught up after {}: {why}", seconds(NODE_DEADLINE));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
