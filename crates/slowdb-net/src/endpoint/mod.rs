//! Where connections come from: [`Endpoint`] listens, [`Connector`] dials.
//!
//! Neither retries; who is waiting knows better what a failure means.

mod accept;
mod connect;
mod error;
mod reset;
mod socket;
#[cfg(test)]
mod tests;

pub use accept::{AcceptLimits, Endpoint, Release, Service};
pub use connect::Connector;
pub use error::{BindError, ConnectError};
