//! The bare chain that replication is measured against: client, leader, two peers, each a process of its
//! own, over the same QUIC endpoints and frames as SlowDB, and nothing else.
//!
//! A write goes to the leader, which appends it to a preallocated file and syncs, while both peers do the
//! same; it is acknowledged when the leader and one peer have synced. There is no log format, no consensus,
//! no index, no check of what arrives: what is left is the price of moving and syncing bytes.

pub mod driver;
pub mod node;

use bytes::Bytes;
use slowdb_net::{FrameLimits, FrameOut};
use std::time::Duration;

const ALPN: &str = "slowdb-chain/1";
const KIND_WRITE: u16 = 1;
const KIND_ECHO: u16 = 2;
const KIND_PEER_ECHO: u16 = 3;
const KIND_DONE: u16 = 4;
const CALL_WITHIN: Duration = Duration::from_secs(30);

fn frame(kind: u16, body: Option<Bytes>) -> FrameOut {
    FrameOut { kind, meta: Bytes::new(), body: body.into_iter().collect() }
}

fn limits() -> FrameLimits {
    FrameLimits { first_byte_within: None, ..FrameLimits::default() }
}
