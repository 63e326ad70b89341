//! What is wrong with a cluster that a plan is asked for.

use crate::error::RingError;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A plan needs nodes.
    #[error("there are no nodes: a plan needs at least one")]
    NoNodes,
    /// A node's id is empty.
    #[error("a node has an empty id: give every node an id")]
    EmptyNodeId,
    /// Two nodes have one id.
    #[error("two nodes have the id `{node}`: ids must be unique")]
    DuplicateNode {
        /// The id.
        node: String,
    },
    /// A node without capacity cannot be placed on.
    #[error("node `{node}` has weight 0: give it at least 1, or drain it")]
    ZeroWeight {
        /// The node.
        node: String,
    },
    /// Two shards have one id.
    #[error("two shards have the id {shard}: ids must be unique")]
    DuplicateShard {
        /// The id.
        shard: u64,
    },
    /// A shard of which nothing is to be kept.
    #[error("shard {shard} has replication factor 0: at least one replica is needed")]
    ZeroFactor {
        /// The shard.
        shard: u64,
    },
    /// A replica on a node that is not among the nodes.
    ///
    /// Refused rather than counted as lost: a mistyped or forgotten id would rebuild everything the node holds.
    #[error("shard {shard} has a replica on `{node}`, which is not a node: if it is gone, give it as down")]
    UnknownNode {
        /// The shard.
        shard: u64,
        /// The node.
        node: String,
    },
    /// A shard has two replicas on one node.
    #[error("shard {shard} has two replicas on `{node}`: a node holds a shard once")]
    DuplicateReplica {
        /// The shard.
        shard: u64,
        /// The node.
        node: String,
    },
    /// A shard's leader is none of its replicas.
    #[error("shard {shard} is led by `{leader}`, which has no replica of it")]
    LeaderWithoutReplica {
        /// The shard.
        shard: u64,
        /// The leader given.
        leader: String,
    },
    /// More replicas than this build counts.
    #[error("{replicas} replicas are too many: the limit is {max} in all")]
    TooManyReplicas {
        /// Replicas wanted or present, whichever is more.
        replicas: u64,
        /// The limit.
        max: u64,
    },
    /// The ring cannot be built: no virtual nodes, or a weight out of hand.
    #[error(transparent)]
    Ring(#[from] RingError),
}
