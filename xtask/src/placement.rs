//! `cargo xtask placement`: how even placements are and how much they move while a cluster grows and shrinks,
//! SlowDB's planner beside the usual schemes. Writes the plots of `docs/placement.md`.
//!
//! No cluster is started: all of it is pure functions, and the same on any machine.

mod schemes;

use crate::svg::{Chart, Line, Scale};
use crate::workspace;
use anyhow::{Context, Result};
use clap::Args;
use schemes::{FACTOR, Placement, SHARDS, Scheme, VIRTUAL_NODES};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

const NODES_MIN: usize = 3;
const NODES_MAX: usize = 32;

/// Draws how even placements are, and how much they move, beside other schemes.
#[derive(Debug, Args)]
pub struct PlacementArgs {
    /// Writes the plots here instead of `docs/placement`.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

/// Writes the plots and prints the table.
pub fn run(args: &PlacementArgs) -> Result<()> {
    let dir = args.to.clone().unwrap_or_else(|| workspace::root().join("docs/placement"));
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    let report = Report::new()?;
    for (name, text) in &report.plots {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        println!("{}", path.display());
    }
    println!("\n{}", report.table);
    Ok(())
}

/// What the command makes.
#[derive(Clone, Debug)]
pub struct Report {
    /// File names and their contents.
    pub plots: Vec<(&'static str, String)>,
    /// The figures as a table in Markdown.
    pub table: String,
}

/// A change of a cluster by one node.
struct Measured {
    /// Nodes after it.
    nodes: usize,
    /// The fullest node beside the fair share.
    fullest: f64,
    /// Replicas copied beside the least that an even placement needs.
    moved: f64,
}

impl Report {
    /// Grows and shrinks clusters under all schemes.
    pub fn new() -> Result<Self> {
        let mut growing = Vec::new();
        let mut shrinking = Vec::new();
        for scheme in Scheme::ALL {
            let (grown, shrunk) = grow_and_shrink(scheme)?;
            growing.push((scheme, grown));
            shrinking.push((scheme, shrunk));
        }
        let chart = |title: String,
                     y: &'static str,
                     measured: &[(Scheme, Vec<Measured>)],
                     of: fn(&Measured) -> f64| {
            let line = |(scheme, all): &(Scheme, Vec<Measured>)| Line {
                name: scheme.name(),
                colour: scheme.colour(),
                points: all.iter().map(|it| (it.nodes as f64, of(it))).collect(),
            };
            let lines = measured.iter().map(line).collect();
            Chart { title, x: "nodes", y, scale: Scale::Linear, lines }.to_svg()
        };
        let (fullest, moved) = ("fullest node / fair share", "copied / least possible");
        let plots = vec![
            (
                "balance-growing.svg",
                chart("Growing: how full the fullest node is".into(), fullest, &growing, |it| it.fullest),
            ),
            (
                "movement-growing.svg",
                chart("Growing: what one more node moves".into(), moved, &growing, |it| it.moved),
            ),
            (
                "balance-shrinking.svg",
                chart("Shrinking: how full the fullest node is".into(), fullest, &shrinking, |it| it.fullest),
            ),
            (
                "movement-shrinking.svg",
                chart("Shrinking: what one node less moves".into(), moved, &shrinking, |it| it.moved),
            ),
        ];
        Ok(Self { plots, table: table(&growing, &shrinking) })
    }
}

/// One node at a time from the fewest to the most nodes, and back: the node that came last goes first.
fn grow_and_shrink(scheme: Scheme) -> Result<(Vec<Measured>, Vec<Measured>)> {
    let mut now = scheme.place(NODES_MIN, None)?;
    let mut step = |nodes: usize, more: bool| -> Result<Measured> {
        let next = scheme.place(nodes, Some((&now, more)))?;
        let all = SHARDS * FACTOR;
        // An even placement gives a new node its share, rounded down; of a node that goes all must move.
        let least = if more { all / nodes } else { all / (nodes + 1) };
        let measured = Measured {
            nodes,
            fullest: fullest(&next, nodes) as f64 * nodes as f64 / all as f64,
            moved: copied(&now, &next) as f64 / least as f64,
        };
        now = next;
        Ok(measured)
    };
    let growing = (NODES_MIN + 1..=NODES_MAX).map(|nodes| step(nodes, true)).collect::<Result<_>>()?;
    let shrinking = (NODES_MIN..NODES_MAX).rev().map(|nodes| step(nodes, false)).collect::<Result<_>>()?;
    Ok((growing, shrinking))
}

fn fullest(placement: &Placement, nodes: usize) -> usize {
    let mut held = vec![0; nodes];
    for &node in placement.iter().flatten() {
        held[node] += 1;
    }
    held.into_iter().max().unwrap_or(0)
}

fn copied(before: &Placement, after: &Placement) -> usize {
    before
        .iter()
        .zip(after)
        .map(|(before, after)| after.iter().filter(|node| !before.contains(node)).count())
        .sum()
}

fn table(growing: &[(Scheme, Vec<Measured>)], shrinking: &[(Scheme, Vec<Measured>)]) -> String {
    let mut table = format!(
        "| {SHARDS} shards × {FACTOR}, {VIRTUAL_NODES} virtual nodes | fullest node / fair share: mean | worst \
         | copied / least, growing: mean | worst | copied / least, shrinking: mean | worst |\n|---|---|---|---|---|---|---|\n"
    );
    for ((scheme, grown), (_, shrunk)) in growing.iter().zip(shrinking) {
        let fullest: Vec<f64> = grown.iter().chain(shrunk).map(|it| it.fullest).collect();
        let [grown, shrunk] = [grown, shrunk].map(|all| all.iter().map(|it| it.moved).collect::<Vec<f64>>());
        let mut cells = String::new();
        for values in [fullest, grown, shrunk] {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let worst = values.iter().copied().fold(0.0, f64::max);
            // Writing to a string cannot fail.
            let _ = write!(cells, " {mean:.2} | {worst:.2} |");
        }
        let _ = writeln!(table, "| {} |{cells}", scheme.name());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the document shows is what the command makes.
    #[test]
    fn the_document_is_up_to_date() {
        let report = Report::new().unwrap();
        let docs = workspace::root().join("docs");
        let hint = "run `cargo xtask placement`";
        for (name, text) in &report.plots {
            let kept = fs::read_to_string(docs.join("placement").join(name)).unwrap();
            assert!(kept == *text, "docs/placement/{name} is another one: {hint}");
        }
        let document = fs::read_to_string(docs.join("placement.md")).unwrap();
        assert!(
            document.contains(&report.table),
            "docs/placement.md lacks this table: {hint}\n{}",
            report.table
        );
    }

    #[test]
    fn the_planner_is_even_and_moves_the_least() {
        let (grown, shrunk) = grow_and_shrink(Scheme::Planner).unwrap();
        for it in grown.iter().chain(&shrunk) {
            let share = (SHARDS * FACTOR) as f64 / it.nodes as f64;
            assert!(it.fullest * share <= share.ceil() + 1e-9, "{} nodes: {}", it.nodes, it.fullest);
        }
        assert!(grown.iter().all(|it| it.moved == 1.0), "growing copies what the new node must hold");
    }
}
