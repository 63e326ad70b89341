//! The cluster's own replicated state: nodes, collections, shard map. Group 0.

mod change;
mod spec;

use crate::identity::Founding;
use crate::sealed;
pub(crate) use change::CatalogChange;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::{
    ClusterId, CollectionInfo, CollectionSettings, Metric, NodeInfo, NodeState, ReplicaInfo, ShardInfo,
    Standing,
};
use slowdb_repl::{ApplyError, GroupId, Membership, ProposalView, SnapshotSource, Staging};
pub(crate) use spec::{GroupSpec, Replica, Report, voters_of};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// The group that replicates the catalog.
pub(crate) const CATALOG: GroupId = GroupId(0);
/// The collection that a cluster is founded with.
pub(crate) const DEFAULT_COLLECTION: &str = "default";
pub(crate) const FILE: &str = "catalog";
/// A snapshot of it that came from another node.
const STAGED: &str = "catalog.staged";
const MAGIC: [u8; 4] = *b"SDBC";
/// A catalog is refused beyond this size.
const CATALOG_BYTES_MAX: usize = 256 * 1024 * 1024;
const PART_BYTES: usize = 256 * 1024;

/// What the catalog holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(crate) struct Catalog {
    /// The cluster; `None` until it is founded.
    pub(crate) cluster: Option<ClusterId>,
    /// Grows with every change.
    pub(crate) epoch: u64,
    /// Points of each node on the ring that places shards.
    pub(crate) virtual_nodes: u32,
    /// Sorted by id.
    pub(crate) nodes: Vec<CatalogNode>,
    /// Id and storage id of nodes that were removed.
    pub(crate) removed: Vec<(String, [u8; 16])>,
    /// The catalog's own group.
    pub(crate) own: GroupSpec,
    /// Sorted by name.
    pub(crate) collections: Vec<Collection>,
    /// Ids are never used again.
    pub(crate) next_replica: u64,
    /// Nor are these.
    pub(crate) next_group: u64,
}

/// A node of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct CatalogNode {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) zone: Option<String>,
    /// How much it can hold, relative to the others.
    pub(crate) weight: u32,
    pub(crate) state: NodeState,
    /// It has been silent for too long.
    pub(crate) down: bool,
    /// It is to be part of the cluster no more, and stays until it has no part in the catalog's group.
    pub(crate) leaving: bool,
    /// Its storage id, if it joined; founding nodes know each other's by themselves.
    pub(crate) storage: Option<[u8; 16]>,
}

/// A collection.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Collection {
    pub(crate) name: String,
    pub(crate) dimension: u32,
    pub(crate) metric: Metric,
    pub(crate) replication_factor: u32,
    pub(crate) settings: CollectionSettings,
    pub(crate) shards: Vec<Shard>,
}

/// A shard: the `shard`th of equal ranges of the hash space.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Shard {
    pub(crate) shard: u32,
    pub(crate) spec: GroupSpec,
}

impl Catalog {
    /// Every shard, with its collection.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (&Collection, &Shard)> {
        self.collections
            .iter()
            .flat_map(|collection| collection.shards.iter().map(move |shard| (collection, shard)))
    }

    /// What a group is to be.
    pub(crate) fn spec(&self, group: GroupId) -> Option<&GroupSpec> {
        if group == CATALOG {
            return Some(&self.own);
        }
        self.shards().map(|(_, shard)| &shard.spec).find(|spec| spec.group == group.0)
    }

    /// Collection and number of the shard that a group replicates.
    pub(crate) fn shard_of(&self, group: GroupId) -> Option<(&Collection, u32)> {
        let found = self.shards().find(|(_, shard)| shard.spec.group == group.0)?;
        Some((found.0, found.1.shard))
    }

    pub(crate) fn collection(&self, name: &str) -> Option<&Collection> {
        self.collections.iter().find(|collection| collection.name == name)
    }

    pub(crate) fn node(&self, id: &str) -> Option<&CatalogNode> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

impl CatalogNode {
    pub(crate) fn to_info(&self) -> NodeInfo {
        NodeInfo { id: self.id.clone(), address: self.address.clone(), zone: self.zone.clone() }
    }
}

impl Collection {
    /// In the words of the map that clients route by: replicas that are members.
    pub(crate) fn to_info(&self) -> CollectionInfo {
        CollectionInfo {
            name: self.name.clone(),
            dimension: self.dimension,
            metric: self.metric,
            replication_factor: self.replication_factor,
            settings: self.settings,
            shards: self.shards.iter().map(Shard::to_info).collect(),
        }
    }
}

impl Shard {
    fn to_info(&self) -> ShardInfo {
        let members = self.spec.replicas.iter().filter(|replica| replica.standing != Standing::None);
        let mut replicas: Vec<ReplicaInfo> = members
            .map(|replica| ReplicaInfo {
                replica: replica.replica,
                node: replica.node.clone(),
                voter: replica.standing != Standing::Learner,
            })
            .collect();
        replicas.sort_by_key(|replica| (replica.node != self.spec.leader, !replica.voter));
        ShardInfo { shard: self.shard, group: self.spec.group, replicas, leader: None, term: 0 }
    }
}

#[derive(Archive, Serialize, Deserialize, Default)]
struct Checkpoint {
    held: u64,
    catalog: Catalog,
}

/// The catalog as a state machine. It is small and changes rarely, so each entry that changes it is checkpointed at once.
pub(crate) struct CatalogMachine {
    disk: Arc<dyn Disk>,
    catalog: Catalog,
    held: u64,
    /// The last entry that was applied.
    index: u64,
    /// Something was changed by the entry that is being applied.
    changed: bool,
}

impl CatalogMachine {
    /// Opens the catalog. A snapshot that was staged under this incarnation is taken over, if that did not happen yet.
    pub(crate) fn open(disk: Arc<dyn Disk>, incarnation: u64) -> Result<Self, String> {
        let kept = sealed::recover(&*disk, FILE, MAGIC).map_err(|error| format!("{FILE}: {error}"))?;
        let kept = kept.map(|content| decode_checkpoint(FILE, &content)).transpose()?.unwrap_or_default();
        let Checkpoint { held, catalog } = kept;
        let mut machine = CatalogMachine { disk, catalog, held, index: held, changed: false };
        if machine.held < incarnation {
            machine.install(incarnation).map_err(|error| error.0)?;
        }
        Ok(machine)
    }

    /// The catalog as it is now, as one part.
    pub(crate) fn snapshot(&self) -> Box<dyn SnapshotSource> {
        let bytes = rkyv::to_bytes::<RkyvError>(&self.catalog).expect("memory holds a catalog").into_vec();
        Box::new(CatalogSnapshot { bytes, digest: self.digest() })
    }

    pub(crate) fn stage(&self, incarnation: u64) -> Box<dyn Staging> {
        Box::new(CatalogStaging { disk: Arc::clone(&self.disk), incarnation, bytes: Vec::new() })
    }

    /// Goes on from what was staged.
    pub(crate) fn install(&mut self, incarnation: u64) -> Result<(), ApplyError> {
        let staged = read_checkpoint(&*self.disk, STAGED).map_err(ApplyError)?;
        let staged = staged.filter(|staged| staged.held == incarnation);
        let staged =
            staged.ok_or_else(|| ApplyError(format!("{STAGED} is not the snapshot at {incarnation}")))?;
        self.catalog = staged.catalog;
        self.checkpoint(incarnation)
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Applies a change. The outcome says why it has no effect, if it has none.
    pub(crate) fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<Result<(), String>, ApplyError> {
        // Others may know a change that this program does not: to go on without it would be to go on as another catalog.
        let change = CatalogChange::decode(proposal.body).map_err(ApplyError)?;
        let outcome = self.catalog.change(change);
        self.changed |= outcome.is_ok();
        Ok(outcome)
    }

    /// All changes of an entry have been applied: they are made durable together.
    pub(crate) fn end_of_entry(&mut self, index: u64) -> Result<(), ApplyError> {
        self.index = self.index.max(index);
        if std::mem::take(&mut self.changed) { self.checkpoint(index) } else { Ok(()) }
    }

    /// Holds the entries without changes, too, that came after the last change, so that the log can let them go.
    pub(crate) fn hold(&mut self) -> Result<(), ApplyError> {
        if self.index > self.held { self.checkpoint(self.index) } else { Ok(()) }
    }

    fn checkpoint(&mut self, index: u64) -> Result<(), ApplyError> {
        let checkpoint = Checkpoint { held: index, catalog: self.catalog.clone() };
        write_checkpoint(&*self.disk, FILE, &checkpoint)?;
        self.held = index;
        self.index = self.index.max(index);
        Ok(())
    }

    pub(crate) fn digest(&self) -> [u8; 16] {
        digest_of(&rkyv::to_bytes::<RkyvError>(&self.catalog).expect("memory holds a catalog"))
    }
}

/// Says what is wrong with the catalog that a node keeps, and changes nothing. Without the file it is empty.
pub(crate) fn check(disk: &dyn Disk) -> Result<(), String> {
    read_checkpoint(disk, FILE).map(|_| ())
}

fn read_checkpoint(disk: &dyn Disk, file: &str) -> Result<Option<Checkpoint>, String> {
    let content = sealed::read(disk, file, MAGIC).map_err(|error| format!("{file}: {error}"))?;
    content.map(|content| decode_checkpoint(file, &content)).transpose()
}

fn decode_checkpoint(file: &str, content: &[u8]) -> Result<Checkpoint, String> {
    rkyv::from_bytes::<Checkpoint, RkyvError>(content).map_err(|error| format!("{file}: {error}"))
}

fn write_checkpoint(disk: &dyn Disk, file: &str, checkpoint: &Checkpoint) -> Result<(), ApplyError> {
    let bytes = rkyv::to_bytes::<RkyvError>(checkpoint).map_err(|error| ApplyError(error.to_string()))?;
    sealed::write(disk, file, MAGIC, &bytes)
        .map_err(|error| ApplyError(format!("cannot write {file}: {error}")))
}

fn digest_of(catalog: &[u8]) -> [u8; 16] {
    xxh3_128(catalog).to_le_bytes()
}

struct CatalogSnapshot {
    bytes: Vec<u8>,
    digest: [u8; 16],
}

impl SnapshotSource for CatalogSnapshot {
    fn digest(&self) -> [u8; 16] {
        self.digest
    }

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, cursor: u64, out: &mut Vec<u8>) -> Result<Option<u64>, ApplyError> {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX).min(self.bytes.len());
        let to = (from + PART_BYTES).min(self.bytes.len());
        out.extend_from_slice(&self.bytes[from..to]);
        Ok((to < self.bytes.len()).then_some(to as u64))
    }
}

struct CatalogStaging {
    disk: Arc<dyn Disk>,
    incarnation: u64,
    bytes: Vec<u8>,
}

impl Staging for CatalogStaging {
    fn write(&mut self, part: &[u8]) -> Result<(), ApplyError> {
        if self.bytes.len() + part.len() > CATALOG_BYTES_MAX {
            return Err(ApplyError(format!("a catalog of more than {CATALOG_BYTES_MAX} bytes")));
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<[u8; 16], ApplyError> {
        let mut aligned = AlignedVec::<16>::with_capacity(self.bytes.len());
        aligned.extend_from_slice(&self.bytes);
        let catalog = rkyv::from_bytes::<Catalog, RkyvError>(&aligned);
        let catalog = catalog.map_err(|error| ApplyError(format!("a snapshot of the catalog: {error}")))?;
        write_checkpoint(&*self.disk, STAGED, &Checkpoint { held: self.incarnation, catalog })?;
        Ok(digest_of(&self.bytes))
    }
}

/// Who is in the catalog's group when the cluster is founded: all founding nodes, in the order of their ids.
pub(crate) fn catalog_membership(founding: &Founding, own: &str) -> Option<Membership> {
    let nodes: Vec<String> = founding.nodes.iter().map(|(node, _)| node.clone()).collect();
    GroupSpec::new(CATALOG.0, 1, &nodes, &mut 1).first_membership(own)
}

/// The catalog of a new cluster.
pub(crate) fn found(
    founding: &Founding,
    zones: &BTreeMap<String, String>,
    cluster: ClusterId,
) -> Result<Catalog, String> {
    let names: Vec<String> = founding.nodes.iter().map(|(node, _)| node.clone()).collect();
    let node = |(id, address): &(String, String)| CatalogNode {
        id: id.clone(),
        address: address.clone(),
        zone: zones.get(id).cloned(),
        weight: founding.weight.max(1),
        state: NodeState::Active,
        down: false,
        leaving: false,
        storage: None,
    };
    // The catalog's own replicas have the ids from 1 on.
    let mut next_replica = 1;
    let own = GroupSpec::new(CATALOG.0, 1, &names, &mut next_replica);
    let mut catalog = Catalog {
        cluster: Some(cluster),
        epoch: 0,
        virtual_nodes: founding.virtual_nodes,
        nodes: founding.nodes.iter().map(node).collect(),
        removed: Vec::new(),
        own,
        collections: Vec::new(),
        next_replica,
        next_group: 1,
    };
    let shards =
        crate::placement::first_placement(&catalog, founding.num_shards, founding.replication_factor)?;
    catalog.change(CatalogChange::Create {
        name: DEFAULT_COLLECTION.into(),
        dimension: founding.dimension,
        metric: founding.metric,
        replication_factor: founding.replication_factor,
        settings: CollectionSettings::default(),
        shards,
    })?;
    Ok(catalog)
}

#[cfg(test)]
pub(crate) mod tests;
