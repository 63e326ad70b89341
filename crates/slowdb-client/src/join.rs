//! Asking to be let into a cluster.
//!
//! A node that joins knows some addresses, and nothing else: neither map nor cluster. Whoever it asks either
//! leads the catalog or says who does, and has a map in which that node's address is. Asking twice is safe:
//! the same node with the same storage is let in once.

use crate::deadline::Deadline;
use crate::error::{ClientError, Unreached};
use crate::pool::{Failure, Pool};
use crate::random::Jitter;
use crate::retry::{Backoff, RetryOptions};
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_net::{Connector, Identity};
use slowdb_proto::{Code, ErrorReply, JoinReply, JoinRequest, Reply, RequestKind};
use std::time::Duration;

/// Longest time for one request, so that a silent node does not use up a whole deadline.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(5);
/// Most leaders followed from one address: an election may be under way.
const HOPS_MAX: usize = 3;

/// Asks for a node to be let into the cluster that is found at `addresses` (`host:port`, asked in turn), and
/// goes on asking until it is, or for good is not, or `within` (600 s at most) is over.
///
/// # Errors
/// [`ClientError::Refused`] with the cluster's reason and what to do about it;
/// [`ClientError::CertificateRefused`] or [`ClientError::BadReply`] if that is true of every address;
/// [`ClientError::NoNodeReachable`] with the reason for each address; [`ClientError::TimedOut`] if nodes
/// answered, but none could let it in yet; [`ClientError::OutcomeUnknown`] if it may be in already: ask again.
pub async fn join(
    addresses: &[String],
    identity: &Identity,
    request: JoinRequest,
    within: Duration,
) -> Result<JoinReply, ClientError> {
    if addresses.is_empty() {
        let message = "no address of a node of the cluster to join was given".into();
        return Err(ClientError::BadInput { code: Code::BadRequest, message });
    }
    let connector =
        Connector::new(identity).map_err(|error| ClientError::Internal { message: error.to_string() })?;
    let seed = u64::from_le_bytes(*request.storage.first_chunk().expect("storage ids are longer"));
    let mut joining = Joining {
        pool: Pool::new(connector),
        seeds: addresses.iter().map(|address| Seed { address: address.clone(), last: None }).collect(),
        request,
        deadline: Deadline::after(within),
        asked_to_wait: Duration::ZERO,
        maybe_done: false,
    };
    let mut backoff = Backoff::new(&RetryOptions::default());
    let mut jitter = Jitter::new(seed);
    loop {
        if let Some(outcome) = joining.round().await {
            return outcome;
        }
        let wait = backoff.next(joining.asked_to_wait, &mut jitter);
        if joining.deadline.left() <= wait {
            return Err(joining.give_up());
        }
        tokio::time::sleep(wait).await;
    }
}

struct Joining {
    pool: Pool,
    seeds: Vec<Seed>,
    request: JoinRequest,
    deadline: Deadline,
    /// What an overloaded node asked for in the last round.
    asked_to_wait: Duration,
    /// An attempt may have been executed.
    maybe_done: bool,
}

/// An address to ask, and what came of it.
struct Seed {
    address: String,
    last: Option<No>,
}

/// Why somebody did not let it in.
#[derive(Debug)]
enum No {
    /// Not reached.
    Unreached(String),
    /// Not now.
    NotYet(ErrorReply),
    /// This address never will.
    Hopeless(ClientError),
    /// The cluster never will.
    Refused(ErrorReply),
}

impl Joining {
    /// Asks each address once; `None` if it is to be tried again.
    async fn round(&mut self) -> Option<Result<JoinReply, ClientError>> {
        self.asked_to_wait = Duration::ZERO;
        for nth in 0..self.seeds.len() {
            if matches!(self.seeds[nth].last, Some(No::Hopeless(_))) {
                continue;
            }
            if self.deadline.left().is_zero() {
                return None;
            }
            let address = self.seeds[nth].address.clone();
            match self.follow(address).await {
                Ok(reply) => return Some(Ok(reply)),
                Err(No::Refused(error)) => return Some(Err(ClientError::Refused(error))),
                Err(no) => self.seeds[nth].last = Some(no),
            }
        }
        let hopeless = |seed: &Seed| match &seed.last {
            Some(No::Hopeless(error)) => Some(error.clone()),
            _ => None,
        };
        let hopeless: Option<Vec<ClientError>> = self.seeds.iter().map(hopeless).collect();
        hopeless.and_then(|errors| errors.into_iter().next()).map(Err)
    }

    /// Asks at an address, and then whoever is said to lead.
    async fn follow(&mut self, seed: String) -> Result<JoinReply, No> {
        let mut address = seed.clone();
        let mut hops = 0;
        loop {
            let no = match self.ask(&address).await {
                Err(No::NotYet(error)) if error.code == Code::NotLeader && hops < HOPS_MAX => {
                    match self.leader_address(&address, error.leader.as_deref()).await {
                        Some(leader) if leader != address => {
                            (address, hops) = (leader, hops + 1);
                            continue;
                        }
                        _ => No::NotYet(error),
                    }
                }
                // Only that the leader is not reached in this way: the address is as good as before.
                Err(No::Hopeless(error)) if address != seed => No::Unreached(error.to_string()),
                Err(no) => no,
                Ok(reply) => return Ok(reply),
            };
            if let No::NotYet(error) = &no {
                let asked = Duration::from_millis(u64::from(error.retry_after_ms));
                self.asked_to_wait = self.asked_to_wait.max(asked);
            }
            return Err(no);
        }
    }

    /// Asks once.
    async fn ask(&mut self, address: &str) -> Result<JoinReply, No> {
        let request = RequestKind::Join(self.request.clone());
        let within = self.deadline.left().min(ATTEMPT_TIME_MAX);
        match self.pool.ask(address, None, request, Bytes::new(), within).await {
            Ok(answer) => match answer.reply {
                Reply::Joined(reply) => Ok(reply),
                Reply::Error(error) if error.code.is_retryable() => {
                    self.maybe_done |= !matches!(error.code, Code::NotLeader | Code::Overloaded);
                    Err(No::NotYet(error))
                }
                Reply::Error(error) => Err(No::Refused(error)),
                other => {
                    let what = unexpected("a request to join", &other);
                    Err(No::Hopeless(ClientError::BadReply { address: address.to_owned(), what }))
                }
            },
            Err(Failure::NotSent(reason)) => Err(No::Unreached(reason)),
            Err(Failure::Unanswered(reason)) => {
                self.maybe_done = true;
                // What is silent is dialled anew.
                self.pool.drop_silent(address);
                Err(No::Unreached(reason))
            }
            Err(Failure::Hopeless(error)) => Err(No::Hopeless(error)),
        }
    }

    /// Where the catalog's leader is, in the map of the node that named it.
    async fn leader_address(&self, address: &str, leader: Option<&str>) -> Option<String> {
        let within = self.deadline.left().min(ATTEMPT_TIME_MAX);
        let answer = self.pool.ask(address, None, RequestKind::Map, Bytes::new(), within).await.ok()?;
        let Reply::Map(map) = answer.reply else { return None };
        let leader = leader.or(map.catalog_leader.as_deref())?;
        map.nodes.iter().find(|node| node.id == leader).map(|node| node.address.clone())
    }

    fn give_up(self) -> ClientError {
        let mut tried = Vec::new();
        let mut answered = None;
        for Seed { address, last } in self.seeds {
            let reason = match last {
                None => continue,
                Some(No::Unreached(reason)) => reason,
                Some(No::Hopeless(error)) => error.to_string(),
                Some(No::NotYet(error) | No::Refused(error)) => {
                    answered = Some(format!("{address}: {error}"));
                    error.to_string()
                }
            };
            tried.push(Unreached { address, reason });
        }
        let what = format!("letting node {} into the cluster", self.request.node);
        let waited_ms = self.deadline.waited_ms();
        match (self.maybe_done, answered) {
            (false, None) => ClientError::NoNodeReachable { tried },
            (false, last) => ClientError::TimedOut { what, waited_ms, last },
            (true, last) => {
                let last = last.or_else(|| tried.pop().map(|t| format!("{}: {}", t.address, t.reason)));
                ClientError::OutcomeUnknown { what, waited_ms, last }
            }
        }
    }
}
