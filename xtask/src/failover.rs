//! A leader killed while writes go on: for the demo, the bench and the tests alike.

use crate::cluster::{Cluster, view};
use crate::load::{Load, LoadOptions, Written};
use crate::stats;
use anyhow::{Context, Result, ensure};
use slowdb_client::Client;
use std::time::{Duration, Instant};

const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// A shard that refuses longer than this has not failed over.
const FAILOVER_DEADLINE: Duration = Duration::from_secs(15);

/// How much is written around the kill.
#[derive(Clone, Debug)]
pub struct KillPlan {
    /// Starts every id that is written.
    pub prefix: String,
    /// Concurrent writers for each shard.
    pub lanes_per_shard: u32,
    /// Writes acknowledged on every shard before the kill.
    pub before: u64,
    /// Writes acknowledged on every shard after it.
    pub after: u64,
}

/// A leader that was killed under load.
#[derive(Debug)]
pub struct Kill {
    /// The node that led most shards.
    pub victim: String,
    /// For each shard that it led: how long it refused writes.
    pub windows: Vec<(u32, Duration)>,
    /// All that was written before, meanwhile and afterwards.
    pub written: Written,
}

impl Kill {
    fn in_ms(&self) -> Vec<f64> {
        stats::milliseconds(&self.windows.iter().map(|(_, window)| *window).collect::<Vec<_>>())
    }

    /// The median over the affected shards.
    pub fn median(&self) -> Duration {
        Duration::from_secs_f64(stats::median(&self.in_ms()) / 1e3)
    }

    /// The longest over the affected shards: from then on all of them took writes again.
    pub fn longest(&self) -> Duration {
        Duration::from_secs_f64(stats::largest(&self.in_ms()) / 1e3)
    }
}

/// Writes on all shards, kills -9 the node that leads most of them, and writes on until all shards work.
pub async fn kill_busiest_leader(cluster: &mut Cluster, client: &Client, plan: &KillPlan) -> Result<Kill> {
    let num_shards = cluster.shape().num_shards;
    let shards: Vec<u32> = (0..num_shards).collect();
    let options = LoadOptions {
        num_shards,
        dimension: cluster.shape().dimension as usize,
        lanes_per_shard: plan.lanes_per_shard,
        prefix: plan.prefix.clone(),
        timeout: Duration::from_secs(10),
    };
    let load = Load::start(&client.collection("default"), options);
    load.wait_more(plan.before, &shards, WRITE_DEADLINE).await?;
    let (victim, led) = view::View::of(client).await.busiest_leader().context("nobody leads a shard")?;
    let killed = Instant::now();
    cluster.kill(&victim)?;
    load.wait_ack_after(killed, &led, FAILOVER_DEADLINE).await.context("a shard did not fail over")?;
    load.wait_more(plan.after, &shards, WRITE_DEADLINE).await?;
    let written = load.stop().await?;
    let windows: Option<Vec<(u32, Duration)>> =
        led.iter().map(|shard| Some((*shard, written.refused_after(killed, *shard)?))).collect();
    let windows = windows.context("a shard has no acknowledged write after the kill")?;
    ensure!(!windows.is_empty(), "{victim} led no shard");
    Ok(Kill { victim, windows, written })
}
