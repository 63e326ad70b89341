//! Which groups have a replica on this node: opened, begun and removed as the catalog says.

use crate::catalog::{self, CATALOG, Catalog, CatalogMachine, GroupSpec};
use crate::machine::Machine;
use crate::node::{Effect, Node, OpenNodeError};
use crate::shard::{SHARDS, ShardMachine, ShardPlace};
use slowdb_proto::{ClusterId, CollectionInfo};
use slowdb_repl::wal::Recovered;
use slowdb_repl::{GroupId, Membership, NodeId, ReplicaId, Replicator};
use slowdb_storage::Options;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far this node has followed the catalog.
#[derive(Default)]
pub(crate) struct Hosting {
    epoch: u64,
    /// Collections by name, as clients are told of them.
    pub(crate) collections: BTreeMap<String, Arc<CollectionInfo>>,
    /// What replicas kept that are gone, with the batch of the log that says so, once it has a number.
    gone: Vec<(Option<u64>, ShardPlace)>,
}

impl Hosting {
    /// What the log is told of replicas that are gone is part of this batch.
    pub(crate) fn gone_with(&mut self, batch: u64) {
        for (number, _) in &mut self.gone {
            number.get_or_insert(batch);
        }
    }
}

impl Node {
    /// The catalog, as far as this node has applied it.
    pub(crate) fn catalog(&self) -> Option<&Catalog> {
        Some(self.repl.machine(CATALOG)?.catalog()?.catalog())
    }

    /// Opens every replica that the log knows.
    pub(crate) fn open_groups(&mut self, recovered: &Recovered) -> Result<(), OpenNodeError> {
        let known = Replicator::<Machine>::memberships(recovered);
        let mut known = known.map_err(|error| OpenNodeError(error.to_string()))?;
        self.open_catalog(recovered, known.remove(&CATALOG))?;
        for membership in known.into_values() {
            let group = membership.group;
            let placed = self.catalog().and_then(|catalog| {
                let replica = catalog.spec(group)?.replica_on(&self.name)?;
                let dimension = catalog.shard_of(group)?.0.dimension;
                (replica.replica == membership.own.0).then_some(dimension)
            });
            match placed {
                Some(dimension) => self.open_shard(membership, dimension, Some(recovered))?,
                // The catalog has dropped it since.
                None => {
                    let discarded = self.repl.discard(&membership, recovered);
                    discarded.map_err(|error| OpenNodeError(error.to_string()))?;
                }
            }
        }
        self.remove_strays(recovered)?;
        self.follow_catalog()
    }

    fn open_catalog(
        &mut self,
        recovered: &Recovered,
        known: Option<Membership>,
    ) -> Result<(), OpenNodeError> {
        let incarnation = known.as_ref().map_or(0, |membership| membership.incarnation);
        let machine =
            CatalogMachine::open(Arc::clone(&self.setup.disk), incarnation).map_err(OpenNodeError)?;
        let machine = Machine::Catalog(machine);
        let opened = match known {
            Some(membership) => self.repl.reopen(membership, recovered, machine),
            None => {
                let identity = self.setup.own.get();
                let membership = match identity.joined {
                    Some(replica) => Some(Membership::joining(CATALOG, ReplicaId(replica))),
                    None => catalog::catalog_membership(&identity.founding, &self.name),
                };
                let membership = membership.ok_or_else(|| {
                    OpenNodeError(format!(
                        "node {} is not among the nodes that it is to found a cluster with",
                        self.name
                    ))
                })?;
                self.repl.create(membership, machine)
            }
        };
        opened.map_err(|error| OpenNodeError(error.to_string()))
    }

    /// Removes what is left of replicas that the log does not know: they were begun, or removed, when the power went.
    fn remove_strays(&self, recovered: &Recovered) -> Result<(), OpenNodeError> {
        let disk = &self.setup.disk;
        let fail = |error: std::io::Error| OpenNodeError(format!("{SHARDS}: {error}"));
        if !disk.exists(SHARDS).map_err(fail)? {
            return Ok(());
        }
        for name in disk.list(SHARDS).map_err(fail)? {
            let replica = name.split_once('.').and_then(|(replica, _)| replica.parse::<u64>().ok());
            if replica.is_some_and(|replica| !recovered.groups.contains_key(&replica)) {
                slowdb_storage::remove(&**disk, &format!("{SHARDS}/{name}")).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Does what the catalog's changes mean for this node.
    pub(crate) fn follow_catalog(&mut self) -> Result<(), OpenNodeError> {
        let changed = |catalog: &&Catalog| catalog.epoch > self.hosting.epoch;
        let Some(catalog) = self.catalog().filter(changed).cloned() else { return Ok(()) };
        let Some(cluster) = catalog.cluster else { return Ok(()) };
        self.join(cluster, &catalog)?;
        self.remove_gone(&catalog);
        for (collection, shard) in catalog.shards() {
            let Some(membership) = shard.spec.first_membership(&self.name) else { continue };
            if self.repl.machine(membership.group).is_none() {
                self.open_shard(membership, collection.dimension, None)?;
            }
        }
        let info =
            |collection: &catalog::Collection| (collection.name.clone(), Arc::new(collection.to_info()));
        self.hosting.collections = catalog.collections.iter().map(info).collect();
        let others = self.setup.own.others(&catalog, &self.name).into_iter();
        self.effects
            .push(Effect::Peers(others.map(|(node, address)| (NodeId::new(&node), address)).collect()));
        self.route_quarantined(&catalog);
        self.hosting.epoch = catalog.epoch;
        Ok(())
    }

    /// What is kept of groups that have no replica here any more goes to those that they have elsewhere.
    fn route_quarantined(&mut self, catalog: &Catalog) {
        let groups: Vec<GroupId> = self.repl.quarantined_groups().collect();
        for group in groups {
            let Some(spec) = catalog.spec(group) else {
                tracing::warn!(%group, "writes that were overtaken are let go: their collection was dropped");
                self.repl.forget_quarantined(group);
                continue;
            };
            let replicas = spec.replicas.iter().filter(|replica| replica.node != self.name);
            let at = |replica: &catalog::Replica| (ReplicaId(replica.replica), NodeId::new(&replica.node));
            self.repl.offer_to(group, replicas.map(at).collect());
        }
    }

    /// Speaks to nodes that the catalog does not know yet, as far as it is applied here.
    pub(crate) fn meet(&mut self) {
        if let Some(known) = self.setup.own.take_met() {
            let others = known.into_iter().map(|(node, address)| (NodeId::new(&node), address));
            self.effects.push(Effect::Peers(others.collect()));
        }
    }

    /// Removes replicas that the catalog has dropped: a committed configuration excludes them.
    fn remove_gone(&mut self, catalog: &Catalog) {
        let stays = |spec: Option<&GroupSpec>, own: ReplicaId| {
            let placed = spec.and_then(|spec| spec.replica_on(&self.name));
            #[cfg(feature = "canary")]
            let placed = placed.filter(|replica| {
                let by_wish = crate::canary::is_planted(crate::canary::Canary::RemovalByWish);
                !by_wish || replica.wanted != slowdb_proto::Wanted::Gone
            });
            placed.is_some_and(|replica| replica.replica == own.0)
        };
        let gone = |id: &GroupId| {
            let own = self.repl.membership(*id).map(|membership| membership.own);
            *id != CATALOG && own.is_some_and(|own| !stays(catalog.spec(*id), own))
        };
        let gone: Vec<GroupId> = self.repl.groups().filter(gone).collect();
        for id in gone {
            let Some(Machine::Shard(shard)) = self.repl.remove(id) else { continue };
            tracing::info!(group = %id, "this replica is needed no more: removed");
            self.halted.remove(&id);
            self.fail_requests_of(id);
            self.hosting.gone.push((None, shard.into_place()));
        }
    }

    /// Deletes what replicas kept that are gone, now that the log says so durably.
    pub(crate) fn delete_gone(&mut self, batch: u64) {
        let is_due =
            |(number, _): &mut (Option<u64>, ShardPlace)| number.is_some_and(|number| number <= batch);
        for (_, place) in self.hosting.gone.extract_if(.., is_due) {
            self.effects.push(Effect::Delete(Box::new(move || {
                if let Err(error) = place.remove_others(None) {
                    tracing::warn!(replica = place.replica, %error, "files of a removed replica stay until the next start");
                }
            })));
        }
    }

    fn join(&mut self, cluster: ClusterId, catalog: &Catalog) -> Result<(), OpenNodeError> {
        let identity = self.setup.own.get();
        let wanted = &identity.founding;
        if let Some(default) = catalog.collection(catalog::DEFAULT_COLLECTION)
            && identity.cluster.is_none()
            && default.dimension != wanted.dimension
        {
            return Err(OpenNodeError(format!(
                "this node was started with --dimension {}, but its cluster was founded with {}: start all \
                 founding nodes with the same one",
                wanted.dimension, default.dimension
            )));
        }
        if identity.cluster.is_none() {
            self.setup.own.join(cluster).map_err(|error| OpenNodeError(error.to_string()))?;
            tracing::info!(%cluster, "part of the cluster");
        }
        self.setup.own.know(catalog);
        self.repl.set_cluster(cluster.0);
        Ok(())
    }

    fn open_shard(
        &mut self,
        membership: Membership,
        dimension: u32,
        recovered: Option<&Recovered>,
    ) -> Result<(), OpenNodeError> {
        let id = membership.group;
        let fail = |error: String| OpenNodeError(format!("{id}: {error}"));
        let mut options = Options::new(dimension as usize);
        options.extent_bytes = self.setup.extent_bytes;
        options.hash_seed = self.setup.seed;
        #[cfg(feature = "canary")]
        {
            options.canary_reuse_early = self.setup.checkpoints.canary_reuse_early;
        }
        let place = ShardPlace { disk: Arc::clone(&self.setup.disk), replica: membership.own.0, options };
        let machine = Machine::Shard(ShardMachine::open(place, membership.incarnation).map_err(fail)?);
        let opened = match recovered {
            Some(recovered) => self.repl.reopen(membership, recovered, machine),
            None => self.repl.create(membership, machine),
        };
        opened.map_err(|error| fail(error.to_string()))
    }
}
