//! `cargo xtask torture`: real processes, and kill -9 of a random one at a random moment of a join or a drain, again
//! and again, under load. It always has to complete by itself, with nothing acknowledged lost and all digests equal.

use crate::cluster::{Cluster, Lifetime, Shape, view};
use crate::load::{Load, LoadOptions};
use crate::movement;
use crate::ui::{seconds, thousands};
use crate::workspace::{self, NodeProgram};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use slowdb_client::Client;
use slowdb_proto::{Admin, NodeState};
use std::time::{Duration, Instant};

const DIMENSION: u32 = 16;
const NUM_SHARDS: u32 = 8;
/// Nodes between joins; one more while it is there.
const NODES: usize = 4;
const START_DEADLINE: Duration = Duration::from_secs(60);
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// The kill comes within this time after the operation was begun, and the restart within this time after the kill.
const KILL_WITHIN_MS: u64 = 2_500;
const RESTART_WITHIN_MS: u64 = 1_500;
const PAUSE: Duration = Duration::from_millis(100);

/// Kills nodes with -9 while others join and leave.
#[derive(Debug, Args)]
pub struct TortureArgs {
    /// How many times.
    #[arg(long, default_value_t = 50)]
    runs: u32,
    /// What the choices are drawn from. The moments are real time, so a run can be repeated only roughly.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    program: NodeProgram,
}

/// Draws choices.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Runs it.
pub fn run(args: &TortureArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(torture(args))
}

async fn torture(args: &TortureArgs) -> Result<()> {
    let start = Instant::now();
    let program = args.program.get()?;
    let dir = workspace::state_dir().join("torture");
    if let Some(mut earlier) = Cluster::find(&dir)? {
        earlier.down()?;
    }
    crate::cluster::cli::remove(&dir)?;
    let shape = Shape {
        nodes: 3,
        dimension: DIMENSION,
        replication_factor: 3,
        num_shards: NUM_SHARDS,
        node_down_after: Some("4s".into()),
        snapshot_rate: None,
        min_free: None,
        relayed: false,
    };
    let mut cluster = Cluster::create(&dir, &program, shape, Lifetime::Owned)?;
    let outcome = on_cluster(&mut cluster, args).await;
    if let Err(error) = outcome {
        eprintln!("\nThe nodes' logs and data are in {}", dir.display());
        return Err(error);
    }
    cluster.down()?;
    println!("\n{} runs passed in {}.", args.runs, seconds(start.elapsed()));
    Ok(())
}

async fn on_cluster(cluster: &mut Cluster, args: &TortureArgs) -> Result<()> {
    cluster.start_all()?;
    view::wait_ready(cluster, START_DEADLINE).await?;
    let mut draw = Draw(args.seed);
    let mut members: Vec<String> = cluster.ids();
    let mut acked = 0;
    for run in 1..=args.runs {
        let client = view::connect(cluster, START_DEADLINE).await?;
        let began = Instant::now();
        let collection = client.collection("default");
        let load = Load::start(
            &collection,
            LoadOptions {
                num_shards: NUM_SHARDS,
                dimension: DIMENSION as usize,
                lanes_per_shard: 1,
                prefix: format!("run-{run}"),
                timeout: REQUEST_WITHIN,
            },
        );
        let (what, node) = begin(cluster, &client, &mut members, &mut draw).await?;
        let victims: Vec<String> = cluster.running()?.into_iter().map(|(id, _)| id).collect();
        let victim = victims[draw.below(victims.len() as u64) as usize].clone();
        let moment = Duration::from_millis(draw.below(KILL_WITHIN_MS));
        tokio::time::sleep(moment).await;
        cluster.kill(&victim)?;
        tokio::time::sleep(Duration::from_millis(draw.below(RESTART_WITHIN_MS))).await;
        cluster.start(&victim)?;
        finish(cluster, &client, &mut members, what, &node).await.with_context(|| {
            format!("run {run} of seed {}: {what} {node}, {victim} killed after {moment:?}", args.seed)
        })?;
        let written = load.stop().await?;
        let verified = written.verify(&collection).await?;
        ensure!(
            written.failed() == 0 || written.errors().iter().all(|error| !error.contains("corrupt")),
            "{:?}",
            written.errors()
        );
        let replicas = equal(&client).await?;
        acked += verified.acked;
        println!(
            "  ✓ run {run:>3}  {what} {node}, {victim} killed {} later; {} acknowledged, none lost, {} failed; {replicas} \
             replicas equal; {}",
            seconds(moment),
            thousands(verified.acked),
            written.failed(),
            seconds(began.elapsed())
        );
    }
    println!("  {} writes acknowledged in all, none lost", thousands(acked));
    Ok(())
}

/// Begins what is to be disturbed: a node joins, or one is drained. Gives which.
async fn begin(
    cluster: &mut Cluster,
    client: &Client,
    members: &mut Vec<String>,
    draw: &mut Draw,
) -> Result<(&'static str, String)> {
    if members.len() < NODES {
        let id = cluster.add()?;
        cluster.start(&id)?;
        members.push(id.clone());
        return Ok(("join", id));
    }
    let node = members[draw.below(members.len() as u64) as usize].clone();
    client.admin(Admin::SetNodeState { node: node.clone(), state: NodeState::Draining }, false).await?;
    Ok(("drain", node))
}

/// Waits until it is done, and takes a drained node away.
async fn finish(
    cluster: &mut Cluster,
    client: &Client,
    members: &mut Vec<String>,
    what: &str,
    node: &str,
) -> Result<()> {
    let count = members.len();
    movement::settled(client, SETTLE_DEADLINE, |view| {
        let drained = what != "drain" || movement::held(view, node) == 0;
        view.nodes.len() == count && view.nodes.iter().all(|node| !node.down) && drained
    })
    .await?;
    if what == "drain" {
        let end = Instant::now() + SETTLE_DEADLINE;
        while let Err(error) =
            client.admin(Admin::RemoveNode { node: node.to_owned(), lost: false }, false).await
        {
            ensure!(Instant::now() < end, "{node} cannot be removed: {error}");
            tokio::time::sleep(PAUSE).await;
        }
        members.retain(|member| member != node);
        let count = members.len();
        movement::settled(client, SETTLE_DEADLINE, |view| view.nodes.len() == count).await?;
        cluster.terminate(node)?;
        cluster.forget(node)?;
    }
    Ok(())
}

async fn equal(client: &Client) -> Result<usize> {
    let end = Instant::now() + SETTLE_DEADLINE;
    loop {
        match movement::equal_replicas(client).await? {
            Ok(replicas) => return Ok(replicas),
            Err(why) if Instant::now() > end => bail!("digests could not be compared: {why}"),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
