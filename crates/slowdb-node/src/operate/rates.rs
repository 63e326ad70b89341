//! How fast replicas arrive, from successive views of the cluster.
//!
//! Pure: times are handed in.

use slowdb_proto::{ClusterView, ReplicaView};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A rate is the mean over this time at most: short enough to follow, long enough not to jump.
const WINDOW: Duration = Duration::from_secs(10);

/// What was seen of the replicas that are being copied.
///
/// Invariant: for each, times grow and bytes do not fall.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    seen: BTreeMap<u64, VecDeque<(Duration, u64)>>,
}

/// How a copy goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// `None`: not known yet.
    pub(crate) bytes_per_second: Option<u64>,
    /// `None`: not known, or never at this rate.
    pub(crate) seconds_left: Option<u64>,
}

/// Whether a replica is one of which bytes arrive.
pub(crate) fn is_copied(replica: &ReplicaView) -> bool {
    replica.of_bytes > 0
}

impl Rates {
    /// Takes in a view that was got at this time since some start.
    pub(crate) fn take(&mut self, view: &ClusterView, at: Duration) {
        let mut seen = BTreeMap::new();
        for replica in view.moves.iter().flat_map(|it| &it.replicas).filter(|replica| is_copied(replica)) {
            let mut samples = self.seen.remove(&replica.replica).unwrap_or_default();
            if samples.back().is_some_and(|(_, bytes)| replica.bytes < *bytes) {
                // It began again.
                samples.clear();
            }
            if samples.back().is_none_or(|(last, _)| *last < at) {
                samples.push_back((at, replica.bytes));
            }
            while samples.front().is_some_and(|(first, _)| at.saturating_sub(*first) > WINDOW) {
                samples.pop_front();
            }
            seen.insert(replica.replica, samples);
        }
        self.seen = seen;
    }

    /// How the copying of a replica goes on.
    pub(crate) fn pace(&self, replica: &ReplicaView) -> Pace {
        let left = replica.of_bytes.saturating_sub(replica.bytes);
        let Some(rate) = self.rate(replica.replica) else { return Pace::default() };
        let seconds_left = match rate {
            _ if left == 0 => Some(0.0),
            rate if rate > 0.0 => Some((left as f64 / rate).ceil()),
            _ => None,
        };
        Pace {
            bytes_per_second: Some(rate.round() as u64),
            seconds_left: seconds_left.map(|seconds| seconds as u64),
        }
    }

    fn rate(&self, replica: u64) -> Option<f64> {
        let samples = self.seen.get(&replica)?;
        let ((first, from), (last, to)) = (samples.front()?, samples.back()?);
        let time = last.saturating_sub(*first);
        (!time.is_zero()).then(|| (to - from) as f64 / time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::tests::{copied, moving};

    fn take(rates: &mut Rates, seconds: u64, bytes: u64) -> Pace {
        let replica = copied("n4", bytes, 1_000);
        rates.take(&moving(vec![replica.clone()]), Duration::from_secs(seconds));
        rates.pace(&replica)
    }

    fn pace(bytes_per_second: u64, seconds_left: Option<u64>) -> Pace {
        Pace { bytes_per_second: Some(bytes_per_second), seconds_left }
    }

    #[test]
    fn a_rate_takes_two_views() {
        let mut rates = Rates::default();
        assert_eq!(take(&mut rates, 1, 100), Pace::default());
        assert_eq!(take(&mut rates, 1, 100), Pace::default(), "no time has passed");
        assert_eq!(take(&mut rates, 3, 300), pace(100, Some(7)));
        assert_eq!(take(&mut rates, 4, 700), pace(200, Some(2)), "300 bytes, rounded up");
    }

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let mut rates = Rates::default();
        for second in 0..=5 {
            take(&mut rates, second, 100 * second);
        }
        for second in 6..15 {
            take(&mut rates, second, 500);
        }
        // From 400 at 4 s, then from 500 at 5 s on.
        assert_eq!(take(&mut rates, 14, 500), pace(10, Some(50)));
        assert_eq!(take(&mut rates, 15, 500), pace(0, None), "at this rate never");
        assert_eq!(take(&mut rates, 16, 1_000).seconds_left, Some(0));
    }

    #[test]
    fn a_copy_that_begins_again_is_a_new_one() {
        let mut rates = Rates::default();
        take(&mut rates, 1, 900);
        take(&mut rates, 2, 950);
        assert_eq!(take(&mut rates, 3, 10), Pace::default());
        assert_eq!(take(&mut rates, 4, 30), pace(20, Some(49)));
        // Not seen: forgotten.
        rates.take(&moving(vec![]), Duration::from_secs(5));
        assert_eq!(take(&mut rates, 6, 500), Pace::default());
    }
}
