//! What a node is started with, and why it may refuse to start.

use slowdb_proto::limits::{DIMENSION_MAX, INITIAL_NODES_MAX, REPLICATION_FACTOR_MAX, SHARDS_MAX};
use slowdb_proto::{Metric, check_name};
use std::path::PathBuf;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's id, unique in its cluster.
    pub node_id: String,
    /// Where nodes keep their files; this one keeps its own under `storage_path/node_id`.
    pub storage_path: PathBuf,
    /// Dimension of the collection `default`. Needed to found a cluster; later it has to match, if given.
    pub dimension: Option<u32>,
    /// Metric of the collection `default`, unless a search says otherwise.
    pub metric: Metric,
    /// Host name or address to listen on, and to be found at.
    pub host: String,
    /// Port to listen on; 0 for a free one.
    pub port: u16,
    /// Id and `host:port` of every founding node, this one included. Empty: a cluster of one.
    pub initial_nodes: Vec<(String, String)>,
    /// Shards of the collection `default`.
    pub num_shards: u32,
    /// Points of each node on the ring that places shards.
    pub virtual_nodes: u32,
    /// Replicas wanted for each shard.
    pub replication_factor: u32,
    /// The node's zone.
    pub zone: Option<String>,
    /// How much this node can hold, relative to the others.
    pub weight: u32,
    /// Where others find this node, `host:port`, if that is not where it listens.
    pub advertise: Option<String>,
    /// Nodes of a cluster that is there already, to become part of it. See [`crate::RunningNode::joining`].
    pub join: Vec<String>,
    /// What that cluster answered.
    pub joined: Option<slowdb_proto::JoinReply>,
    /// Silence after which a node's replicas are rebuilt elsewhere, as far as this node decides.
    pub node_down_after: std::time::Duration,
    /// Bytes of replicas' states that this node takes in from others within a second; `u64::MAX` for as many as it can.
    pub snapshot_bytes_per_second: u64,
    /// Free bytes of its disk below which writes to its shards are refused, so that the disk never gets full: 0 for never,
    /// `None` for a twentieth of the disk, at least 256 MiB and at most 2 GiB.
    pub min_free: Option<u64>,
    /// Bytes of its shards that this node reads again and checks within a second, round after round with an hour between
    /// them; 0 for none.
    pub scrub_bytes_per_second: u64,
    /// Certificates.
    pub identity: slowdb_net::Identity,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What it was started with makes no sense.
    #[error("{0}")]
    Config(String),
    /// The storage path cannot be used.
    #[error("storage path {}: {what}", path.display())]
    Storage {
        /// The path.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// It cannot listen.
    #[error(transparent)]
    Bind(#[from] slowdb_net::BindError),
    /// The write-ahead log cannot be opened.
    #[error("write-ahead log: {0}")]
    Log(#[from] slowdb_repl::wal::WalOpenError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl NodeConfig {
    /// What [`NodeConfig::snapshot_bytes_per_second`] is unless somebody has reason for something else: 64 MiB, which
    /// leaves room for everything else on a network of a gigabit.
    pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

    /// What [`NodeConfig::scrub_bytes_per_second`] is unless somebody has reason for something else: 8 MiB, which no disk
    /// notices.
    pub const SCRUB_BYTES_PER_SECOND: u64 = 8 * 1024 * 1024;

    /// Checks all that can be checked without looking at disk or network.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let fail = |what: String| Err(StartError::Config(what));
        check_name(&self.node_id).map_err(|error| StartError::Config(format!("node id: {error}")))?;
        if let Some(zone) = &self.zone {
            check_name(zone).map_err(|error| StartError::Config(format!("zone: {error}")))?;
        }
        if let Some(dimension) = self.dimension.filter(|d| *d == 0 || *d > DIMENSION_MAX) {
            return fail(format!("dimension {dimension}: it has to be from 1 to {DIMENSION_MAX}"));
        }
        if self.num_shards == 0 || self.num_shards > SHARDS_MAX {
            return fail(format!("{} shards: it has to be 1 to {SHARDS_MAX}", self.num_shards));
        }
        if self.virtual_nodes == 0 || self.virtual_nodes > 1024 {
            return fail(format!("{} virtual nodes: it has to be 1 to 1024", self.virtual_nodes));
        }
        if self.replication_factor == 0 || self.replication_factor > REPLICATION_FACTOR_MAX {
            return fail(format!(
                "replication factor {}: it has to be 1 to {REPLICATION_FACTOR_MAX}",
                self.replication_factor
            ));
        }
        if self.weight == 0 || self.weight > 1000 {
            return fail(format!("weight {}: it has to be 1 to 1000", self.weight));
        }
        if self.snapshot_bytes_per_second == 0 {
            return fail("0 bytes of snapshots a second: no replica would ever arrive here".into());
        }
        if let Some(address) = self.advertise.as_ref().filter(|address| !is_address(address)) {
            return fail(format!("'{address}' cannot be advertised: give it as HOST:PORT"));
        }
        if let Some(address) = self.join.iter().find(|address| !is_address(address)) {
            return fail(format!("'{address}' cannot be joined: give it as HOST:PORT"));
        }
        if !self.join.is_empty() && !self.initial_nodes.is_empty() {
            return fail(
                "a node either founds a cluster with others or joins one: give initial nodes or join".into(),
            );
        }
        self.check_initial_nodes()
    }

    /// Where others find this node; `None` as long as its port is not known.
    pub(crate) fn address(&self) -> Option<String> {
        let listens = || (self.port != 0).then(|| format!("{}:{}", self.host, self.port));
        self.advertise.clone().or_else(listens)
    }

    fn check_initial_nodes(&self) -> Result<(), StartError> {
        let fail = |what: String| Err(StartError::Config(what));
        let nodes = &self.initial_nodes;
        if nodes.is_empty() {
            return Ok(());
        }
        if nodes.len() > INITIAL_NODES_MAX {
            return fail(format!(
                "{} initial nodes: a cluster is founded by at most {INITIAL_NODES_MAX}",
                nodes.len()
            ));
        }
        let mut ids: Vec<&str> = nodes.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return fail(format!("node {} is twice among the initial nodes", twice[0]));
        }
        if !ids.contains(&self.node_id.as_str()) {
            return fail(format!(
                "node {} is not among the initial nodes {}: the list names every founding node, this one included",
                self.node_id,
                ids.join(", ")
            ));
        }
        for (id, address) in nodes {
            check_name(id).map_err(|error| StartError::Config(format!("initial node: {error}")))?;
            if !is_address(address) {
                return fail(format!("initial node {id} has the address '{address}': give it as HOST:PORT"));
            }
        }
        Ok(())
    }
}

pub(crate) fn is_address(address: &str) -> bool {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    matches!(port.map(|(_, port)| port.parse::<u16>()), Some(Ok(1..)))
}

#[cfg(test)]
mod tests;
