//! Messages on their way out.

use super::Replicator;
use super::words::{Lane, Outgoing};
use crate::engine::wire::{self, FrameBuilder, Payload};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use crate::roll::Word;

impl<M: StateMachine> Replicator<M> {
    /// Packs messages into frames: appends one by one on their group's lane, all else for a node together.
    pub(super) fn frames(
        &self,
        messages: Vec<(GroupId, Payload)>,
        words: Vec<(NodeId, Word)>,
    ) -> Vec<Outgoing> {
        let mut control = Control { cluster: self.cluster, frames: Vec::new() };
        let mut frames = Vec::new();
        for (node, word) in words {
            control.to(&node).push(GroupId(0), Payload::Roll(word));
        }
        for (id, message) in messages {
            let (_, to) = wire::parties(&message);
            let node = self.groups.get(&id).and_then(|group| group.node_of(to));
            let node = node.or_else(|| self.quarantine.node_of(id, to));
            let Some(node) = node.filter(|_| wire::is_sendable(&message)) else { continue };
            let lane = match &message {
                message if wire::is_bulk(message) => Lane::Data(id),
                message if wire::is_snapshot_part(message) => Lane::Snapshot,
                _ => Lane::Control,
            };
            if lane != Lane::Control {
                let mut builder = FrameBuilder::new(self.cluster);
                builder.push(id, message);
                frames.push(outgoing(node.clone(), lane, builder));
            } else {
                control.to(node).push(id, message);
            }
        }
        let mut all = Vec::with_capacity(control.frames.len() + frames.len());
        all.extend(control.frames.into_iter().map(|(node, builder)| outgoing(node, Lane::Control, builder)));
        all.append(&mut frames);
        all
    }
}

/// Frames for the control lanes: one for each node, and more where one is full.
struct Control {
    cluster: [u8; 16],
    /// Sorted by node, the one that is being filled the last of its node's.
    frames: Vec<(NodeId, FrameBuilder)>,
}

impl Control {
    /// The frame that the next message to a node goes into.
    fn to(&mut self, node: &NodeId) -> &mut FrameBuilder {
        let mut at = self.frames.partition_point(|(of, _)| of <= node);
        match at.checked_sub(1).map(|last| &self.frames[last]) {
            Some((of, builder)) if of == node && !builder.is_full() => at -= 1,
            _ => self.frames.insert(at, (node.clone(), FrameBuilder::new(self.cluster))),
        }
        &mut self.frames[at].1
    }
}

fn outgoing(to: NodeId, lane: Lane, builder: FrameBuilder) -> Outgoing {
    let (meta, body, bytes) = builder.finish();
    Outgoing { to, lane, meta, body, bytes }
}
