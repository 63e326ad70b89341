//! The time that a call has.

use slowdb_proto::limits::TIMEOUT_MS_MAX;
use std::time::{Duration, Instant};

/// Longest time-out and wait there is; what is longer counts as this.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_millis(TIMEOUT_MS_MAX as u64);

/// When a call started, and when it has to be over: one for the whole call, however many requests it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) start: Instant,
    pub(crate) at: Instant,
}

impl Deadline {
    /// From now on so long, [`TIMEOUT_MAX`] at most.
    pub(crate) fn after(timeout: Duration) -> Self {
        let start = Instant::now();
        Deadline { start, at: start + timeout.min(TIMEOUT_MAX) }
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }

    /// For an error message.
    pub(crate) fn waited_ms(self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
