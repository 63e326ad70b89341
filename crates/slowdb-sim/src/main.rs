//! Runs seeds, replays one, or plants bugs and sees whether they are caught.

use clap::Parser;
use slowdb_sim::{Cell, Options, Profile, Tally, exercise, run, table};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Simulates whole clusters, one after the other, each from its seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    start: u64,
    /// Runs this one seed and prints what happens in it.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Runs the planted bugs instead: each must be caught. Needs a build with the feature `canary`.
    #[arg(long)]
    canaries: bool,
    /// Which faults to concentrate on. By default each seed has its own.
    #[arg(long, value_enum, value_name = "PROFILE")]
    profile: Option<Profile>,
    /// Goes on after a failure, and tells of the later ones in one line each.
    #[arg(long)]
    keep_going: bool,
    /// Prints every event.
    #[arg(long)]
    verbose: bool,
    /// Of the seed that is replayed, only these faults strike, by their numbers.
    #[arg(long, value_name = "N,…", value_parser = numbers, requires = "replay")]
    only_faults: Option<Numbers>,
    /// Of the seed that is replayed, only these clients do anything, by their numbers.
    #[arg(long, value_name = "N,…", value_parser = numbers, requires = "replay")]
    only_clients: Option<Numbers>,
    /// Counts how the seeds fare with each pair of levels, and names the first seed in which each was put to the test.
    #[arg(long, conflicts_with_all = ["replay", "canaries"])]
    pairs: bool,
    /// Writes the seeds that were found into the table of pairs in this document.
    #[arg(long, value_name = "FILE", requires = "pairs")]
    write: Option<PathBuf>,
    /// Looks for a run with as few faults and clients as possible that fails like the one that is replayed.
    #[arg(long, requires = "replay")]
    shrink: bool,
}

/// A list of numbers, which may be empty.
#[derive(Clone, Debug)]
struct Numbers(Vec<usize>);

fn numbers(text: &str) -> Result<Numbers, String> {
    let number = |word: &str| word.trim().parse().map_err(|_| format!("'{word}' is no number"));
    text.split(',').filter(|word| !word.is_empty()).map(number).collect::<Result<_, _>>().map(Numbers)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.replay.is_none() {
        // A panic inside a run is one of the ways to fail, and is reported as such. Who replays one wants to see where.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let passed = match arguments.replay {
        Some(seed) => {
            let only_faults = arguments.only_faults.map(|Numbers(list)| list);
            let only_clients = arguments.only_clients.map(|Numbers(list)| list);
            let options = Options { only_faults, only_clients, ..draw(seed, arguments.profile) };
            replay(options, arguments.shrink)
        }
        None if arguments.canaries => canaries(arguments.start),
        None if arguments.pairs => pairs(&arguments),
        None => many(&arguments),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn draw(seed: u64, profile: Option<Profile>) -> Options {
    match profile {
        Some(profile) => Options::draw(seed, profile),
        None => Options::of_seed(seed),
    }
}

fn replay(options: Options, shrinks: bool) -> bool {
    println!("{options}");
    match run(options, !shrinks) {
        Ok(report) => {
            println!("passed: {report:?}");
            true
        }
        Err(failure) if shrinks => {
            println!("fails: {}; shrinking", failure.violation);
            let (smallest, runs) = slowdb_sim::shrink(failure);
            println!("{smallest}\n({runs} runs)");
            false
        }
        Err(failure) => {
            println!("{failure}");
            false
        }
    }
}

/// For each pair of levels and each property: how often it was judged and broken, and a seed that shows it: broken, or, if
/// it is promised, judged most often.
fn pairs(arguments: &Arguments) -> bool {
    let mut found: BTreeMap<Cell, (Tally, u64, u64)> = BTreeMap::new();
    for seed in arguments.start..arguments.start + arguments.seeds {
        let tallies = match exercise(draw(seed, arguments.profile)) {
            Ok(tallies) => tallies,
            Err(failure) => {
                println!("{failure}");
                return false;
            }
        };
        for (cell, tally) in tallies {
            let shown = if cell.is_promised() { tally.judged } else { tally.broken };
            let (total, best, best_seed) = found.entry(cell).or_default();
            total.judged += tally.judged;
            total.broken += tally.broken;
            if shown > *best {
                (*best, *best_seed) = (shown, seed);
            }
        }
    }
    let mut seeds = BTreeMap::new();
    println!("{:<36} {:<9} {:>9} {:>9}  seed", "write, read: property", "promised", "judged", "broken");
    for cell in Cell::all() {
        let (tally, best, best_seed) = found.remove(&cell).unwrap_or_default();
        let promised = if cell.is_promised() { "yes" } else { "no" };
        let seed = if best > 0 { best_seed.to_string() } else { "none shows it".to_owned() };
        println!("{:<36} {promised:<9} {:>9} {:>9}  {seed}", cell.to_string(), tally.judged, tally.broken);
        if best > 0 {
            seeds.insert(cell, best_seed);
        }
    }
    let Some(path) = &arguments.write else { return true };
    let written = std::fs::read_to_string(path)
        .and_then(|document| std::fs::write(path, table::write(&document, &seeds)));
    if let Err(error) = &written {
        println!("{}: {error}", path.display());
    }
    written.is_ok()
}

fn many(arguments: &Arguments) -> bool {
    let begun = Instant::now();
    let (mut simulated, mut ops, mut faults, mut reported, mut failed) = (0, 0, 0, 0, 0);
    let (mut actions, mut moves, mut late) = (0, 0, [0; 3]);
    for (done, seed) in (1..).zip(arguments.start..arguments.start + arguments.seeds) {
        match run(draw(seed, arguments.profile), arguments.verbose) {
            Ok(report) => {
                simulated += report.simulated_micros;
                ops += report.ops;
                faults += report.faults;
                actions += report.actions;
                moves += report.moves;
                for (sum, of_run) in late.iter_mut().zip([report.late, report.late_lost, report.late_won]) {
                    *sum += of_run;
                }
            }
            Err(failure) => {
                failed += 1;
                if failed == 1 {
                    println!("{failure}");
                } else {
                    println!("seed {seed} ({:?}) FAILED: {}", failure.options.profile, failure.violation);
                }
                if !arguments.keep_going {
                    return false;
                }
            }
        }
        let seconds = begun.elapsed().as_secs();
        if seconds >= reported + 10 {
            reported = seconds;
            println!("{done} of {} seeds passed, {seconds} s", arguments.seeds);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let simulated = simulated as f64 / 1e6;
    println!(
        "{} of {} seeds from {} passed: {:.2} simulated hours in {seconds:.1} s ({:.0} simulated seconds each second), \
         {ops} operations, {faults} faults, {actions} operator actions, {moves} replicas moved, {} late writes \
         ({} lost, {} won)",
        arguments.seeds - failed,
        arguments.seeds,
        arguments.start,
        simulated / 3600.0,
        simulated / seconds,
        late[0],
        late[1],
        late[2]
    );
    failed == 0
}

#[cfg(feature = "canary")]
fn canaries(start: u64) -> bool {
    use slowdb_sim::{Bug, SEEDS_MAX, hunt};
    println!("{:<30} {:>8} {:>6}  {:<16} what", "planted bug", "seed", "tries", "caught by");
    let mut all = true;
    for bug in Bug::ALL {
        let hunted = hunt(bug, start);
        match hunted.caught {
            Some((seed, tries, checker)) => {
                let what: String = hunted.what.chars().take(100).collect();
                println!("{:<30} {seed:>8} {tries:>6}  {checker:<16} {what}", bug.name());
            }
            None => {
                all = false;
                println!("{:<30} NOT CAUGHT in {SEEDS_MAX} seeds", bug.name());
            }
        }
    }
    all
}

#[cfg(not(feature = "canary"))]
fn canaries(_: u64) -> bool {
    eprintln!("this build has no planted bugs: build it with --features slowdb-sim/canary");
    false
}
