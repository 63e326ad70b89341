//! Messages on their way out.

use super::Replicator;
use super::words::{Lane, Outgoing};
use crate::engine::wire::{self, FrameBuilder, Payload};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use crate::roll::Word;
use std::collections::BTreeMap;

impl<M: StateMachine> Replicator<M> {
    /// Packs messages into frames: appends one by one on their group's lane, all else for a node together.
    pub(super) fn frames(
        &self,
        messages: Vec<(GroupId, Payload)>,
        words: Vec<(NodeId, Word)>,
    ) -> Vec<Outgoing> {
        let mut control: BTreeMap<NodeId, Vec<FrameBuilder>> = BTreeMap::new();
        let mut frames = Vec::new();
        for (node, word) in words {
            let builders = control.entry(node).or_insert_with(|| vec![FrameBuilder::new(self.cluster)]);
            if let Some(builder) = builders.last_mut() {
                builder.push(GroupId(0), Payload::Roll(word));
            }
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
                let builders = control.entry(node.clone()).or_default();
                if builders.last().is_none_or(FrameBuilder::is_full) {
                    builders.push(FrameBuilder::new(self.cluster));
                }
                if let Some(builder) = builders.last_mut() {
                    builder.push(id, message);
                }
            }
        }
        let of_node = |(node, builders): (NodeId, Vec<FrameBuilder>)| {
            builders.into_iter().map(move |builder| outgoing(node.clone(), Lane::Control, builder))
        };
        let control: Vec<Outgoing> = control.into_iter().flat_map(of_node).collect();
        frames.splice(0..0, control);
        frames
    }
}

fn outgoing(to: NodeId, lane: Lane, builder: FrameBuilder) -> Outgoing {
    let (meta, body, bytes) = builder.finish();
    Outgoing { to, lane, meta, body, bytes }
}
