//! `cargo xtask sim`: the simulator, optimised. The flags are those of the `slowdb-sim` program.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;

/// Runs the deterministic simulator.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "SEED")]
    start: Option<u64>,
    /// Runs this one seed and prints what happens in it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "start", "canaries"])]
    replay: Option<u64>,
    /// Runs the planted bugs instead: each must be caught.
    #[arg(long)]
    canaries: bool,
    /// Further arguments for the simulator.
    #[arg(last = true)]
    rest: Vec<String>,
}

impl SimArgs {
    /// The arguments as the simulator takes them.
    fn passed_on(&self) -> Vec<String> {
        let numbers = [("--seeds", self.seeds), ("--start", self.start), ("--replay", self.replay)];
        let given = numbers.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let mut args: Vec<String> =
            given.flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect();
        if self.canaries {
            args.push("--canaries".into());
        }
        args.extend(self.rest.iter().cloned());
        args
    }
}

/// Builds and runs it.
pub fn run(args: &SimArgs) -> Result<()> {
    // Planted bugs are not even compiled unless they are asked for.
    let features: &[&str] = if args.canaries { &["--features", "canary"] } else { &[] };
    let status = workspace::cargo()
        .args(["run", "--release", "--quiet", "--package", "slowdb-sim"])
        .args(features)
        .arg("--")
        .args(args.passed_on())
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("the simulation failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_passed_on() {
        let args =
            SimArgs { seeds: Some(7), start: Some(3), replay: None, canaries: true, rest: vec!["-v".into()] };
        assert_eq!(args.passed_on(), ["--seeds", "7", "--start", "3", "--canaries", "-v"]);
    }
}
