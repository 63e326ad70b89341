//! One authenticated connection, on either side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::certs::Role;
use crate::frame::{Frame, FrameError, FrameLimits, FrameOut, read_frame, write_frame};

/// Close codes below this are this crate's own.
const FIRST_FREE_CODE: u32 = 256;
/// The accepting side does not let this role use this protocol.
pub(crate) const CODE_NOT_ADMITTED: u32 = 1;
/// The endpoint shuts down.
pub(crate) const CODE_SHUTDOWN: u32 = 2;
/// What the accepting side sends, alone on its first unidirectional stream, to say "you are in". Without it the
/// connecting side would believe itself connected before its certificate has been looked at.
pub(crate) const ADMISSION_NOTE: [u8; 8] = *b"SLDB\x01in\n";

/// A connection whose two ends have proved who they are. Cheap to clone; closes when the last clone and the last
/// stream are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    quic: quinn::Connection,
    role: Role,
    alpn: Arc<str>,
}

impl Connection {
    pub(crate) fn new(quic: quinn::Connection, role: Role, alpn: Arc<str>) -> Self {
        Self { quic, role, alpn }
    }

    /// What the other side's certificate says it is.
    #[must_use]
    pub fn peer_role(&self) -> Role {
        self.role
    }

    /// The protocol agreed on.
    #[must_use]
    pub fn alpn(&self) -> &str {
        &self.alpn
    }

    /// Where the other side is, with mapped IPv4 addresses written as IPv4.
    #[must_use]
    pub fn remote_addr(&self) -> SocketAddr {
        canonical(self.quic.remote_address())
    }

    /// The smoothed round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// A number that tells the live connections of this process apart.
    #[must_use]
    pub fn id(&self) -> usize {
        self.quic.stable_id()
    }

    /// Opens a stream in both directions, waiting at most `within` while too many are open.
    ///
    /// The other side learns of it with the first byte.
    ///
    /// # Errors
    /// [`FrameError::Deadline`] or [`FrameError::Lost`].
    pub async fn open_bi(&self, within: Duration) -> Result<(SendStream, RecvStream), FrameError> {
        match timeout(within, self.quic.open_bi()).await {
            Ok(opened) => Ok(opened.map_err(LostError::from)?),
            Err(_) => Err(FrameError::Deadline { doing: "opening a stream", within }),
        }
    }

    /// Opens a stream in one direction, waiting at most `within` while too many are open.
    ///
    /// # Errors
    /// [`FrameError::Deadline`] or [`FrameError::Lost`].
    pub async fn open_uni(&self, within: Duration) -> Result<SendStream, FrameError> {
        match timeout(within, self.quic.open_uni()).await {
            Ok(opened) => Ok(opened.map_err(LostError::from)?),
            Err(_) => Err(FrameError::Deadline { doing: "opening a stream", within }),
        }
    }

    /// The next stream in both directions that the other side opens; waits as long as the connection lives.
    ///
    /// # Errors
    /// [`LostError`] when the connection is gone.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), LostError> {
        Ok(self.quic.accept_bi().await?)
    }

    /// The next one-way stream that the other side opens; waits as long as the connection lives.
    ///
    /// # Errors
    /// [`LostError`] when the connection is gone.
    pub async fn accept_uni(&self) -> Result<RecvStream, LostError> {
        Ok(self.quic.accept_uni().await?)
    }

    /// Sends one request on a stream of its own and reads the one reply, all within `within`.
    ///
    /// Dropping the future gives the stream up on both sides.
    ///
    /// # Errors
    /// [`CallError`], which tells whether the other side can have seen the request.
    pub async fn call(
        &self,
        request: FrameOut,
        limits: &FrameLimits,
        within: Duration,
    ) -> Result<Frame, CallError> {
        let limits = FrameLimits { first_byte_within: None, rest_within: within, ..*limits };
        let exchange = async {
            let (mut send, mut recv) = self.open_bi(within).await.map_err(CallError::NotSent)?;
            match write_frame(&mut send, request, within).await {
                // It does not want the rest: the reply says why.
                Ok(()) | Err(FrameError::GivenUp { .. }) => {}
                Err(error) => return Err(CallError::Unanswered(error)),
            }
            // It fails only when the other side has given up the stream, which the read reports.
            let _ = send.finish();
            match read_frame(&mut recv, &limits).await {
                Ok(Some(reply)) => Ok(reply),
                Ok(None) => Err(CallError::Unanswered(FrameError::Truncated { have: 0, want: 1 })),
                Err(error) => Err(CallError::Unanswered(error)),
            }
        };
        match timeout(within, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(CallError::Unanswered(FrameError::Deadline { doing: "waiting for a reply", within }))
            }
        }
    }

    /// Closes at once, telling the other side `code` and `reason`. What is queued is not sent any more.
    ///
    /// Codes below 256 belong to this crate; a lower `code` is raised to 256.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code.max(FIRST_FREE_CODE)), reason.as_bytes());
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> LostError {
        self.quic.closed().await.into()
    }

    /// Why the connection is gone, or `None` while it lives.
    #[must_use]
    pub fn lost(&self) -> Option<LostError> {
        self.quic.close_reason().map(LostError::from)
    }
}

/// An IPv4 address in IPv6 clothes is taken for what it is.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Why a [`Connection::call`] has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: trying again cannot execute the request twice.
    #[error("the request was not sent: {0}")]
    NotSent(#[source] FrameError),
    /// The request may or may not have been seen.
    #[error("no reply, outcome unknown: {0}")]
    Unanswered(#[source] FrameError),
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LostError {
    /// The other side closed it on purpose.
    #[error("the other side closed the connection with code {code}: {reason}")]
    ClosedByPeer {
        /// Its code.
        code: u64,
        /// Its words.
        reason: String,
    },
    /// This side closed it.
    #[error("the connection was closed on this side")]
    ClosedHere,
    /// Nothing was heard for the idle time-out.
    #[error("the other side has been silent for too long")]
    Silent,
    /// The other side has lost the connection's state, as after a restart.
    #[error("the other side does not know the connection any more; it may have restarted")]
    Forgotten,
    /// TLS or QUIC failed.
    #[error("the connection failed: {0}")]
    Failed(String),
}

impl From<ConnectionError> for LostError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer {
                code: close.error_code.into_inner(),
                // From the network: bounded by a datagram, made printable.
                reason: String::from_utf8_lossy(&close.reason).escape_debug().to_string(),
            },
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TimedOut => Self::Silent,
            ConnectionError::Reset => Self::Forgotten,
            other => Self::Failed(other.to_string()),
        }
    }
}
