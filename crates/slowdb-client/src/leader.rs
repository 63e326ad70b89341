//! Asking a shard's leader, whoever that is by now.
//!
//! The shell around [`Course`]: it sends, and waits for whatever comes first of an answer, news of another
//! leader, the time for another attempt, and the deadline. An attempt that is given up for a newer leader
//! goes on being awaited: whichever succeeds first wins.

use crate::client::Inner;
use crate::collection::{Shape, same};
use crate::course::{Course, Next};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::pool::{Answer, Failure};
use crate::race::Race;
use crate::retry::Backoff;
use crate::routes::Lead;
use crate::scout::Interest;
use bytes::Bytes;
use slowdb_proto::{Code, ErrorReply, Reply, RequestKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// Without an answer for this long, other replicas are asked who leads.
const PATIENCE: Duration = Duration::from_millis(100);

/// A request for the leader of one shard.
pub(crate) struct AtLeader<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) collection: &'a str,
    pub(crate) shape: Shape,
    pub(crate) shard: u32,
    pub(crate) deadline: Deadline,
    pub(crate) is_write: bool,
    /// The only node to be asked, if it is not to be any replica.
    pub(crate) only: Option<&'a str>,
}

struct Place {
    group: u64,
    replicas: Vec<String>,
    lead: Lead,
}

impl AtLeader<'_> {
    /// Runs it to its end. `request` makes the request, told whether an earlier attempt may have arrived;
    /// `read` takes the answer apart, or says what it is instead of one.
    pub(crate) async fn run<T>(
        &self,
        request: impl Fn(bool) -> RequestKind,
        body: Bytes,
        read: impl Fn(Answer) -> Result<T, String>,
    ) -> Result<T, ClientError> {
        let deadline = self.deadline;
        let start = Instant::now();
        let inner = self.inner;
        inner.budget().on_request();
        let mut news = inner.news();
        let mut course = Course::default();
        let mut backoff = Backoff::new(&inner.retry);
        let mut race = Race::new();
        let mut interest = None;
        let mut send_at = Some(start);
        let mut patience = Some(start + PATIENCE);
        loop {
            let now = Instant::now();
            if now >= deadline.at {
                return Err(self.give_up(course));
            }
            if patience.is_some_and(|at| now >= at) {
                patience = None;
                self.look_around(&mut interest);
            }
            if send_at.is_some_and(|at| now >= at) {
                send_at = None;
                match self.place() {
                    Ok(place) => {
                        if let Some(node) = course.target(&place.lead, &place.replicas) {
                            let request = request(course.is_retry());
                            course.sent(&node, &place.lead);
                            let (body, term) = (body.clone(), place.lead.term);
                            race.push(async move {
                                let outcome = inner.ask(&node, request, body, deadline.left()).await;
                                (node, term, outcome)
                            });
                        }
                    }
                    Err(error) => {
                        if let Next::Fail(error) = course.end(error) {
                            return Err(self.verdict(&course, error));
                        }
                    }
                }
            }
            let wake = [send_at, patience].into_iter().flatten().fold(deadline.at, Instant::min);
            tokio::select! {
                (node, term, outcome) = race.next(), if !race.is_empty() => {
                    let next = match self.understand(&node, outcome, &read) {
                        Ok(Ok(value)) => return Ok(value),
                        Ok(Err(error)) => {
                            self.take_hint(&node, term, &error);
                            course.refused(&node, error)
                        }
                        Err(failure) => course.failed(&node, failure, &self.replicas()),
                    };
                    match next {
                        Next::Fail(error) => return Err(self.verdict(&course, error)),
                        Next::Wait => {}
                        Next::SendAfter(asked) => {
                            self.look_around(&mut interest);
                            let wait = backoff.next(asked, &mut inner.jitter());
                            send_at = Some(self.paid(Instant::now() + wait));
                            if self.is_news(&course) {
                                send_at = Some(Instant::now());
                            }
                        }
                    }
                }
                _ = news.changed() => {
                    if self.is_news(&course) {
                        send_at = Some(Instant::now());
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// What a node answered: a value, an error, or nothing of sense.
    fn understand<T>(
        &self,
        node: &str,
        outcome: Result<Answer, Failure>,
        read: impl Fn(Answer) -> Result<T, String>,
    ) -> Result<Result<T, ErrorReply>, Failure> {
        match outcome? {
            Answer { reply: Reply::Error(error), .. } => Ok(Err(error)),
            answer => match read(answer) {
                Ok(value) => Ok(Ok(value)),
                Err(what) => Err(Failure::Hopeless(self.inner.bad_reply(node, what))),
            },
        }
    }

    /// A final error, unless it would say of a write that it failed though an earlier attempt may have been
    /// executed.
    fn verdict(&self, course: &Course, error: ClientError) -> ClientError {
        let says_so = |error: &ClientError| match error {
            ClientError::Refused(reply) => {
                matches!(reply.code, Code::UnknownOutcome | Code::LevelNotReached | Code::Lost)
            }
            _ => false,
        };
        if !self.is_write || !course.is_retry() || says_so(&error) {
            return error;
        }
        ClientError::OutcomeUnknown {
            what: self.what(),
            waited_ms: self.deadline.waited_ms(),
            last: Some(error.to_string()),
        }
    }

    fn what(&self) -> String {
        format!("writing to shard {} of '{}'", self.shard, self.collection)
    }

    fn look_around(&self, interest: &mut Option<Interest>) {
        if interest.is_none() {
            let nodes = match self.only {
                Some(only) => vec![only.to_owned()],
                None => self.replicas(),
            };
            *interest = Some(Interest::new(self.inner, nodes));
        }
    }

    /// Whether a leader is known that is newer than all that were asked, or that the collection is gone.
    fn is_news(&self, course: &Course) -> bool {
        self.place().map_or(true, |place| course.is_news(&place.lead))
    }

    /// Whoever may be asked; nobody, if the collection is gone.
    fn replicas(&self) -> Vec<String> {
        self.place().map_or_else(|_| Vec::new(), |place| place.replicas)
    }

    /// When a retry that is wanted at `at` can be had.
    fn paid(&self, at: Instant) -> Instant {
        self.inner.budget().take(Instant::now()).max(at)
    }

    fn place(&self) -> Result<Place, ClientError> {
        let routes = self.inner.read_routes();
        let collection = same(&routes, self.collection, self.shape)?;
        let shard = collection.shards.get(self.shard as usize).ok_or_else(|| self.no_such_shard())?;
        let asked = |node: &String| self.only.is_none_or(|only| only == node);
        Ok(Place {
            group: shard.group,
            replicas: shard.replicas.iter().map(|r| r.node.clone()).filter(asked).collect(),
            lead: routes.lead(shard.group),
        })
    }

    /// The shard's group, and the nodes that have a replica of it, learners among them.
    pub(crate) fn group_and_replicas(&self) -> Result<(u64, Vec<String>), ClientError> {
        self.place().map(|place| (place.group, place.replicas))
    }

    fn no_such_shard(&self) -> ClientError {
        let (name, shards) = (self.collection, self.shape.num_shards);
        let last = shards.saturating_sub(1);
        let message = format!("there is no shard {}: '{name}' has 0 to {last}", self.shard);
        ClientError::BadInput { code: Code::NotFound, message }
    }

    fn take_hint(&self, node: &str, term: u64, error: &ErrorReply) {
        // A node without a replica leads nothing either, whatever was known of it.
        if !matches!(error.code, Code::NotLeader | Code::StaleRoute) {
            return;
        }
        let Ok(Place { group, .. }) = self.place() else { return };
        self.inner.learn(|routes| {
            routes.deny(group, node, term);
            match &error.leader {
                Some(leader) if leader != node => routes.learn_lead(group, leader, error.term),
                _ => false,
            }
        });
    }

    fn give_up(&self, course: Course) -> ClientError {
        let waited_ms = self.deadline.waited_ms();
        let (maybe_done, last) = course.give_up();
        match (self.is_write, maybe_done) {
            (true, true) => ClientError::OutcomeUnknown { what: self.what(), waited_ms, last },
            (true, false) => ClientError::TimedOut { what: self.what(), waited_ms, last },
            (false, _) => ClientError::ShardUnavailable {
                collection: self.collection.to_owned(),
                shard: self.shard,
                waited_ms,
                last,
            },
        }
    }
}

/// Asking any replica of a shard, nearest first: the next one when one fails, or is slow.
pub(crate) async fn any_replica<T>(
    at: &AtLeader<'_>,
    request: impl Fn() -> RequestKind,
    read: impl Fn(Answer) -> Result<T, String>,
) -> Result<T, ClientError> {
    let deadline = at.deadline;
    at.inner.budget().on_request();
    let mut backoff = Backoff::new(&at.inner.retry);
    let mut race = Race::new();
    let mut course = Course::default();
    let mut interest = None;
    let mut queue: Vec<String> = Vec::new();
    let mut asked: Vec<String> = Vec::new();
    let mut send_at = Instant::now();
    loop {
        let now = Instant::now();
        if now >= deadline.at {
            return Err(at.give_up(course));
        }
        if now >= send_at {
            if queue.is_empty() && !course.is_refused() {
                // All had their turn. Those that failed have another one, beside those that are only slow.
                queue = at.place()?.replicas;
                queue.retain(|node| !asked.contains(node));
                at.inner.nearest_first(&at.inner.read_routes(), &mut queue);
                queue.reverse();
            }
            if let Some(node) = queue.pop() {
                // Slow ones come last the next time; an answer mends that.
                asked.iter().for_each(|slow: &String| at.inner.latencies().failed(slow));
                asked.push(node.clone());
                course.sent(&node, &Lead::default());
                let request = request();
                race.push(async move {
                    let outcome = at.inner.ask(&node, request, Bytes::new(), deadline.left()).await;
                    (node, outcome)
                });
            } else {
                at.look_around(&mut interest);
            }
            // The next one if this one is slow.
            send_at = now + PATIENCE;
        }
        tokio::select! {
            (node, outcome) = race.next(), if !race.is_empty() => {
                asked.retain(|pending| *pending != node);
                let next = match at.understand(&node, outcome, &read) {
                    Ok(Ok(value)) => return Ok(value),
                    Ok(Err(error)) => course.refused(&node, error),
                    Err(failure) => course.failed(&node, failure, &at.place()?.replicas),
                };
                match next {
                    Next::Fail(error) => return Err(error),
                    // There is another replica: no wait.
                    _ if !queue.is_empty() => send_at = Instant::now(),
                    Next::SendAfter(asked) => {
                        at.look_around(&mut interest);
                        let wait = backoff.next(asked, &mut at.inner.jitter());
                        send_at = at.paid(Instant::now() + wait);
                    }
                    Next::Wait => at.look_around(&mut interest),
                }
            }
            () = sleep_until(send_at.min(deadline.at).into()) => {}
        }
    }
}
