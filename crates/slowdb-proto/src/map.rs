//! The cluster map: who is there, and where each shard lives.

use crate::request::{ClusterId, Metric};
use crate::settings::CollectionSettings;
use rkyv::{Archive, Deserialize, Serialize};

/// All that a client needs to route by itself.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ClusterMap {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows with every change of the catalog (not with changes of leaders).
    pub epoch: u64,
    /// The node that answered.
    pub answered_by: String,
    /// The node that leads the catalog, as far as the answering node knows.
    pub catalog_leader: Option<String>,
    /// All nodes, sorted by id.
    pub nodes: Vec<NodeInfo>,
    /// All collections, sorted by name.
    pub collections: Vec<CollectionInfo>,
}

/// A node of the cluster.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
}

/// A collection and where its shards are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: String,
    /// Components of each vector.
    pub dimension: u32,
    /// How similarity is measured unless a search says otherwise.
    pub metric: Metric,
    /// Replicas wanted for each shard.
    pub replication_factor: u32,
    /// Levels of requests that name none, and the lowest that are taken.
    pub settings: CollectionSettings,
    /// The shards; shard `i` holds the `i`th of equal ranges of the hash space.
    pub shards: Vec<ShardInfo>,
}

impl CollectionInfo {
    /// Group of the first shard. Groups are never used again, so it tells collections of one name apart.
    #[must_use]
    pub fn first_group(&self) -> Option<u64> {
        self.shards.first().map(|shard| shard.group)
    }
}

/// One shard.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ShardInfo {
    /// Number of the shard in its collection.
    pub shard: u32,
    /// The consensus group that replicates it.
    pub group: u64,
    /// Its replicas, preferred leader first.
    pub replicas: Vec<ReplicaInfo>,
    /// Node that leads it, as far as the answering node knows.
    pub leader: Option<String>,
    /// Term of that leader (0: unknown).
    pub term: u64,
}

/// One replica of a shard.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaInfo {
    /// Never used again once it is gone.
    pub replica: u64,
    /// The node it is on.
    pub node: String,
    /// Whether it votes (else it is a learner).
    pub voter: bool,
}
