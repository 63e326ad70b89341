//! The cluster's own certificates: making them once, and loading them with every mistake named.
//!
//! It deliberately offers no other source of trust and no way to switch verification off.

mod create;
mod error;
mod identity;
#[cfg(test)]
mod tests;

pub use create::{create, load_or_create};
pub use error::CertError;
pub use identity::{Identity, Role};

pub(crate) use identity::role_of;

/// The name every node's certificate carries and every connection verifies, whatever host was dialled: addresses
/// change, the authority is what makes a node one of the cluster.
pub(crate) const NODE_NAME: &str = "node.slowdb";
/// The name a client's certificate carries.
pub(crate) const CLIENT_NAME: &str = "client.slowdb";

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
