//! When to try again: how long to wait, and how often in all.
//!
//! Pure: time is handed in. A retry costs a token; tokens come with requests (a fraction each) and slowly
//! with time, up to a burst. When something is wrong with the cluster, retries therefore stay a bounded
//! share of the load instead of multiplying it. Following a newer leader is no retry and costs nothing:
//! there is at most one for each term.

use crate::deadline::TIMEOUT_MAX;
use crate::random::Jitter;
use std::time::{Duration, Instant};

/// How a client retries.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryOptions {
    /// Wait before the first retry; it doubles with each one after that.
    pub backoff_min: Duration,
    /// Longest wait between two retries.
    pub backoff_max: Duration,
    /// Retries that may be made at once after a quiet time.
    pub burst: u32,
    /// Retries earned by each request.
    pub per_request: f64,
    /// Retries earned by each second.
    pub per_second: f64,
}

impl Default for RetryOptions {
    fn default() -> Self {
        RetryOptions {
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            burst: 500,
            per_request: 0.2,
            per_second: 50.0,
        }
    }
}

/// The tokens that all requests of one client share.
///
/// Invariant: `-per_second <= tokens <= burst`. Below zero, tokens are promised ahead of time; more than a
/// second's worth never is, so that what was promised to a caller who gave up does not hold others up for
/// long. When that much is promised, every further retry waits a second.
#[derive(Debug)]
pub(crate) struct Budget {
    options: RetryOptions,
    tokens: f64,
    refilled: Instant,
}

impl Budget {
    pub(crate) fn new(options: RetryOptions, now: Instant) -> Self {
        Budget { tokens: f64::from(options.burst), refilled: now, options }
    }

    /// A request starts, and earns its fraction.
    pub(crate) fn on_request(&mut self) {
        self.earn(self.options.per_request);
    }

    /// Takes a token: gives the time from which it counts.
    pub(crate) fn take(&mut self, now: Instant) -> Instant {
        let per_second = self.options.per_second.max(1.0);
        let elapsed = now.saturating_duration_since(self.refilled);
        self.refilled = self.refilled.max(now);
        self.earn(elapsed.as_secs_f64() * per_second);
        self.tokens = (self.tokens - 1.0).max(-per_second);
        now + Duration::from_secs_f64((-self.tokens / per_second).max(0.0))
    }

    fn earn(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(f64::from(self.options.burst));
    }
}

/// The waits of one request.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(options: &RetryOptions) -> Self {
        // A wait that no call lasts for is as good as any longer one, and can be reckoned with.
        Backoff { next: options.backoff_min.min(TIMEOUT_MAX), max: options.backoff_max.min(TIMEOUT_MAX) }
    }

    /// How long to wait now: jittered, and never shorter than the server asked for.
    pub(crate) fn next(&mut self, asked: Duration, jitter: &mut Jitter) -> Duration {
        let wait = jitter.between_half_and(self.next);
        self.next = (self.next * 2).min(self.max);
        wait.max(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RetryOptions {
        RetryOptions { burst: 3, per_request: 0.5, per_second: 2.0, ..RetryOptions::default() }
    }

    #[test]
    fn a_budget_gives_its_burst_then_what_is_earned() {
        let start = Instant::now();
        let mut budget = Budget::new(options(), start);
        for _ in 0..3 {
            assert_eq!(budget.take(start), start, "the burst");
        }
        // Two a second from then on: each has a time of its own, up to a second ahead.
        let waits: Vec<_> = (0..4).map(|_| (budget.take(start) - start).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 1_000, 1_000]);
        (0..4).for_each(|_| budget.on_request());
        assert_eq!((budget.take(start) - start).as_millis(), 500, "four requests earned two");
        let later = start + Duration::from_secs(1);
        assert_eq!(budget.take(later), later, "a second earned two more");
    }

    #[test]
    fn a_budget_never_holds_more_than_its_burst() {
        let start = Instant::now();
        let mut budget = Budget::new(options(), start);
        (0..1_000).for_each(|_| budget.on_request());
        let later = start + Duration::from_secs(1_000);
        assert_eq!((0..10).filter(|_| budget.take(later) == later).count(), 3);
    }

    #[test]
    fn no_wait_is_too_long() {
        let options = RetryOptions {
            backoff_min: Duration::MAX,
            backoff_max: Duration::MAX,
            ..RetryOptions::default()
        };
        let mut backoff = Backoff::new(&options);
        for _ in 0..3 {
            assert!(backoff.next(Duration::ZERO, &mut Jitter::new(7)) <= TIMEOUT_MAX);
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_respect_the_server() {
        let mut jitter = Jitter::new(7);
        let mut backoff = Backoff::new(&RetryOptions::default());
        let mut nominal = Duration::from_millis(20);
        for _ in 0..10 {
            let wait = backoff.next(Duration::ZERO, &mut jitter);
            assert!(wait >= nominal / 2 && wait <= nominal, "{wait:?} for {nominal:?}");
            nominal = (nominal * 2).min(Duration::from_millis(500));
        }
        let asked = Duration::from_secs(2);
        assert_eq!(backoff.next(asked, &mut jitter), asked);
    }
}
