//! How a cluster changes in the course of a run.

use super::{MILLI, SECOND, Span};
use crate::random::Random;

/// What operators do, and what is done to nodes for so long that it makes a difference to where replicas are.
#[derive(Clone, Copy, Debug)]
pub struct ChangeOptions {
    /// Nodes that may join, beside those that found the cluster.
    pub joiners: usize,
    /// Mean time between actions of the operator that nothing calls for, in microseconds; 0 for never.
    pub every: u64,
    /// Silence after which a node's replicas are rebuilt elsewhere.
    pub node_down_after: u64,
    /// Bytes of log that a group keeps for members that are behind.
    pub retained_bytes: u64,
    /// Bytes of snapshots that a node takes in within a second.
    pub snapshot_bytes_per_second: u64,
    /// Zones of the nodes, round and round; 0 for none.
    pub zones: usize,
    /// Whether every third node counts double.
    pub weighted: bool,
    /// Mean time between nodes that stay away for longer than `node_down_after`; 0 for never.
    pub death: u64,
    /// How much longer.
    pub death_lasts: Span,
    /// Of a thousand such nodes, so many lose their disk as well.
    pub wipe: u64,
    /// Of a thousand answers to nodes that join, so many are followed by a crash before they are saved.
    pub lost_join: u64,
}

impl ChangeOptions {
    /// Draws them.
    pub(super) fn draw(random: &mut Random) -> Self {
        ChangeOptions {
            joiners: random.between((1, 4)) as usize,
            every: random.between((SECOND / 2, 4 * SECOND)),
            node_down_after: random.between((2 * SECOND, 4 * SECOND)),
            retained_bytes: random.pick(&[1024, 8 * 1024, 64 * 1024 * 1024]),
            snapshot_bytes_per_second: random.pick(&[256 * 1024, 1024 * 1024, 64 * 1024 * 1024]),
            zones: random.pick(&[0, 0, 2, 3]),
            weighted: random.chance(200),
            death: random.pick(&[0, 6 * SECOND, 12 * SECOND]),
            death_lasts: (200 * MILLI, 4 * SECOND),
            wipe: random.pick(&[0, 300, 600]),
            lost_join: random.pick(&[0, 200]),
        }
    }

    /// Nobody does anything but what has to be done, and nobody is given up. So many nodes are at hand for those whose disks
    /// are lost.
    pub(crate) fn none(joiners: usize) -> Self {
        ChangeOptions {
            joiners,
            every: 0,
            node_down_after: 1000 * SECOND,
            retained_bytes: 64 * 1024 * 1024,
            snapshot_bytes_per_second: 64 * 1024 * 1024,
            zones: 0,
            weighted: false,
            death: 0,
            death_lasts: (0, 0),
            wipe: 0,
            lost_join: 0,
        }
    }

    /// The zone of a node, if it has one.
    pub(crate) fn zone(&self, node: usize) -> Option<String> {
        (self.zones > 0).then(|| format!("z{}", node % self.zones))
    }

    /// The weight of a node that joins.
    pub(crate) fn weight(&self, node: usize) -> u32 {
        if self.weighted && node.is_multiple_of(3) { 2 } else { 1 }
    }
}
