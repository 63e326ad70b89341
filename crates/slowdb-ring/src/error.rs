//! What is wrong with a ring or a request for a placement.

/// Why there is no ring or no placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// A ring needs nodes.
    #[error("there are no nodes: a ring needs at least one")]
    NoNodes,
    /// Two nodes have one name.
    #[error("two nodes are called `{name}`: names must be unique")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A node's name is empty.
    #[error("a node has an empty name: give every node a name")]
    EmptyName,
    /// A node without capacity cannot be placed on.
    #[error("node `{name}` has weight 0: leave it out, or give it a weight of at least 1")]
    ZeroWeight {
        /// The node.
        name: String,
    },
    /// A node needs a place on the ring.
    #[error("virtual_nodes is 0: give each node at least one point on the ring, 3 is usual")]
    NoVirtualNodes,
    /// Weight times virtual nodes is out of hand.
    #[error(
        "node `{name}` would have {points} points on the ring, the limit is {max}: \
         weights are relative, divide them all by the same number"
    )]
    TooManyPoints {
        /// The node.
        name: String,
        /// Points asked for.
        points: u64,
        /// The limit.
        max: u64,
    },
    /// There is nothing to place.
    #[error("the number of shards is 0: at least one is needed")]
    NoShards,
    /// Nothing is to be kept.
    #[error("the replication factor is 0: at least one replica is needed")]
    NoReplicas,
    /// Replicas of one shard never share a node.
    #[error(
        "replication factor {factor} needs as many nodes, there are {nodes}: add nodes or lower the factor"
    )]
    TooFewNodes {
        /// The replication factor.
        factor: usize,
        /// Nodes there are.
        nodes: usize,
    },
    /// More replicas than this build counts.
    #[error("{shards} shards of {factor} replicas are too many: the limit is {max} replicas in all")]
    TooManyReplicas {
        /// Shards asked for.
        shards: u32,
        /// The replication factor.
        factor: usize,
        /// The limit.
        max: usize,
    },
}
