//! SlowDB inside a program: replicated and sharded vectors in a few lines.
//!
//! Two ways in, named after the ideas that they stand for:
//!
//! - [`ReplicationManager`]: all vectors on every node. One node founds the store as its leader, others follow it.
//! - [`ShardManager`]: vectors spread over nodes by hashing. It routes by itself, and more nodes can join.
//!
//! Each runs a whole node in this process, the same one as the program `slowdb-node` runs, and speaks with it, and
//! through it with the others, over QUIC as any client does. Nothing is special about embedded nodes: the
//! operator's commands work on them, and a cluster can be made of both kinds.
//!
//! ```no_run
//! use slowdb::ReplicationManager;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), slowdb::Error> {
//! let leader = ReplicationManager::builder("leader", "./data", 3).port(8000).start_leader().await?;
//! let follower =
//!     ReplicationManager::builder("follower", "./data", 3).port(8001).start_follower("localhost", 8000).await?;
//!
//! let written = leader.replicate_vector("cat", &[0.9, 0.1, 0.0]).await?;
//! follower.wait_for(written.position, Duration::from_secs(5)).await?;
//! assert_eq!(follower.get_vector("cat").await?, Some(vec![0.9, 0.1, 0.0]));
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are kept
//! A node keeps its files under `storage_path/node_id`, so nodes of one machine may be given the same storage path.
//! Certificates are under `storage_path/certs`, made on the first start: nodes with the same storage path trust each
//! other. Nodes of several machines need one set of certificates for all: see [`ReplicationBuilder::certs`].
//!
//! A node that comes back is started in the same way as the first time, with the port it had.
//!
//! # Runtime
//! A tokio runtime with more than one thread. Dropping a manager ends its node without a farewell, as a crash would:
//! no acknowledged write is lost, but others have to notice. [`ReplicationManager::stop`] and
//! [`ShardManager::stop`] hand over first.

mod error;
mod node;
mod ports;
mod replication;
mod sharding;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use error::Error;
pub use replication::{Replica, ReplicationBuilder, ReplicationManager};
pub use sharding::{Shard, ShardBuilder, ShardManager};
pub use slowdb_client::{CertError, Client, ClientError, Condition, Hit, Metric, Position, Written};
pub use slowdb_server::{StartError, StopError};
