//! Whole clusters under faults: the same seeds every time, and a few that are the commit's own.

use slowdb_sim::{Options, Profile, run};
use std::process::Command;

/// Runs that failed once, each for a reason of its own.
const FAILED_ONCE: [(u64, Profile); 11] = [
    // Called at rest with a node about to stop.
    (119_753_282_587_260, Profile::General),
    // The only voter of a shard came back to a cluster in which it knew nobody.
    (20_399, Profile::Changes),
    // The copies that a lost shard could be made of became fewer, and what was planned with them.
    (400_124, Profile::Changes),
    // The operator had not seen yet that a node was let in, and switched it off.
    (400_778, Profile::Changes),
    // The log was read after the power had gone.
    (401_307, Profile::Changes),
    // A replica stood for election while a snapshot went to its slow disk.
    (1_001_567, Profile::Changes),
    // Writes that waited together became an entry that no segment of the log takes.
    (8_009_427, Profile::Changes),
    // A new leader of the catalog planned by what was applied, and not by what its log held.
    (30_000_624, Profile::Changes),
    (30_006_051, Profile::Changes),
    // A shard was to be led by a replica that had lost its vote.
    (40_007_854, Profile::General),
    // The only voter of a group led before its vote was durable, lost its power, and voted for another one.
    (90_000_186, Profile::Changes),
];

/// Runs all, on as many threads as there are processors; each run is one thread's.
fn pass(runs: impl Iterator<Item = Options>) {
    let runs: Vec<Options> = runs.collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mine = runs.iter().skip(thread).step_by(threads);
            scope.spawn(move || {
                for options in mine {
                    if let Err(failure) = run(options.clone(), false) {
                        panic!("{failure}");
                    }
                }
            });
        }
    });
}

#[test]
fn fixed_seeds_pass() {
    pass((1..=400).map(Options::of_seed));
}

#[test]
fn seeds_with_bit_rot_pass() {
    pass((1..=60).map(|seed| Options::draw(seed, Profile::BitRot)));
}

#[test]
fn seeds_that_failed_once_pass() {
    pass(FAILED_ONCE.into_iter().map(|(seed, profile)| Options::draw(seed, profile)));
}

#[test]
fn the_commits_own_seeds_pass() {
    let first = commit_seed();
    println!("seeds from {first}; set SLOWDB_SIM_SEED={first} to run them again");
    pass((first..first + 200).map(Options::of_seed));
}

#[test]
fn a_seed_is_repeated_exactly() {
    for seed in [3, 7, 500] {
        let hash =
            || run(Options::of_seed(seed), false).map(|report| (report.hash, report.ops)).expect("it passes");
        assert_eq!(hash(), hash(), "seed {seed}");
    }
    let hashes = [8, 9].map(|seed| run(Options::of_seed(seed), false).expect("it passes").hash);
    assert_ne!(hashes[0], hashes[1]);
}

/// From the environment, or the leading digits of the commit that is checked out; 0 outside of a checkout.
fn commit_seed() -> u64 {
    if let Some(seed) = std::env::var("SLOWDB_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed;
    }
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let hash = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let digits: String = hash.chars().take_while(char::is_ascii_hexdigit).take(12).collect();
    1_000_000 + u64::from_str_radix(&digits, 16).unwrap_or(0)
}
