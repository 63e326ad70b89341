//! The objects that the operator's commands print with `--json`.
//!
//! Pure.

use super::rates::{Pace, Rates, is_copied};
use serde::Serialize;
use slowdb_proto::{
    AdminReply, ClusterMap, ClusterView, MoveView, NodeView, PlannedMove, ReplicaView, Standing, Wanted,
};

/// The cluster, as the catalog's leader sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Cluster {
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    /// The node that leads the catalog.
    pub(crate) leader: String,
    /// Nothing is moved, and nothing is planned to be.
    pub(crate) settled: bool,
    pub(crate) nodes: Vec<Node>,
    pub(crate) moves: Vec<Move>,
    pub(crate) planned: Vec<Planned>,
    pub(crate) lost: Vec<String>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Node {
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u32,
    pub(crate) state: &'static str,
    pub(crate) down: bool,
    pub(crate) silent_ms: u64,
    pub(crate) replicas: u32,
    /// Shards that it should lead; how many it does, `status` says.
    pub(crate) should_lead: u32,
    pub(crate) catalog: &'static str,
}

/// A group on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Move {
    pub(crate) group: u64,
    /// Absent for the catalog, as is `shard`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) collection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<u32>,
    pub(crate) reason: String,
    pub(crate) replicas: Vec<Replica>,
}

/// A replica of a group on its way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Replica {
    pub(crate) node: String,
    pub(crate) replica: u64,
    pub(crate) wanted: &'static str,
    pub(crate) standing: &'static str,
    pub(crate) bytes: u64,
    pub(crate) of_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_left: Option<u64>,
    /// It is what is wanted of it, and nothing of it arrives.
    #[serde(skip)]
    pub(crate) is_there: bool,
}

/// A move to come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Planned {
    pub(crate) collection: String,
    pub(crate) shard: u32,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) reason: String,
}

/// What came of a change, or would.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Changed {
    pub(crate) dry_run: bool,
    pub(crate) changed: bool,
    pub(crate) moves: Vec<Planned>,
    pub(crate) notes: Vec<String>,
    /// The node that was to be emptied is empty; absent if that was not waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) emptied: Option<bool>,
}

/// All collections.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Collections {
    pub(crate) collections: Vec<Collection>,
}

/// A collection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Collection {
    pub(crate) name: String,
    pub(crate) dimension: u32,
    pub(crate) metric: &'static str,
    pub(crate) num_shards: usize,
    pub(crate) replication_factor: u32,
    pub(crate) write_level: &'static str,
    pub(crate) read_level: &'static str,
    pub(crate) write_floor: &'static str,
    pub(crate) read_floor: &'static str,
    pub(crate) conflicts: &'static str,
}

/// Reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Explanation {
    pub(crate) explanation: Vec<String>,
}

impl Cluster {
    pub(crate) fn new(view: &ClusterView, rates: &Rates) -> Cluster {
        Cluster {
            cluster: view.cluster.to_string(),
            epoch: view.epoch,
            leader: view.leader.clone(),
            settled: view.moves.is_empty() && view.planned.is_empty(),
            nodes: view.nodes.iter().map(Node::from).collect(),
            moves: view.moves.iter().map(|it| Move::new(it, rates)).collect(),
            planned: view.planned.iter().map(Planned::from).collect(),
            lost: view.lost.clone(),
        }
    }

    /// Replicas that a node holds; none if it is no part of the cluster.
    pub(crate) fn held_by(&self, node: &str) -> u32 {
        self.nodes.iter().find(|it| it.node == node).map_or(0, |it| it.replicas)
    }

    /// Whether bytes of any replica arrive.
    pub(crate) fn is_copying(&self) -> bool {
        self.moves.iter().flat_map(|it| &it.replicas).any(|replica| replica.of_bytes > 0)
    }
}

impl From<&NodeView> for Node {
    fn from(view: &NodeView) -> Node {
        Node {
            node: view.id.clone(),
            address: view.address.clone(),
            zone: view.zone.clone(),
            weight: view.weight,
            state: view.state.as_str(),
            down: view.down,
            silent_ms: view.silent_ms,
            replicas: view.replicas,
            should_lead: view.leads,
            catalog: view.catalog.as_str(),
        }
    }
}

impl Move {
    fn new(view: &MoveView, rates: &Rates) -> Move {
        let (collection, shard) = view.shard.clone().unzip();
        Move {
            group: view.group,
            collection,
            shard,
            reason: view.reason.clone(),
            replicas: view.replicas.iter().map(|it| Replica::new(it, rates.pace(it))).collect(),
        }
    }
}

impl Replica {
    fn new(view: &ReplicaView, pace: Pace) -> Replica {
        let is_as_wanted = matches!(
            (view.wanted, view.standing),
            (Wanted::Voter, Standing::Voter)
                | (Wanted::Learner, Standing::Learner)
                | (Wanted::Gone, Standing::None)
        );
        Replica {
            node: view.node.clone(),
            replica: view.replica,
            wanted: view.wanted.as_str(),
            standing: view.standing.as_str(),
            bytes: view.bytes,
            of_bytes: view.of_bytes,
            bytes_per_second: pace.bytes_per_second,
            seconds_left: pace.seconds_left,
            is_there: is_as_wanted && !is_copied(view),
        }
    }
}

impl From<&PlannedMove> for Planned {
    fn from(it: &PlannedMove) -> Planned {
        Planned {
            collection: it.collection.clone(),
            shard: it.shard,
            from: it.from.clone(),
            to: it.to.clone(),
            bytes: it.bytes,
            reason: it.reason.clone(),
        }
    }
}

impl Changed {
    pub(crate) fn new(reply: &AdminReply, dry_run: bool) -> Changed {
        Changed {
            dry_run,
            changed: reply.changed,
            moves: reply.moves.iter().map(Planned::from).collect(),
            notes: reply.notes.clone(),
            emptied: None,
        }
    }
}

impl From<&ClusterMap> for Collections {
    fn from(map: &ClusterMap) -> Collections {
        let collection = |it: &slowdb_proto::CollectionInfo| Collection {
            name: it.name.clone(),
            dimension: it.dimension,
            metric: it.metric.as_str(),
            num_shards: it.shards.len(),
            replication_factor: it.replication_factor,
            write_level: it.settings.write_level.as_str(),
            read_level: it.settings.read_level.as_str(),
            write_floor: it.settings.write_floor.as_str(),
            read_floor: it.settings.read_floor.as_str(),
            conflicts: it.settings.conflicts.as_str(),
        };
        Collections { collections: map.collections.iter().map(collection).collect() }
    }
}
