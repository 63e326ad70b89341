//! Connections of clients: one stream for each request, and one reply on it.

use crate::node::{Command, Node, RequestId};
use bytes::Bytes;
use slowdb_net::{Connection, Frame, FrameError, FrameLimits, FrameOut, RecvStream, SendStream};
use slowdb_proto::limits::{BATCH_BYTES_MAX, BODY_BYTES_MAX, META_BYTES_MAX, TIMEOUT_MS_MAX};
use slowdb_proto::{
    Code, ErrorReply, KIND_REPLY, KIND_REQUEST, Reply, RequestKind, decode_request, encode_reply,
};
use slowdb_repl::driver::Commands;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};

/// Bytes of request bodies that a node holds at a time.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A request has to arrive, and its reply to leave, in this time.
const TRANSFER_WITHIN: Duration = Duration::from_secs(30);
/// What the core answers late is waited for this much longer.
const GRACE: Duration = Duration::from_secs(1);
const OVERLOADED_RETRY_MS: u32 = 50;

type Answer = (Reply, Vec<Bytes>);

struct Waiting {
    sender: oneshot::Sender<Answer>,
    quick: bool,
}

/// Requests on their way through the core. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clients {
    next: Arc<AtomicU64>,
    waiting: Arc<Mutex<HashMap<RequestId, Waiting>>>,
    bodies: Arc<Semaphore>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        let bodies = Arc::new(Semaphore::new(BODIES_BYTES_MAX));
        Clients { next: Arc::new(AtomicU64::new(1)), waiting: Arc::default(), bodies }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, quick: bool) -> (RequestId, oneshot::Receiver<Answer>) {
        let id = RequestId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(id, Waiting { sender, quick });
        (id, receiver)
    }

    /// Answers a request; one that gave up waiting is forgotten.
    pub(crate) fn answer(&self, id: RequestId, reply: Reply, body: Vec<Bytes>) {
        let waiting = self.lock().remove(&id);
        if let Some(waiting) = waiting {
            // Whoever asked may have hung up.
            let _ = waiting.sender.send((reply, body));
        }
    }

    /// Whether somebody waits for the answer to a request.
    pub(crate) fn is_waiting(&self, id: RequestId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether a request is over in microseconds once it may run.
    pub(crate) fn is_quick(&self, id: RequestId) -> bool {
        self.lock().get(&id).is_some_and(|waiting| waiting.quick)
    }
}

/// Serves a client until it hangs up.
pub(crate) async fn serve_client(connection: Connection, clients: Clients, commands: Commands<Node>) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let (clients, commands) = (clients.clone(), commands.clone());
        tokio::spawn(async move {
            // A stream that fails concerns nobody but the client, who sees it fail.
            if let Err(error) = serve_request(send, recv, &clients, &commands).await {
                tracing::debug!(%error, "request stream ended");
            }
        });
    }
}

async fn serve_request(
    mut send: SendStream,
    mut recv: RecvStream,
    clients: &Clients,
    commands: &Commands<Node>,
) -> Result<(), FrameError> {
    let limits = FrameLimits {
        meta_len_max: META_BYTES_MAX as u32,
        body_len_max: BATCH_BYTES_MAX.max(BODY_BYTES_MAX) as u32,
        first_byte_within: Some(TRANSFER_WITHIN),
        rest_within: TRANSFER_WITHIN,
    };
    let (reply, body) = match slowdb_net::read_frame(&mut recv, &limits).await {
        Ok(Some(frame)) => handle(frame, clients, commands).await,
        Ok(None) => return Ok(()),
        Err(error @ (FrameError::Lost(_) | FrameError::GivenUp { .. })) => return Err(error),
        Err(error) => refuse(Code::BadRequest, format!("the request cannot be read: {error}")),
    };
    let frame = FrameOut { kind: KIND_REPLY, meta: encode_reply(&reply), body };
    slowdb_net::write_frame(&mut send, frame, TRANSFER_WITHIN).await?;
    let _ = send.finish();
    Ok(())
}

async fn handle(frame: Frame, clients: &Clients, commands: &Commands<Node>) -> Answer {
    if frame.kind != KIND_REQUEST {
        return refuse(Code::BadRequest, format!("frames of kind {} are no requests", frame.kind));
    }
    let request = match decode_request(&frame.meta) {
        Ok(request) => request,
        Err(error) => return refuse(Code::BadRequest, error.to_string()),
    };
    let Ok(_held) = clients.bodies.try_acquire_many(frame.body.len() as u32) else {
        let error = ErrorReply::new(Code::Overloaded, "too many bytes of requests wait in this node");
        return (Reply::Error(ErrorReply { retry_after_ms: OVERLOADED_RETRY_MS, ..error }), Vec::new());
    };
    let wait = Duration::from_millis(u64::from(request.timeout_ms.clamp(1, TIMEOUT_MS_MAX))) + GRACE;
    let quick = matches!(&request.kind, RequestKind::Get(get) if get.ids.len() <= 64);
    let (id, answer) = clients.register(quick);
    let answered = async {
        if commands.send(Command::Request { id, request, body: frame.body }).await {
            answer.await.ok()
        } else {
            None
        }
    };
    match tokio::time::timeout(wait, answered).await {
        Ok(Some(answer)) => answer,
        Ok(None) => refuse(Code::ShuttingDown, "the node is stopping".to_owned()),
        Err(_) => {
            clients.lock().remove(&id);
            refuse(Code::Timeout, "the node did not answer in time".to_owned())
        }
    }
}

fn refuse(code: Code, message: String) -> Answer {
    (Reply::Error(ErrorReply::new(code, message)), Vec::new())
}
