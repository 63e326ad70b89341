//! What a request may take of memory before it is here, over real QUIC on loopback.

use super::*;
use slowdb_net::{AcceptLimits, Connector, Endpoint, Profile, Role, Service};
use slowdb_proto::{ClientId, WriteLevel, WriteRequest, encode_request};

const ALPN: &str = "test-client/1";
/// No test waits for it to pass.
const LONG: Duration = Duration::from_secs(60);

/// A frame of a request with this much body. What is sent of it is its beginning, and no byte of the body.
fn beginning(kind: RequestKind, body_len: usize) -> Vec<u8> {
    let meta = encode_request(&Request { cluster: None, timeout_ms: 1_000, kind });
    let meta_len = meta.len();
    let body = vec![Bytes::from(vec![0; body_len])];
    let mut bytes = slowdb_net::encode(&FrameOut { kind: KIND_REQUEST, meta, body }).expect("it fits");
    bytes.truncate(slowdb_net::HEADER_LEN + meta_len);
    bytes
}

fn write() -> RequestKind {
    RequestKind::Write(WriteRequest {
        collection: "default".to_owned(),
        first_group: 1,
        shard: 0,
        level: Some(WriteLevel::Quorum),
        client: ClientId([7; 16]),
        sequence: 1,
        retry: false,
    })
}

#[tokio::test]
async fn a_body_is_refused_before_it_comes() {
    let dir = tempfile::tempdir().expect("there is room");
    let identity = slowdb_net::load_or_create(dir.path(), Role::Node).expect("certificates can be made");
    let services = [Service { alpn: ALPN, profile: Profile::Client, admits_clients: true }];
    let endpoint = Endpoint::bind("127.0.0.1:0", &identity, &services, AcceptLimits::default());
    let endpoint = endpoint.await.expect("loopback has a port");
    let address = endpoint.local_addrs()[0].to_string();
    let connector = Connector::new(&identity).expect("it has certificates");
    let theirs = connector.connect(&address, ALPN, Profile::Client, LONG).await.expect("it listens");
    let ours = endpoint.accept().await.expect("somebody connects");

    let clients = Clients::new();
    let meta_len = beginning(write(), 0).len() - slowdb_net::HEADER_LEN;
    for (code, body_len, room) in [
        (Code::TooLarge, BATCH_BYTES_MAX + 1, REQUESTS_BYTES_MAX),
        (Code::Overloaded, 1_000, meta_len + 999),
        (Code::Overloaded, 0, meta_len - 1),
    ] {
        let taken = (REQUESTS_BYTES_MAX - room) as u32;
        let others = clients.room.try_acquire_many(taken).expect("what was refused holds nothing");
        let mut send = theirs.open_uni(LONG).await.expect("streams can be opened");
        send.write_all(&beginning(write(), body_len)).await.expect("it is sent");
        let mut recv = ours.accept_uni().await.expect("it is opened");
        let refused = receive(&mut recv, &clients).await.expect("nothing is lost").expect("it is a frame");
        let (reply, _) = *refused.err().expect("it is refused");
        assert!(matches!(&reply, Reply::Error(error) if error.code == code), "{reply:?}");
        drop(others);
    }
}
