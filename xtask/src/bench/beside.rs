//! The store beside other stores. Those are dependencies of a package of its own, `benches/beside`, which is built and run
//! here and says its figures as lines of JSON.

use super::report::{Figure, Point, Report, Row, Target};
use super::store::Scratch;
use crate::{ui, workspace};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whose figures all others are baselines of.
const OURS: &str = "SlowDB";

/// A figure of one store, as the program says it.
#[derive(Clone, Debug, Deserialize)]
struct Measured {
    store: String,
    what: String,
    unit: String,
    batch: u64,
    value: f64,
    p99: Option<f64>,
}

/// Builds the program, runs it, and adds a row for each figure of another store.
pub(super) fn measure(dir: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let program = match build(&["--features", "usearch"]) {
        Ok(program) => program,
        Err(error) => {
            report.left_out("exact search beside usearch", &format!("{error:#}; is there a C++ compiler?"));
            build(&[])?
        }
    };
    let scratch = Scratch::new(dir.join("beside"))?;
    ui::detail("filling the stores and measuring them in turns");
    let mut command = Command::new(program);
    command.arg(scratch.path()).args(quick.then_some("--quick"));
    let output = command.stderr(Stdio::inherit()).output().context("the stores cannot be compared")?;
    ensure!(output.status.success(), "the comparison of stores ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("the figures are text")?;
    let all = text.lines().map(serde_json::from_str).collect::<Result<Vec<Measured>, _>>()?;
    for row in rows(&all) {
        report.add(row);
    }
    for said in all.iter().filter(|said| said.batch > 0) {
        report.plot(Point::new("beside", &said.store, said.batch as f64, said.value));
    }
    Ok(())
}

/// SlowDB's figures, each beside those of another store for the same.
fn rows(all: &[Measured]) -> Vec<Row> {
    let figure = |said: &Measured| Figure { value: said.value, p99: said.p99 };
    let pair = |other: &Measured| {
        let ours = all.iter().find(|said| said.store == OURS && said.what == other.what)?;
        Some(Row {
            what: format!("{}, beside {}", other.what, other.store),
            unit: other.unit.clone(),
            measured: figure(ours),
            baseline: Some(figure(other)),
            target: Target::None,
        })
    };
    all.iter().filter(|said| said.store != OURS).filter_map(pair).collect()
}

/// The program, built where this one's own build is, so that it is built once.
fn build(flags: &[&str]) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target =
        own.ancestors().nth(2).context("this program is in cargo's target directory")?.join("beside");
    let status = workspace::cargo()
        .current_dir(workspace::root().join("benches/beside"))
        .args(["build", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .args(flags)
        .status()
        .context("cargo cannot be run")?;
    if !status.success() {
        bail!("benches/beside does not build with {flags:?} ({status})");
    }
    Ok(target.join("release/beside"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_other_stores_are_baselines() {
        let said = |store: &str, what: &str, value| Measured {
            store: store.into(),
            what: what.into(),
            unit: "µs".into(),
            batch: 1,
            value,
            p99: None,
        };
        let rows = rows(&[said("SlowDB", "get", 1.0), said("redb", "get", 2.0), said("redb", "else", 3.0)]);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.what.as_str(), row.ratio()), ("get, beside redb", Some(0.5)));
    }
}
