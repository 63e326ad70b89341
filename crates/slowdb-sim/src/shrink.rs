//! Makes a failing run small: leaves out faults, then clients, as long as the same checker still complains.
//!
//! Faults are left out by Zeller's and Hildebrandt's delta debugging (ddmin, 2002): in halves first, then in ever smaller
//! pieces, until no single one can go. What is left out changes what happens after it, so another violation of the same
//! checker counts as well: it is as good to look into.

use crate::cluster::Cluster;
use crate::options::Options;
use crate::run::{RunFailure, run};

/// Runs that shrinking may take.
const RUNS_MAX: usize = 400;

/// The smallest run that was found to fail like this one, and how many runs it took to find it.
pub fn shrink(failure: Box<RunFailure>) -> (Box<RunFailure>, usize) {
    let mut search = Search { smallest: failure, runs: 0 };
    search.leave_out_faults();
    search.leave_out_clients();
    (search.smallest, search.runs)
}

struct Search {
    smallest: Box<RunFailure>,
    runs: usize,
}

impl Search {
    /// Whether it fails the same way with these options; then they are the smallest so far.
    fn fails(&mut self, options: Options) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        match run(options, false) {
            Err(failure) if failure.violation.checker == self.smallest.violation.checker => {
                self.smallest = failure;
                true
            }
            _ => false,
        }
    }

    fn leave_out_faults(&mut self) {
        let options = &self.smallest.options;
        let all = Cluster::new(options.clone(), false).draw_faults().len();
        let kept = options.only_faults.clone().unwrap_or_else(|| (0..all).collect());
        self.leave_out(kept, |options, kept| options.only_faults = Some(kept));
    }

    fn leave_out_clients(&mut self) {
        let options = &self.smallest.options;
        let kept = options.only_clients.clone().unwrap_or_else(|| (0..options.clients).collect());
        self.leave_out(kept, |options, kept| options.only_clients = Some(kept));
    }

    /// Leaves out as many of these as can go.
    fn leave_out(&mut self, mut kept: Vec<usize>, set: fn(&mut Options, Vec<usize>)) {
        let mut pieces = 1;
        while !kept.is_empty() {
            let size = kept.len().div_ceil(pieces);
            let without = |from: usize| -> Vec<usize> {
                let rest = kept.iter().enumerate().filter(|(at, _)| !(from..from + size).contains(at));
                rest.map(|(_, number)| *number).collect()
            };
            let smaller = (0..kept.len()).step_by(size).map(without).find(|rest| {
                let mut options = self.smallest.options.clone();
                set(&mut options, rest.clone());
                self.fails(options)
            });
            match smaller {
                Some(rest) => {
                    kept = rest;
                    pieces = (pieces - 1).max(1);
                }
                None if size == 1 => return,
                None => pieces = (pieces * 2).min(kept.len()),
            }
        }
    }
}
