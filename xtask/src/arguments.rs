//! The command line.

use crate::{bench, chain, ci, cluster, demo, fuzz, placement, sim, torture, torture_storage};
use anyhow::Result;
use clap::{Parser, Subcommand};

/// Development tasks of SlowDB.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The main job from end to end: import, read back, search, kill a leader, catch up; all checked.
    Demo(demo::DemoArgs),
    /// A cluster of real processes on this machine.
    Cluster(cluster::cli::ClusterArgs),
    /// Measures SlowDB beside what the machine can do, and prints the ratios.
    Bench(bench::BenchArgs),
    /// Draws the figures of a run of the bench, and prints them as a table for documents.
    Plots(bench::plots::PlotsArgs),
    /// Draws how even placements are, and how much they move, beside other schemes.
    Placement(placement::PlacementArgs),
    /// Runs the deterministic simulator.
    Sim(sim::SimArgs),
    /// Feeds hostile bytes to all decoders, or one case of one again.
    Fuzz(fuzz::FuzzArgs),
    /// Real processes, and kill -9 of a random one in the middle of joins and drains.
    Torture(torture::TortureArgs),
    /// kill -9 of processes that write to a store or a log, without a cluster around them.
    TortureStorage(torture_storage::TortureStorageArgs),
    /// Runs all checks and tests.
    Ci(ci::CiArgs),
    /// A process of the bare chain that the bench compares with.
    #[command(hide = true)]
    ChainNode(chain::node::ChainNodeArgs),
    /// A process with a store that the bench measures.
    #[command(hide = true)]
    StoreProcess(bench::store_process::StoreProcessArgs),
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.task {
        Task::Demo(args) => demo::run(&args),
        Task::Cluster(args) => cluster::cli::run(args),
        Task::Bench(args) => bench::run(&args),
        Task::Plots(args) => bench::plots::run(&args),
        Task::Placement(args) => placement::run(&args),
        Task::Sim(args) => sim::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Torture(args) => torture::run(&args),
        Task::TortureStorage(args) => torture_storage::run(&args),
        Task::Ci(args) => ci::run(&args),
        Task::ChainNode(args) => chain::node::run(&args),
        Task::StoreProcess(args) => bench::store_process::run(&args),
    }
}
