//! Frames between nodes, over QUIC.
//!
//! Each node dials every other one three times: a control connection for what is small and urgent, a data
//! connection with a bounded number of streams that groups share, and one for snapshots. What a node dialled it only sends
//! on, what it accepted it only reads from. Sending never waits: each peer has queues bounded in bytes, what does not fit is dropped and the core
//! is told, which is all that consensus needs.

mod hello;
mod instances;
mod peer;

pub use hello::{Gate, Hello};

use crate::ids::NodeId;
use crate::replicator::{Lane, Outgoing};
use bytes::Bytes;
use hello::{KIND_DUPLICATE, KIND_HELLO, KIND_MESSAGES, KIND_REFUSAL};
use peer::Peer;
use slowdb_net::{Connection, Connector, Frame, FrameLimits, FrameOut, Profile, RecvStream, Service};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::mpsc;

/// ALPN of control connections.
pub const ALPN_CONTROL: &str = "slowdb-control/1";
/// ALPN of data connections.
pub const ALPN_DATA: &str = "slowdb-data/1";

const HELLO_WITHIN: Duration = Duration::from_secs(2);
const FRAME_WITHIN: Duration = Duration::from_secs(10);

/// The protocols that an endpoint has to offer to nodes.
pub fn services() -> [Service; 2] {
    [
        Service { alpn: ALPN_CONTROL, profile: Profile::Control, admits_clients: false },
        Service { alpn: ALPN_DATA, profile: Profile::Data, admits_clients: false },
    ]
}

/// What the transport has to say.
#[derive(Debug)]
pub enum PeerEvent {
    /// A frame of consensus messages arrived.
    Frame {
        /// The node that sent it.
        from: NodeId,
        /// The part that says what it is.
        meta: Bytes,
        /// Entry data.
        body: Bytes,
    },
    /// Messages to a node were dropped, or the connection to it was lost.
    Unreachable {
        /// The node.
        node: NodeId,
    },
    /// Another live process is this node: this one has to stop.
    Duplicate {
        /// The node that says so.
        by: NodeId,
        /// What it found, and what to do.
        reason: String,
    },
}

/// Connections to all other nodes. Cheap to clone.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Connector,
    gate: Arc<dyn Gate>,
    events: mpsc::Sender<PeerEvent>,
    peers: RwLock<BTreeMap<NodeId, Peer>>,
}

impl Transport {
    /// Starts to dial the other nodes (id and `host:port`). Needs a tokio runtime.
    pub fn start(
        connector: &Connector,
        gate: Arc<dyn Gate>,
        others: &[(NodeId, String)],
        events: mpsc::Sender<PeerEvent>,
    ) -> Self {
        let shared = Shared { connector: connector.clone(), gate, events, peers: RwLock::default() };
        let transport = Transport { shared: Arc::new(shared) };
        transport.set_peers(others);
        transport
    }

    /// From now on these are the other nodes. Connections to those that stay as they were stay too. Needs a tokio
    /// runtime.
    pub fn set_peers(&self, others: &[(NodeId, String)]) {
        let Shared { connector, gate, events, .. } = &*self.shared;
        let mut peers = self.shared.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|node, peer| others.iter().any(|(n, address)| n == node && address == peer.address()));
        for (node, address) in others {
            peers.entry(node.clone()).or_insert_with(|| Peer::start(node, address, connector, gate, events));
        }
    }

    fn peers(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Peer>> {
        self.shared.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame. Never waits; what does not fit is dropped and reported.
    pub fn send(&self, frame: Outgoing) {
        let peers = self.peers();
        let Some(peer) = peers.get(&frame.to) else { return };
        let Outgoing { to, lane, meta, body, bytes } = frame;
        let frame = FrameOut { kind: KIND_MESSAGES, meta, body };
        let fits = match lane {
            Lane::Control => peer.send_control(frame, bytes),
            Lane::Data(group) => peer.send_data(group, frame, bytes),
            // It is asked for again.
            Lane::Snapshot => {
                peer.send_snapshot(frame, bytes);
                true
            }
        };
        if !fits {
            // If this queue is full too, the core is busy and will find out by the protocol itself.
            let _ = self.shared.events.try_send(PeerEvent::Unreachable { node: to });
        }
    }

    /// Whether the control connection to a node stands.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.peers().get(node).is_some_and(Peer::is_connected)
    }

    /// Why a node refused us last, or we refused it, if it is not connected.
    pub fn trouble(&self, node: &NodeId) -> Option<String> {
        self.peers().get(node).and_then(Peer::trouble)
    }

    /// Takes over a connection that a node dialled: says hello, then reads until it ends.
    pub async fn serve(&self, connection: Connection) {
        let Some(hello) = self.greet(&connection).await else { return };
        let from = hello.node;
        let state = self.peers().get(&from).map(Peer::state);
        if let Some(state) = state {
            state.came_in(hello.instance, &connection);
        }
        while let Ok(stream) = connection.accept_uni().await {
            let (from, events, connection) = (from.clone(), self.shared.events.clone(), connection.clone());
            tokio::spawn(async move {
                if let Err(error) = read_messages(stream, &from, &events).await {
                    tracing::warn!(node = %from, %error, "peer stream ended");
                    connection.close(256, "malformed frame");
                }
            });
        }
    }

    async fn greet(&self, connection: &Connection) -> Option<Hello> {
        let (mut send, mut recv) =
            tokio::time::timeout(HELLO_WITHIN, connection.accept_bi()).await.ok()?.ok()?;
        let frame = slowdb_net::read_frame(&mut recv, &hello_limits()).await.ok()??;
        let verdict = match Hello::decode(&frame.meta).filter(|_| frame.kind == KIND_HELLO) {
            None => Err((KIND_REFUSAL, "malformed hello: is it another version?".to_owned())),
            Some(hello) => self.admit_if_single(hello).await,
        };
        let answer = match &verdict {
            Ok(hello) => (KIND_HELLO, self.shared.gate.hello(&hello.node).encode()),
            Err((kind, reason)) => (*kind, Bytes::from(reason.clone())),
        };
        let frame = FrameOut { kind: answer.0, meta: answer.1, body: Vec::new() };
        let written = slowdb_net::write_frame(&mut send, frame, HELLO_WITHIN).await;
        let _ = send.finish();
        match verdict {
            Ok(hello) => written.ok().map(|()| hello),
            Err((_, reason)) => {
                tracing::warn!(address = %connection.remote_addr(), %reason, "refused a node");
                // The reason is on its way; the other side closes when it has read it.
                let _ = tokio::time::timeout(HELLO_WITHIN, connection.closed()).await;
                None
            }
        }
    }

    /// Why a process is not the node that it says it is, though its storage is: another one is.
    /// Lets a node in, unless another process is that node. Only then what it says of itself is remembered.
    async fn admit_if_single(&self, hello: Hello) -> Result<Hello, (u16, String)> {
        self.shared.gate.check(&hello).map_err(|reason| (KIND_REFUSAL, reason))?;
        if let Some(reason) = self.another_process(&hello).await {
            return Err((KIND_DUPLICATE, reason));
        }
        admit(&self.shared.gate, hello).await.map_err(|reason| (KIND_REFUSAL, reason))
    }

    async fn another_process(&self, hello: &Hello) -> Option<String> {
        let state = self.peers().get(&hello.node).map(Peer::state);
        state?.is_another(hello.instance).await
    }
}

/// Asks the gate on a thread that may block, for it may write to disk.
async fn admit(gate: &Arc<dyn Gate>, hello: Hello) -> Result<Hello, String> {
    let gate = Arc::clone(gate);
    let asked = tokio::task::spawn_blocking(move || gate.admit(&hello).map(|()| hello));
    asked.await.unwrap_or_else(|_| Err("the node is stopping".to_owned()))
}

async fn read_messages(
    mut stream: RecvStream,
    from: &NodeId,
    events: &mpsc::Sender<PeerEvent>,
) -> Result<(), slowdb_net::FrameError> {
    let limits = FrameLimits { first_byte_within: None, rest_within: FRAME_WITHIN, ..FrameLimits::default() };
    loop {
        let Frame { kind, meta, body } = match slowdb_net::read_frame(&mut stream, &limits).await {
            Ok(Some(frame)) => frame,
            Ok(None) | Err(slowdb_net::FrameError::Lost(_) | slowdb_net::FrameError::GivenUp { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        // Unknown kinds are for later versions to speak of.
        if kind == KIND_MESSAGES {
            let event = PeerEvent::Frame { from: from.clone(), meta, body };
            if events.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn hello_limits() -> FrameLimits {
    FrameLimits {
        meta_len_max: 4096,
        body_len_max: 0,
        first_byte_within: Some(HELLO_WITHIN),
        rest_within: HELLO_WITHIN,
    }
}
