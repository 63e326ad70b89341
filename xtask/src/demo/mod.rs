//! `cargo xtask demo`: the main job from end to end, with everything checked.
//!
//! Three real nodes, real embeddings, a leader killed under load. Whatever is off ends the demo with the
//! reason and an exit code that is not 0; the cluster's logs are kept for a look.

mod conflict;
mod failover;
mod grow;
mod records;

use crate::cluster::{Cluster, Lifetime, Shape, cli, view};
use crate::dataset::{Dataset, load_vectors};
use crate::failover::Kill;
use crate::truth::Truth;
use crate::ui::{self, detail, seconds, step, step_now, thousands};
use crate::workspace::{self, NodeProgram};
use anyhow::{Context, Result, bail};
use clap::Args;
use slowdb_client::Client;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Queries taken from the data itself when no file of queries is given.
const OWN_QUERIES: usize = 100;
const NUM_SHARDS: u32 = 16;

/// Imports vectors into three nodes, checks every one, kills a leader under load, and checks again.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Vectors to use instead of the sample (.npy, two-dimensional '<f4', or .fvecs).
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Their ids, one a line [default: numbers of the rows].
    #[arg(long, value_name = "FILE", requires = "data")]
    ids: Option<PathBuf>,
    /// Queries to check searches with [default: vectors out of the data].
    #[arg(long, value_name = "FILE", requires = "data")]
    queries: Option<PathBuf>,
    /// Hits asked for with each query.
    #[arg(short, long, default_value_t = 10)]
    k: usize,
    /// Instead: one node becomes three and five, one is killed and one drained, under load.
    #[arg(long)]
    grow: bool,
    /// Instead: a leader is cut off while clients write on both sides, and every acknowledged write is accounted for.
    #[arg(long, conflicts_with = "grow")]
    conflict: bool,
    /// Leaves the cluster running when all is done.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    program: NodeProgram,
}

/// What the demo works on.
struct Input {
    data: Dataset,
    queries: Vec<Vec<f32>>,
    k: usize,
}

/// Runs the demo.
pub fn run(args: &DemoArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo(args))
}

async fn demo(args: &DemoArgs) -> Result<()> {
    let start = Instant::now();
    println!("SlowDB demo\n");
    let program = step_now("build", || Ok((args.program.get()?, "slowdb-node".into())))?;
    let input = step_now("vectors", || load(args))?;
    let dir = workspace::state_dir().join("demo");
    clear(&dir)?;
    let shape = Shape {
        nodes: if args.grow { 1 } else { 3 },
        dimension: u32::try_from(input.data.dimension)?,
        replication_factor: 3,
        num_shards: NUM_SHARDS,
        node_down_after: args.grow.then(|| "5s".to_owned()),
        snapshot_rate: None,
        min_free: None,
        relayed: args.conflict,
    };
    let lifetime = if args.keep { Lifetime::Detached } else { Lifetime::Owned };
    let mut cluster = Cluster::create(&dir, &program, shape, lifetime)?;
    let outcome = if args.grow {
        grow::run(&mut cluster, &input).await
    } else if args.conflict {
        conflict::run(&mut cluster, &input).await
    } else {
        on_cluster(&mut cluster, &input).await
    };
    if outcome.is_err() || !args.keep {
        // After a failure the logs matter more than how the nodes stop.
        let stopped = cluster.down();
        if outcome.is_ok() {
            stopped?;
        }
    }
    if let Err(error) = outcome {
        eprintln!("\nThe nodes' logs and data are in {}", cluster.dir().display());
        return Err(error);
    }
    println!("\nAll checks passed in {}.", seconds(start.elapsed()));
    if args.keep {
        println!("The cluster runs on: cargo xtask cluster --dir {} status", cluster.dir().display());
    }
    Ok(())
}

fn clear(dir: &std::path::Path) -> Result<()> {
    if let Ok(mut earlier) = Cluster::open(dir) {
        // An earlier demo that was kept, or cut off.
        earlier.down()?;
    }
    cli::remove(dir)
}

fn load(args: &DemoArgs) -> ui::Said<Input> {
    let sample = workspace::root().join("xtask/data");
    let (data, queries) = match &args.data {
        Some(path) => {
            let data = Dataset::load(path, args.ids.as_deref())?;
            (data, args.queries.clone())
        }
        None => {
            let ids = sample.join("debian-3000.ids.txt");
            let data = Dataset::load(&sample.join("debian-3000.npy"), Some(&ids))?;
            (data, Some(sample.join("queries-100.npy")))
        }
    };
    let queries = match queries {
        Some(path) => {
            let (dimension, components) = load_vectors(&path)?;
            if dimension != data.dimension {
                bail!("queries of dimension {dimension} for vectors of dimension {}", data.dimension);
            }
            components.chunks_exact(dimension).map(<[f32]>::to_vec).collect()
        }
        None => {
            let stride = data.len().div_ceil(OWN_QUERIES);
            data.vectors().step_by(stride).map(<[f32]>::to_vec).collect::<Vec<_>>()
        }
    };
    let said = format!("{} × {}, {} queries", thousands(data.len() as u64), data.dimension, queries.len());
    Ok((Input { data, queries, k: args.k }, said))
}

async fn on_cluster(cluster: &mut Cluster, input: &Input) -> Result<()> {
    let client = step("start three nodes", start(cluster)).await?;
    let collection = client.collection("default");
    step("import", records::import(&collection, &input.data)).await?;
    step("read back", records::read_back(&collection, &input.data)).await?;
    let truth = step_now("exact answers", || {
        let truth = Truth::compute(&input.data, &input.queries, input.k);
        Ok((truth, "every query with every vector, in double precision".into()))
    })?;
    step("search", records::search(&collection, input, &truth)).await?;
    let kill = step("kill -9 under load", failover::kill_under_load(cluster, &client)).await?;
    detail(format!("{} led {} shards; how long each refused writes:", kill.victim, kill.windows.len()));
    for line in failover::lines(&kill) {
        detail(line);
    }
    step("acknowledged writes", failover::verify(&collection, &kill)).await?;
    step("read back", records::read_back(&collection, &input.data)).await?;
    let restarted = Instant::now();
    let victim = kill.victim.clone();
    step("restart", async {
        let process = cluster.start(&victim)?;
        Ok(((), format!("{victim} on its old storage and port, process {}", process.pid)))
    })
    .await?;
    step("catch up", failover::catch_up(cluster, &client, None)).await?;
    let caught_up = restarted.elapsed();
    step("clean up", records::remove(&collection, &kill.written.ids())).await?;
    step("search", records::search(&collection, input, &truth)).await?;
    step("equal again", failover::catch_up(cluster, &client, Some(input.data.len()))).await?;
    summary(input, &kill, caught_up);
    Ok(())
}

async fn start(cluster: &mut Cluster) -> ui::Said<Client> {
    cluster.start_all()?;
    let client = view::wait_ready(cluster, START_DEADLINE).await.context("the cluster did not form")?;
    let shape = cluster.shape();
    let said = format!(
        "{}; {} shards, {} replicas each",
        cluster.addresses().join(", "),
        shape.num_shards,
        shape.replication_factor
    );
    Ok((client, said))
}

fn summary(input: &Input, kill: &Kill, caught_up: Duration) {
    let row = |what: &str, value: String| println!("  {what:<36} {value}");
    println!("\nSummary");
    row("vectors, all read back bit for bit", thousands(input.data.len() as u64));
    row(&format!("recall of {} searches, k = {}", input.queries.len(), input.k), "1.0".into());
    row("acknowledged writes around the kill", format!("{}, none lost", thousands(kill.written.acked())));
    row("writes not acknowledged", thousands(kill.written.failed()));
    row("refused writes, median of shards", seconds(kill.median()));
    row("refused writes, longest shard", seconds(kill.longest()));
    row("restart to equal digests", seconds(caught_up));
}
