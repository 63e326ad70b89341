//! The dialling side: names to addresses to a connection, all within one deadline.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, ConnectionError, EndpointConfig, TransportErrorCode, VarInt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::accept::peer_role;
use super::error::{BindError, ConnectError};
use super::socket;
use crate::certs::{Identity, NODE_NAME, Role};
use crate::connection::{ADMISSION_NOTE, CODE_NOT_ADMITTED, CODE_SHUTDOWN, Connection, LostError};
use crate::transport::{Profile, transport};

/// Head start of each address of a name over the next.
const STAGGER: Duration = Duration::from_millis(50);

/// Dials nodes. Cheap to clone; clones share their sockets.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: Identity,
    v4: quinn::Endpoint,
    // Not every machine has IPv6, and whoever does not dial it needs no socket.
    v6: Arc<OnceLock<quinn::Endpoint>>,
}

impl Connector {
    /// Opens a socket for outgoing connections. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError::Socket`].
    pub fn new(identity: &Identity) -> Result<Self, BindError> {
        let v4 = outgoing(Ipv4Addr::UNSPECIFIED.into())?;
        Ok(Self { identity: identity.clone(), v4, v6: Arc::default() })
    }

    /// Connects to the node at `target` (`HOST:PORT`) and waits until it has admitted us.
    ///
    /// All addresses of a name are tried, each with a small head start over the next. The name in the node's
    /// certificate is always the cluster's, not the host's.
    ///
    /// # Errors
    /// [`ConnectError`]; with several addresses, that of the first to fail for a reason other than silence.
    pub async fn connect(
        &self,
        target: &str,
        alpn: &str,
        profile: Profile,
        within: Duration,
    ) -> Result<Connection, ConnectError> {
        match timeout(within, self.connect_any(target, alpn, profile)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ConnectError::Deadline { target: target.to_owned(), within }),
        }
    }

    async fn connect_any(
        &self,
        target: &str,
        alpn: &str,
        profile: Profile,
    ) -> Result<Connection, ConnectError> {
        let resolve = |source| ConnectError::Resolve { target: target.to_owned(), source };
        let mut addrs: Vec<SocketAddr> = tokio::net::lookup_host(target).await.map_err(resolve)?.collect();
        addrs.sort_by_key(SocketAddr::is_ipv6);
        addrs.dedup();

        let mut attempts = JoinSet::new();
        for (nth, addr) in (0_u32..).zip(addrs) {
            let (this, target, alpn) = (self.clone(), target.to_owned(), alpn.to_owned());
            attempts.spawn(async move {
                sleep(STAGGER * nth).await;
                this.connect_one(&target, addr, &alpn, profile).await
            });
        }
        let mut failed = None;
        while let Some(outcome) = attempts.join_next().await {
            match outcome {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => drop(failed.get_or_insert(error)),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        let none = || std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        Err(failed.unwrap_or_else(|| resolve(none())))
    }

    async fn connect_one(
        &self,
        target: &str,
        addr: SocketAddr,
        alpn: &str,
        profile: Profile,
    ) -> Result<Connection, ConnectError> {
        let local = |problem: String| ConnectError::Local { target: target.to_owned(), problem };
        let failed = |error: ConnectionError| explain(target, alpn, error);
        let tls = self.identity.client_tls(alpn.as_bytes().to_vec()).map_err(local)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| local(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(&profile.tuning(), addr.ip()));
        let quic = self
            .socket_for(addr)
            .map_err(|error| local(error.to_string()))?
            .connect_with(config, addr, NODE_NAME)
            .map_err(|error| local(error.to_string()))?
            .await
            .map_err(failed)?;
        match peer_role(&quic) {
            Ok(Role::Node) => {}
            Ok(Role::Client) => {
                return Err(stranger(target, "it is a client, not a node".to_owned()));
            }
            Err(problem) => return Err(stranger(target, problem)),
        }
        // TLS is done here before the other side has looked at our certificate: wait for its word.
        let mut note = quic.accept_uni().await.map_err(failed)?;
        match note.read_to_end(ADMISSION_NOTE.len()).await {
            Ok(words) if words == ADMISSION_NOTE => Ok(Connection::new(quic, Role::Node, alpn.into())),
            Ok(_) => Err(ConnectError::Protocol { target: target.to_owned(), alpn: alpn.to_owned() }),
            Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(lost))) => Err(failed(lost)),
            Err(_) => Err(ConnectError::Protocol { target: target.to_owned(), alpn: alpn.to_owned() }),
        }
    }

    fn socket_for(&self, addr: SocketAddr) -> Result<&quinn::Endpoint, BindError> {
        if addr.is_ipv4() {
            return Ok(&self.v4);
        }
        if let Some(v6) = self.v6.get() {
            return Ok(v6);
        }
        // Two tasks may both get here; one socket stays, the other is dropped unused.
        let opened = outgoing(Ipv6Addr::UNSPECIFIED.into())?;
        Ok(self.v6.get_or_init(|| opened))
    }

    pub(super) fn close(&self) {
        for quic in self.sockets() {
            quic.close(VarInt::from_u32(CODE_SHUTDOWN), b"the process is shutting down");
        }
    }

    pub(super) async fn idle(&self) {
        for quic in self.sockets() {
            quic.wait_idle().await;
        }
    }

    fn sockets(&self) -> impl Iterator<Item = &quinn::Endpoint> {
        std::iter::once(&self.v4).chain(self.v6.get())
    }
}

fn outgoing(ip: IpAddr) -> Result<quinn::Endpoint, BindError> {
    let addr = SocketAddr::new(ip, 0);
    socket::bind(addr)
        .and_then(|socket| socket::endpoint(socket, EndpointConfig::default(), None))
        .map(|(quic, _)| quic)
        .map_err(|source| BindError::Socket { addr, source })
}

fn stranger(target: &str, problem: String) -> ConnectError {
    ConnectError::Stranger { target: target.to_owned(), problem }
}

/// TLS alerts (RFC 8446) that mean "I do not like your certificate".
const CERTIFICATE_ALERTS: [u8; 9] = [42, 43, 44, 45, 46, 48, 49, 51, 116];
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;

/// Puts the ways a handshake fails into words that say what to do.
fn explain(target: &str, alpn: &str, error: ConnectionError) -> ConnectError {
    let target = target.to_owned();
    match &error {
        ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(CODE_NOT_ADMITTED) =>
        {
            let reason = String::from_utf8_lossy(&close.reason).escape_debug().to_string();
            return ConnectError::NotAdmitted { target, reason };
        }
        ConnectionError::ConnectionClosed(close) => {
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED {
                return ConnectError::Busy { target };
            }
            if close.error_code == TransportErrorCode::crypto(ALERT_NO_APPLICATION_PROTOCOL) {
                return ConnectError::Protocol { target, alpn: alpn.to_owned() };
            }
            if CERTIFICATE_ALERTS.iter().any(|&alert| close.error_code == TransportErrorCode::crypto(alert)) {
                return ConnectError::NotTrusted { target, problem: close.error_code.to_string() };
            }
        }
        // Ours was the alert: we did not like theirs.
        ConnectionError::TransportError(ours)
            if CERTIFICATE_ALERTS.iter().any(|&alert| ours.code == TransportErrorCode::crypto(alert)) =>
        {
            return ConnectError::Stranger { target, problem: ours.reason.clone() };
        }
        _ => {}
    }
    ConnectError::Lost { target, source: LostError::from(error) }
}
