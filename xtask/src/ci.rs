//! `cargo xtask ci`: everything that must hold before a change is taken, in one command.
//!
//! All that runs code shares the `dev` profile, so that dependencies are compiled once for it: tests, the
//! nodes that tests start as processes, and the simulator, with overflow and debug assertions on. The other
//! compilation, without code, is clippy's and rustdoc's.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Seeds that every run tries.
const FIXED_SEEDS: u64 = 20;
/// Further seeds, drawn from the commit.
const COMMIT_SEEDS: u64 = 20;

/// Runs all checks and tests.
#[derive(Debug, Args)]
pub struct CiArgs {
    /// Leaves out what takes longest: the simulation.
    #[arg(long)]
    no_sim: bool,
}

/// What test programs said in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs one check after the other; the first that fails ends it.
pub fn run(args: &CiArgs) -> Result<()> {
    let start = Instant::now();
    plain("formatting", &["fmt", "--all", "--check"], &[])?;
    plain("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"], &[])?;
    plain(
        "documentation",
        &["doc", "--workspace", "--no-deps", "--quiet"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    let mut counts = tests()?;
    if !args.no_sim {
        counts.passed += simulations()?;
    }
    println!(
        "\ntest result: ok. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        counts.passed,
        counts.failed,
        counts.ignored,
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn announce(name: &str) -> Instant {
    println!("\n== {name}");
    Instant::now()
}

fn done(name: &str, start: Instant) {
    println!("== {name}: {:.0} s", start.elapsed().as_secs_f64());
}

fn plain(name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let start = announce(name);
    let mut command = workspace::cargo();
    command.args(args).envs(environment.iter().copied());
    let status = command.status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("{name}: 'cargo {}' failed ({status})", args.join(" "));
    }
    done(name, start);
    Ok(())
}

/// Unit, property, integration and documentation tests of all crates, three-process tests among them.
fn tests() -> Result<Counts> {
    let start = announce("tests");
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    let (success, counts) = counted(command)?;
    if !success || counts.failed > 0 {
        bail!("tests failed: {} of {}", counts.failed, counts.failed + counts.passed);
    }
    done("tests", start);
    Ok(counts)
}

/// Runs a test command, shows what it prints, and adds up its results.
fn counted(mut command: Command) -> Result<(bool, Counts)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo cannot be run")?;
    let output = child.stdout.take().context("its output is piped")?;
    let mut counts = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(more) = result_line(&line) {
            counts.passed += more.passed;
            counts.failed += more.failed;
            counts.ignored += more.ignored;
        }
    }
    Ok((child.wait()?.success(), counts))
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn result_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in rest.split("; ") {
        let (number, what) = part.split_once(' ')?;
        let field = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.ignored,
            _ => continue,
        };
        *field = number.parse().ok()?;
    }
    Some(counts)
}

/// Fixed seeds, a slice that is the commit's own, and the planted bugs. Says how many runs there were.
fn simulations() -> Result<u64> {
    let (commit, _) = workspace::commit();
    let first = commit_seed(&commit);
    println!("\nthe commit is {commit}, its seeds start at {first}");
    let run = ["run", "--quiet", "--package", "slowdb-sim"];
    let simulate = |name: &str, args: &[String]| {
        let args: Vec<&str> = run.into_iter().chain(args.iter().map(String::as_str)).collect();
        plain(name, &args, &[])
    };
    let seeds = |count: u64, start: u64| {
        ["--", "--seeds", &count.to_string(), "--start", &start.to_string()].map(str::to_owned)
    };
    simulate("simulation, fixed seeds", &seeds(FIXED_SEEDS, 1))?;
    simulate("simulation, the commit's seeds", &seeds(COMMIT_SEEDS, first))?;
    simulate("simulation, planted bugs", &["--features", "canary", "--", "--canaries"].map(str::to_owned))?;
    Ok(FIXED_SEEDS + COMMIT_SEEDS)
}

/// The first of a commit's seeds: its leading digits, far from the fixed ones.
fn commit_seed(hash: &str) -> u64 {
    let digits: String = hash.chars().take_while(char::is_ascii_hexdigit).take(12).collect();
    1_000_000 + u64::from_str_radix(&digits, 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_from_the_lines_of_the_test_programs() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.31s";
        assert_eq!(result_line(line), Some(Counts { passed: 12, failed: 2, ignored: 1 }));
        assert_eq!(result_line("test a_test ... ok"), None);
    }

    #[test]
    fn a_commit_has_seeds_of_its_own() {
        assert_eq!(commit_seed("0000000000ff00"), 1_000_255);
        assert_ne!(commit_seed("e6a3a28aaaaaaa"), commit_seed("1f60731aaaaaaa"));
        assert_eq!(commit_seed("unknown"), 1_000_000);
    }
}
