//! Telling the other side at once that this process has restarted.
//!
//! After a restart, packets of old connections arrive that nobody knows. QUIC's stateless reset ends those
//! connections on the other side, which would otherwise wait for the idle time-out, but only if the new process can
//! make the reset tokens of the old one. So their key is derived from what both have: the node's private key and the
//! address listened on.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The configuration of an endpoint whose resets are believed after a restart.
pub(super) fn config_for(private_key: &[u8], addr: SocketAddr) -> EndpointConfig {
    let derive = hmac::Key::new(hmac::HMAC_SHA256, private_key);
    let label = format!("slowdb stateless reset {addr}");
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&derive, label.as_bytes()).as_ref());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(|| Box::new(AnyId));
    config
}

/// Random connection ids, and no id is refused: those of the process before look like any other.
struct AnyId;

const ID_LEN: usize = 8;

impl ConnectionIdGenerator for AnyId {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_LEN];
        // Without the system's randomness there is no TLS either, so there is no connection to name.
        SystemRandom::new().fill(&mut id).expect("the system gives random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
