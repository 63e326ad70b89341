//! How long the log's disk takes. A leader whose disk has become slow makes everybody wait; a follower's does not.

use slowdb_repl::Now;
use std::collections::VecDeque;

/// A sync that takes longer, in microseconds, is a sign of a disk in trouble: a healthy one takes some milliseconds.
const SLOW_MICROS: u64 = 1_000_000;
/// How long a disk counts as slow after such a sync, in microseconds.
const SLOW_FOR_MICROS: u64 = 30_000_000;

/// Batches on their way to the disk, and what they tell of it.
#[derive(Debug, Default)]
pub(crate) struct DiskPace {
    /// Number of each batch, and when it was handed out.
    batches: VecDeque<(u64, u64)>,
    slow_until: u64,
}

impl DiskPace {
    pub(crate) fn handed_out(&mut self, batch: u64, now: Now) {
        self.batches.push_back((batch, now.micros));
    }

    pub(crate) fn durable(&mut self, batch: u64, now: Now) {
        while let Some((_, since)) = self.batches.pop_front_if(|(number, _)| *number <= batch) {
            self.judge(since, now);
        }
    }

    /// Whether the disk is slow, or was lately.
    pub(crate) fn is_slow(&mut self, now: Now) -> bool {
        if let Some((_, since)) = self.batches.front() {
            self.judge(*since, now);
        }
        now.micros < self.slow_until
    }

    /// As [`DiskPace::is_slow`] was answered last.
    pub(crate) fn was_slow(&self, now: Now) -> bool {
        now.micros < self.slow_until
    }

    fn judge(&mut self, since: u64, now: Now) {
        if now.micros.saturating_sub(since) > SLOW_MICROS {
            self.slow_until = now.micros + SLOW_FOR_MICROS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Now {
        Now { micros: millis * 1000, wall_millis: 0 }
    }

    #[test]
    fn a_sync_that_takes_long_counts_while_it_runs_and_for_a_while_after() {
        let mut disk = DiskPace::default();
        disk.handed_out(1, at(0));
        disk.durable(1, at(5));
        disk.handed_out(2, at(10));
        assert!(!disk.is_slow(at(900)));
        assert!(disk.is_slow(at(1_100)));
        disk.durable(2, at(1_200));
        assert!(disk.is_slow(at(20_000)));
        assert!(!disk.is_slow(at(40_000)));
    }
}
