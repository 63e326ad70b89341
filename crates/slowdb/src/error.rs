//! What can go wrong, and what to do about it.

use slowdb_client::{CertError, ClientError, Position};
use slowdb_proto::limits::DIMENSION_MAX;
use slowdb_server::{StartError, StopError};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node's id cannot be used. Choose another one.
    #[error("node id: {0}")]
    NodeId(String),
    /// No vectors can have this dimension.
    #[error("dimension {dimension}: it has to be from 1 to {DIMENSION_MAX}")]
    BadDimension {
        /// What was given.
        dimension: usize,
    },
    /// The store holds vectors of another dimension. Give that one.
    #[error("dimension {given}: the vectors of this store have {stored} components")]
    WrongDimension {
        /// What was given.
        given: usize,
        /// What the store has.
        stored: usize,
    },
    /// The node founded its store, so it cannot become part of another one.
    #[error(
        "node {node_id} founded the store that is in its directory: start it as it was, or join under another \
         node id or with another storage path"
    )]
    IsFounder {
        /// The node.
        node_id: String,
    },
    /// The node is part of a store that others founded, so it cannot found one.
    #[error(
        "node {node_id} is part of a store that others founded: start it as their follower, or let it join them, \
         as the first time"
    )]
    IsMember {
        /// The node.
        node_id: String,
    },
    /// The node ran before, and others look for it at the port that it had.
    #[error(
        "node {node_id} was started before, and others look for it at the port that it had: give that port"
    )]
    PortNeeded {
        /// The node.
        node_id: String,
    },
    /// No port was given, and no free one was found.
    #[error("no free port at '{host}'{}", because(.reason))]
    NoFreePort {
        /// Where it was looked for.
        host: String,
        /// Why the last one that was tried cannot be used.
        reason: String,
    },
    /// It is no store for a [`crate::ReplicationManager`]: use a [`crate::ShardManager`].
    #[error("the store has {num_shards} shards, a replicated one has 1: it was founded by a shard manager")]
    IsSharded {
        /// Its shards.
        num_shards: u32,
    },
    /// The store has as many copies as it can.
    #[error("the store has {copies} copies already, as many as there can be")]
    IsFull {
        /// Nodes with a copy, the leader included.
        copies: usize,
    },
    /// A node became a follower, but did not get its copy in time. It goes on when it is started again.
    #[error("node {node_id} has got no copy within {waited_ms} ms{}", because(.last))]
    NoCopy {
        /// The node.
        node_id: String,
        /// How long it was waited.
        waited_ms: u64,
        /// What went wrong last.
        last: String,
    },
    /// The node's own copy did not reach a position in time. Wait longer, or look at
    /// [`crate::ReplicationManager::replicas`].
    #[error("node {node_id} is at {applied}, and did not reach {wanted} within {waited_ms} ms{}", because(.last))]
    Behind {
        /// The node.
        node_id: String,
        /// The position that was waited for.
        wanted: Position,
        /// The position that it has reached.
        applied: Position,
        /// How long it was waited.
        waited_ms: u64,
        /// What went wrong last.
        last: String,
    },
    /// Shards were still on the move when the time was up. They go on moving.
    #[error("{unfinished} shards were not yet where they are wanted after {waited_ms} ms{}", because(.last))]
    NotSettled {
        /// How many, as far as is known.
        unfinished: usize,
        /// How long it was waited.
        waited_ms: u64,
        /// What went wrong last.
        last: String,
    },
    /// Certificates cannot be made or used.
    #[error(transparent)]
    Certs(#[from] CertError),
    /// The node does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node did not stop as it should.
    #[error("the node had failed: {0}")]
    Stop(#[from] StopError),
    /// A request was refused or not answered. See [`ClientError`] for what each means.
    #[error(transparent)]
    Client(#[from] ClientError),
}

fn because(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(" (last: {last})") }
}
