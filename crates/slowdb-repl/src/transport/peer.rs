//! The connections that this node dials to one other node.

use super::hello::{Gate, Hello, KIND_DUPLICATE, KIND_HELLO, KIND_REFUSAL};
use super::{ALPN_CONTROL, ALPN_DATA, HELLO_WITHIN, PeerEvent, admit, hello_limits};
use crate::ids::{GroupId, NodeId};
use bytes::Bytes;
use slowdb_net::{Connection, Connector, FrameOut, Profile};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

const CONTROL_QUEUE_BYTES: usize = 4 * 1024 * 1024;
const DATA_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Twice what a receiver has under way, if all parts are as large as they should be.
const SNAPSHOT_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Streams that groups share on a data connection, far fewer than the other side grants. A group always has the same one,
/// so its frames stay in order. Group ids are counted up, so streams have the same number of them, but for one; groups of
/// one stream wait for each other where a packet was lost or a frame is large, those of different streams do not.
const DATA_STREAMS: u64 = 256;
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const WRITE_WITHIN: Duration = Duration::from_secs(10);
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);

/// Bytes that a frame takes of its queue's bound. They are given back when this is dropped: wherever the frame
/// ends up, written, stale or lost with its connection, the queue cannot shrink for ever.
struct Charge {
    bytes: usize,
    held: Arc<AtomicUsize>,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A frame on its way to a lane.
struct Queued {
    group: Option<GroupId>,
    frame: FrameOut,
    charge: Charge,
}

/// A queue bounded in bytes: what it holds is counted until it was written or dropped.
struct Queue {
    sender: mpsc::UnboundedSender<Queued>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

impl Queue {
    fn push(&self, group: Option<GroupId>, frame: FrameOut, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let charge = Charge { bytes, held: Arc::clone(&self.bytes) };
        // A frame larger than the bound passes when it is alone, or it never would.
        if before > 0 && before + bytes > self.bytes_max {
            return false;
        }
        self.sender.send(Queued { group, frame, charge }).is_ok()
    }
}

/// What the tasks of a peer share.
pub(super) struct State {
    pub(super) node: NodeId,
    pub(super) address: String,
    connector: Connector,
    gate: Arc<dyn Gate>,
    events: mpsc::Sender<PeerEvent>,
    pub(super) connected: AtomicBool,
    trouble: Mutex<Option<String>>,
    /// Instance of the other node's process that it was last heard to be.
    pub(super) instance: AtomicU64,
    /// Connections that processes of the other node have dialled, each with its instance.
    pub(super) incoming: Mutex<Vec<(u64, Connection)>>,
    wake: [Notify; 3],
}

pub(super) struct Peer {
    control: Queue,
    data: Queue,
    snapshot: Queue,
    state: Arc<State>,
}

impl Peer {
    pub(super) fn start(
        node: &NodeId,
        address: &str,
        connector: &Connector,
        gate: &Arc<dyn Gate>,
        events: &mpsc::Sender<PeerEvent>,
    ) -> Self {
        let state = Arc::new(State {
            node: node.clone(),
            address: address.to_owned(),
            connector: connector.clone(),
            gate: Arc::clone(gate),
            events: events.clone(),
            connected: AtomicBool::new(false),
            trouble: Mutex::new(None),
            instance: AtomicU64::new(0),
            incoming: Mutex::default(),
            wake: [Notify::new(), Notify::new(), Notify::new()],
        });
        let control = lane(&state, Line::Control, CONTROL_QUEUE_BYTES);
        let data = lane(&state, Line::Data, DATA_QUEUE_BYTES);
        let snapshot = lane(&state, Line::Snapshot, SNAPSHOT_QUEUE_BYTES);
        Peer { control, data, snapshot, state }
    }

    pub(super) fn address(&self) -> &str {
        &self.state.address
    }

    pub(super) fn send_snapshot(&self, frame: FrameOut, bytes: usize) -> bool {
        self.snapshot.push(None, frame, bytes)
    }

    pub(super) fn send_control(&self, frame: FrameOut, bytes: usize) -> bool {
        self.control.push(None, frame, bytes)
    }

    pub(super) fn send_data(&self, group: GroupId, frame: FrameOut, bytes: usize) -> bool {
        self.data.push(Some(group), frame, bytes)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.connected.load(Ordering::Relaxed)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Control,
    Data,
    Snapshot,
}

impl Line {
    fn alpn(self) -> &'static str {
        match self {
            Line::Control => ALPN_CONTROL,
            Line::Data | Line::Snapshot => ALPN_DATA,
        }
    }

    fn profile(self) -> Profile {
        match self {
            Line::Control => Profile::Control,
            Line::Data | Line::Snapshot => Profile::Data,
        }
    }
}

fn lane(state: &Arc<State>, line: Line, bytes_max: usize) -> Queue {
    let (sender, receiver) = mpsc::unbounded_channel();
    let bytes = Arc::new(AtomicUsize::new(0));
    tokio::spawn(run(Arc::clone(state), line, receiver));
    Queue { sender, bytes, bytes_max }
}

/// Dials, sends until the connection is lost, and dials again, for as long as the transport lives.
async fn run(state: Arc<State>, line: Line, mut queue: mpsc::UnboundedReceiver<Queued>) {
    let mut pause = REDIAL_MIN;
    loop {
        let dialled = tokio::select! {
            dialled = dial(&state, line) => dialled,
            // It has just come up: what was sent to nobody would be repeated at ever longer intervals.
            () = state.wake[line as usize].notified() => continue,
        };
        match dialled {
            Ok((connection, instance)) => {
                pause = REDIAL_MIN;
                state.set_trouble(None);
                if line == Line::Control {
                    state.connected.store(true, Ordering::Relaxed);
                    tracing::info!(node = %state.node, address = %state.address, "connected");
                }
                let over = send_all(&state, line, &connection, instance, &mut queue).await;
                if line == Line::Control {
                    state.connected.store(false, Ordering::Relaxed);
                    tracing::info!(node = %state.node, "connection lost");
                }
                let _ = state.events.send(PeerEvent::Unreachable { node: state.node.clone() }).await;
                if over {
                    return;
                }
            }
            Err(trouble) => state.set_trouble(Some(trouble)),
        }
        // What was meant for the lost connection is stale by now; the protocol sends it again.
        while queue.try_recv().is_ok() {}
        if queue.is_closed() {
            return;
        }
        let woken = state.wake[line as usize].notified();
        let _ = tokio::time::timeout(pause, woken).await;
        pause = (pause * 2).min(REDIAL_MAX);
    }
}

impl State {
    /// The other node's process is this one. If it was another one before, all lanes have to dial anew.
    pub(super) fn heard_of(&self, instance: u64) {
        if self.instance.swap(instance, Ordering::Relaxed) != instance {
            self.wake.iter().for_each(Notify::notify_one);
        }
    }

    fn set_trouble(&self, trouble: Option<String>) {
        let mut current = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != trouble {
            if let Some(text) = &trouble {
                tracing::info!(node = %self.node, address = %self.address, trouble = %text, "not connected");
            }
            *current = trouble;
        }
    }
}

pub(super) async fn dial(state: &State, line: Line) -> Result<(Connection, u64), String> {
    let connecting = state.connector.connect(&state.address, line.alpn(), line.profile(), CONNECT_WITHIN);
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let hello = state.gate.hello(&state.node).encode();
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi(HELLO_WITHIN).await?;
        let frame = FrameOut { kind: KIND_HELLO, meta: hello, body: Vec::new() };
        slowdb_net::write_frame(&mut send, frame, HELLO_WITHIN).await?;
        let _ = send.finish();
        slowdb_net::read_frame(&mut recv, &hello_limits()).await
    };
    let answer = exchange.await.map_err(|error| error.to_string())?;
    let answer = answer.ok_or_else(|| "it hung up without a hello".to_owned())?;
    let verdict = match answer.kind {
        KIND_REFUSAL => Err(format!("it refused us: {}", printable(&answer.meta))),
        KIND_DUPLICATE => {
            let (by, reason) = (state.node.clone(), printable(&answer.meta));
            let _ = state.events.send(PeerEvent::Duplicate { by, reason: reason.clone() }).await;
            Err(reason)
        }
        KIND_HELLO => match Hello::decode(&answer.meta) {
            Some(hello) if hello.node == state.node => admit(&state.gate, hello).await,
            Some(hello) => Err(format!("it says that it is node {}, not {}", hello.node, state.node)),
            None => Err("malformed hello: is it another version?".to_owned()),
        },
        _ => Err("it answered with something else than a hello".to_owned()),
    };
    match verdict {
        Ok(hello) => {
            // The other lanes may still lead to an earlier process of that node.
            state.found(hello.instance);
            Ok((connection, hello.instance))
        }
        Err(reason) => {
            connection.close(256, "refused");
            Err(reason)
        }
    }
}

fn printable(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).escape_debug().take(1000).collect()
}

/// Sends what is queued until the connection is lost (false) or the transport is gone (true).
async fn send_all(
    state: &State,
    line: Line,
    connection: &Connection,
    instance: u64,
    queue: &mut mpsc::UnboundedReceiver<Queued>,
) -> bool {
    let mut streams: BTreeMap<Option<u64>, StreamSender> = BTreeMap::new();
    loop {
        let queued = tokio::select! {
            queued = queue.recv() => queued,
            _ = connection.closed() => return false,
            () = state.wake[line as usize].notified() => {
                if state.instance.load(Ordering::Relaxed) == instance {
                    continue;
                }
                connection.close(256, "the other node has restarted");
                return false;
            }
        };
        let Some(Queued { group, frame, charge }) = queued else { return true };
        let stream = group.map(|group| group.0 % DATA_STREAMS);
        let sender = streams.entry(stream).or_insert_with(|| StreamSender::start(connection.clone()));
        if sender.frames.send((frame, charge)).is_err() {
            connection.close(256, "a stream failed");
            return false;
        }
    }
}

/// One stream's writer: one that is stalled does not hold up the others, nor does one that cannot be opened yet.
struct StreamSender {
    frames: mpsc::UnboundedSender<(FrameOut, Charge)>,
}

impl StreamSender {
    fn start(connection: Connection) -> Self {
        let (sender, mut frames) = mpsc::unbounded_channel::<(FrameOut, Charge)>();
        tokio::spawn(async move {
            let Ok(mut stream) = connection.open_uni(WRITE_WITHIN).await else {
                connection.close(256, "a stream cannot be opened");
                return;
            };
            while let Some((frame, charge)) = frames.recv().await {
                if slowdb_net::write_frame(&mut stream, frame, WRITE_WITHIN).await.is_err() {
                    connection.close(256, "a stream failed");
                    return;
                }
                drop(charge);
            }
        });
        StreamSender { frames: sender }
    }
}

#[cfg(test)]
mod tests;
