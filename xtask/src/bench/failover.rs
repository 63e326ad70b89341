//! Leaders killed under load, again and again.

use super::Running;
use super::report::{Report, Row, Target};
use crate::cluster::view;
use crate::failover::{KillPlan, kill_busiest_leader};
use crate::stats;
use anyhow::{Context, Result};
use std::time::Duration;

const CATCH_UP_DEADLINE: Duration = Duration::from_secs(120);

/// For each kill: the time until all shards of the killed node took writes again.
pub(super) async fn measure(running: &mut Running, quick: bool, report: &mut Report) -> Result<()> {
    let kills = if quick { 5 } else { 20 };
    let (mut longest, mut each) = (Vec::new(), Vec::new());
    for n in 0..kills {
        let plan = KillPlan { prefix: format!("kill-{n}"), lanes_per_shard: 1, before: 20, after: 20 };
        let kill = kill_busiest_leader(&mut running.cluster, &running.client, &plan).await?;
        kill.written
            .verify(&running.client.collection("default"))
            .await
            .with_context(|| format!("kill {n}"))?;
        longest.push(kill.longest().as_secs_f64() * 1e3);
        each.extend(kill.windows.iter().map(|(_, window)| window.as_secs_f64() * 1e3));
        running.cluster.start(&kill.victim)?;
        view::wait_equal(&running.client, &running.cluster, CATCH_UP_DEADLINE).await?;
    }
    let row = |what: String, value: f64, target| Row {
        what,
        unit: "ms".into(),
        measured: value.into(),
        baseline: None,
        target,
    };
    let (median, largest) = (stats::median(&longest), stats::largest(&longest));
    report.add(row(format!("failover, median of {kills} kills"), median, Target::ValueBelow(500.0)));
    report.add(row("failover, largest".into(), largest, Target::ValueBelow(1_000.0)));
    report.add(row("failover, median of all shards".into(), stats::median(&each), Target::None));
    Ok(())
}
