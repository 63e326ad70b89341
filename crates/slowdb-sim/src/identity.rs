//! Whose disk it is: what a node has to know of itself before it runs.

use crate::keys::DIMENSION;
use crate::node::{SimNode, node_name};
use crate::options::Options;
use slowdb_disk::Disk;
use slowdb_proto::{JoinReply, JoinRequest, Metric};
use slowdb_server::{Founding, Identity};
use std::collections::{BTreeMap, BTreeSet};

/// Where a node listens.
pub(crate) fn address(index: usize) -> String {
    format!("{}:8000", node_name(index))
}

/// Whether a node of this identity has to ask before it can run, as the real one does.
pub(crate) fn has_to_ask(identity: &Identity) -> bool {
    identity.cluster.is_none() && identity.founding.nodes.is_empty()
}

/// The other nodes that one of this identity knows of when it starts.
pub(crate) fn others(identity: &Identity) -> BTreeSet<String> {
    let nodes = if identity.known.is_empty() { &identity.founding.nodes } else { &identity.known };
    nodes.iter().map(|(id, _)| id.clone()).filter(|id| *id != identity.node).collect()
}

impl SimNode {
    /// The identity that its disk holds, or a new one.
    pub(crate) fn identify(&mut self, options: &Options, disk: &dyn Disk) -> Result<Identity, String> {
        if let Some(identity) = Identity::load(disk).map_err(|error| error.to_string())? {
            return Ok(identity);
        }
        if disk.exists("wal").map_err(|error| error.to_string())? {
            return Err("there is a log, but no identity".into());
        }
        let mut storage = [0; 16];
        storage[..8].copy_from_slice(&self.draw().to_le_bytes());
        storage[8..].copy_from_slice(&self.draw().to_le_bytes());
        let zone = options.changes.and_then(|changes| changes.zone(self.index));
        let founding =
            if self.joins { Founding { zone, ..Founding::default() } } else { founding(options, zone) };
        let identity = Identity {
            node: self.name.as_str().to_owned(),
            storage,
            cluster: None,
            founding,
            joined: None,
            known: Vec::new(),
            peers: BTreeMap::new(),
        };
        identity.save(disk).map_err(|error| error.to_string())?;
        Ok(identity)
    }

    /// What it asks the cluster that it is to join, if it has to.
    pub(crate) fn join_request(&self, options: &Options) -> Option<JoinRequest> {
        let identity = self.asking.as_ref()?;
        Some(JoinRequest {
            node: identity.node.clone(),
            storage: identity.storage,
            address: address(self.index),
            zone: identity.founding.zone.clone(),
            weight: options.changes.map_or(1, |changes| changes.weight(self.index)),
        })
    }

    /// It may join: that is written down, and from then on it can run.
    pub(crate) fn take_joined(&mut self, joined: &JoinReply) -> Result<(), String> {
        let Some(identity) = self.asking.take() else { return Ok(()) };
        let others = joined.nodes.iter().filter(|node| node.id != identity.node);
        let identity = Identity {
            cluster: Some(joined.cluster),
            joined: Some(joined.replica),
            known: others.map(|node| (node.id.clone(), node.address.clone())).collect(),
            ..identity
        };
        identity.save(&self.disk).map_err(|error| error.to_string())
    }
}

fn founding(options: &Options, zone: Option<String>) -> Founding {
    Founding {
        nodes: (0..options.nodes).map(|index| (node_name(index), address(index))).collect(),
        zone,
        dimension: DIMENSION as u32,
        metric: Metric::L2,
        num_shards: options.shards,
        virtual_nodes: 3,
        replication_factor: options.replication_factor,
        weight: 1,
    }
}
