//! Two transports over real QUIC on loopback: frames get there, strangers do not, and damage stays where it is.

mod transport_common;

use bytes::Bytes;
use slowdb_net::{Connector, FrameOut, LostError, Profile};
use slowdb_repl::transport::{ALPN_CONTROL, ALPN_DATA, PeerEvent};
use slowdb_repl::{Lane, NodeId};
use std::time::Duration;
use transport_common::{Bare, PATIENCE, TestGate, address, bind, data, identity, outgoing, start};

const KIND_HELLO: u16 = 16;
const KIND_REFUSAL: u16 = 17;
const KIND_MESSAGES: u16 = 18;
const WITHIN: Duration = Duration::from_secs(10);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory can be made")
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_arrive_whole_and_in_order_on_their_stream() {
    let dir = dir();
    let identity = identity(dir.path());
    let ((mut a, _), (mut b, _)) = pair(&identity, TestGate::new("a"), TestGate::new("b")).await;
    // Once these are there the connections stand, and nothing is dropped any more.
    a.reaches("b", Lane::Control, &mut b, "are you there").await;
    b.reaches("a", Lane::Control, &mut a, "yes").await;
    a.reaches("b", data(7), &mut b, "and here").await;

    for number in 0..40_u8 {
        let pieces =
            vec![Bytes::from(vec![number; 3]), Bytes::from(vec![number; usize::from(number) * 5000])];
        a.transport.send(outgoing("b", data(7), "entries", pieces));
    }
    for number in 0..40_u8 {
        let (from, meta, body) = loop {
            let frame = b.frame().await;
            if frame.1 == "entries" {
                break frame;
            }
        };
        assert_eq!((from.as_str(), &meta[..]), ("a", &b"entries"[..]));
        assert_eq!(body, vec![number; 3 + usize::from(number) * 5000], "frame {number}");
    }
}

/// More than the other side would grant streams for.
#[tokio::test(flavor = "multi_thread")]
async fn groups_by_the_thousand_share_a_connection() {
    let dir = dir();
    let identity = identity(dir.path());
    let ((mut a, _), (mut b, _)) = pair(&identity, TestGate::new("a"), TestGate::new("b")).await;
    b.reaches("a", Lane::Control, &mut a, "yes").await;
    a.reaches("b", data(0), &mut b, "and here").await;
    for group in 0..5_000_u64 {
        let number = vec![Bytes::copy_from_slice(&group.to_le_bytes())];
        a.transport.send(outgoing("b", data(group), "entries", number));
    }
    let mut missing: std::collections::BTreeSet<Vec<u8>> =
        (0..5_000_u64).map(|group| group.to_le_bytes().to_vec()).collect();
    while !missing.is_empty() {
        let (_, meta, body) = b.frame().await;
        assert!(meta != "entries" || missing.remove(&body[..]), "it is there twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_with_the_reason() {
    let dir = dir();
    let identity = identity(dir.path());
    // A is lenient, so that what is seen is B's refusal.
    let lenient = TestGate { cluster: [9; 16], strict: false, ..TestGate::new("a") };
    let ((a, _), (b, _)) = pair(&identity, lenient, TestGate::new("b")).await;
    a.trouble("b", "it refused us: another cluster").await;
    b.trouble("a", "another cluster").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_the_one_dialled_is_refused_from_both_ends() {
    let dir = dir();
    let identity = identity(dir.path());
    let (a, c) = (bind(&identity, "127.0.0.1:0").await, bind(&identity, "127.0.0.1:0").await);
    let at_c = address(&c);
    let a = start(TestGate::new("a"), a, &[("b", &at_c)]);
    let strict = start(TestGate::new("c"), c, &[]);
    a.trouble("b", "this is c, not b").await;
    drop(strict);

    // One that lets in anybody still says its own name.
    let d = bind(&identity, "127.0.0.1:0").await;
    let at_d = address(&d);
    let lenient = start(TestGate { strict: false, ..TestGate::new("d") }, d, &[]);
    let e = bind(&identity, "127.0.0.1:0").await;
    let e = start(TestGate::new("e"), e, &[("b", &at_d)]);
    e.trouble("b", "it says that it is node d, not b").await;
    drop(lenient);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_with_another_disk_is_refused_and_with_its_own_is_not() {
    let dir = dir();
    let identity = identity(dir.path());
    let ((a, at_a), (mut first, at_b)) = pair(&identity, TestGate::new("a"), TestGate::new("b")).await;
    a.reaches("b", Lane::Control, &mut first, "hello").await;
    drop(first);

    let b = rebind(&identity, &at_b).await;
    let wiped = start(TestGate { storage: [99; 16], instance: 4, ..TestGate::new("b") }, b, &[("a", &at_a)]);
    wiped.trouble("a", "it refused us: b changed its disk").await;
    a.trouble("b", "b changed its disk").await;
    drop(wiped);

    let b = rebind(&identity, &at_b).await;
    let mut again = start(TestGate { instance: 5, ..TestGate::new("b") }, b, &[("a", &at_a)]);
    a.reaches("b", Lane::Control, &mut again, "welcome back").await;
}

/// Two nodes that know each other, and their addresses.
async fn pair(identity: &slowdb_net::Identity, a: TestGate, b: TestGate) -> ((Bare, String), (Bare, String)) {
    let (at_a, at_b) = (bind(identity, "127.0.0.1:0").await, bind(identity, "127.0.0.1:0").await);
    let (of_a, of_b) = (address(&at_a), address(&at_b));
    let a = start(a, at_a, &[("b", &of_b)]);
    let b = start(b, at_b, &[("a", &of_a)]);
    ((a, of_a), (b, of_b))
}

/// The same id and the same storage, at another address.
async fn copy_of_b(identity: &slowdb_net::Identity, at_a: &str) -> Bare {
    let endpoint = bind(identity, "127.0.0.1:0").await;
    start(TestGate { instance: COPY, ..TestGate::new("b") }, endpoint, &[("a", at_a)])
}

/// The instance of the process that runs on a copy.
const COPY: u64 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_a_live_node_is_told_to_stop_and_the_first_goes_on() {
    let dir = dir();
    let identity = identity(dir.path());
    let ((mut a, at_a), (mut b, at_b)) = pair(&identity, TestGate::new("a"), TestGate::new("b")).await;
    a.reaches("b", Lane::Control, &mut b, "hello").await;
    b.reaches("a", Lane::Control, &mut a, "hello").await;

    let mut copy = copy_of_b(&identity, &at_a).await;
    let reason = copy.told_to_stop().await;
    assert!(reason.contains("node b runs already") && reason.contains(&at_b), "{reason}");
    assert!(a.transport.is_connected(&slowdb_repl::NodeId::new("b")), "the first one did not notice");
    let admitted = a.gate.admitted.lock().expect("no test thread panicked").clone();
    assert!(!admitted.contains(&COPY), "what it said of itself was remembered: {admitted:?}");
    a.reaches("b", Lane::Control, &mut b, "still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_there_first_is_told_to_stop_when_the_node_is_back_at_its_address() {
    let dir = dir();
    let identity = identity(dir.path());
    let (a, b) = (bind(&identity, "127.0.0.1:0").await, bind(&identity, "127.0.0.1:0").await);
    let (at_a, at_b) = (address(&a), address(&b));
    drop(b);
    let mut a = start(TestGate::new("a"), a, &[("b", &at_b)]);
    let mut copy = copy_of_b(&identity, &at_a).await;
    copy.reaches("a", Lane::Control, &mut a, "nobody else is b").await;

    let b = rebind(&identity, &at_b).await;
    let mut b = start(TestGate::new("b"), b, &[("a", &at_a)]);
    let reason = copy.told_to_stop().await;
    assert!(reason.contains("node b runs already"), "{reason}");
    a.reaches("b", Lane::Control, &mut b, "welcome").await;
    b.reaches("a", Lane::Control, &mut a, "thanks").await;
}

/// The port is free once the last task that holds the old endpoint is gone.
async fn rebind(identity: &slowdb_net::Identity, address: &str) -> slowdb_net::Endpoint {
    use slowdb_net::{AcceptLimits, Endpoint};
    let services = slowdb_repl::transport::services();
    let free = async {
        loop {
            match Endpoint::bind(address, identity, &services, AcceptLimits::default()).await {
                Ok(endpoint) => return endpoint,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the port gets free")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_drops_and_reports() {
    let dir = dir();
    let identity = identity(dir.path());
    let endpoint = bind(&identity, "127.0.0.1:0").await;
    // Somebody holds the port, but speaks no QUIC.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    let at_b = silent.local_addr().expect("it is bound").to_string();
    let mut a = start(TestGate::new("a"), endpoint, &[("b", &at_b)]);
    let megabyte = Bytes::from(vec![0; 1 << 20]);
    let mut sent = 0;
    let reported = loop {
        a.transport.send(outgoing("b", data(1), "entries", vec![megabyte.clone()]));
        sent += 1;
        match a.events.try_recv() {
            Ok(event) => break event,
            Err(_) => assert!(sent < 10_000, "10 GB have been queued"),
        }
    };
    assert!(matches!(reported, PeerEvent::Unreachable { node } if node.as_str() == "b"));
    // To a node that nobody knows there is nothing to queue, and nothing to report.
    a.transport.send(outgoing("nobody", data(1), "entries", Vec::new()));
    assert!(!a.transport.is_connected(&NodeId::new("nobody")));
    assert_eq!(a.transport.trouble(&NodeId::new("nobody")), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_come_stay_move_and_go() {
    let dir = dir();
    let identity = identity(dir.path());
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        endpoints.push(bind(&identity, "127.0.0.1:0").await);
    }
    let at: Vec<String> = endpoints.iter().map(address).collect();
    let mut endpoints = endpoints.into_iter();
    let mut next = |name: &str| {
        let endpoint = endpoints.next().expect("four were bound");
        start(TestGate { strict: false, ..TestGate::new(name) }, endpoint, &[])
    };
    let (a, mut b, mut c, mut moved) = (next("a"), next("b"), next("c"), next("c"));
    let peers = |peers: &[(&str, &String)]| {
        let peers: Vec<_> = peers.iter().map(|(node, at)| (NodeId::new(node), (*at).clone())).collect();
        a.transport.set_peers(&peers);
    };
    let (node_b, node_c) = (NodeId::new("b"), NodeId::new("c"));

    peers(&[("b", &at[1])]);
    a.reaches("b", Lane::Control, &mut b, "there you are").await;
    peers(&[("b", &at[1]), ("c", &at[2])]);
    assert!(a.transport.is_connected(&node_b), "that connection stays");
    a.reaches("c", Lane::Control, &mut c, "and you").await;

    peers(&[("b", &at[1]), ("c", &at[3])]);
    assert!(a.transport.is_connected(&node_b) && !a.transport.is_connected(&node_c));
    for lane in [Lane::Control, data(7), Lane::Snapshot] {
        a.reaches("c", lane, &mut moved, "at another address").await;
    }

    peers(&[("c", &at[3])]);
    assert!(!a.transport.is_connected(&node_b) && a.transport.is_connected(&node_c));
    assert_eq!(a.transport.trouble(&node_b), None);
    a.transport.send(outgoing("b", Lane::Control, "nobody is told", Vec::new()));
    a.reaches("c", Lane::Control, &mut moved, "still here").await;
    while let Ok(event) = b.events.try_recv() {
        assert!(!matches!(event, PeerEvent::Frame { meta, .. } if meta == "nobody is told"));
    }
}

/// A hello by hand, as the document describes it.
fn hello(from: &str, to: &str) -> Bytes {
    let mut out = vec![1; 16];
    out.extend_from_slice(&[2; 16]);
    out.extend_from_slice(&77_u64.to_le_bytes());
    let note = "";
    for text in [from, to, note] {
        out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    Bytes::from(out)
}

async fn dial(connector: &Connector, at: &str, alpn: &str) -> slowdb_net::Connection {
    connector.connect(at, alpn, Profile::Data, WITHIN).await.expect("the node listens")
}

/// Sends a frame as the first thing on a stream, and gives the answer.
async fn say(connection: &slowdb_net::Connection, kind: u16, meta: Bytes) -> (u16, Bytes) {
    let frame = FrameOut { kind, meta, body: Vec::new() };
    let answer = connection.call(frame, &slowdb_net::FrameLimits::default(), WITHIN).await;
    let answer = answer.expect("a hello is answered, whatever it says");
    (answer.kind, answer.meta)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_hello_is_refused() {
    let dir = dir();
    let identity = identity(dir.path());
    let endpoint = bind(&identity, "127.0.0.1:0").await;
    let at = address(&endpoint);
    let _node = start(TestGate::new("a"), endpoint, &[]);
    let connector = Connector::new(&identity).expect("a socket can be opened");
    let good = hello("b", "a");
    let mut longer = good.to_vec();
    longer.push(0);
    let no_name = hello("", "a");
    let no_note = good.slice(..good.len() - 2);
    let not_text = {
        let mut bytes = good.to_vec();
        bytes[42] = 0xff;
        Bytes::from(bytes)
    };
    let cases = [Bytes::new(), good.slice(..good.len() - 1), Bytes::from(longer), no_name, no_note, not_text];
    for (number, bad) in cases.into_iter().enumerate() {
        for alpn in [ALPN_CONTROL, ALPN_DATA] {
            let connection = dial(&connector, &at, alpn).await;
            let (kind, reason) = say(&connection, KIND_HELLO, bad.clone()).await;
            assert_eq!(kind, KIND_REFUSAL, "case {number}");
            assert!(reason.starts_with(b"malformed hello"), "case {number}: {reason:?}");
        }
    }
    let connection = dial(&connector, &at, ALPN_DATA).await;
    let (kind, _) = say(&connection, KIND_MESSAGES, good.clone()).await;
    assert_eq!(kind, KIND_REFUSAL, "messages before a hello");
    let (kind, answer) = say(&dial(&connector, &at, ALPN_DATA).await, KIND_HELLO, good).await;
    assert_eq!((kind, &answer[40..]), (KIND_HELLO, &hello("a", "b")[40..]), "and a good one is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_end_their_connection_but_not_the_node() {
    let dir = dir();
    let identity = identity(dir.path());
    let endpoint = bind(&identity, "127.0.0.1:0").await;
    let at = address(&endpoint);
    let mut node = start(TestGate::new("a"), endpoint, &[]);
    let connector = Connector::new(&identity).expect("a socket can be opened");
    let frame = |kind, meta: &'static str| FrameOut { kind, meta: Bytes::from(meta), body: Vec::new() };
    let good = slowdb_net::encode(&frame(KIND_MESSAGES, "good")).expect("it is short");
    let mut damaged = good.clone();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    let mut other_version = good.clone();
    other_version[4] = 2;
    let mut huge = good.clone();
    huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    let cut = good[..good.len() - 1].to_vec();
    for (number, bad) in [vec![0; 100], damaged, other_version, huge, cut].into_iter().enumerate() {
        let connection = dial(&connector, &at, ALPN_DATA).await;
        assert_eq!(say(&connection, KIND_HELLO, hello("b", "a")).await.0, KIND_HELLO);
        let mut stream = connection.open_uni(WITHIN).await.expect("streams can be opened");
        stream.write_all(&bad).await.expect("it is queued");
        stream.finish().expect("it was not finished before");
        let lost = tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it is closed");
        let LostError::ClosedByPeer { code, reason } = lost else { panic!("case {number}: {lost:?}") };
        assert_eq!((code, reason.as_str()), (256, "malformed frame"), "case {number}");
    }

    let connection = dial(&connector, &at, ALPN_DATA).await;
    assert_eq!(say(&connection, KIND_HELLO, hello("b", "a")).await.0, KIND_HELLO);
    let mut stream = connection.open_uni(WITHIN).await.expect("streams can be opened");
    for sent in [frame(99, "of a later version"), frame(KIND_MESSAGES, "good")] {
        slowdb_net::write_frame(&mut stream, sent, WITHIN).await.expect("it is queued");
    }
    let (from, meta, _) = node.frame().await;
    assert_eq!((from.as_str(), &meta[..]), ("b", &b"good"[..]), "an unknown kind is skipped");
}
