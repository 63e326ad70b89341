//! Asking another node for a record, as a client would.

use crate::mend::Fetch;
use bytes::Bytes;
use slowdb_net::{Connector, FrameLimits, FrameOut, Profile};
use slowdb_proto::limits::{BODY_BYTES_MAX, META_BYTES_MAX};
use slowdb_proto::{
    ALPN_CLIENT, KIND_REPLY, KIND_REQUEST, Reply, Request, RequestKind, decode_reply, encode_request,
};
use std::time::Duration;

/// How long it has to accept a connection, and then to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// Asks another node for a record. Who does not answer as it should is not asked again; it is found again if that matters.
pub(crate) async fn fetched(connector: &Connector, address: &str, fetch: Fetch) -> Option<(Reply, Bytes)> {
    let alpn = std::str::from_utf8(ALPN_CLIENT).unwrap_or_default();
    let connection = connector.connect(address, alpn, Profile::Client, WITHIN).await.ok()?;
    let timeout_ms = WITHIN.as_millis() as u32;
    let meta = encode_request(&Request { cluster: None, timeout_ms, kind: RequestKind::Get(fetch.get) });
    let frame = FrameOut { kind: KIND_REQUEST, meta, body: Vec::new() };
    let limits = FrameLimits {
        meta_len_max: META_BYTES_MAX as u32,
        body_len_max: BODY_BYTES_MAX as u32,
        ..FrameLimits::default()
    };
    let frame = connection.call(frame, &limits, WITHIN).await.ok()?;
    connection.close(0, "it has answered");
    let reply = (frame.kind == KIND_REPLY).then(|| decode_reply(&frame.meta).ok())??;
    Some((reply, frame.body))
}
