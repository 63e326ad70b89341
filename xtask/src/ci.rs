//! `cargo xtask ci`: everything that must hold before a change is taken, in one command.
//!
//! All that runs code shares the `dev` profile, so that dependencies are compiled once for it: tests, the
//! nodes that tests start as processes, and the simulator, with overflow and debug assertions on. Planted bugs
//! are compiled in for their own tests only. The other compilation, without code, is clippy's and rustdoc's.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Tests that need builds with planted bugs: each must be caught.
const PLANTED_BUGS: [&str; 10] = [
    "test",
    "--package",
    "slowdb-sim",
    "--package",
    "slowdb-repl",
    "--features",
    "slowdb-sim/canary",
    "--test=canaries",
    "--test=wal_model",
    "--no-fail-fast",
];

/// The model check of a store's reclamation, which needs a build for itself: its atomics work nowhere else.
const MODEL: [&str; 6] =
    ["test", "--package", "slowdb-storage", "--features=model", "--test=reclamation", "--no-fail-fast"];

/// Makes packages of all crates together, so that each finds those it needs. They are not
/// compiled once more, and nothing is fetched.
const PACKAGES: [&str; 6] =
    ["package", "--workspace", "--offline", "--no-verify", "--allow-dirty", "--quiet"];

/// Runs all checks and tests.
#[derive(Debug, Args)]
pub struct CiArgs {
    /// Only formatting, lints, documentation and packages: nothing is run.
    #[arg(long)]
    no_tests: bool,
}

/// What test programs said in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.ignored += more.ignored;
    }
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
    plain("packages", &PACKAGES, &[])?;
    if args.no_tests {
        return Ok(());
    }
    let (commit, _) = workspace::commit();
    println!("\nthe commit is {commit}: the simulator's own seeds for it are drawn from that");
    let mut counts = Counts::default();
    // Units, properties, crashes, simulation with fixed seeds and the commit's own, real processes, examples
    // in documents.
    counts.add(tests("tests", &["test", "--workspace", "--no-fail-fast"])?);
    counts.add(tests("planted bugs", &PLANTED_BUGS)?);
    counts.add(tests("model check", &MODEL)?);
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

fn tests(name: &str, args: &[&str]) -> Result<Counts> {
    let start = announce(name);
    let mut command = workspace::cargo();
    command.args(args);
    let (success, counts) = counted(command)?;
    if !success || counts.failed > 0 {
        bail!("{name}: {} of {} failed", counts.failed, counts.failed + counts.passed);
    }
    done(name, start);
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
            counts.add(more);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_from_the_lines_of_the_test_programs() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.31s";
        assert_eq!(result_line(line), Some(Counts { passed: 12, failed: 2, ignored: 1 }));
        assert_eq!(result_line("test a_test ... ok"), None);
    }
}
