//! `cargo xtask fuzz`: the fuzz targets of all crates, for as long as wanted, or one case of one of them again.
//!
//! A target is a test whose name begins with `fuzz_`; the crate `slowdb-fuzz` says what it does. Targets are found by
//! reading the sources, so only the crates that are wanted are compiled: in the profile of tests, in which an overflow is
//! an error.

use crate::workspace;
use anyhow::{Context, Result, bail};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Feeds hostile bytes to all decoders.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// How long each target runs. Targets of one test program share the cores.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Only targets with this in their name. All without it.
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Where to begin; drawn without it. Each case is a number from here on.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Runs this one case again, as a failure says.
    #[arg(long, value_name = "CASE", requires = "target", conflicts_with_all = ["seconds", "seed"])]
    case: Option<u64>,
    /// Only names the targets and their crates.
    #[arg(long)]
    list: bool,
}

/// Runs them; the first crate with a target that fails ends it.
pub fn run(args: &FuzzArgs) -> Result<()> {
    let wanted = |name: &str| args.target.as_deref().is_none_or(|part| name.contains(part));
    let mut all = targets(&workspace::root().join("crates"))?;
    all.retain(|name, _| wanted(name));
    if all.is_empty() {
        bail!("no target has '{}' in its name: see --list", args.target.as_deref().unwrap_or_default());
    }
    if args.list {
        all.iter().for_each(|(name, package)| println!("{name} in {package}"));
        return Ok(());
    }
    let packages: BTreeSet<&String> = all.values().collect();
    let mut command = workspace::cargo();
    command.arg("test").args(packages.iter().flat_map(|package| ["--package", package.as_str()]));
    command.args(["--tests", "--", "--nocapture"]).args(all.keys());
    match args.case {
        Some(case) => command.env("SLOWDB_FUZZ_CASE", case.to_string()),
        None => {
            let seed = args.seed.unwrap_or_else(drawn);
            println!("{} targets, {} s each, from {seed}", all.len(), args.seconds);
            command
                .env("SLOWDB_FUZZ_SEED", seed.to_string())
                .env("SLOWDB_FUZZ_SECONDS", args.seconds.to_string())
        }
    };
    let status = command.status().context("cargo cannot be run")?;
    if !status.success() {
        bail!("a target failed: what to run to see it again is printed above ({status})");
    }
    Ok(())
}

fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Room to count on.
    now.as_nanos() as u64 >> 1
}

/// Target → crate.
fn targets(crates: &Path) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(crates).with_context(|| format!("{}", crates.display()))? {
        let package = entry?.path();
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut found = Vec::new();
        for part in ["src", "tests"] {
            search(&package.join(part), &mut found)?;
        }
        all.extend(found.into_iter().map(|target| (target, name.clone())));
    }
    Ok(all)
}

fn search(path: &Path, found: &mut Vec<String>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("{}", path.display()))? {
            search(&entry?.path(), found)?;
        }
    } else if path.extension().is_some_and(|ending| ending == "rs") {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        found.extend(text.lines().filter_map(target_of));
    }
    Ok(())
}

/// The name in the first line of a target's function.
fn target_of(line: &str) -> Option<String> {
    let name = line.trim_start().strip_prefix("fn ")?.split('(').next()?;
    name.starts_with("fuzz_").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document's list is what tells that no decoder is left out.
    #[test]
    fn the_targets_are_those_of_the_document() {
        let root = workspace::root();
        let document = fs::read_to_string(root.join("docs/architecture.md")).expect("it is there");
        let rows = document.lines().filter(|line| line.starts_with('|'));
        let named = rows.flat_map(|row| row.split('`').filter(|word| word.starts_with("fuzz_")));
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        let all = targets(&root.join("crates")).expect("the sources can be read");
        assert_eq!(all.keys().cloned().collect::<BTreeSet<_>>(), named, "right: docs/architecture.md");
        assert_eq!(all["fuzz_peer_frame"], "slowdb-repl");
    }

    #[test]
    fn targets_are_told_from_other_functions() {
        assert_eq!(target_of("    fn fuzz_it() {"), Some("fuzz_it".to_owned()));
        assert_eq!(target_of("fn fuzzy() {"), None);
        assert_eq!(target_of("// fn fuzz_it() {"), None);
    }
}
