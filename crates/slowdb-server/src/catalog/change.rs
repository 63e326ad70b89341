//! Changes of the catalog. Each is judged when it is applied, by the state that it finds, the same way everywhere: who
//! proposed it may have known less. One that does not fit changes nothing and says why.

use super::spec::{GroupSpec, Report};
use super::{CATALOG, Catalog, CatalogNode, Collection, Replica, Shard};
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::{CollectionSettings, Metric, NodeState, SettingsChange, Standing, Wanted};

/// A change of the catalog.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum CatalogChange {
    /// The first of all. Any later one is without effect.
    Found(Catalog),
    /// A node is part of the cluster, or is now at another address.
    Join { node: String, storage: [u8; 16], address: String, zone: Option<String>, weight: u32 },
    /// What a node says of itself became known, or changed.
    Zone { node: String, zone: String },
    /// What is wanted of a node.
    State { node: String, state: NodeState },
    /// A node was silent for too long, or is heard again.
    Down { node: String, down: bool },
    /// A node is part of the cluster no more.
    Remove { node: String },
    /// Where a group's replicas are to be, if nothing else was wanted of it since this epoch.
    Place { group: u64, since: u64, nodes: Vec<(String, Wanted)>, leader: String, reason: String },
    /// A configuration that was committed.
    Report(Report),
    /// A new collection, its shards on these nodes.
    Create {
        name: String,
        dimension: u32,
        metric: Metric,
        replication_factor: u32,
        settings: CollectionSettings,
        shards: Vec<Vec<String>>,
    },
    /// A collection is gone.
    Drop { name: String },
    /// A collection is to be otherwise.
    Alter { name: String, replication_factor: Option<u32>, settings: SettingsChange },
    /// A node is at another address.
    Move { node: String, address: String },
}

impl CatalogChange {
    pub(crate) fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("memory holds a catalog").into_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut aligned = rkyv::util::AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<CatalogChange, RkyvError>(&aligned)
            .map_err(|error| format!("catalog change: {error}"))
    }
}

impl Catalog {
    /// Takes in a change. An error says why it has no effect.
    pub(crate) fn change(&mut self, change: CatalogChange) -> Result<(), String> {
        let epoch = self.epoch + 1;
        match change {
            CatalogChange::Found(_) if self.cluster.is_some() => {
                return Err("the cluster is founded already".into());
            }
            CatalogChange::Found(catalog) => {
                *self = catalog;
                return Ok(());
            }
            _ if self.cluster.is_none() => return Err("there is no cluster yet".into()),
            CatalogChange::Join { node, storage, address, zone, weight } => {
                self.join(epoch, node, storage, address, zone, weight)?;
            }
            CatalogChange::Zone { node, zone } => self.node_mut(&node)?.zone = Some(zone),
            CatalogChange::Move { node, address } => {
                self.check_free(&address, &node)?;
                self.node_mut(&node)?.address = address;
            }
            CatalogChange::State { node, state } => self.node_mut(&node)?.state = state,
            CatalogChange::Down { node, down } => self.node_mut(&node)?.down = down,
            CatalogChange::Remove { node } => self.remove(epoch, &node)?,
            CatalogChange::Place { group, since, nodes, leader, reason } => {
                self.place(epoch, group, since, &nodes, &leader, &reason)?;
            }
            CatalogChange::Report(report) => {
                let spec = self.spec_mut(report.group).ok_or("there is no such group")?;
                if !spec.note(&report) {
                    return Err("it was known".into());
                }
                self.forget_removed();
                #[cfg(feature = "canary")]
                self.reuse_ids();
            }
            CatalogChange::Create { name, dimension, metric, replication_factor, settings, shards } => {
                settings.check()?;
                let shards = self.new_shards(epoch, (&name, dimension, metric), &shards)?;
                let at = self.collections.partition_point(|other| other.name < name);
                let new = Collection { name, dimension, metric, replication_factor, settings, shards };
                self.collections.insert(at, new);
            }
            CatalogChange::Drop { name } => {
                let at = self.collections.iter().position(|collection| collection.name == name);
                self.collections.remove(at.ok_or_else(|| format!("no collection is called '{name}'"))?);
            }
            CatalogChange::Alter { name, replication_factor, settings } => {
                let found = self.collections.iter_mut().find(|collection| collection.name == name);
                let found = found.ok_or_else(|| format!("no collection is called '{name}'"))?;
                let settings = settings.of(found.settings);
                settings.check()?;
                found.settings = settings;
                found.replication_factor = replication_factor.unwrap_or(found.replication_factor);
            }
        }
        self.epoch = epoch;
        Ok(())
    }

    /// Whether an address can be that of a node. Whoever is down may have been replaced by it, on the same machine.
    pub(crate) fn check_free(&self, address: &str, node: &str) -> Result<(), String> {
        let taken = |other: &&CatalogNode| other.address == address && other.id != node && !other.down;
        match self.nodes.iter().find(taken) {
            Some(other) => {
                Err(format!("node {} is at {address} already: give node {node} its own address", other.id))
            }
            None => Ok(()),
        }
    }

    fn join(
        &mut self,
        epoch: u64,
        node: String,
        storage: [u8; 16],
        address: String,
        zone: Option<String>,
        weight: u32,
    ) -> Result<(), String> {
        if self.removed.iter().any(|(_, old)| *old == storage) {
            return Err(format!(
                "this storage path belonged to a node that was removed from the cluster: start node {node} with an \
                 empty one"
            ));
        }
        self.check_free(&address, &node)?;
        if self.own.replica_on(&node).is_some_and(|replica| replica.wanted == Wanted::Gone) {
            return Err(format!(
                "node {node} was removed, and its copy of the catalog is still on its way out: try again in a while"
            ));
        }
        if let Some(known) = self.nodes.iter_mut().find(|known| known.id == node) {
            if known.storage.is_none_or(|known| known != storage) {
                return Err(format!(
                    "there is a node {node} with another storage path. If its disk was lost, start this one under another \
                     id: once node {node} counts as down its replicas are rebuilt there, and it can be removed"
                ));
            }
            known.address = address;
            known.zone = zone.or_else(|| known.zone.take());
            known.weight = weight;
            return Ok(());
        }
        let state = NodeState::Active;
        let new = CatalogNode {
            id: node.clone(),
            address,
            zone,
            weight,
            state,
            down: false,
            leaving: false,
            storage: Some(storage),
        };
        let at = self.nodes.partition_point(|other| other.id < node);
        self.nodes.insert(at, new);
        let wanted = self.own.staying().map(|replica| (replica.node.clone(), replica.wanted));
        let wanted: Vec<_> = wanted.chain([(node.clone(), Wanted::Learner)]).collect();
        let leader = self.own.leader.clone();
        self.own.want(epoch, &wanted, &leader, &format!("node {node} joined"), &mut self.next_replica);
        Ok(())
    }

    fn remove(&mut self, epoch: u64, node: &str) -> Result<(), String> {
        if self.node_mut(node)?.leaving {
            return Err(format!("node {node} is being removed already"));
        }
        if let Some((collection, shard)) =
            self.shards().find(|(_, shard)| shard.spec.replica_on(node).is_some())
        {
            return Err(format!(
                "node {node} still has a replica of shard {} of '{}'",
                shard.shard, collection.name
            ));
        }
        if let Some(other) = self.nodes.iter().find(|other| other.leaving) {
            return Err(format!("node {} is being removed: wait until that is done", other.id));
        }
        // Its vote counts until a configuration without it is committed, which takes a majority of those there are.
        let is_voter = |replica: &&Replica| matches!(replica.standing, Standing::Voter | Standing::Changing);
        let lives = |node: &str| self.node(node).is_some_and(|node| !node.down);
        let voters: Vec<&Replica> = self.own.replicas.iter().filter(is_voter).collect();
        let left = voters.iter().filter(|replica| replica.node != node && lives(&replica.node)).count();
        let votes = voters.iter().any(|replica| replica.node == node);
        if votes && left * 2 <= voters.len() {
            return Err(format!(
                "node {node} is needed for a majority in the catalog: {left} of its {} voters would be left",
                voters.len()
            ));
        }
        let wanted = self.own.staying().filter(|replica| replica.node != node);
        let wanted: Vec<_> = wanted.map(|replica| (replica.node.clone(), replica.wanted)).collect();
        if wanted.iter().all(|(_, wanted)| *wanted != Wanted::Voter) {
            return Err(format!("node {node} holds the only copy of the catalog that has a vote"));
        }
        let leader = self.own.leader.clone();
        self.own.want(epoch, &wanted, &leader, &format!("node {node} was removed"), &mut self.next_replica);
        self.node_mut(node)?.leaving = true;
        self.forget_removed();
        Ok(())
    }

    /// Nodes that are leaving are gone as soon as they have no part in the catalog's group. Until then they are spoken to:
    /// their votes count.
    fn forget_removed(&mut self) {
        let own = &self.own;
        let is_over = |node: &mut CatalogNode| node.leaving && own.replica_on(&node.id).is_none();
        let gone: Vec<CatalogNode> = self.nodes.extract_if(.., is_over).collect();
        self.removed.extend(gone.into_iter().map(|gone| (gone.id, gone.storage.unwrap_or_default())));
    }

    fn place(
        &mut self,
        epoch: u64,
        group: u64,
        since: u64,
        nodes: &[(String, Wanted)],
        leader: &str,
        reason: &str,
    ) -> Result<(), String> {
        if let Some((node, _)) =
            nodes.iter().find(|(node, _)| !self.nodes.iter().any(|info| info.id == *node))
        {
            return Err(format!("there is no node {node}"));
        }
        let mut next_replica = self.next_replica;
        let spec = self.spec_mut(group).ok_or("there is no such group")?;
        if spec.epoch != since {
            return Err("something else was decided meanwhile".into());
        }
        // A replica that is to go does not come back, so it is no vote of the group that is to be.
        let goes = |node: &str| spec.replica_on(node).is_some_and(|replica| replica.wanted == Wanted::Gone);
        let mut voters = nodes.iter().filter(|(node, wanted)| *wanted == Wanted::Voter && !goes(node));
        if !voters.any(|(node, _)| node == leader) {
            return Err(format!("node {leader}, which is to lead, would have no vote"));
        }
        if !spec.want(epoch, nodes, leader, reason, &mut next_replica) {
            return Err("it is as it is wanted".into());
        }
        self.next_replica = next_replica;
        Ok(())
    }

    /// The shards of a new collection, on these nodes.
    fn new_shards(
        &mut self,
        epoch: u64,
        (name, dimension, metric): (&str, u32, Metric),
        shards: &[Vec<String>],
    ) -> Result<Vec<Shard>, String> {
        if let Some(same) = self.collections.iter().find(|collection| collection.name == name) {
            let what = if (same.dimension, same.metric) == (dimension, metric) {
                "already"
            } else {
                "already, of another shape"
            };
            return Err(format!("there is a collection '{name}' {what}"));
        }
        let placed = |nodes: &Vec<String>| {
            !nodes.is_empty() && nodes.iter().all(|node| self.nodes.iter().any(|info| info.id == *node))
        };
        if shards.is_empty() || !shards.iter().all(placed) {
            return Err("its shards are placed on nodes that there are not".into());
        }
        let mut placed = Vec::new();
        for (shard, nodes) in (0..).zip(shards) {
            let group = self.next_group;
            self.next_group += 1;
            placed.push(Shard { shard, spec: GroupSpec::new(group, epoch, nodes, &mut self.next_replica) });
        }
        Ok(placed)
    }

    /// Planted bug: an id that is free again is the next one.
    #[cfg(feature = "canary")]
    fn reuse_ids(&mut self) {
        if crate::canary::is_planted(crate::canary::Canary::ReplicaIdReused) {
            let groups = self.shards().map(|(_, shard)| &shard.spec).chain([&self.own]);
            let ids = groups.flat_map(|spec| &spec.replicas).map(|replica| replica.replica);
            self.next_replica = ids.max().unwrap_or_default() + 1;
        }
    }

    fn node_mut(&mut self, node: &str) -> Result<&mut CatalogNode, String> {
        let found = self.nodes.iter_mut().find(|info| info.id == node);
        found.ok_or_else(|| format!("there is no node {node}"))
    }

    fn spec_mut(&mut self, group: u64) -> Option<&mut GroupSpec> {
        if group == CATALOG.0 {
            return Some(&mut self.own);
        }
        let shards = self.collections.iter_mut().flat_map(|collection| &mut collection.shards);
        shards.map(|shard| &mut shard.spec).find(|spec| spec.group == group)
    }
}

#[cfg(test)]
mod tests;
