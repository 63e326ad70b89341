//! The cluster's own replicated state: nodes, collections, shard map. Group 0.

use crate::identity::Founding;
use crate::sealed;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::Disk;
use slowdb_proto::{ClusterId, CollectionInfo, NodeInfo, ReplicaInfo, ShardInfo};
use slowdb_repl::{
    ApplyError, FinishJob, GroupId, Member, Membership, NodeId, Part, ProposalView, ReplicaId,
    SnapshotSource, Staging,
};
use slowdb_ring::{HashRing, RingNode};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// The group that replicates the catalog.
pub(crate) const CATALOG: GroupId = GroupId(0);
/// The collection that a cluster is founded with.
pub(crate) const DEFAULT_COLLECTION: &str = "default";
const FILE: &str = "catalog";
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
    /// Sorted by id.
    pub(crate) nodes: Vec<NodeInfo>,
    /// Sorted by name. Leaders are not known here.
    pub(crate) collections: Vec<CollectionInfo>,
}

/// A change of the catalog.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum CatalogChange {
    /// The first of all. Any later one is without effect.
    Found(Catalog),
    /// A node's zone became known, or changed.
    Zone {
        /// The node.
        node: String,
        /// Its zone.
        zone: String,
    },
}

impl CatalogChange {
    pub(crate) fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("memory holds a catalog").into_vec()
    }
}

#[derive(Archive, Serialize, Deserialize, Default)]
struct Checkpoint {
    held: u64,
    catalog: Catalog,
}

/// The catalog as a state machine. It is small and changes rarely, so each change is checkpointed at once.
pub(crate) struct CatalogMachine {
    disk: Arc<dyn Disk>,
    catalog: Catalog,
    held: u64,
}

impl CatalogMachine {
    /// Opens the catalog. A snapshot that was staged under this incarnation is taken over, if that did not happen yet.
    pub(crate) fn open(disk: Arc<dyn Disk>, incarnation: u64) -> Result<Self, String> {
        let kept = read_checkpoint(&*disk, FILE)?.unwrap_or_default();
        let Checkpoint { held, catalog } = kept;
        let mut machine = CatalogMachine { disk, catalog, held };
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

    pub(crate) fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<(), ApplyError> {
        let mut aligned = AlignedVec::<16>::with_capacity(proposal.body.len());
        aligned.extend_from_slice(proposal.body);
        let change = rkyv::from_bytes::<CatalogChange, RkyvError>(&aligned);
        let change = change.map_err(|error| ApplyError(format!("catalog change: {error}")))?;
        match change {
            CatalogChange::Found(catalog) if self.catalog.cluster.is_none() => self.catalog = catalog,
            CatalogChange::Found(_) => {}
            CatalogChange::Zone { node, zone } => {
                if let Some(info) = self.catalog.nodes.iter_mut().find(|info| info.id == node) {
                    info.zone = Some(zone);
                    self.catalog.epoch += 1;
                }
            }
        }
        self.checkpoint(proposal.first.index)
    }

    fn checkpoint(&mut self, index: u64) -> Result<(), ApplyError> {
        let checkpoint = Checkpoint { held: index, catalog: self.catalog.clone() };
        write_checkpoint(&*self.disk, FILE, &checkpoint)?;
        self.held = index;
        Ok(())
    }

    pub(crate) fn digest(&self) -> [u8; 16] {
        digest_of(&rkyv::to_bytes::<RkyvError>(&self.catalog).expect("memory holds a catalog"))
    }
}

fn read_checkpoint(disk: &dyn Disk, file: &str) -> Result<Option<Checkpoint>, String> {
    let content = sealed::read(disk, file, MAGIC).map_err(|error| format!("{file}: {error}"))?;
    let decoded = content.map(|content| rkyv::from_bytes::<Checkpoint, RkyvError>(&content));
    decoded.transpose().map_err(|error| format!("{file}: {error}"))
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

    fn read(&mut self, cursor: u64, out: &mut Vec<u8>) -> Result<Option<u64>, ApplyError> {
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

    fn finish(self: Box<Self>) -> FinishJob {
        Box::new(move || {
            let mut aligned = AlignedVec::<16>::with_capacity(self.bytes.len());
            aligned.extend_from_slice(&self.bytes);
            let catalog = rkyv::from_bytes::<Catalog, RkyvError>(&aligned);
            let catalog =
                catalog.map_err(|error| ApplyError(format!("a snapshot of the catalog: {error}")))?;
            write_checkpoint(&*self.disk, STAGED, &Checkpoint { held: self.incarnation, catalog })?;
            Ok(digest_of(&self.bytes))
        })
    }
}

/// Members of a group on these nodes, preferred leader first. Voters are odd in number: of an even number of
/// nodes the last is a learner.
fn members(nodes: &[String], first_replica: u64) -> Vec<Member> {
    let voters = nodes.len() - usize::from(nodes.len().is_multiple_of(2));
    let member = |(at, node): (usize, &String)| Member {
        replica: ReplicaId(first_replica + at as u64),
        node: NodeId::new(node),
        part: if at < voters { Part::Voter } else { Part::Learner },
    };
    nodes.iter().enumerate().map(member).collect()
}

/// Who is in the catalog's group: all founding nodes, in the order of their ids.
pub(crate) fn catalog_membership(founding: &Founding, own: &str) -> Option<Membership> {
    let nodes: Vec<String> = founding.nodes.iter().map(|(node, _)| node.clone()).collect();
    let members = members(&nodes, 1);
    let own = members.iter().find(|member| member.node.as_str() == own)?.replica;
    Some(Membership::new(CATALOG, own, members))
}

/// The catalog of a new cluster.
pub(crate) fn found(
    founding: &Founding,
    zones: &BTreeMap<String, String>,
    cluster: ClusterId,
) -> Result<Catalog, String> {
    let names: Vec<String> = founding.nodes.iter().map(|(node, _)| node.clone()).collect();
    let ring_nodes = names.iter().map(|node| {
        let ring_node = RingNode::new(node.as_str());
        match zones.get(node) {
            Some(zone) => ring_node.with_zone(zone.as_str()),
            None => ring_node,
        }
    });
    let ring = HashRing::new(ring_nodes, founding.virtual_nodes).map_err(|error| error.to_string())?;
    let replicas = founding.replication_factor.min(names.len() as u32);
    let placement = ring.place(founding.num_shards, replicas as usize).map_err(|error| error.to_string())?;
    // The catalog's own replicas have the ids from 1 on.
    let mut next_replica = 1 + names.len() as u64;
    let mut shards = Vec::new();
    for shard in 0..founding.num_shards {
        let nodes: Vec<String> = placement.replicas(shard).map(|node| node.to_string()).collect();
        let members = members(&nodes, next_replica);
        next_replica += members.len() as u64;
        let replica = |member: Member| ReplicaInfo {
            replica: member.replica.0,
            node: member.node.as_str().to_owned(),
            voter: member.part == Part::Voter,
        };
        let replicas = members.into_iter().map(replica).collect();
        shards.push(ShardInfo { shard, group: 1 + u64::from(shard), replicas, leader: None, term: 0 });
    }
    let node = |(id, address): &(String, String)| NodeInfo {
        id: id.clone(),
        address: address.clone(),
        zone: zones.get(id).cloned(),
    };
    Ok(Catalog {
        cluster: Some(cluster),
        epoch: 1,
        nodes: founding.nodes.iter().map(node).collect(),
        collections: vec![CollectionInfo {
            name: DEFAULT_COLLECTION.into(),
            dimension: founding.dimension,
            metric: founding.metric,
            replication_factor: founding.replication_factor,
            shards,
        }],
    })
}

/// Who is in a shard's group, as seen from one of its nodes.
pub(crate) fn shard_membership(shard: &ShardInfo, own: &str) -> Option<Membership> {
    let member = |info: &ReplicaInfo| Member {
        replica: ReplicaId(info.replica),
        node: NodeId::new(&info.node),
        part: if info.voter { Part::Voter } else { Part::Learner },
    };
    let members: Vec<Member> = shard.replicas.iter().map(member).collect();
    let own = members.iter().find(|member| member.node.as_str() == own)?.replica;
    Some(Membership::new(GroupId(shard.group), own, members))
}

#[cfg(test)]
mod tests;
