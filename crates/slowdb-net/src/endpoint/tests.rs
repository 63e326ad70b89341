//! Real QUIC on loopback: who gets in, what they are told, and what hostile peers can do.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::certs::{Identity, Role, load_or_create};
use crate::connection::{Connection, LostError};
use crate::frame::{FrameError, FrameLimits, FrameOut, begin_frame, encode, read_frame, write_frame};
use crate::transport::Profile;

const PEER: &str = "test-peer/1";
const CLIENT: &str = "test-client/1";
/// Long enough never to pass on a slow machine; no test waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
/// For the tests that do wait for a deadline.
const SHORT: Duration = Duration::from_millis(300);

const LIMITS: FrameLimits = FrameLimits {
    meta_len_max: 1024,
    body_len_max: 8 << 20,
    first_byte_within: Some(LONG),
    rest_within: LONG,
};

struct Cluster {
    _dir: TempDir,
    node: Identity,
    client: Identity,
}

fn cluster() -> Cluster {
    let dir = TempDir::new().unwrap();
    let [node, client] = [Role::Node, Role::Client].map(|role| load_or_create(dir.path(), role).unwrap());
    Cluster { _dir: dir, node, client }
}

async fn listen(identity: &Identity, limits: AcceptLimits) -> (Endpoint, String) {
    let services = [
        Service { alpn: PEER, profile: Profile::Data, admits_clients: false },
        Service { alpn: CLIENT, profile: Profile::Client, admits_clients: true },
    ];
    let endpoint = Endpoint::bind("127.0.0.1:0", identity, &services, limits).await.unwrap();
    let addr = endpoint.local_addrs()[0].to_string();
    (endpoint, addr)
}

async fn dial(identity: &Identity, addr: &str, alpn: &str) -> Result<Connection, ConnectError> {
    Connector::new(identity).unwrap().connect(addr, alpn, Profile::Data, LONG).await
}

async fn pair(cluster: &Cluster) -> (Endpoint, Connection, Connection) {
    let (endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let theirs = dial(&cluster.node, &addr, PEER).await.unwrap();
    let ours = endpoint.accept().await.unwrap();
    (endpoint, ours, theirs)
}

#[tokio::test]
async fn frames_go_both_ways() {
    let cluster = cluster();
    let (_endpoint, ours, theirs) = pair(&cluster).await;
    assert_eq!((ours.peer_role(), theirs.peer_role()), (Role::Node, Role::Node));
    assert_eq!((ours.alpn(), theirs.alpn()), (PEER, PEER));
    let big: Bytes = (0..5_000_000_u32).map(|nth| (nth % 251) as u8).collect();
    let body = vec![Bytes::from_static(b"small"), big.clone(), Bytes::new(), big.slice(..3000)];
    let sent = FrameOut { kind: 9, meta: Bytes::from_static(b"meta"), body };
    let whole = sent.body.concat();

    let serving = tokio::spawn(async move {
        let (mut send, mut recv) = ours.accept_bi().await.unwrap();
        while let Some(frame) = read_frame(&mut recv, &LIMITS).await.unwrap() {
            let echo = FrameOut { kind: frame.kind + 1, meta: frame.meta, body: vec![frame.body] };
            write_frame(&mut send, echo, LONG).await.unwrap();
        }
        send.finish().unwrap();
        ours
    });
    let (mut send, mut recv) = theirs.open_bi(LONG).await.unwrap();
    for _ in 0..3 {
        write_frame(&mut send, sent.clone(), LONG).await.unwrap();
        let echo = read_frame(&mut recv, &LIMITS).await.unwrap().unwrap();
        assert_eq!((echo.kind, &echo.meta[..]), (10, &b"meta"[..]));
        assert!(echo.body == whole);
        assert_eq!(echo.body.as_ptr().addr() % crate::BODY_ALIGN, 0);
    }
    send.finish().unwrap();
    assert_eq!(read_frame(&mut recv, &LIMITS).await, Ok(None), "a clean end is no error");
    serving.await.unwrap();
}

#[tokio::test]
async fn a_strangers_certificate_is_refused_on_both_sides() {
    let (home, strange) = (cluster(), cluster());
    let (_endpoint, addr) = listen(&home.node, AcceptLimits::default()).await;
    // The stranger sees first that the node is not of its authority …
    let error = dial(&strange.node, &addr, PEER).await.unwrap_err();
    assert!(matches!(error, ConnectError::Stranger { .. }), "{error}");
    // … and one that trusts our authority but is not of it is sent away by the node.
    let error = dial(&strange.node.clone().trusting(&home.node), &addr, PEER).await.unwrap_err();
    assert!(matches!(error, ConnectError::NotTrusted { .. }), "{error}");
    dial(&home.node, &addr, PEER).await.unwrap();
}

#[tokio::test]
async fn clients_get_in_only_where_clients_are_let_in() {
    let cluster = cluster();
    let (endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let error = dial(&cluster.client, &addr, PEER).await.unwrap_err();
    assert!(matches!(&error, ConnectError::NotAdmitted { reason, .. } if reason.contains(PEER)), "{error}");
    let theirs = dial(&cluster.client, &addr, CLIENT).await.unwrap();
    // The refused one was never handed out: the first to come is the client.
    let ours = endpoint.accept().await.unwrap();
    assert_eq!((ours.peer_role(), ours.alpn()), (Role::Client, CLIENT));
    assert_eq!(theirs.peer_role(), Role::Node);
    let _node_as_client = dial(&cluster.node, &addr, CLIENT).await.unwrap();
}

#[tokio::test]
async fn a_client_cannot_listen_and_nobody_believes_it() {
    let cluster = cluster();
    let services = [Service { alpn: CLIENT, profile: Profile::Client, admits_clients: true }];
    let refused = Endpoint::bind("127.0.0.1:0", &cluster.client, &services, AcceptLimits::default()).await;
    assert!(matches!(refused, Err(BindError::Tls(_))));

    // A client that listens all the same, with QUIC of its own.
    let tls = cluster.client.server_tls(vec![CLIENT.into()]).unwrap();
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(std::sync::Arc::new(crypto));
    let rogue = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = rogue.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move { rogue.accept().await.unwrap().await });
    let error = dial(&cluster.node, &addr, CLIENT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Stranger { .. }), "{error}");
    assert!(accepting.await.unwrap().is_err());
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let cluster = cluster();
    let (_endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let tls = cluster.client.tls_without_certificate(CLIENT);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut bare = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    bare.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(crypto)));
    let connection = bare.connect(addr.parse().unwrap(), "node.slowdb").unwrap().await.unwrap();
    // On this side TLS is done; the node ends it when it misses the certificate, before any stream.
    let error = connection.accept_uni().await.unwrap_err();
    assert!(error.to_string().contains("116"), "the alert `certificate required`: {error}");
}

#[tokio::test]
async fn other_protocols_are_refused_by_name() {
    let cluster = cluster();
    let (_endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let error = dial(&cluster.node, &addr, "http/3").await.unwrap_err();
    assert!(matches!(&error, ConnectError::Protocol { alpn, .. } if alpn == "http/3"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let cluster = cluster();
    let (_endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let services = [Service { alpn: PEER, profile: Profile::Data, admits_clients: false }];
    let error = Endpoint::bind(&addr, &cluster.node, &services, AcceptLimits::default()).await.unwrap_err();
    assert!(matches!(error, BindError::InUse { addr: named } if named.to_string() == addr), "{error}");
    let none = Endpoint::bind("127.0.0.1:0", &cluster.node, &[], AcceptLimits::default()).await.unwrap_err();
    assert!(matches!(none, BindError::NoService));
    let bad = Endpoint::bind("no port", &cluster.node, &services, AcceptLimits::default()).await.unwrap_err();
    assert!(matches!(bad, BindError::Resolve { .. }));
}

#[tokio::test]
async fn names_are_resolved_and_silence_has_an_end() {
    let cluster = cluster();
    let (endpoint, addr) = listen(&cluster.node, AcceptLimits::default()).await;
    let port = endpoint.local_addrs()[0].port();
    dial(&cluster.node, &format!("localhost:{port}"), PEER).await.unwrap();
    let connector = endpoint.connector();
    let error = connector.connect("localhost", PEER, Profile::Data, LONG).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");
    // A bound socket that never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = silent.local_addr().unwrap().to_string();
    let error = connector.connect(&target, PEER, Profile::Control, SHORT).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Deadline { target: named, .. } if *named == target), "{error}");
    assert_ne!(target, addr);
}

/// Handshakes that are begun and never finished must not block others.
#[tokio::test]
async fn stalled_handshakes_do_not_block_others() {
    let cluster = cluster();
    let limits = AcceptLimits { handshakes_max: 8, handshake_within: LONG, ..AcceptLimits::default() };
    let (endpoint, addr) = listen(&cluster.node, limits).await;
    let target: SocketAddr = addr.parse().unwrap();
    // First flights of real handshakes, caught by a relay that forwards nothing but them.
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let relay_addr = relay.local_addr().unwrap().to_string();
    let stalling = {
        let node = cluster.node.clone();
        tokio::spawn(async move {
            let dials = (0..4).map(|_| {
                let (node, addr) = (node.clone(), relay_addr.clone());
                tokio::spawn(async move { dial(&node, &addr, PEER).await })
            });
            dials.collect::<Vec<_>>()
        })
    };
    let dials = stalling.await.unwrap();
    let mut datagram = vec![0; 65_536];
    for _ in 0..4 {
        let (len, _) = relay.recv_from(&mut datagram).await.unwrap();
        relay.send_to(&datagram[..len], target).await.unwrap();
    }
    let theirs = dial(&cluster.node, &addr, PEER).await.unwrap();
    let ours = endpoint.accept().await.unwrap();
    assert_eq!((ours.lost(), theirs.lost()), (None, None));
    dials.into_iter().for_each(|dial| dial.abort());
}

#[tokio::test]
async fn hostile_streams_end_in_typed_errors() {
    let cluster = cluster();
    let (_endpoint, ours, theirs) = pair(&cluster).await;
    let good =
        encode(&FrameOut { kind: 1, meta: Bytes::from_static(b"m"), body: vec![Bytes::from(vec![7; 5000])] })
            .unwrap();
    let mut flipped = good.clone();
    flipped[4000] ^= 4;
    let mut oversized = good.clone();
    oversized[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    for (bytes, expected) in [
        (b"GET / HTTP/1.1\r\nHost: example\r\n\r\n".to_vec(), "not a frame"),
        (good[..20].to_vec(), "cut short: 20 of 32"),
        (good[..4000].to_vec(), "cut short: 4000 of 5033"),
        (flipped, "checksum mismatch"),
        (oversized, "4294967295 bytes long"),
    ] {
        let mut send = theirs.open_uni(LONG).await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        let mut recv = ours.accept_uni().await.unwrap();
        let error = read_frame(&mut recv, &LIMITS).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // The connection has survived all that.
    let mut send = theirs.open_uni(LONG).await.unwrap();
    send.write_all(&good).await.unwrap();
    let mut recv = ours.accept_uni().await.unwrap();
    assert!(read_frame(&mut recv, &LIMITS).await.unwrap().is_some());
    send.reset(77_u32.into()).unwrap();
    assert_eq!(read_frame(&mut recv, &LIMITS).await, Err(FrameError::GivenUp { code: 77 }));
}

#[tokio::test]
async fn a_frame_is_looked_at_before_its_body_comes() {
    let cluster = cluster();
    let (_endpoint, ours, theirs) = pair(&cluster).await;
    let sent =
        FrameOut { kind: 3, meta: Bytes::from_static(b"meta"), body: vec![Bytes::from(vec![7; 5000])] };
    let bytes = encode(&sent).unwrap();
    let (head, body) = bytes.split_at(36);
    let mut send = theirs.open_uni(LONG).await.unwrap();
    send.write_all(head).await.unwrap();
    let mut recv = ours.accept_uni().await.unwrap();
    let mut arriving = begin_frame(&mut recv, &LIMITS).await.unwrap().unwrap();
    assert_eq!((arriving.kind(), arriving.meta_len(), arriving.body_len()), (3, 4, 5000));
    assert_eq!(arriving.meta().await, Ok(&b"meta"[..]));
    send.write_all(body).await.unwrap();
    send.finish().unwrap();
    let frame = arriving.finish().await.unwrap();
    assert_eq!((&frame.meta[..], &frame.body[..]), (&b"meta"[..], &[7; 5000][..]));
    assert!(begin_frame(&mut recv, &LIMITS).await.unwrap().is_none(), "a clean end");
}

/// The body is larger than what may be under way, so the caller is still writing it when the answer comes.
#[tokio::test]
async fn a_call_that_is_not_heard_out_has_its_reply_all_the_same() {
    let cluster = cluster();
    let (_endpoint, ours, theirs) = pair(&cluster).await;
    let serving = tokio::spawn(async move {
        let (mut send, mut recv) = ours.accept_bi().await.unwrap();
        let limits = FrameLimits { body_len_max: 256 << 20, ..LIMITS };
        let arriving = begin_frame(&mut recv, &limits).await.unwrap().unwrap();
        let refusal = FrameOut { kind: arriving.kind() + 1, ..FrameOut::default() };
        write_frame(&mut send, refusal, LONG).await.unwrap();
        send.finish().unwrap();
        ours
    });
    let body = vec![Bytes::from(vec![0; 128 << 20])];
    let reply = theirs.call(FrameOut { kind: 1, meta: Bytes::new(), body }, &LIMITS, LONG).await;
    assert_eq!(reply.unwrap().kind, 2);
    serving.await.unwrap();
}

#[tokio::test]
async fn every_wait_ends() {
    let cluster = cluster();
    let (_endpoint, ours, theirs) = pair(&cluster).await;
    let short = FrameLimits { first_byte_within: Some(SHORT), rest_within: SHORT, ..LIMITS };
    let mut send = theirs.open_uni(LONG).await.unwrap();
    send.write_all(b"SLDB").await.unwrap();
    let mut recv = ours.accept_uni().await.unwrap();
    let error = read_frame(&mut recv, &short).await.unwrap_err();
    assert_eq!(error, FrameError::Deadline { doing: "reading a frame", within: SHORT });

    let (mut send, mut silent) = theirs.open_bi(LONG).await.unwrap();
    let error = read_frame(&mut silent, &short).await.unwrap_err();
    assert_eq!(error, FrameError::Deadline { doing: "waiting for a frame", within: SHORT });
    // Nobody reads: flow control stops the writer.
    let endless = FrameOut { body: vec![Bytes::from(vec![0; 256 << 20])], ..FrameOut::default() };
    let error = write_frame(&mut send, endless, SHORT).await.unwrap_err();
    assert_eq!(error, FrameError::Deadline { doing: "writing a frame", within: SHORT });
    let request = FrameOut { kind: 1, ..FrameOut::default() };
    let error = theirs.call(request, &LIMITS, SHORT).await.unwrap_err();
    assert!(error.to_string().contains("outcome unknown"), "{error}");
}

#[tokio::test]
async fn both_sides_learn_why_it_ended() {
    let cluster = cluster();
    let (endpoint, ours, theirs) = pair(&cluster).await;
    theirs.close(300, "enough");
    let because = LostError::ClosedByPeer { code: 300, reason: "enough".into() };
    assert_eq!(ours.closed().await, because);
    assert_eq!(ours.lost(), Some(because));
    assert_eq!(theirs.lost(), Some(LostError::ClosedHere));

    let addr = endpoint.local_addrs()[0].to_string();
    let theirs = dial(&cluster.node, &addr, PEER).await.unwrap();
    endpoint.close(LONG).await;
    assert!(matches!(theirs.closed().await, LostError::ClosedByPeer { code: 2, .. }));
    assert!(endpoint.accept().await.is_none() || endpoint.accept().await.is_none());
}

/// A process that dies says no farewell; the one after it on the same address speaks for it.
#[test]
fn after_a_restart_old_connections_end_at_once() {
    let cluster = cluster();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, client) = (runtime(), runtime());
    let (endpoint, addr) = first.block_on(listen(&cluster.node, AcceptLimits::default()));
    let theirs = client.block_on(dial(&cluster.node, &addr, PEER)).unwrap();
    let ours = first.block_on(endpoint.accept()).unwrap();
    // The runtime goes first, so that nothing can be sent any more.
    first.shutdown_timeout(LONG);
    drop((ours, endpoint));
    assert_eq!(theirs.lost(), None);

    let second = runtime();
    let services = [Service { alpn: PEER, profile: Profile::Data, admits_clients: false }];
    let _endpoint =
        second.block_on(Endpoint::bind(&addr, &cluster.node, &services, AcceptLimits::default())).unwrap();
    let lost = client.block_on(async {
        // Anything sent is answered; often the next keep-alive or acknowledgement was faster.
        if let Ok(mut send) = theirs.open_uni(LONG).await {
            let _ = send.write_all(&[0; 4096]).await;
        }
        theirs.closed().await
    });
    assert_eq!(lost, LostError::Forgotten);
}
