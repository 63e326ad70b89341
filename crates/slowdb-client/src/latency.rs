//! Which replica is nearest: on the caller's own node, in its zone, then by measured latency.
//!
//! Pure. Latencies are smoothed; those within a factor of two count as equal, so that equal replicas share
//! the load. A node that was not measured yet counts as nearest, so that it gets measured; one that failed
//! comes last until it answers again.

use std::collections::HashMap;
use std::time::Duration;

#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// Smoothed, in microseconds; 0: not measured.
    latency_us: f64,
    answers: u64,
    has_failed: bool,
}

/// What is known of each node.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    nodes: HashMap<String, Measured>,
}

impl Latencies {
    pub(crate) fn answered(&mut self, node: &str, took: Duration) {
        let us = (took.as_secs_f64() * 1e6).max(1.0);
        let known = self.nodes.entry(node.to_owned()).or_default();
        known.latency_us = if known.latency_us == 0.0 { us } else { known.latency_us * 0.8 + us * 0.2 };
        known.answers += 1;
        known.has_failed = false;
    }

    /// How often it has answered: unchanged means that nothing was heard of it since.
    pub(crate) fn answers(&self, node: &str) -> u64 {
        self.nodes.get(node).map_or(0, |known| known.answers)
    }

    pub(crate) fn failed(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().has_failed = true;
    }

    /// Sorts nodes nearest first. Those of a lower `tier` are nearer, however long they take; equal ones keep an order
    /// that `turn` rotates.
    pub(crate) fn sort(&self, nodes: &mut [String], turn: usize, tier: impl Fn(&str) -> u8) {
        if nodes.is_empty() {
            return;
        }
        let turn = turn % nodes.len();
        nodes.rotate_left(turn);
        nodes.sort_by_key(|node| {
            let (has_failed, latency) = self.distance(node);
            (has_failed, tier(node), latency)
        });
    }

    fn distance(&self, node: &str) -> (bool, u32) {
        let known = self.nodes.get(node).copied().unwrap_or_default();
        // Under a quarter of a millisecond all are equally near.
        (known.has_failed, (known.latency_us / 250.0).max(1.0).log2() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(latencies: &Latencies, turn: usize) -> Vec<String> {
        let mut nodes = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        latencies.sort(&mut nodes, turn, |_| 0);
        nodes
    }

    #[test]
    fn nearest_first_and_failed_last() {
        let mut latencies = Latencies::default();
        latencies.answered("a", Duration::from_millis(20));
        latencies.answered("b", Duration::from_millis(2));
        latencies.answered("c", Duration::from_micros(100));
        assert_eq!(sorted(&latencies, 0), ["c", "b", "a"]);
        latencies.failed("c");
        assert_eq!(sorted(&latencies, 1), ["b", "a", "c"]);
        latencies.answered("c", Duration::from_micros(100));
        assert_eq!(sorted(&latencies, 2), ["c", "b", "a"]);
    }

    #[test]
    fn the_own_node_and_zone_come_before_latency() {
        let mut latencies = Latencies::default();
        latencies.answered("a", Duration::from_micros(100));
        latencies.answered("b", Duration::from_millis(20));
        latencies.answered("c", Duration::from_millis(2));
        let sorted = |latencies: &Latencies, tiers: [u8; 3]| {
            let mut nodes = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
            latencies.sort(&mut nodes, 0, |node| tiers[usize::from(node.as_bytes()[0] - b'a')]);
            nodes
        };
        assert_eq!(sorted(&latencies, [2, 0, 1]), ["b", "c", "a"]);
        assert_eq!(sorted(&latencies, [1, 1, 0]), ["c", "a", "b"]);
        latencies.failed("b");
        assert_eq!(sorted(&latencies, [2, 0, 1]), ["c", "a", "b"], "one that failed is far, wherever it is");
    }

    #[test]
    fn equals_take_turns() {
        let latencies = Latencies::default();
        assert_eq!(sorted(&latencies, 0)[0], "a");
        assert_eq!(sorted(&latencies, 1)[0], "b");
        assert_eq!(sorted(&latencies, 5)[0], "c");
    }
}
