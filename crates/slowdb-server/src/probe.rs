//! What checkers look at after every turn: the groups of a node, and its catalog, without a request.
//!
//! Nothing here changes anything, and nothing of it goes over the wire.

use crate::catalog::{CATALOG, Catalog, GroupSpec};
use crate::machine::Machine;
use crate::node::Node;
use crate::placement;
use slowdb_proto::{ConflictPolicy, NodeState, Position, Standing, Wanted};
use slowdb_repl::{Glance, GroupId, Membership, ReplicaId};

/// A group as it stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupProbe {
    /// The group.
    pub group: GroupId,
    /// The replica on this node.
    pub replica: ReplicaId,
    /// Index and intent of the members that it knows; see [`Node::members`].
    pub configured: (u64, u64),
    /// Whether this node leads it.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Last position applied.
    pub applied: Position,
    /// Whether it is halted here.
    pub halted: bool,
}

/// The catalog, as far as a node has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CatalogProbe {
    /// Grows with every change.
    pub epoch: u64,
    /// Points of each node on the ring.
    pub virtual_nodes: u32,
    /// All nodes, sorted by id.
    pub nodes: Vec<NodeProbe>,
    /// All groups, the catalog's own first.
    pub groups: Vec<SpecProbe>,
    /// The next id for a replica.
    pub next_replica: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeProbe {
    /// Its id.
    pub id: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// How much it can hold, relative to the others.
    pub weight: u32,
    /// What is wanted of it.
    pub state: NodeState,
    /// It was silent for too long.
    pub down: bool,
    /// It was removed, and still has a part in the catalog's group.
    pub leaving: bool,
}

/// What a group is to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpecProbe {
    /// The group.
    pub group: u64,
    /// Its collection; `None` for the catalog.
    pub collection: Option<String>,
    /// Epoch of the catalog that last wanted something else of it; changes of members carry it as their intent.
    pub epoch: u64,
    /// Replicas wanted; 0 for the catalog, which has one on every node.
    pub replication_factor: u32,
    /// The node that is to lead.
    pub leader: String,
    /// Its replicas.
    pub replicas: Vec<SpecReplica>,
}

/// A replica, as it is wanted and as it was last reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpecReplica {
    /// Its id.
    pub replica: u64,
    /// The node that it is on.
    pub node: String,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// What it is.
    pub standing: Standing,
}

impl SpecProbe {
    /// Whether it is what is wanted.
    pub fn is_settled(&self) -> bool {
        self.replicas.iter().all(|replica| {
            matches!(
                (replica.wanted, replica.standing),
                (Wanted::Voter, Standing::Voter) | (Wanted::Learner, Standing::Learner)
            )
        })
    }
}

impl Node {
    /// Shows every group, sorted.
    pub fn probe(&self, mut see: impl FnMut(GroupProbe)) {
        for Glance { group, membership, leads, term, applied } in self.repl.glances() {
            see(GroupProbe {
                group,
                replica: membership.own,
                configured: (membership.index, membership.intent),
                leads,
                term,
                applied,
                halted: !self.halted.is_empty() && self.halted.contains_key(&group),
            });
        }
    }

    /// Each term of a shard's history with the index at which it begins, as far as its replica here has applied it.
    pub fn terms(&self, group: GroupId) -> Option<Vec<(u64, u64)>> {
        Some(self.repl.machine(group)?.shard()?.terms().iter().collect())
    }

    /// Digest of all replicated state of a shard at the last position applied.
    pub fn digest(&self, group: GroupId) -> Option<[u8; 16]> {
        self.repl.machine(group).and_then(Machine::shard).map(|shard| shard.digest())
    }

    /// What becomes of late writes to a shard that conflict, as far as its replica here has applied it.
    pub fn conflict_policy(&self, group: GroupId) -> Option<ConflictPolicy> {
        Some(self.repl.machine(group)?.shard()?.policy())
    }

    /// Groups of which writes are kept here that were overtaken and nobody has taken care of yet.
    pub fn quarantined_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.repl.quarantined_groups()
    }

    /// The members of a group, as far as its replica here has applied them.
    pub fn members(&self, group: GroupId) -> Option<&Membership> {
        self.repl.membership(group)
    }

    /// Epoch of the catalog, as far as it is applied here; 0 if the cluster is not founded.
    pub fn catalog_epoch(&self) -> u64 {
        self.catalog().filter(|catalog| catalog.cluster.is_some()).map_or(0, |catalog| catalog.epoch)
    }

    /// The catalog, as far as it is applied here; `None` if the cluster is not founded.
    pub fn catalog_probe(&self) -> Option<CatalogProbe> {
        self.catalog().filter(|catalog| catalog.cluster.is_some()).map(probe_catalog)
    }

    /// What the planner makes of the catalog, as far as it is applied here.
    ///
    /// # Errors
    /// There is no catalog yet, or the planner's.
    pub fn plan_probe(&self) -> Result<slowdb_ring::Plan, String> {
        let catalog = self.catalog().ok_or("there is no catalog")?;
        placement::plan(catalog, &placement::Sizes::new())
    }

    /// Why a group is halted here, if it is.
    pub fn halted(&self, group: GroupId) -> Option<&str> {
        self.halted.get(&group).map(String::as_str)
    }

    /// Checks what must hold after every turn. For tests and simulation: it panics on a violation.
    pub fn check_invariants(&self) {
        self.repl.check_invariants();
    }
}

fn probe_catalog(catalog: &Catalog) -> CatalogProbe {
    let node = |node: &crate::catalog::CatalogNode| NodeProbe {
        id: node.id.clone(),
        zone: node.zone.clone(),
        weight: node.weight,
        state: node.state,
        down: node.down,
        leaving: node.leaving,
    };
    let own = std::iter::once(&catalog.own);
    let groups = own.chain(catalog.shards().map(|(_, shard)| &shard.spec));
    CatalogProbe {
        epoch: catalog.epoch,
        virtual_nodes: catalog.virtual_nodes,
        nodes: catalog.nodes.iter().map(node).collect(),
        groups: groups.map(|spec| probe_spec(catalog, spec)).collect(),
        next_replica: catalog.next_replica,
    }
}

fn probe_spec(catalog: &Catalog, spec: &GroupSpec) -> SpecProbe {
    let collection = catalog.shard_of(GroupId(spec.group)).filter(|_| spec.group != CATALOG.0);
    let replica = |replica: &crate::catalog::Replica| SpecReplica {
        replica: replica.replica,
        node: replica.node.clone(),
        wanted: replica.wanted,
        standing: replica.standing,
    };
    SpecProbe {
        group: spec.group,
        epoch: spec.epoch,
        collection: collection.map(|(collection, _)| collection.name.clone()),
        replication_factor: collection.map_or(0, |(collection, _)| collection.replication_factor),
        leader: spec.leader.clone(),
        replicas: spec.replicas.iter().map(replica).collect(),
    }
}
