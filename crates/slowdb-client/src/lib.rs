//! SlowDB's client.
//!
#![doc = include_str!("../README.md")]

mod admin;
mod batcher;
mod bulk;
mod catalog;
mod client;
mod collection;
mod compare;
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
pub use compare::{CompareOptions, ComparedReplica, Comparison, Difference, HeldRecord, MissingReplica};
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
