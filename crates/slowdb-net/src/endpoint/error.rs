//! Why an endpoint could not be opened, or a connection not be made.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::LostError;

/// Why a listening endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The name of the address to listen on means nothing.
    #[error("cannot listen on `{target}`: {source}; give HOST:PORT with a name or address of this machine")]
    Resolve {
        /// What was given.
        target: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Somebody listens there already.
    #[error("UDP port {addr} is in use by another process; stop it or choose another port")]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The operating system refused.
    #[error("cannot open a UDP socket on {addr}: {source}")]
    Socket {
        /// The address.
        addr: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// TLS cannot be set up with this identity.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A listening endpoint needs at least one service.
    #[error("an endpoint that listens needs at least one service")]
    NoService,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The target is no address and no known name.
    #[error("cannot resolve `{target}`: {source}; give HOST:PORT")]
    Resolve {
        /// What was given.
        target: String,
        /// The resolver's answer.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("no answer from {target} within {within:?}: is a node running there?")]
    Deadline {
        /// What was dialled.
        target: String,
        /// The time allowed.
        within: Duration,
    },
    /// The other side is not a node of our cluster.
    #[error("{target} has no certificate of this cluster's authority ({problem}); nothing was sent to it")]
    Stranger {
        /// What was dialled.
        target: String,
        /// What verification said.
        problem: String,
    },
    /// The other side does not accept our certificate.
    #[error(
        "{target} does not accept our certificate ({problem}): \
         it belongs to another cluster, or its certificates were replaced"
    )]
    NotTrusted {
        /// What was dialled.
        target: String,
        /// The alert it sent.
        problem: String,
    },
    /// The other side knows us, but not for this purpose.
    #[error("{target} does not admit us: {reason}")]
    NotAdmitted {
        /// What was dialled.
        target: String,
        /// What it said.
        reason: String,
    },
    /// The other side does not speak this protocol.
    #[error("{target} does not speak `{alpn}`: it may run another release, or be something else")]
    Protocol {
        /// What was dialled.
        target: String,
        /// The protocol asked for.
        alpn: String,
    },
    /// The other side is there but takes no more connections now.
    #[error("{target} takes no more connections at the moment; try again later")]
    Busy {
        /// What was dialled.
        target: String,
    },
    /// The connection broke while it was made.
    #[error("connecting to {target} failed: {source}")]
    Lost {
        /// What was dialled.
        target: String,
        /// How.
        source: LostError,
    },
    /// A socket or TLS could not be set up on this side.
    #[error("cannot dial {target}: {problem}")]
    Local {
        /// What was dialled.
        target: String,
        /// The reason.
        problem: String,
    },
}
