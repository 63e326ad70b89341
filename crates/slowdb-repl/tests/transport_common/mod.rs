//! What the tests of transport and driver share: certificates, a gate, nodes on loopback.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use bytes::Bytes;
use slowdb_net::{AcceptLimits, Endpoint, Identity, Role};
use slowdb_repl::transport::{self, Gate, Hello, PeerEvent, Transport};
use slowdb_repl::{GroupId, Lane, NodeId, Outgoing};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// No test waits longer than this for anything; none should come near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn identity(dir: &std::path::Path) -> Identity {
    slowdb_net::load_or_create(&dir.join("certs"), Role::Node).expect("certificates can be made")
}

/// Knows who it is, refuses other clusters and other disks under a known name.
pub(crate) struct TestGate {
    pub(crate) node: NodeId,
    pub(crate) cluster: [u8; 16],
    pub(crate) storage: [u8; 16],
    pub(crate) instance: u64,
    /// Whether it looks at anything at all.
    pub(crate) strict: bool,
    pub(crate) met: Mutex<BTreeMap<NodeId, [u8; 16]>>,
    /// Instances that were let in.
    pub(crate) admitted: Mutex<Vec<u64>>,
}

impl TestGate {
    pub(crate) fn new(node: &str) -> Self {
        TestGate {
            node: NodeId::new(node),
            cluster: [1; 16],
            storage: [2; 16],
            instance: 3,
            strict: true,
            met: Mutex::default(),
            admitted: Mutex::default(),
        }
    }
}

impl Gate for TestGate {
    fn hello(&self, to: &NodeId) -> Hello {
        let TestGate { node, cluster, storage, instance, .. } = self;
        Hello {
            cluster: *cluster,
            storage: *storage,
            instance: *instance,
            node: node.clone(),
            to: to.clone(),
            note: String::new(),
        }
    }

    fn check(&self, hello: &Hello) -> Result<(), String> {
        if !self.strict {
            return Ok(());
        }
        if hello.to != self.node {
            return Err(format!("this is {}, not {}", self.node, hello.to));
        }
        if hello.cluster != self.cluster {
            return Err("another cluster".to_owned());
        }
        let met = self.met.lock().expect("no test thread panicked");
        let is_known = met.get(&hello.node).is_none_or(|known| *known == hello.storage);
        if is_known { Ok(()) } else { Err(format!("{} changed its disk", hello.node)) }
    }

    fn admit(&self, hello: &Hello) -> Result<(), String> {
        self.check(hello)?;
        let mut met = self.met.lock().expect("no test thread panicked");
        met.insert(hello.node.clone(), hello.storage);
        self.admitted.lock().expect("no test thread panicked").push(hello.instance);
        Ok(())
    }
}

/// A node that has a transport and nothing behind it.
pub(crate) struct Bare {
    pub(crate) transport: Transport,
    pub(crate) gate: Arc<TestGate>,
    pub(crate) events: mpsc::Receiver<PeerEvent>,
    accepting: JoinHandle<()>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) async fn bind(identity: &Identity, address: &str) -> Endpoint {
    let bound = Endpoint::bind(address, identity, &transport::services(), AcceptLimits::default()).await;
    bound.expect("loopback can be bound")
}

pub(crate) fn address(endpoint: &Endpoint) -> String {
    endpoint.local_addrs()[0].to_string()
}

/// Serves connections until the returned task is aborted.
pub(crate) fn serve(endpoint: Endpoint, transport: Transport) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut serving = tokio::task::JoinSet::new();
        while let Some(connection) = endpoint.accept().await {
            let transport = transport.clone();
            serving.spawn(async move { transport.serve(connection).await });
        }
    })
}

pub(crate) fn start(gate: TestGate, endpoint: Endpoint, others: &[(&str, &str)]) -> Bare {
    let (sender, events) = mpsc::channel(64);
    let others: Vec<_> = others.iter().map(|(node, at)| (NodeId::new(node), (*at).to_owned())).collect();
    let gate = Arc::new(gate);
    let transport = Transport::start(
        endpoint.connector(),
        Arc::clone(&gate) as Arc<dyn transport::Gate>,
        &others,
        sender,
    );
    let accepting = serve(endpoint, transport.clone());
    Bare { transport, gate, events, accepting }
}

impl Bare {
    /// The next frame, whatever is said of connections meanwhile.
    pub(crate) async fn frame(&mut self) -> (NodeId, Bytes, Bytes) {
        let next = async {
            loop {
                match self.events.recv().await.expect("the transport lives") {
                    PeerEvent::Frame { from, meta, body } => return (from, meta, body),
                    PeerEvent::Unreachable { .. } => {}
                    PeerEvent::Duplicate { reason, .. } => panic!("{reason}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a frame arrives")
    }

    /// Waits until it is told that another process is this node, and says what it is told.
    pub(crate) async fn told_to_stop(&mut self) -> String {
        let told = async {
            loop {
                let event = self.events.recv().await.expect("the transport lives");
                if let PeerEvent::Duplicate { reason, .. } = event {
                    return reason;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told")
    }

    /// Sends `what` to `node` again and again until `other` has it: while a connection is being made, frames
    /// are dropped, as consensus can stand.
    pub(crate) async fn reaches(&self, node: &str, lane: Lane, other: &mut Bare, what: &'static str) {
        let again = async {
            loop {
                self.transport.send(outgoing(node, lane, what, Vec::new()));
                let arrived = tokio::time::timeout(Duration::from_millis(20), other.frame()).await;
                if arrived.is_ok_and(|(_, meta, _)| meta == what) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("it gets there in the end");
    }

    /// Waits until the connection to `node` is in trouble of this kind.
    pub(crate) async fn trouble(&self, node: &str, wanted: &str) {
        let node = NodeId::new(node);
        let seen = async {
            while !self.transport.trouble(&node).is_some_and(|trouble| trouble.contains(wanted)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, seen).await;
        assert!(waited.is_ok(), "wanted '{wanted}', have {:?}", self.transport.trouble(&node));
        assert!(!self.transport.is_connected(&node));
    }
}

pub(crate) fn outgoing(to: &str, lane: Lane, meta: &'static str, body: Vec<Bytes>) -> Outgoing {
    let bytes = meta.len() + body.iter().map(Bytes::len).sum::<usize>();
    Outgoing { to: NodeId::new(to), lane, meta: Bytes::from_static(meta.as_bytes()), body, bytes }
}

pub(crate) fn data(group: u64) -> Lane {
    Lane::Data(GroupId(group))
}
