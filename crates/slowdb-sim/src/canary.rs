//! Planted bugs, and whether they are caught: the proof that the checkers can fail.

use crate::options::{Bug, Options};
use crate::run::run;

/// What became of a planted bug.
#[derive(Clone, Debug)]
pub struct Catch {
    /// The bug.
    pub bug: Bug,
    /// The seed in which it was caught, how many had been tried by then, and the checker that noticed.
    pub caught: Option<(u64, u64, &'static str)>,
    /// What the checker said.
    pub what: String,
}

/// Seeds within which every planted bug has to be caught.
pub const SEEDS_MAX: u64 = 300;

/// Looks for a planted bug in seeds from `start` on.
pub fn hunt(bug: Bug, start: u64) -> Catch {
    for seed in start..start + SEEDS_MAX {
        let options = Options { bug: Some(bug), ..Options::of_bug(seed, bug) };
        if let Err(failure) = run(options, false) {
            let caught = Some((seed, seed - start + 1, failure.violation.checker));
            return Catch { bug, caught, what: failure.violation.what };
        }
    }
    Catch { bug, caught: None, what: String::new() }
}
