//! One SlowDB node: catalog, shards, requests.
//!
//! [`Node`] is the deterministic core: it composes the replicator with the catalog and the vector stores, and
//! is fed and drained by a driver, real or simulated. [`RunningNode`] is that core on threads, real time, a real
//! disk and QUIC.

mod admin;
#[cfg(feature = "canary")]
mod canary;
mod catalog;
mod clients;
mod config;
mod conflicts;
mod dedup;
mod differences;
mod disk_pace;
mod envelope;
mod fetch;
mod fresh;
#[cfg(test)]
mod fuzz;
mod gap;
#[cfg(test)]
mod golden;
mod hosting;
mod identity;
mod late;
mod machine;
mod mend;
mod node;
mod pending;
mod placement;
mod probe;
mod read;
mod reconcile;
mod requests;
mod running;
mod scrub;
mod sealed;
mod shard;
mod space;
mod status;
mod tend;
mod tombstones;
mod transfer;
mod unguarded;
mod vacancy;
mod verify;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

#[cfg(feature = "canary")]
pub use canary::{Canary, plant};
pub use config::{NodeConfig, StartError};
pub use identity::{Founding, Identity, IdentityError, Own};
pub use mend::Fetch;
pub use node::{CheckpointPace, Command, Effect, Node, NodeSetup, OpenNodeError, RequestId};
pub use probe::{CatalogProbe, GroupProbe, NodeProbe, SpecProbe, SpecReplica};
pub use read::ReadWork;
pub use running::{RunningNode, StopError};
pub use scrub::{ScrubPace, ScrubStep};
pub use verify::{VerifiedPart, VerifyError, verify};
