//! `cargo xtask torture-storage`: kill -9 of a process that writes to a store, and of one that writes to a log, again and
//! again. The tests of both crates that do so, for longer and with a seed of choice.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;

/// The tests that kill their own writers.
const TESTS: [&str; 8] = [
    "test",
    "--package=slowdb-storage",
    "--package=slowdb-repl",
    "--test=kill",
    "--test=wal_kill",
    "killed",
    "--",
    "--nocapture",
];

/// Kills processes that write to a store or a log with -9, and looks after each.
#[derive(Debug, Args)]
pub struct TortureStorageArgs {
    /// How many times, each of the two.
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// What is written is drawn from it. The moments are real time, so a run can be repeated only roughly.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it.
pub fn run(args: &TortureStorageArgs) -> Result<()> {
    println!("again: cargo xtask torture-storage --runs {} --seed {}", args.runs, args.seed);
    let status = workspace::cargo()
        .args(TESTS)
        .env("SLOWDB_RUNS", args.runs.to_string())
        .env("SLOWDB_SEED", args.seed.to_string())
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("something acknowledged was lost, or something else is wrong: see above ({status})");
    }
    Ok(())
}
