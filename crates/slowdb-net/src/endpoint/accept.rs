//! The listening side: who gets in, and how much work strangers can cause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{ConnectionError, Incoming, ServerConfig, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connect::Connector;
use super::error::BindError;
use super::socket::Held;
use super::{reset, socket};
use crate::certs::{Identity, Role, role_of};
use crate::connection::{ADMISSION_NOTE, CODE_NOT_ADMITTED, CODE_SHUTDOWN, Connection, LostError, canonical};
use crate::transport::{Profile, Tuning, is_loopback, transport};

/// Between looks at whether a socket is closed, which nothing tells.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A protocol that an endpoint offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in the TLS handshake, such as `slowdb-peer/1`.
    pub alpn: &'static str,
    /// How its connections are tuned.
    pub profile: Profile,
    /// Whether clients may use it; nodes always may.
    pub admits_clients: bool,
}

/// Bounds on handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Handshakes under way at once; more are refused.
    pub handshakes_max: usize,
    /// Time for one handshake.
    pub handshake_within: Duration,
    /// Connections that are ready but not yet taken with [`Endpoint::accept`].
    pub ready_max: usize,
}

impl Default for AcceptLimits {
    /// 256 handshakes of 5 seconds each, 256 connections ready.
    fn default() -> Self {
        Self { handshakes_max: 256, handshake_within: Duration::from_secs(5), ready_max: 256 }
    }
}

/// A node's listening endpoint. Dropping it ends the connections that came in by it; [`Endpoint::close`] also those
/// of its [`Connector`], and waits until the others know.
#[derive(Debug)]
pub struct Endpoint {
    sockets: Vec<quinn::Endpoint>,
    held: Vec<Held>,
    addrs: Vec<SocketAddr>,
    ready: Mutex<mpsc::Receiver<Connection>>,
    connector: Connector,
    // Ends the accept loops when the endpoint goes.
    _loops: JoinSet<()>,
}

impl Endpoint {
    /// Listens on every address of `target` (`HOST:PORT`) for `services`. Needs a tokio runtime.
    ///
    /// With port 0 the system chooses a port, and only the first address is used. An address family that this
    /// machine does not have is left out as long as another one works.
    ///
    /// # Errors
    /// [`BindError`]; a port in use is named.
    pub async fn bind(
        target: &str,
        identity: &Identity,
        services: &[Service],
        limits: AcceptLimits,
    ) -> Result<Self, BindError> {
        let admission = Arc::new(Admission::new(identity, services, limits)?);
        let (sender, ready) = mpsc::channel(limits.ready_max.max(1));
        let (mut sockets, mut held, mut addrs, mut loops) =
            (Vec::new(), Vec::new(), Vec::new(), JoinSet::new());
        for socket in listen(target).await? {
            let addr = socket.local_addr().map_err(|source| unbound(target, source))?;
            let config = reset::config_for(identity.private_key(), addr);
            let (quic, socket) = socket::endpoint(socket, config, Some(admission.network.as_ref().clone()))
                .map_err(|source| BindError::Socket { addr, source })?;
            loops.spawn(accept_loop(quic.clone(), Arc::clone(&admission), sender.clone()));
            sockets.push(quic);
            held.push(socket);
            addrs.push(addr);
        }
        let connector = Connector::new(identity)?;
        Ok(Self { sockets, held, addrs, ready: Mutex::new(ready), connector, _loops: loops })
    }

    /// The addresses listened on.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// For connections from this node to others.
    #[must_use]
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The next connection whose handshake is done and whose role is admitted; `None` once closed.
    ///
    /// A handshake that stalls or fails does not delay others, and is not seen here.
    pub async fn accept(&self) -> Option<Connection> {
        self.ready.lock().await.recv().await
    }

    /// Refuses new connections, closes all of both directions, and waits at most `within` until the others have been told.
    pub async fn close(&self, within: Duration) {
        self.close_accepted();
        self.connector.close();
        let idle = async {
            for quic in &self.sockets {
                quic.wait_idle().await;
            }
            self.connector.idle().await;
        };
        // Whoever was not told in time finds out by silence.
        let _ = timeout(within, idle).await;
    }
}

impl Endpoint {
    /// To be asked for before the endpoint is dropped, by whoever wants to know when its port is free.
    #[must_use]
    pub fn release(&self) -> Release {
        Release(self.held.clone())
    }

    fn close_accepted(&self) {
        for quic in &self.sockets {
            quic.close(VarInt::from_u32(CODE_SHUTDOWN), b"the node is shutting down");
        }
    }
}

/// Tells when the sockets of an [`Endpoint`] are closed.
#[derive(Debug)]
pub struct Release(Vec<Held>);

impl Release {
    /// Waits until the endpoint and everything that came in by it is gone, at most so long. True if the port is free.
    pub async fn wait(self, within: Duration) -> bool {
        let free = async {
            while !self.0.iter().all(Held::is_closed) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(within, free).await.is_ok()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close_accepted();
    }
}

fn unbound(target: &str, source: io::Error) -> BindError {
    BindError::Resolve { target: target.to_owned(), source }
}

async fn listen(target: &str) -> Result<Vec<std::net::UdpSocket>, BindError> {
    let mut addrs: Vec<SocketAddr> =
        tokio::net::lookup_host(target).await.map_err(|source| unbound(target, source))?.collect();
    // IPv4 first, so that port 0 of `localhost` means the same everywhere.
    addrs.sort_by_key(SocketAddr::is_ipv6);
    addrs.dedup();
    if addrs.iter().any(|addr| addr.port() == 0) {
        addrs.truncate(1);
    }
    let (mut sockets, mut first_problem) = (Vec::new(), None);
    for addr in addrs {
        match socket::bind(addr) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::InUse { addr });
            }
            Err(source) => {
                first_problem.get_or_insert(BindError::Socket { addr, source });
            }
        }
    }
    if sockets.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(first_problem.unwrap_or_else(|| unbound(target, none)));
    }
    Ok(sockets)
}

/// Everything that decides who gets in.
struct Admission {
    services: Vec<Service>,
    limits: AcceptLimits,
    loopback: Arc<ServerConfig>,
    network: Arc<ServerConfig>,
}

impl Admission {
    fn new(identity: &Identity, services: &[Service], limits: AcceptLimits) -> Result<Self, BindError> {
        let tuning = Tuning::before_known(services.iter().map(|service| service.profile))
            .ok_or(BindError::NoService)?;
        if identity.role() != Role::Node {
            return Err(BindError::Tls(
                "only a node's certificate can listen, this is a client's".to_owned(),
            ));
        }
        let alpns = services.iter().map(|service| service.alpn.as_bytes().to_vec()).collect();
        let tls = identity.server_tls(alpns).map_err(BindError::Tls)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| BindError::Tls(error.to_string()))?;
        let mut network = ServerConfig::with_crypto(Arc::new(crypto));
        network.max_incoming(limits.handshakes_max.max(1));
        let mut loopback = network.clone();
        network.transport_config(transport(&tuning, [192, 0, 2, 1].into()));
        loopback.transport_config(transport(&tuning, [127, 0, 0, 1].into()));
        Ok(Self {
            services: services.to_vec(),
            limits,
            loopback: Arc::new(loopback),
            network: Arc::new(network),
        })
    }

    /// Shakes hands, looks at who it is, and tells them that they are in.
    async fn admit(&self, incoming: Incoming) -> Result<Connection, ConnectionError> {
        let config = if is_loopback(incoming.remote_address().ip()) { &self.loopback } else { &self.network };
        let quic = incoming.accept_with(Arc::clone(config))?.await?;
        let refuse = |reason: String| {
            quic.close(VarInt::from_u32(CODE_NOT_ADMITTED), reason.as_bytes());
            ConnectionError::LocallyClosed
        };
        let service = agreed_alpn(&quic)
            .and_then(|alpn| self.services.iter().find(|service| service.alpn.as_bytes() == alpn))
            .ok_or_else(|| refuse("no common protocol".to_owned()))?;
        let role = peer_role(&quic).map_err(|problem| refuse(format!("your certificate: {problem}")))?;
        if role == Role::Client && !service.admits_clients {
            return Err(refuse(format!("`{}` is for nodes, your certificate is a client's", service.alpn)));
        }
        service.profile.tuning().grant(&quic);
        let mut note = quic.open_uni().await?;
        // A failure to write or finish is a failure of the connection, which its user will see.
        if note.write_all(&ADMISSION_NOTE).await.is_ok() {
            let _ = note.finish();
        }
        Ok(Connection::new(quic, role, service.alpn.into()))
    }
}

fn agreed_alpn(quic: &quinn::Connection) -> Option<Vec<u8>> {
    quic.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// The role in the certificate that the other side was verified with.
pub(super) fn peer_role(quic: &quinn::Connection) -> Result<Role, String> {
    let chain = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("there is none")?;
    role_of(chain.first().ok_or("there is none")?)
}

async fn accept_loop(quic: quinn::Endpoint, admission: Arc<Admission>, ready: mpsc::Sender<Connection>) {
    let slots = Arc::new(Semaphore::new(admission.limits.handshakes_max.max(1)));
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = quic.accept().await {
        while handshakes.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(remote = %incoming.remote_address(), "too many handshakes at once, refusing");
            incoming.refuse();
            continue;
        };
        // Under pressure, whoever dials must first show that its address is real.
        if slots.available_permits() < admission.limits.handshakes_max / 2
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            let _ = incoming.retry();
            continue;
        }
        handshakes.spawn(handshake(incoming, Arc::clone(&admission), ready.clone(), slot));
    }
}

async fn handshake(
    incoming: Incoming,
    admission: Arc<Admission>,
    ready: mpsc::Sender<Connection>,
    slot: OwnedSemaphorePermit,
) {
    let remote = canonical(incoming.remote_address());
    match timeout(admission.limits.handshake_within, admission.admit(incoming)).await {
        Ok(Ok(connection)) => {
            // Whoever is in is no stranger any more; the slot stays taken only while nobody takes the connection.
            let _ = ready.send(connection).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(%remote, error = %LostError::from(error), "refused a connection");
        }
        Err(_) => tracing::debug!(%remote, "gave up on a handshake that stalled"),
    }
    drop(slot);
}
