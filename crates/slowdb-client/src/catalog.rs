//! Asking the catalog's leader, whoever that is by now.
//!
//! The shell around [`Course`], as [`crate::leader`] is for shards. The difference: maps name the catalog's
//! leader without a term, so of two hints neither is known to be the newer one. A node that is named, and
//! was not asked since the last wait, is asked at once; one that was is asked after the next wait. So a
//! round costs at most one request for each node, whatever nodes say of each other.

use crate::client::Inner;
use crate::course::{Course, Next};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::pool::{Answer, Failure};
use crate::race::Race;
use crate::retry::Backoff;
use crate::routes::Lead;
use crate::scout::Interest;
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_proto::{Code, ErrorReply, Reply, RequestKind};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// Without an answer for this long, all nodes are asked who leads.
const PATIENCE: Duration = Duration::from_millis(100);

/// A request for the leader of the catalog.
pub(crate) struct AtCatalog<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    /// What is asked, for error messages.
    pub(crate) what: &'a str,
    pub(crate) deadline: Deadline,
    /// Whether it may change something.
    pub(crate) is_change: bool,
}

impl AtCatalog<'_> {
    /// Runs it to its end; `read` takes the reply apart, or gives it back if it is none of this request.
    /// Also gives the node that answered.
    pub(crate) async fn run<T>(
        &self,
        request: RequestKind,
        read: impl Fn(Reply) -> Result<T, Box<Reply>>,
    ) -> Result<(String, T), ClientError> {
        let (inner, deadline) = (self.inner, self.deadline);
        inner.budget().on_request();
        let mut news = inner.news();
        let mut course = Course::default();
        let mut backoff = Backoff::new(&inner.retry);
        let mut race = Race::new();
        let mut interest = None;
        // Asked since the last wait.
        let mut asked = BTreeSet::new();
        let mut send_at = Some(deadline.start);
        let mut patience = Some(deadline.start + PATIENCE);
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
                let (lead, nodes) = self.place();
                if !is_news(&lead, &asked) {
                    asked.clear();
                }
                if let Some(node) = course.target(&lead, &nodes) {
                    asked.insert(node.clone());
                    course.sent(&node, &lead);
                    let request = request.clone();
                    race.push(async move {
                        let outcome = inner.ask(&node, request, Bytes::new(), deadline.left()).await;
                        (node, outcome)
                    });
                }
            }
            let wake = [send_at, patience].into_iter().flatten().fold(deadline.at, Instant::min);
            tokio::select! {
                (node, outcome) = race.next(), if !race.is_empty() => {
                    let next = match self.understand(&node, outcome, &read) {
                        Ok(Ok(value)) => return Ok((node, value)),
                        Ok(Err(error)) => {
                            self.take_hint(&node, &error);
                            course.refused(&node, error)
                        }
                        Err(failure) => course.failed(&node, failure, &self.place().1),
                    };
                    match next {
                        Next::Fail(error) => return Err(self.verdict(&course, error)),
                        Next::Wait => {}
                        Next::SendAfter(wait) => {
                            self.look_around(&mut interest);
                            send_at = Some(if is_news(&self.place().0, &asked) {
                                Instant::now()
                            } else {
                                let wait = backoff.next(wait, &mut inner.jitter());
                                inner.budget().take(Instant::now()).max(Instant::now() + wait)
                            });
                        }
                    }
                }
                _ = news.changed() => {
                    if !course.is_refused() && is_news(&self.place().0, &asked) {
                        send_at = Some(Instant::now());
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// The leader, if one is known that is in the map, and all nodes.
    fn place(&self) -> (Lead, Vec<String>) {
        let routes = self.inner.read_routes();
        let leader = routes.catalog_leader().filter(|node| routes.address(node).is_some());
        let nodes = routes.map().nodes.iter().map(|node| node.id.clone()).collect();
        (Lead { node: leader.map(str::to_owned), term: 0 }, nodes)
    }

    /// What a node answered: a value, an error, or nothing of sense.
    fn understand<T>(
        &self,
        node: &str,
        outcome: Result<Answer, Failure>,
        read: impl Fn(Reply) -> Result<T, Box<Reply>>,
    ) -> Result<Result<T, ErrorReply>, Failure> {
        match outcome?.reply {
            Reply::Error(error) => Ok(Err(error)),
            reply => match read(reply) {
                Ok(value) => Ok(Ok(value)),
                Err(other) => {
                    let what = unexpected("a request to the catalog's leader", &other);
                    Err(Failure::Hopeless(self.inner.bad_reply(node, what)))
                }
            },
        }
    }

    fn take_hint(&self, node: &str, error: &ErrorReply) {
        if error.code == Code::NotLeader {
            self.inner.learn(|routes| {
                routes.deny_catalog_leader(node);
                let other = error.leader.as_deref().filter(|leader| *leader != node);
                other.is_some_and(|leader| routes.learn_catalog_leader(leader, false))
            });
        }
    }

    /// From now on all nodes are asked for their maps: a leader that is new, or new in the map, is heard of.
    fn look_around(&self, interest: &mut Option<Interest>) {
        if interest.is_none() {
            *interest = Some(Interest::new(self.inner, self.place().1));
        }
    }

    /// A final error, unless it would say of a change that it failed though an earlier attempt may have been
    /// executed.
    fn verdict(&self, course: &Course, error: ClientError) -> ClientError {
        let is_never_good = matches!(&error, ClientError::Refused(reply) if reply.code == Code::BadRequest);
        if !self.is_change || !course.is_retry() || is_never_good {
            return error;
        }
        let last = Some(error.to_string());
        ClientError::OutcomeUnknown { what: self.what.to_owned(), waited_ms: self.deadline.waited_ms(), last }
    }

    fn give_up(&self, course: Course) -> ClientError {
        let (what, waited_ms) = (self.what.to_owned(), self.deadline.waited_ms());
        let (maybe_done, last) = course.give_up();
        if self.is_change && maybe_done {
            ClientError::OutcomeUnknown { what, waited_ms, last }
        } else {
            ClientError::TimedOut { what, waited_ms, last }
        }
    }
}

/// Whether a leader is known that was not asked since the last wait.
fn is_news(lead: &Lead, asked: &BTreeSet<String>) -> bool {
    lead.node.as_ref().is_some_and(|node| !asked.contains(node))
}
