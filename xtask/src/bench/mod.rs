//! `cargo xtask bench`: SlowDB's figures, each beside what the same machine does without SlowDB, measured
//! in turns in the same run. Absolute figures say little on a shared or noisy machine; ratios do.

mod beside;
mod disk;
mod failover;
mod grow;
mod guarantees;
mod idle;
mod ingest;
mod memory;
pub mod plots;
mod readers;
mod report;
mod requests;
mod snapshot;
mod storage;
mod store;
pub mod store_process;

use crate::chain::driver::Chain;
use crate::cluster::{Cluster, Lifetime, Shape, cli, view};
use crate::stats;
use crate::workspace::{self, NodeProgram};
use anyhow::Result;
use clap::{Args, ValueEnum};
use report::Report;
use slowdb_client::Client;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_secs(60);

/// Measures SlowDB beside its baselines.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Fewer rounds and kills: a look, not a measurement.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Name of the file in benches/runs that keeps the figures [default: the commit].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    program: NodeProgram,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// How fast the disk syncs.
    Disk,
    /// Bulk writes.
    Ingest,
    /// Single puts.
    Put,
    /// Gets.
    Get,
    /// Gets of many readers at once.
    Readers,
    /// Exact search in one shard.
    Search,
    /// The store as a library: puts, commits, opening, memory.
    Store,
    /// The store beside other stores, which are fetched and built for it: only if it is named.
    Beside,
    /// Killed leaders.
    Failover,
    /// A node that is added under load.
    Grow,
    /// A replica that is copied to another node.
    Snapshot,
    /// Nodes beside nodes without guarantees.
    Guarantees,
    /// Shards to which nothing happens.
    Idle,
}

/// Runs all parts.
pub fn run(args: &BenchArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(bench(args))
}

async fn bench(args: &BenchArgs) -> Result<()> {
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let needs_cluster = [Part::Ingest, Part::Put, Part::Get, Part::Readers, Part::Failover, Part::Grow]
        .into_iter()
        .any(wanted);
    let needs_program =
        needs_cluster || wanted(Part::Snapshot) || wanted(Part::Guarantees) || wanted(Part::Idle);
    let dir = workspace::state_dir().join("bench");
    if let Ok(mut earlier) = Cluster::open(&dir.join("cluster")) {
        earlier.down()?;
    }
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let unguarded = wanted(Part::Guarantees).then(|| guarantees::unguarded_program(&dir)).transpose()?;
    let program = if needs_program { args.program.get()? } else { PathBuf::new() };
    let mut report = Report::new(args.quick);
    if wanted(Part::Disk) {
        disk::measure(&dir, args.quick, &mut report)?;
    }
    if wanted(Part::Get) {
        storage::get(&dir, args.quick, &mut report)?;
    }
    if wanted(Part::Search) {
        storage::search(&dir, args.quick, &mut report)?;
    }
    if wanted(Part::Store) {
        store::measure(&dir, args.quick, &mut report)?;
    }
    // Its dependencies are fetched, so it has to be asked for.
    if args.only.contains(&Part::Beside) {
        beside::measure(&dir, args.quick, &mut report)?;
    }
    if needs_cluster {
        let chain = Chain::start(&std::env::current_exe()?, &dir.join("chain")).await?;
        if wanted(Part::Ingest) {
            let running = Running::start(&dir, &program, 768).await?;
            ingest::measure(&chain, &running.client, 768, args.quick, &mut report).await?;
        }
        let mut running = Running::start(&dir, &program, 128).await?;
        if wanted(Part::Ingest) {
            ingest::measure(&chain, &running.client, 128, args.quick, &mut report).await?;
        }
        if wanted(Part::Put) {
            requests::put(&chain, &running.client, args.quick, &mut report).await?;
        }
        if wanted(Part::Get) {
            requests::get(&chain, &running.client, args.quick, &mut report).await?;
        }
        drop(chain);
        if wanted(Part::Readers) {
            readers::measure(&running.client, args.quick, &mut report).await?;
        }
        if wanted(Part::Failover) {
            failover::measure(&mut running, args.quick, &mut report).await?;
        }
        drop(running);
        if wanted(Part::Grow) {
            let mut running = Running::start(&dir, &program, 128).await?;
            grow::measure(&mut running, args.quick, &mut report).await?;
        }
    }
    if wanted(Part::Snapshot) {
        snapshot::measure(&dir, &program, args.quick, &mut report).await?;
    }
    if wanted(Part::Idle) {
        idle::measure(&dir, &program, args.quick, &mut report).await?;
    }
    if let Some(unguarded) = unguarded {
        guarantees::measure(&dir, &program, &unguarded, args.quick, &mut report).await?;
    }
    println!("\nkept in {}", report.save(args.name.as_deref())?.display());
    Ok(())
}

/// A cluster for one part of the bench; its nodes end with it.
struct Running {
    cluster: Cluster,
    client: Client,
}

impl Running {
    async fn start(dir: &Path, program: &Path, dimension: u32) -> Result<Running> {
        let dir = dir.join("cluster");
        cli::remove(&dir)?;
        let shape = Shape { dimension, ..Shape::default() };
        let mut cluster = Cluster::create(&dir, program, shape, Lifetime::Owned)?;
        cluster.start_all()?;
        let client = view::wait_ready(&cluster, START_DEADLINE).await?;
        Ok(Running { cluster, client })
    }
}

/// Vectors to write: the same in every run, and no two alike.
fn vectors(count: usize, dimension: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let component = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32) / ((1 << 23) as f32) - 1.0
    };
    (0..count * dimension).map(component).collect()
}
