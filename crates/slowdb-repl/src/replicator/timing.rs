//! How long the way to other nodes is, as the heartbeats of all groups tell it.

use super::Replicator;
use crate::engine::wire::{self, Payload};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use std::collections::BTreeSet;

impl<M: StateMachine> Replicator<M> {
    /// One heartbeat to each node tells how long the way is, however many groups have one.
    pub(super) fn stamp_heartbeats(&self, messages: &mut [(GroupId, Payload)]) {
        let mut stamped: BTreeSet<&NodeId> = BTreeSet::new();
        for (id, message) in messages {
            let to = wire::parties(message).1;
            let node = self.groups.get(id).and_then(|group| group.node_of(to));
            if let Some(node) = node.filter(|node| !stamped.contains(node))
                && wire::stamp(message, || self.links.stamp(node))
            {
                stamped.insert(node);
            }
        }
    }

    /// Whether the network of this node is slow: answers take long on all its links, as far as it leads groups, and
    /// another node has much quicker ones.
    pub fn is_far(&self) -> bool {
        self.links.are_slow()
    }

    /// Whether answers of this node take long, and those of another much less. Known only of nodes with replicas of
    /// groups that this node leads.
    pub fn is_far_from(&self, node: &NodeId) -> bool {
        self.links.is_slow_to(node)
    }
}
