//! What is known of a cluster between two runs of this program: `state.json` in the cluster's directory.

use crate::process::ProcessId;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 2;

/// A cluster's shape and its processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// The program that the nodes run.
    pub(super) program: PathBuf,
    pub(super) shape: Shape,
    pub(super) nodes: Vec<NodeState>,
    /// What founders are started with.
    pub(super) initial_nodes: String,
    /// Nodes that were added to the founders, those that are gone again included.
    #[serde(default)]
    pub(super) added: usize,
}

/// What a cluster is founded with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shape {
    /// Number of nodes; they are called n1, n2 and so on.
    pub nodes: usize,
    /// Components of each vector.
    pub dimension: u32,
    /// Replicas of each shard.
    pub replication_factor: u32,
    /// Shards of the collection `default`.
    pub num_shards: u32,
    /// Silence after which a node's replicas are rebuilt elsewhere, as `--node-down-after` takes it.
    #[serde(default)]
    pub node_down_after: Option<String>,
    /// Bytes a second of replicas that a node takes in, as `--snapshot-rate` takes it.
    #[serde(default)]
    pub snapshot_rate: Option<String>,
    /// Free space below which nodes refuse writes, as `--min-free` takes it.
    #[serde(default)]
    pub min_free: Option<String>,
    /// Nodes reach each other through relays of this program, which can cut and slow their links.
    #[serde(default)]
    pub relayed: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            nodes: 3,
            dimension: 384,
            replication_factor: 3,
            num_shards: 16,
            node_down_after: None,
            snapshot_rate: None,
            min_free: None,
            relayed: false,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeState {
    pub(super) id: String,
    pub(super) port: u16,
    /// Where others find it, if that is not where it listens.
    #[serde(default)]
    pub(super) relay_port: Option<u16>,
    /// It is not where it was at first, and has to say so.
    #[serde(default)]
    pub(super) moved: bool,
    /// The process that was started last; it may have ended.
    pub(super) process: Option<ProcessId>,
    /// It joined the cluster when that was there already.
    #[serde(default)]
    pub(super) joins: bool,
}

impl NodeState {
    /// The port that others find it at.
    pub(super) fn found_at(&self) -> u16 {
        self.relay_port.unwrap_or(self.port)
    }
}

impl State {
    pub(super) fn new(program: PathBuf, shape: Shape, nodes: Vec<NodeState>) -> State {
        let pairs = nodes.iter().map(|node| format!("{}=127.0.0.1:{}", node.id, node.found_at()));
        let initial_nodes = pairs.collect::<Vec<_>>().join(",");
        State { format: FORMAT, program, shape, nodes, initial_nodes, added: 0 }
    }

    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("state.json")
    }

    /// `None`: there is no such file.
    pub(super) fn load(dir: &Path) -> Result<Option<State>> {
        let path = State::path(dir);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let state: State =
            serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if state.format != FORMAT {
            bail!("{} has format {}, this program writes {FORMAT}", path.display(), state.format);
        }
        Ok(Some(state))
    }

    /// Replaces the file at once, so that a reader never sees half of it.
    pub(super) fn save(&self, dir: &Path) -> Result<()> {
        let path = State::path(dir);
        let temporary = path.with_extension("json.new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("{} cannot be written", temporary.display()))?;
        fs::rename(&temporary, &path).with_context(|| format!("{} cannot be replaced", path.display()))
    }
}
