//! Connections of clients: one stream for each request, and one reply on it.

use crate::node::{Command, Node, RequestId};
use bytes::Bytes;
use slowdb_net::{Connection, FrameError, FrameLimits, FrameOut, RecvStream, SendStream};
use slowdb_proto::limits::{BATCH_BYTES_MAX, BODY_BYTES_MAX, META_BYTES_MAX, TIMEOUT_MS_MAX};
use slowdb_proto::{
    Code, ErrorReply, KIND_REPLY, KIND_REQUEST, Reply, Request, RequestKind, decode_request, encode_reply,
};
use slowdb_repl::driver::Commands;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// Bytes of requests that a node holds at a time. They count from when they are announced.
const REQUESTS_BYTES_MAX: usize = 256 * 1024 * 1024;
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
    room: Arc<Semaphore>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        let room = Arc::new(Semaphore::new(REQUESTS_BYTES_MAX));
        Clients { next: Arc::new(AtomicU64::new(1)), waiting: Arc::default(), room }
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
    let (reply, body) = match receive(&mut recv, clients).await {
        Ok(Some(Ok(received))) => handle(received, clients, commands).await,
        Ok(Some(Err(refused))) => *refused,
        Ok(None) => return Ok(()),
        Err(error @ (FrameError::Lost(_) | FrameError::GivenUp { .. })) => return Err(error),
        Err(error) => refuse(Code::BadRequest, format!("the request cannot be read: {error}")),
    };
    let frame = FrameOut { kind: KIND_REPLY, meta: encode_reply(&reply), body };
    slowdb_net::write_frame(&mut send, frame, TRANSFER_WITHIN).await?;
    let _ = send.finish();
    Ok(())
}

/// A request with the room that it takes.
struct Received<'a> {
    request: Request,
    body: Bytes,
    _held: [SemaphorePermit<'a>; 2],
}

/// Reads a request, each part once there is room for it. One that is refused is not read to its end.
async fn receive<'a>(
    recv: &mut RecvStream,
    clients: &'a Clients,
) -> Result<Option<Result<Received<'a>, Box<Answer>>>, FrameError> {
    let limits = FrameLimits {
        meta_len_max: META_BYTES_MAX as u32,
        body_len_max: BATCH_BYTES_MAX.max(BODY_BYTES_MAX) as u32,
        first_byte_within: Some(TRANSFER_WITHIN),
        rest_within: TRANSFER_WITHIN,
    };
    let Some(mut arriving) = slowdb_net::begin_frame(recv, &limits).await? else { return Ok(None) };
    if arriving.kind() != KIND_REQUEST {
        let message = format!("frames of kind {} are no requests", arriving.kind());
        return Ok(Some(Err(Box::new(refuse(Code::BadRequest, message)))));
    }
    let body_len = arriving.body_len();
    let Ok(meta_held) = clients.room.try_acquire_many(arriving.meta_len() as u32) else {
        return Ok(Some(Err(Box::new(overloaded()))));
    };
    let request = match decode_request(arriving.meta().await?) {
        Ok(request) => request,
        Err(error) => return Ok(Some(Err(Box::new(refuse(Code::BadRequest, error.to_string()))))),
    };
    let body_len_max = match &request.kind {
        RequestKind::Write(_) => BATCH_BYTES_MAX,
        _ => BODY_BYTES_MAX,
    };
    if body_len > body_len_max {
        let message = format!("the body of the request has {body_len} bytes, more than {body_len_max}");
        return Ok(Some(Err(Box::new(refuse(Code::TooLarge, message)))));
    }
    let Ok(body_held) = clients.room.try_acquire_many(body_len as u32) else {
        return Ok(Some(Err(Box::new(overloaded()))));
    };
    let body = arriving.finish().await?.body;
    Ok(Some(Ok(Received { request, body, _held: [meta_held, body_held] })))
}

async fn handle(received: Received<'_>, clients: &Clients, commands: &Commands<Node>) -> Answer {
    let Received { request, body, _held } = received;
    let wait = Duration::from_millis(u64::from(request.timeout_ms.clamp(1, TIMEOUT_MS_MAX))) + GRACE;
    let quick = matches!(&request.kind, RequestKind::Get(get) if get.ids.len() <= 64);
    let (id, answer) = clients.register(quick);
    let answered = async {
        if commands.send(Command::Request { id, request, body }).await { answer.await.ok() } else { None }
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

fn overloaded() -> Answer {
    let error = ErrorReply::new(Code::Overloaded, "too many bytes of requests wait in this node");
    (Reply::Error(ErrorReply { retry_after_ms: OVERLOADED_RETRY_MS, ..error }), Vec::new())
}

fn refuse(code: Code, message: String) -> Answer {
    (Reply::Error(ErrorReply::new(code, message)), Vec::new())
}

#[cfg(test)]
mod tests;
