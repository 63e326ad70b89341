//! One connection for each node, made when it is needed, dropped when it is dead.
//!
//! A node that could not be reached is left alone for a while, which grows with each failure; meanwhile
//! requests to it fail at once with the reason, so that whoever routes can go elsewhere. No request is
//! repeated here.

use crate::deadline::Deadline;
use crate::error::{ClientError, Unreached};
use bytes::Bytes;
use slowdb_net::{
    CallError, ConnectError, Connection, Connector, FrameError, FrameLimits, FrameOut, Profile,
};
use slowdb_proto::limits::{BODY_BYTES_MAX, META_BYTES_MAX, TIMEOUT_MS_MAX};
use slowdb_proto::{
    ALPN_CLIENT, ClusterId, KIND_REPLY, KIND_REQUEST, Reply, Request, RequestKind, decode_reply,
    encode_request,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest time for one handshake, so that a silent address does not use up a whole deadline.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);
const RECONNECT_AFTER_MIN: Duration = Duration::from_millis(25);
const RECONNECT_AFTER_MAX: Duration = Duration::from_millis(500);
/// Most time that is left for an answer that a node gives when its time is over.
const WAY_BACK_MAX: Duration = Duration::from_millis(250);

/// Why a node gave no reply.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It cannot have seen the request.
    NotSent(String),
    /// It may have seen the request.
    Unanswered(String),
    /// Trying again would not help.
    Hopeless(ClientError),
}

/// A reply with its raw part, and how far away the node is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) body: Bytes,
    pub(crate) rtt: Duration,
}

pub(crate) struct Pool {
    connector: Connector,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// The connection to one address. The lock is held while connecting, so that a node is dialled once however
/// many requests wait for it.
#[derive(Default)]
struct Slot {
    state: tokio::sync::Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    connection: Option<Connection>,
    failures: u32,
    /// Not before then, and why.
    rest: Option<(Instant, Failure)>,
}

impl Pool {
    pub(crate) fn new(connector: Connector) -> Self {
        Pool { connector, slots: Mutex::default() }
    }

    /// Sends one request, and waits for its reply at most `within` and as long as a server would.
    pub(crate) async fn ask(
        &self,
        address: &str,
        cluster: Option<ClusterId>,
        kind: RequestKind,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer, Failure> {
        let deadline = Deadline::after(within);
        let within = deadline.left();
        let slot = self.slot(address);
        let connection = match tokio::time::timeout(within, self.connection(&slot, address, within)).await {
            Ok(connection) => connection?,
            Err(_) => {
                return Err(Failure::NotSent(format!(
                    "{address}: no connection within {} ms",
                    within.as_millis()
                )));
            }
        };
        let left = deadline.left();
        let timeout_ms = told(left).as_millis().clamp(1, u128::from(TIMEOUT_MS_MAX)) as u32;
        let meta = encode_request(&Request { cluster, timeout_ms, kind });
        let body = if body.is_empty() { Vec::new() } else { vec![body] };
        let frame = FrameOut { kind: KIND_REQUEST, meta, body };
        let limits = FrameLimits {
            meta_len_max: META_BYTES_MAX as u32,
            body_len_max: BODY_BYTES_MAX as u32,
            ..FrameLimits::default()
        };
        let frame = connection.call(frame, &limits, left).await.map_err(|error| {
            let text = format!("{address}: {error}");
            match error {
                CallError::NotSent(_) => Failure::NotSent(text),
                CallError::Unanswered(FrameError::TooLong { .. }) => {
                    Failure::Hopeless(bad_reply(address, text))
                }
                CallError::Unanswered(_) => Failure::Unanswered(text),
            }
        })?;
        if frame.kind != KIND_REPLY {
            let what = format!("a frame of kind {}", frame.kind);
            return Err(Failure::Hopeless(bad_reply(address, what)));
        }
        let reply = decode_reply(&frame.meta)
            .map_err(|error| Failure::Hopeless(bad_reply(address, error.to_string())))?;
        Ok(Answer { reply, body: frame.body, rtt: connection.rtt() })
    }

    /// Gives up the connection to an address that has fallen silent: what waits on it fails, and the next
    /// request dials anew.
    pub(crate) fn drop_silent(&self, address: &str) {
        // Whoever holds the lock is dialling, and needs no telling.
        if let Ok(mut state) = self.slot(address).state.try_lock()
            && let Some(connection) = state.connection.take()
        {
            tracing::debug!(address, "gave up a connection that had fallen silent");
            connection.close(0, "no answer");
        }
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().expect("no panic while the lock is held");
        if let Some(slot) = slots.get(address) {
            return Arc::clone(slot);
        }
        Arc::clone(slots.entry(address.to_owned()).or_default())
    }

    async fn connection(&self, slot: &Slot, address: &str, within: Duration) -> Result<Connection, Failure> {
        let mut state = slot.state.lock().await;
        if let Some(connection) = &state.connection {
            if connection.lost().is_none() {
                return Ok(connection.clone());
            }
            state.connection = None;
        }
        if let Some((until, why)) = &state.rest
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let alpn = std::str::from_utf8(ALPN_CLIENT).expect("a protocol name is text");
        let within = within.min(CONNECT_TIME_MAX);
        match self.connector.connect(address, alpn, Profile::Client, within).await {
            Ok(connection) => {
                *state = SlotState { connection: Some(connection.clone()), ..SlotState::default() };
                Ok(connection)
            }
            Err(error) => {
                let why = explain(address, error);
                let rest = RECONNECT_AFTER_MIN * 2u32.saturating_pow(state.failures.min(10));
                state.failures += 1;
                state.rest = Some((Instant::now() + rest.min(RECONNECT_AFTER_MAX), why.clone()));
                Err(why)
            }
        }
    }
}

/// How long a node is told to try, of the time that is left: what it has to say when that is over, such as which replicas
/// are missing, has to arrive in time as well.
fn told(left: Duration) -> Duration {
    left - (left / 8).min(WAY_BACK_MAX)
}

fn bad_reply(address: &str, what: String) -> ClientError {
    ClientError::BadReply { address: address.to_owned(), what }
}

fn explain(address: &str, error: ConnectError) -> Failure {
    let reason = error.to_string();
    let address = address.to_owned();
    match error {
        ConnectError::Stranger { .. }
        | ConnectError::NotTrusted { .. }
        | ConnectError::NotAdmitted { .. } => {
            Failure::Hopeless(ClientError::CertificateRefused { address, reason })
        }
        ConnectError::Protocol { .. } => {
            Failure::Hopeless(ClientError::NoNodeReachable { tried: vec![Unreached { address, reason }] })
        }
        _ => Failure::NotSent(reason),
    }
}
