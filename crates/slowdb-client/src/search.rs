//! Exact search over all shards of a collection: one request for each node that answers.
//!
//! Which node answers for which shards is decided by [`crate::plan`]. Shards are answered for
//! exactly once: the shards of a request that failed, or that its answer went without, or whose leader moved
//! while it was under way, are planned again, until the deadline. There is no partial answer, unless the
//! caller says how much is enough: then it is given once every replica of the others was asked in vain.

use crate::client::Inner;
use crate::collection::{Collection, Shape, same, unknown_collection};
use crate::coverage::{MissingShard, check_coverage, suffices};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::hits;
use crate::input::{check_k, check_vector};
use crate::plan::{Places, plan};
use crate::pool::{Answer, Failure};
use crate::race::Race;
use crate::reads::{Source, fresh};
use crate::retry::Backoff;
use crate::scout::Interest;
use crate::session::Session;
use bytes::Bytes;
use slowdb_proto::limits::{ID_BYTES_MAX, META_BYTES_MAX};
use slowdb_proto::{
    Code, Hit, Metric, ReadLevel, ReplicaInfo, Reply, RequestKind, SearchRequest, ShardPosition,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;

/// Queries of one request, so that progress is seen and replies stay small.
const QUERIES_PER_REQUEST_MAX: usize = 64;
/// Chunks of queries under way at once.
const CHUNKS_IN_FLIGHT: usize = 2;
/// Without an answer for this long, replicas are asked who leads.
const PATIENCE: Duration = Duration::from_millis(100);
/// A node of which nothing at all was heard for this long, though it was asked for its map, is taken for
/// dead; one that only searches for long is not.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// How to search.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Hits for each query.
    pub k: usize,
    /// How similarity is measured; the collection's own way if not given.
    pub metric: Option<Metric>,
    /// Who may answer; the collection's own level if not given.
    pub level: Option<ReadLevel>,
    /// Share of the shards, 0 to 1, that have to answer: with less than 1 the rest may be [`SearchResults::missing`].
    pub min_coverage: f64,
    /// The client's own time-out if not given. With many queries it is for each chunk of up to 64.
    pub timeout: Option<Duration>,
}

impl Default for SearchOptions {
    fn default() -> Self {
        SearchOptions { k: 10, metric: None, level: None, min_coverage: 1.0, timeout: None }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResults {
    /// What the scores are in.
    pub metric: Metric,
    /// For each query its hits, nearest first; equal scores by id.
    pub results: Vec<Vec<Hit>>,
    /// How far each shard was applied at least when it was searched (by the first chunk of queries).
    pub shards: Vec<ShardPosition>,
    /// Shards that were not searched, for some query at least; none unless [`SearchOptions::min_coverage`] allows it.
    pub missing: Vec<MissingShard>,
}

/// One search.
pub(crate) struct Search<'a> {
    inner: &'a Arc<Inner>,
    collection: &'a str,
    session: &'a Session,
    shape: Shape,
    options: &'a SearchOptions,
    timeout: Duration,
}

/// The outcome of one request: its key in the race, who answered for which shards, and what.
struct Asked {
    id: u64,
    node: String,
    shards: Vec<u32>,
    outcome: Result<Answer, Failure>,
}

/// A request under way.
struct Flight {
    id: u64,
    race_key: u64,
    shards: Vec<u32>,
    /// Terms known when it was sent, for each shard.
    terms: Vec<u64>,
    node: String,
    sent: Instant,
    /// How often the node had answered by then.
    answers: u64,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        collection: &'a Collection,
        shape: Shape,
        options: &'a SearchOptions,
        timeout: Duration,
    ) -> Result<Self, ClientError> {
        check_k(options.k)?;
        check_coverage(options.min_coverage)?;
        let Collection { inner, name, session } = collection;
        Ok(Search { inner, collection: name, session, shape, options, timeout })
    }

    pub(crate) async fn run(&self, queries: &[f32]) -> Result<SearchResults, ClientError> {
        let dimension = self.shape.dimension;
        if queries.is_empty() || !queries.len().is_multiple_of(dimension) {
            let got = queries.len();
            let message = format!("{got} numbers are no queries: the collection has {dimension} components");
            return Err(ClientError::BadInput { code: Code::WrongDimension, message });
        }
        queries.chunks(dimension).try_for_each(|query| check_vector(query, dimension))?;
        let mut chunks = queries.chunks(queries_per_request(self.options.k) * dimension).enumerate();
        let mut race = Race::new();
        let mut done: BTreeMap<usize, SearchResults> = BTreeMap::new();
        loop {
            while race.len() < CHUNKS_IN_FLIGHT
                && let Some((nth, chunk)) = chunks.next()
            {
                race.push(async move { (nth, self.run_chunk(chunk).await) });
            }
            if race.is_empty() {
                break;
            }
            let (nth, results) = race.next().await;
            done.insert(nth, results?);
        }
        let mut done = done.into_values();
        let mut all = done.next().expect("there is at least one query");
        for next in done {
            all.results.extend(next.results);
            all.missing.extend(next.missing);
            all.shards.retain(|at| next.shards.iter().any(|other| other.shard == at.shard));
        }
        all.missing.sort_by_key(|missing| missing.shard);
        all.missing.dedup_by_key(|missing| missing.shard);
        Ok(all)
    }

    async fn run_chunk(&self, queries: &[f32]) -> Result<SearchResults, ClientError> {
        let deadline = Deadline::after(self.timeout);
        let body = Bytes::from_owner(queries.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        let mut run = Run::new(self, body, queries.len() / self.shape.dimension, deadline);
        self.inner.budget().on_request();
        let mut news = self.inner.news();
        let mut send_at = Some(deadline.start);
        let mut patience = Some(deadline.start + PATIENCE);
        loop {
            let now = Instant::now();
            if now >= deadline.at {
                return run.give_up();
            }
            if patience.is_some_and(|at| now >= at) {
                patience = None;
                run.look_around();
            }
            if send_at.is_some_and(|at| now >= at) {
                send_at = None;
                run.send()?;
            }
            let silence = run.next_silence();
            if silence.is_some_and(|at| now >= at) {
                if run.cancel_silent(now) {
                    send_at = Some(now);
                }
                continue;
            }
            let wake = [send_at, patience, silence].into_iter().flatten().fold(deadline.at, Instant::min);
            tokio::select! {
                asked = run.race.next(), if !run.race.is_empty() => {
                    if let Some(wait) = run.take(asked)? {
                        let at = Instant::now() + wait;
                        send_at = Some(self.inner.budget().take(Instant::now()).max(at));
                        run.look_around();
                    }
                    if run.open.is_empty() || run.has_enough() {
                        return Ok(run.finish());
                    }
                }
                _ = news.changed() => {
                    if run.cancel_overtaken() {
                        send_at = Some(Instant::now());
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// The level, as far as this client knows the collection's own.
    fn level(&self) -> ReadLevel {
        self.options.level.unwrap_or(self.shape.read_level)
    }

    fn request(&self, shards: Vec<u32>, deadline: Deadline) -> RequestKind {
        let source = Source { level: self.options.level, only: None, session: self.session };
        let fresh = fresh(self.inner, self.collection, &shards, source, deadline);
        RequestKind::Search(SearchRequest {
            collection: self.collection.to_owned(),
            first_group: self.shape.first_group,
            shards,
            fresh,
            k: self.options.k as u32,
            metric: self.options.metric,
        })
    }
}

/// One chunk of queries on its way.
struct Run<'a> {
    search: &'a Search<'a>,
    body: Bytes,
    queries: usize,
    deadline: Deadline,
    race: Race<'a, Asked>,
    flights: Vec<Flight>,
    next_id: u64,
    /// Shards without an answer.
    open: BTreeSet<u32>,
    /// For each query a list from each answer.
    lists: Vec<Vec<Vec<Hit>>>,
    positions: Vec<ShardPosition>,
    metric: Option<Metric>,
    /// Nodes that were asked for a shard in vain, since all its replicas had their turn.
    tried: BTreeSet<(u32, String)>,
    /// Shards all of whose replicas were asked in vain.
    exhausted: BTreeSet<u32>,
    /// Why shards gave no answer, as last heard.
    reasons: BTreeMap<u32, String>,
    failed_nodes: BTreeSet<String>,
    /// Those of them that will not answer however often they are asked.
    hopeless_nodes: BTreeSet<String>,
    backoff: Backoff,
    interest: Option<Interest>,
    last: Option<String>,
}

impl<'a> Run<'a> {
    fn new(search: &'a Search<'a>, body: Bytes, queries: usize, deadline: Deadline) -> Self {
        Run {
            search,
            body,
            queries,
            deadline,
            race: Race::new(),
            flights: Vec::new(),
            next_id: 0,
            open: (0..search.shape.num_shards).collect(),
            lists: vec![Vec::new(); queries],
            positions: Vec::new(),
            metric: None,
            tried: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            reasons: BTreeMap::new(),
            failed_nodes: BTreeSet::new(),
            hopeless_nodes: BTreeSet::new(),
            backoff: Backoff::new(&search.inner.retry),
            interest: None,
            last: None,
        }
    }

    /// Sends for all shards that are open and that nobody is answering for.
    fn send(&mut self) -> Result<(), ClientError> {
        let search = self.search;
        let inner = search.inner;
        let in_flight: BTreeSet<u32> = self.flights.iter().flat_map(|f| &f.shards).copied().collect();
        let wanted: Vec<u32> = self.open.difference(&in_flight).copied().collect();
        let groups = {
            let routes = inner.read_routes();
            same(&routes, search.collection, search.shape)?;
            let mut nearest: Vec<String> = routes.map().nodes.iter().map(|n| n.id.clone()).collect();
            inner.nearest_first(&routes, &mut nearest);
            // Nodes that failed this very search come last; and a search is no way to find out whether a node that was never heard of is there.
            nearest
                .sort_by_key(|node| (self.failed_nodes.contains(node), inner.latencies().answers(node) == 0));
            let place = Places { routes: &routes, collection: search.collection, tried: &self.tried };
            plan(&place, search.level(), &wanted, &nearest)
                .ok_or_else(|| unknown_collection(search.collection, &routes.map()))?
        };
        for (node, shards) in groups {
            let terms = shards.iter().map(|shard| self.lead_of(*shard).map_or(0, |(_, term)| term)).collect();
            let id = self.next_id;
            self.next_id += 1;
            let (request, body, deadline) =
                (search.request(shards.clone(), self.deadline), self.body.clone(), self.deadline);
            let (to, for_shards) = (node.clone(), shards.clone());
            let race_key = self.race.push(async move {
                let outcome = inner.ask(&to, request, body, deadline.left()).await;
                if let Ok(Answer { reply: Reply::Error(error), .. }) = &outcome
                    && matches!(error.code, Code::NotLeader | Code::StaleRoute)
                {
                    // The error speaks of one of many shards; the node's map says which.
                    search.correct(&to, &for_shards, deadline.left()).await;
                }
                Asked { id, node: to, shards: for_shards, outcome }
            });
            let (sent, answers) = (Instant::now(), inner.latencies().answers(&node));
            self.flights.push(Flight { id, race_key, shards, terms, node, sent, answers });
        }
        Ok(())
    }

    /// Takes an answer in; gives the wait before shards without an answer are asked for again.
    fn take(&mut self, asked: Asked) -> Result<Option<Duration>, ClientError> {
        self.flights.retain(|flight| flight.id != asked.id);
        let asked_node = asked.node.clone();
        let mut wait = Duration::ZERO;
        let reason = match asked.outcome {
            Ok(Answer { reply: Reply::Error(error), .. }) if error.code.is_retryable() => {
                wait = Duration::from_millis(u64::from(error.retry_after_ms));
                let is_elsewhere =
                    matches!(error.code, Code::NotLeader | Code::StaleRoute | Code::Overloaded);
                if !is_elsewhere {
                    self.failed_nodes.insert(asked.node.clone());
                }
                format!("{}: {error}", asked.node)
            }
            Ok(Answer { reply: Reply::Error(error), .. }) => return Err(ClientError::Refused(error)),
            Ok(Answer { reply, .. }) => match self.take_hits(&asked.shards, reply) {
                Ok(missing) if missing.is_empty() => return Ok(None),
                Ok(missing) => return self.go_without(&asked.node, missing).map(Some),
                Err(what) => {
                    let error = self.search.inner.bad_reply(&asked.node, what);
                    self.give_up_on(asked.node, &asked.shards, error)?
                }
            },
            Err(Failure::Hopeless(error)) => self.give_up_on(asked.node, &asked.shards, error)?,
            Err(Failure::NotSent(reason) | Failure::Unanswered(reason)) => {
                let reason = format!("{}: {reason}", asked.node);
                self.failed_nodes.insert(asked.node);
                reason
            }
        };
        for shard in &asked.shards {
            self.asked_in_vain(*shard, &asked_node, reason.clone());
        }
        self.last = Some(reason);
        Ok(Some(self.backoff.next(wait, &mut self.search.inner.jitter())))
    }

    /// A node answered without some of its shards: gives the wait before they are asked for elsewhere.
    fn go_without(
        &mut self,
        node: &str,
        missing: Vec<slowdb_proto::MissingShard>,
    ) -> Result<Duration, ClientError> {
        let mut wait = Duration::ZERO;
        for slowdb_proto::MissingShard { shard, error } in missing {
            if !error.code.is_retryable() {
                if self.search.options.min_coverage >= 1.0 {
                    return Err(ClientError::Refused(error));
                }
                self.exhausted.insert(shard);
            }
            wait = wait.max(Duration::from_millis(u64::from(error.retry_after_ms)));
            let reason = format!("{node}: {error}");
            self.last = Some(reason.clone());
            self.asked_in_vain(shard, node, reason);
        }
        Ok(self.backoff.next(wait, &mut self.search.inner.jitter()))
    }

    /// A node gave no answer for a shard. When all its replicas had their turn, they have another.
    fn asked_in_vain(&mut self, shard: u32, node: &str, reason: String) {
        self.reasons.insert(shard, reason);
        self.tried.insert((shard, node.to_owned()));
        let routes = self.search.inner.read_routes();
        let replicas = routes.shard(self.search.collection, shard).map_or(&[][..], |info| &info.replicas);
        if replicas.iter().all(|replica| self.tried.contains(&(shard, replica.node.clone()))) {
            self.tried.retain(|(other, _)| *other != shard);
            self.exhausted.insert(shard);
        }
    }

    /// Whether the caller is content with what is there, and there is nobody left to ask for more.
    fn has_enough(&self) -> bool {
        self.flights.is_empty() && self.open.is_subset(&self.exhausted) && self.suffices()
    }

    fn suffices(&self) -> bool {
        let all = self.search.shape.num_shards as usize;
        suffices(all - self.open.len(), all, self.search.options.min_coverage)
    }

    /// Takes hits in, and gives the shards that they are without; on an error nothing, and it says what the reply is
    /// instead.
    fn take_hits(&mut self, wanted: &[u32], reply: Reply) -> Result<Vec<slowdb_proto::MissingShard>, String> {
        let Reply::Hits { metric, shards, missing, results } = reply else {
            return Err(unexpected("a search", &reply));
        };
        let covers = |shard: &u32| {
            shards.iter().any(|position| position.shard == *shard)
                || missing.iter().any(|missing| missing.shard == *shard)
        };
        let is_same_metric = self.metric.is_none_or(|known| known == metric);
        if results.len() != self.queries || !wanted.iter().all(covers) || !is_same_metric {
            return Err(format!(
                "{} results of {} queries in other shards or another metric than asked",
                results.len(),
                self.queries
            ));
        }
        self.metric = Some(metric);
        for at in shards.iter().filter(|at| wanted.contains(&at.shard) && self.open.remove(&at.shard)) {
            self.search.session.read(at);
            self.positions.push(*at);
        }
        for (lists, hits) in self.lists.iter_mut().zip(results) {
            lists.push(hits);
        }
        Ok(missing.into_iter().filter(|missing| wanted.contains(&missing.shard)).collect())
    }

    /// A node will not answer however often it is asked: gives the reason, or the error if that was the last
    /// replica of one of the shards.
    fn give_up_on(
        &mut self,
        node: String,
        shards: &[u32],
        error: ClientError,
    ) -> Result<String, ClientError> {
        self.hopeless_nodes.insert(node.clone());
        self.failed_nodes.insert(node);
        let routes = self.search.inner.read_routes();
        let is_hopeless = |replica: &ReplicaInfo| self.hopeless_nodes.contains(&replica.node);
        let mut infos = shards.iter().filter_map(|shard| routes.shard(self.search.collection, *shard));
        if infos.any(|shard| shard.replicas.iter().all(is_hopeless)) {
            return Err(error);
        }
        Ok(error.to_string())
    }

    /// Gives up requests to leaders that were followed by newer ones. Tells whether there were any.
    fn cancel_overtaken(&mut self) -> bool {
        if self.search.level() != ReadLevel::Quorum {
            return false;
        }
        let is_overtaken = |flight: &Flight| {
            flight.shards.iter().zip(&flight.terms).any(|(shard, sent)| {
                self.lead_of(*shard).is_some_and(|(node, term)| term > *sent && node != flight.node)
            })
        };
        let overtaken: Vec<(u64, u64)> =
            self.flights.iter().filter(|f| is_overtaken(f)).map(|f| (f.id, f.race_key)).collect();
        for (id, race_key) in &overtaken {
            self.race.cancel(*race_key);
            self.flights.retain(|flight| flight.id != *id);
        }
        !overtaken.is_empty()
    }

    /// When to look for silent nodes next.
    fn next_silence(&self) -> Option<Instant> {
        self.flights.iter().map(|flight| flight.sent + SILENCE_MAX).min()
    }

    /// Gives up requests to nodes of which nothing was heard, and gives those that were heard of more time.
    /// Tells whether any was given up.
    fn cancel_silent(&mut self, now: Instant) -> bool {
        let due: Vec<Flight> = self.flights.extract_if(.., |f| now >= f.sent + SILENCE_MAX).collect();
        let mut is_any_silent = false;
        for flight in due {
            let answers = self.search.inner.latencies().answers(&flight.node);
            if answers == flight.answers {
                is_any_silent = true;
                self.race.cancel(flight.race_key);
                self.search.inner.latencies().failed(&flight.node);
                let reason = format!("{}: no answer within {SILENCE_MAX:?}", flight.node);
                for shard in &flight.shards {
                    self.asked_in_vain(*shard, &flight.node, reason.clone());
                }
                self.last = Some(reason);
                self.failed_nodes.insert(flight.node);
            } else {
                self.flights.push(Flight { sent: now, answers, ..flight });
            }
        }
        is_any_silent
    }

    fn lead_of(&self, shard: u32) -> Option<(String, u64)> {
        let routes = self.search.inner.read_routes();
        let lead = routes.lead(routes.shard(self.search.collection, shard)?.group);
        Some((lead.node?, lead.term))
    }

    fn look_around(&mut self) {
        if self.interest.is_none() {
            let nodes = {
                let routes = self.search.inner.read_routes();
                let replicas = self.open.iter().filter_map(|s| routes.shard(self.search.collection, *s));
                replicas.flat_map(|s| &s.replicas).map(|r| r.node.clone()).collect::<BTreeSet<_>>()
            };
            self.interest = Some(Interest::new(self.search.inner, nodes.into_iter().collect()));
        }
    }

    fn give_up(self) -> Result<SearchResults, ClientError> {
        if self.suffices() {
            return Ok(self.finish());
        }
        Err(ClientError::ShardUnavailable {
            collection: self.search.collection.to_owned(),
            shard: self.open.first().copied().unwrap_or_default(),
            waited_ms: self.deadline.waited_ms(),
            last: self.last,
        })
    }

    fn finish(self) -> SearchResults {
        let metric = self.metric.unwrap_or(self.search.shape.metric);
        let k = self.search.options.k;
        let results = self.lists.into_iter().map(|lists| hits::merge(metric, k, lists)).collect();
        let mut shards = self.positions;
        shards.sort_by_key(|position| position.shard);
        let reason = |shard: &u32| self.reasons.get(shard).cloned().unwrap_or_else(|| "no answer".to_owned());
        let missing = self.open.iter().map(|shard| MissingShard { shard: *shard, reason: reason(shard) });
        SearchResults { metric, results, shards, missing: missing.collect() }
    }
}

impl Search<'_> {
    /// A node was asked for shards that it does not lead or hold: takes in its map, and forgets it as the
    /// leader of what it does not claim to lead.
    async fn correct(&self, node: &str, shards: &[u32], within: Duration) {
        let known: Vec<(u64, u64)> = {
            let routes = self.inner.read_routes();
            let groups = shards.iter().filter_map(|s| routes.shard(self.collection, *s)).map(|s| s.group);
            groups.map(|group| (group, routes.lead(group).term)).collect()
        };
        let Some(map) = self.inner.refresh_from(node, within).await else { return };
        let claims = |group: u64| {
            let mut all = map.collections.iter().flat_map(|c| &c.shards);
            all.any(|s| s.group == group && s.leader.as_deref() == Some(node))
        };
        self.inner.learn(|routes| {
            let denied = known.iter().filter(|(group, _)| !claims(*group));
            denied.for_each(|(group, term)| routes.deny(*group, node, *term));
            false
        });
    }
}

/// As many as fit into a reply even if all ids are as long as they may be.
fn queries_per_request(k: usize) -> usize {
    let hit_bytes_max = ID_BYTES_MAX + 48;
    (META_BYTES_MAX / 4 * 3 / (k * hit_bytes_max)).clamp(1, QUERIES_PER_REQUEST_MAX)
}

/// What a reply is instead of the one that was asked for.
pub(crate) fn unexpected(what: &str, reply: &Reply) -> String {
    let got = match reply {
        Reply::Map(_) => "a map",
        Reply::Written(_) => "the reply to a write",
        Reply::Records { .. } => "records",
        Reply::Hits { .. } => "hits",
        Reply::Page { .. } => "a page of records",
        Reply::Counted { .. } => "a count",
        Reply::Ranges { .. } => "digests of ranges",
        Reply::Hashes { .. } => "hashes of records",
        Reply::Conflicts(_) => "conflicts",
        Reply::Status(_) => "a status",
        Reply::Joined(_) => "the reply to a node that joins",
        Reply::Cluster(_) => "a view of the cluster",
        Reply::Admin(_) => "the reply to a change of the cluster",
        Reply::Explained(_) => "an explanation",
        Reply::Error(_) => "an error",
    };
    format!("{got} to {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_fit_into_a_frame() {
        assert_eq!(queries_per_request(10), 64);
        for k in [1, 100, 1_000, 10_000] {
            let queries = queries_per_request(k);
            assert!(queries == 1 || queries * k * (ID_BYTES_MAX + 48) < META_BYTES_MAX);
        }
    }
}
