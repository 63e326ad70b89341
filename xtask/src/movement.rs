//! A cluster on its way from one placement to another: waiting until it is there, and comparing what replicas hold.

use crate::ui::seconds;
use anyhow::{Result, bail, ensure};
use slowdb_client::Client;
use slowdb_proto::{ClusterView, GroupKind};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(100);

/// Waits until nothing is moving and nothing is planned.
pub async fn settled(
    client: &Client,
    deadline: Duration,
    holds: impl Fn(&ClusterView) -> bool,
) -> Result<ClusterView> {
    let end = Instant::now() + deadline;
    loop {
        let why = match client.cluster().await {
            Ok(view) if view.moves.is_empty() && view.planned.is_empty() && holds(&view) => return Ok(view),
            Ok(view) => format!(
                "{} groups are on their way, {} moves are planned",
                view.moves.len(),
                view.planned.len()
            ),
            Err(error) => error.to_string(),
        };
        if Instant::now() > end {
            bail!("not settled after {}: {why}", seconds(deadline));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Replicas of shards that a node holds.
pub fn held(view: &ClusterView, node: &str) -> u32 {
    view.nodes.iter().find(|info| info.id == node).map_or(0, |info| info.replicas)
}

/// Compares the digests of replicas that are at one position. Writes go on, so not all can be caught at once.
pub async fn equal_replicas(client: &Client) -> Result<Result<usize, String>> {
    let map = client.newest_map().await?;
    let mut open: BTreeMap<u32, usize> = map
        .collections
        .iter()
        .filter(|c| c.name == "default")
        .flat_map(|c| c.shards.iter().map(|shard| (shard.shard, shard.replicas.len())))
        .collect();
    let replicas = open.values().sum();
    for _ in 0..200 {
        let status = client.status(Duration::from_secs(2)).await;
        let mut seen: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for group in status.nodes.iter().filter_map(|node| node.status.as_ref().ok()).flat_map(|s| &s.groups)
        {
            if let GroupKind::Shard { shard, .. } = &group.kind {
                seen.entry(*shard).or_default().push((group.applied, group.digest));
            }
        }
        for (shard, states) in seen {
            for (applied, digest) in &states {
                let other = states.iter().find(|(a, d)| a == applied && d != digest);
                ensure!(other.is_none(), "shard {shard}: replicas differ at {applied}");
            }
            let same = states.iter().all(|state| *state == states[0]);
            if same && open.get(&shard) == Some(&states.len()) {
                open.remove(&shard);
            }
        }
        if open.is_empty() {
            return Ok(Ok(replicas));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(Err(format!("shards {:?} were never seen at one position", open.keys().collect::<Vec<_>>())))
}
