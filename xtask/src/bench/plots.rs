//! `cargo xtask plots`: draws a run of the bench that was kept, and prints its table for documents. The same run gives the
//! same files.

use super::report::{Point, Report};
use crate::svg::{Bar, Bars, Chart, Line, Scale};
use crate::workspace;
use anyhow::{Context, Result};
use clap::Args;
use std::fs;

/// The run that `docs/performance` shows.
const SHOWN: &str = "storage";
const COLOURS: [&str; 5] = ["#0072b2", "#56b4e9", "#d55e00", "#009e73", "#8a6fb0"];

/// Draws the figures of a run of the bench, and prints them as a table for documents.
#[derive(Debug, Args)]
pub struct PlotsArgs {
    /// Name of the run in benches/runs; the plots go to docs/performance.
    #[arg(long, default_value = SHOWN)]
    run: String,
}

/// Draws and prints.
pub fn run(args: &PlotsArgs) -> Result<()> {
    let report = Report::load(&args.run)?;
    let dir = workspace::root().join("docs/performance");
    fs::create_dir_all(&dir).with_context(|| format!("{}", dir.display()))?;
    for (name, text) in plots(&report) {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        println!("{}", path.display());
    }
    println!("\n{}", report.markdown());
    Ok(())
}

/// File names and contents of what the run has figures for.
fn plots(report: &Report) -> Vec<(&'static str, String)> {
    let mut plots = Vec::new();
    let with_ratio = report.rows().iter().filter_map(|row| Some((row, row.advantage()?)));
    let bars: Vec<Bar<'_>> =
        with_ratio.map(|(row, (ratio, target))| Bar { name: &row.what, ratio, target }).collect();
    if !bars.is_empty() {
        let (title, x) = ("SlowDB beside its baselines", "times as good: rate, or the inverse of time");
        plots.push(("ratios.svg", Bars { title, x, bars }.to_svg()));
    }
    let is_commit =
        |point: &&Point| point.plot == "commit" || (point.plot == "beside" && point.line != "SlowDB");
    let lines = lines(report.points().iter().filter(is_commit));
    if !lines.is_empty() {
        let title = "What a durable commit costs".to_owned();
        let (x, y) = ("records in the commit", "µs");
        plots.push(("commit.svg", Chart { title, x, y, scale: Scale::Logarithmic, lines }.to_svg()));
    }
    let lines = self::lines(report.points().iter().filter(|point| point.plot == "open"));
    if !lines.is_empty() {
        let title = "Opening a store, files in the page cache".to_owned();
        let (x, y) = ("vectors of 128 components", "ms");
        plots.push(("open.svg", Chart { title, x, y, scale: Scale::Logarithmic, lines }.to_svg()));
    }
    plots
}

/// Curves, in the order of their first points.
fn lines<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for point in points {
        let at = lines.iter().position(|line| line.name == point.line).unwrap_or_else(|| {
            let colour = COLOURS[lines.len() % COLOURS.len()];
            lines.push(Line { name: &point.line, colour, points: Vec::new() });
            lines.len() - 1
        });
        lines[at].points.push((point.x, point.y));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the document shows is what the command makes of the run that is kept.
    #[test]
    fn the_plots_are_up_to_date() {
        let plots = plots(&Report::load(SHOWN).unwrap());
        assert_eq!(plots.len(), 3);
        for (name, text) in plots {
            let kept = fs::read_to_string(workspace::root().join("docs/performance").join(name)).unwrap();
            assert!(kept == text, "docs/performance/{name} is another one: run `cargo xtask plots`");
        }
    }
}
