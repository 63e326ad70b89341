//! One SlowDB node: catalog, shards, requests.
//!
//! [`Node`] is the deterministic core: it composes the replicator with the catalog and the vector stores, and
//! is fed and drained by a driver, real or simulated. `RunningNode` is that core on threads, real time, a real
//! disk and QUIC.

mod catalog;
mod dedup;
mod identity;
mod machine;
mod node;
mod pending;
mod read;
mod requests;
mod sealed;
mod shard;
mod status;

pub use identity::{Founding, Identity, IdentityError, Own};
pub use node::{Command, Effect, Node, NodeSetup, OpenNodeError, RequestId};
pub use read::ReadWork;
