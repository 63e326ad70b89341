//! Figures, their baselines and targets, as a table for people and JSON to keep.

use crate::workspace;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::PathBuf;

/// What a figure has to reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    /// This part of the baseline or more.
    RatioAtLeast(f64),
    /// This multiple of the baseline or more.
    TimesAtLeast(f64),
    /// This multiple of the baseline or less.
    RatioAtMost(f64),
    /// Less than this, whatever the baseline.
    ValueBelow(f64),
    /// Nothing: it is told for what it says of the machine.
    None,
}

/// A value with how it is spread, where that was looked at.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Figure {
    /// The value that counts: a median.
    pub(super) value: f64,
    /// The 99th percentile.
    pub(super) p99: Option<f64>,
}

impl From<f64> for Figure {
    fn from(value: f64) -> Figure {
        Figure { value, p99: None }
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    /// What was measured.
    pub(super) what: String,
    /// In what unit both figures are.
    pub(super) unit: String,
    /// SlowDB's figure.
    pub(super) measured: Figure,
    /// What the same machine did at the same time without SlowDB.
    pub(super) baseline: Option<Figure>,
    /// What it should be.
    pub(super) target: Target,
}

impl Row {
    /// Measured over baseline.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.measured.value / baseline.value)
    }

    /// Whether the target is met when it is made easier by a factor: 1 is the target, 2 half of it.
    pub(super) fn meets(&self, easier: f64) -> Option<bool> {
        match self.target {
            Target::RatioAtLeast(ratio) | Target::TimesAtLeast(ratio) => {
                Some(self.ratio()? >= ratio / easier)
            }
            Target::RatioAtMost(ratio) => Some(self.ratio()? <= ratio * easier),
            Target::ValueBelow(value) => Some(self.measured.value < value * easier),
            Target::None => None,
        }
    }

    /// How many times as good as the baseline: more is better, whichever way the unit goes. And the same for the target, if
    /// it is one of the ratio.
    pub(super) fn advantage(&self) -> Option<(f64, Option<f64>)> {
        let ratio = self.ratio()?;
        let more_is_better = self.unit.ends_with("/s");
        let turned = |ratio: f64| if more_is_better { ratio } else { 1.0 / ratio };
        let target = match self.target {
            Target::RatioAtLeast(target) | Target::TimesAtLeast(target) | Target::RatioAtMost(target) => {
                Some(turned(target))
            }
            Target::ValueBelow(_) | Target::None => None,
        };
        Some((turned(ratio), target))
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::RatioAtLeast(ratio) => format!("≥ {:.0} %", ratio * 100.0),
            Target::TimesAtLeast(times) => format!("≥ {times} ×"),
            Target::RatioAtMost(ratio) => format!("≤ {ratio} ×"),
            Target::ValueBelow(value) => format!("< {value} {}", self.unit),
            Target::None => "-".into(),
        }
    }

    fn ratio_text(&self) -> String {
        match (self.target, self.ratio()) {
            (_, None) => "-".into(),
            (Target::RatioAtLeast(_), Some(ratio)) => format!("{:.0} %", ratio * 100.0),
            (_, Some(ratio)) => format!("{ratio:.2} ×"),
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.meets(1.0), self.meets(2.0)) {
            (Some(true), _) => "met",
            (_, Some(true)) => "half",
            (_, Some(false)) => "MISSED",
            (_, None) => "-",
        }
    }
}

fn figure(figure: Figure) -> String {
    let plain = |value: f64| match value.abs() {
        v if v >= 1_000.0 => crate::ui::thousands(value.round() as u64),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    match figure.p99 {
        Some(p99) => format!("{} (p99 {})", plain(figure.value), plain(p99)),
        None => plain(figure.value),
    }
}

/// Where and when figures were taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    load_before: String,
    last_level_cache_bytes: Option<u64>,
}

impl Machine {
    /// Looks around.
    pub(super) fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processors = read("/proc/cpuinfo");
        let name = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Machine {
            processor: name.map_or("unknown".into(), |(_, name)| name.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load_before: read("/proc/loadavg"),
            last_level_cache_bytes: last_level_cache_bytes(),
        }
    }
}

/// Size of the largest cache of the first core.
pub(super) fn last_level_cache_bytes() -> Option<u64> {
    let size = |index: u32| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = fs::read_to_string(path).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok().map(|kib| kib << 10)
    };
    (0..5).filter_map(size).max()
}

/// All rows of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    commit: String,
    files_differ: bool,
    quick: bool,
    machine: Machine,
    rows: Vec<Row>,
    /// Curves to plot.
    #[serde(default)]
    points: Vec<Point>,
    #[serde(default)]
    left_out: Vec<LeftOut>,
}

/// A figure on a curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Point {
    /// The plot it is in.
    pub(super) plot: String,
    /// The curve it is on.
    pub(super) line: String,
    pub(super) x: f64,
    pub(super) y: f64,
}

impl Point {
    /// On a curve of a plot.
    pub(super) fn new(plot: &str, line: &str, x: f64, y: f64) -> Point {
        Point { plot: plot.into(), line: line.into(), x, y }
    }
}

/// What could not be measured here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LeftOut {
    what: String,
    why: String,
}

impl Report {
    /// An empty one.
    pub(super) fn new(quick: bool) -> Report {
        let (commit, files_differ) = workspace::commit();
        Report {
            commit,
            files_differ,
            quick,
            machine: Machine::here(),
            rows: Vec::new(),
            points: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Adds a row and prints it.
    pub(super) fn add(&mut self, row: Row) {
        if self.rows.is_empty() {
            print_line(["", "unit", "SlowDB", "baseline", "ratio", "target", ""]);
        }
        let baseline = row.baseline.map_or("-".into(), figure);
        print_line([
            &row.what,
            &row.unit,
            &figure(row.measured),
            &baseline,
            &row.ratio_text(),
            &row.target_text(),
            row.verdict(),
        ]);
        self.rows.push(row);
    }

    /// Reads one that was kept in `benches/runs`.
    pub(super) fn load(name: &str) -> Result<Report> {
        let path = workspace::root().join("benches/runs").join(format!("{name}.json"));
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no run of the bench", path.display()))
    }

    /// All rows, in the order in which they were measured.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All figures on curves.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The table in Markdown, as documents show it.
    pub(super) fn markdown(&self) -> String {
        let mut table = String::from(
            "| what | unit | SlowDB | baseline | ratio | target | |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let baseline = row.baseline.map_or("-".into(), figure);
            let verdict = match row.verdict() {
                "-" => "",
                "MISSED" => "**missed**",
                other => other,
            };
            let (what, unit, measured) = (&row.what, &row.unit, figure(row.measured));
            let (ratio, target) = (row.ratio_text(), row.target_text());
            table +=
                &format!("| {what} | {unit} | {measured} | {baseline} | {ratio} | {target} | {verdict} |\n");
        }
        for LeftOut { what, why } in &self.left_out {
            table += &format!("| {what} | | left out: {why} | | | | |\n");
        }
        table
    }

    /// Adds a figure to a curve.
    pub(super) fn plot(&mut self, point: Point) {
        self.points.push(point);
    }

    /// Says, in the place of a row, what could not be measured and why.
    pub(super) fn left_out(&mut self, what: &str, why: &str) {
        println!("{what:<40} left out: {why}");
        self.left_out.push(LeftOut { what: what.into(), why: why.into() });
    }

    /// Writes it to `benches/runs`, named for the commit unless a name is given.
    pub(super) fn save(&self, name: Option<&str>) -> Result<PathBuf> {
        let short: String = self.commit.chars().take(10).collect();
        let parts = [
            short.as_str(),
            if self.files_differ { "-changed" } else { "" },
            if self.quick { "-quick" } else { "" },
        ];
        let name = name.map_or_else(|| parts.concat(), str::to_owned);
        let dir = workspace::root().join("benches/runs");
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{name}.json"));
        fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

fn print_line(cells: [&str; 7]) {
    let [what, unit, measured, baseline, ratio, target, verdict] = cells;
    println!("{what:<40} {unit:<10} {measured:>24} {baseline:>24} {ratio:>8} {target:>10}  {verdict}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measured: f64, target: Target) -> Row {
        Row {
            what: "x".into(),
            unit: "ms".into(),
            measured: measured.into(),
            baseline: Some(100.0.into()),
            target,
        }
    }

    #[test]
    fn half_a_target_is_half_the_rate_or_twice_the_time() {
        let verdicts = |target: Target, values: [f64; 3]| values.map(|value| row(value, target).verdict());
        assert_eq!(verdicts(Target::RatioAtLeast(0.6), [60.0, 30.0, 29.0]), ["met", "half", "MISSED"]);
        assert_eq!(verdicts(Target::RatioAtMost(1.5), [150.0, 300.0, 301.0]), ["met", "half", "MISSED"]);
        assert_eq!(verdicts(Target::ValueBelow(500.0), [499.0, 999.0, 1000.0]), ["met", "half", "MISSED"]);
        assert_eq!(row(1.0, Target::None).verdict(), "-");
    }
}
