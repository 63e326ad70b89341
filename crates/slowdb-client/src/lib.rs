//! SlowDB's client: the whole cluster as one thing.
//!
//! It keeps a map of the cluster, hashes each id to its shard and speaks with that shard's leader, or with
//! the nearest replica, directly. It follows leaders when they change, retries inside a deadline and a
//! budget, and tags each write, so that a retry is never executed twice.
//!
//! It remembers what its callers have seen ([`Session`]), so that any replica can show them at least that.
//!
//! What it deliberately does not do: it stores nothing, decides nothing about placement, and gives no
//! partial answers, unless the caller says how much is enough ([`SearchOptions::min_coverage`]).
//!
//! ```no_run
//! use slowdb_client::{Client, ClientOptions, Identity, ReadOptions, Role, SearchOptions, WriteOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::load("certs".as_ref(), Role::Client)?;
//! let client = Client::connect(ClientOptions::new(["localhost:8000"], identity)).await?;
//! let vectors = client.collection("default");
//!
//! vectors.put("cat", &[0.9, 0.1, 0.0], &WriteOptions::default()).await?;
//! let record = vectors.get("cat", &ReadOptions::default()).await?.ok_or("just written")?;
//! let found = vectors.search(&record.vector, &SearchOptions::default()).await?;
//! println!("{} at {}: {:?}", record.id, record.position.index, found.results[0]);
//! # Ok(())
//! # }
//! ```

mod admin;
mod batcher;
mod bulk;
mod catalog;
mod client;
mod collection;
mod conflicts;
mod count;
mod course;
mod coverage;
mod deadline;
mod error;
mod hits;
mod input;
mod join;
mod latency;
mod leader;
mod plan;
mod pool;
mod race;
mod random;
mod reads;
mod retry;
mod routes;
mod scan;
mod scout;
mod search;
mod session;
mod status;
pub mod vectors;

pub use bulk::{BulkOptions, BulkProgress, BulkReport, BulkShard, BulkWriter};
pub use client::{Client, ClientOptions};
pub use collection::{Collection, GetResults, Put, ReadOptions, Record, Sibling, WriteOptions, Written};
pub use conflicts::{Conflict, ConflictName, Conflicts, LostRecord, ParseConflictNameError};
pub use count::{CountOptions, Counted};
pub use coverage::MissingShard;
pub use error::{ClientError, Unreached};
pub use join::join;
pub use retry::RetryOptions;
pub use scan::{Scan, ScanOptions, ScanPage, ScanRecord};
pub use search::{SearchOptions, SearchResults};
pub use session::{ParseSessionError, Session};
pub use slowdb_net::{CertError, Identity, Role};
pub use slowdb_proto::{
    Admin, AdminReply, Became, ClusterMap, ClusterView, Condition, ConflictEntry, Explain, Hit, JoinReply,
    JoinRequest, Loser, Metric, NodeState, Position, ReadLevel, SettingsChange, ShardPosition, WriteLevel,
};
pub use status::{ClusterStatus, NodeReport};
