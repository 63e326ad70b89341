//! What a lane does when its connection dies under it.

use super::*;
use slowdb_net::{AcceptLimits, Endpoint, Identity, Role};

struct Anyone;

impl Gate for Anyone {
    fn hello(&self, to: &NodeId) -> Hello {
        Hello {
            cluster: [0; 16],
            storage: [0; 16],
            instance: 1,
            node: NodeId::new("a"),
            to: to.clone(),
            note: String::new(),
        }
    }

    fn check(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }

    fn admit(&self, _hello: &Hello) -> Result<(), String> {
        Ok(())
    }
}

fn identity(dir: &std::path::Path) -> Identity {
    slowdb_net::load_or_create(&dir.join("certs"), Role::Node).expect("certificates can be made")
}

fn state(endpoint: &Endpoint, events: mpsc::Sender<PeerEvent>) -> State {
    State {
        node: NodeId::new("b"),
        address: String::new(),
        connector: endpoint.connector().clone(),
        gate: Arc::new(Anyone),
        events,
        connected: AtomicBool::new(false),
        trouble: Mutex::new(None),
        instance: AtomicU64::new(1),
        incoming: Mutex::default(),
        wake: [Notify::new(), Notify::new(), Notify::new()],
    }
}

/// Both ends of a connection of an endpoint to itself.
struct Ends {
    state: State,
    connection: Connection,
    _accepted: Option<Connection>,
    _events: mpsc::Receiver<PeerEvent>,
    _dir: tempfile::TempDir,
    _endpoint: Endpoint,
}

async fn connected() -> Ends {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let identity = identity(dir.path());
    let services = super::super::services();
    let endpoint = Endpoint::bind("127.0.0.1:0", &identity, &services, AcceptLimits::default());
    let endpoint = endpoint.await.expect("loopback can be bound");
    let address = endpoint.local_addrs()[0].to_string();
    let (events, event_queue) = mpsc::channel(8);
    let state = state(&endpoint, events);
    let dialled = endpoint.connector().connect(&address, ALPN_DATA, Profile::Data, CONNECT_WITHIN);
    let (connection, accepted) = tokio::join!(dialled, endpoint.accept());
    let connection = connection.expect("loopback can be dialled");
    Ends { state, connection, _accepted: accepted, _events: event_queue, _dir: dir, _endpoint: endpoint }
}

/// A frame that was taken from the queue when its connection turned out to be dead has left the queue: were it
/// counted for ever, the queue would in time be full of nothing, and the other node never hear from us again.
#[tokio::test(flavor = "multi_thread")]
async fn frames_lost_with_their_connection_make_room_again() {
    let ends = connected().await;
    let (state, connection) = (&ends.state, &ends.connection);
    connection.close(256, "for the test");

    let (sender, mut receiver) = mpsc::unbounded_channel();
    let queue = Queue { sender, bytes: Arc::default(), bytes_max: 1000 };
    // Which of the two is noticed first, the frame or the end of the connection, is left to chance: both happen.
    for round in 0..64 {
        let frame = FrameOut { kind: 0, meta: Bytes::new(), body: Vec::new() };
        assert!(queue.push(Some(GroupId(1)), frame, 600), "round {round}: the queue is full of nothing");
        assert!(!send_all(state, Line::Data, connection, 1, &mut receiver).await);
        while receiver.try_recv().is_ok() {}
        // It may be with the writer of its stream, which notices too.
        let given_back = async {
            while queue.bytes.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        };
        let given_back = tokio::time::timeout(Duration::from_secs(60), given_back).await;
        assert!(given_back.is_ok(), "round {round}: the queue holds what is lost");
    }
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_but_lets_one_large_frame_pass() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let queue = Queue { sender, bytes: Arc::default(), bytes_max: 1000 };
    let frame = || FrameOut { kind: 0, meta: Bytes::new(), body: Vec::new() };
    assert!(queue.push(None, frame(), 5000), "alone, or it would never pass");
    assert!(!queue.push(None, frame(), 1));
    drop(receiver.try_recv());
    assert!(queue.push(None, frame(), 999));
    assert!(queue.push(None, frame(), 1));
    assert!(!queue.push(None, frame(), 1), "1001 bytes");
}

/// One lane reached the new process of a restarted node; the other one still leads to the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_heard_of_on_one_lane_wakes_the_other() {
    let ends = connected().await;
    let (state, connection) = (&ends.state, &ends.connection);

    let (_sender, mut receiver) = mpsc::unbounded_channel();
    state.heard_of(1);
    state.heard_of(2);
    let sending = send_all(state, Line::Data, connection, 1, &mut receiver);
    let over = tokio::time::timeout(Duration::from_secs(60), sending).await;
    assert_eq!(over, Ok(false), "it goes on talking to a process that is gone");
    assert_eq!(connection.lost(), Some(slowdb_net::LostError::ClosedHere));
}
