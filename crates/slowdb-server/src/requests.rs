//! Requests from clients: checked, routed, proposed, answered.

use crate::catalog::CATALOG;
use crate::dedup::WriteResult;
use crate::gap::Held;
use crate::machine::Outcome;
use crate::node::{Effect, Node, RequestId};
use crate::pending::{Pending, PendingWrite, ReadPlan};
use crate::read::Page;
use crate::shard::WriteOutcome;
use crate::space::takes_space;
use bytes::Bytes;
use slowdb_proto::limits::{
    BATCH_BYTES_MAX, CONFLICT_PAGE_MAX, GET_IDS_MAX, ID_BYTES_MAX, SCAN_RECORDS_MAX, SEARCH_K_MAX,
    SEARCH_QUERIES_MAX, SHARDS_MAX, TIMEOUT_MS_MAX,
};
use slowdb_proto::{
    ClusterMap, Code, CollectionInfo, ConflictsRequest, CountRequest, ErrorReply, Freshness, GetRequest,
    HashesRequest, Metric, Ops, OpsError, ReadLevel, Reply, Request, RequestKind, ScanRequest, SearchRequest,
    ShardInfo, WriteLevel, WriteReply,
};
#[cfg(feature = "canary")]
use slowdb_proto::{Position, Unmet};
use slowdb_repl::{AckLevel, Event, Failure, GroupId, NodeId, Now, Proposal, Token};
use slowdb_storage::RANGES;
use std::sync::Arc;

/// When to come back to an overloaded node, in milliseconds.
const OVERLOADED_RETRY_MS: u32 = 20;
/// When to come back to a node that cannot answer yet, in milliseconds.
const UNAVAILABLE_RETRY_MS: u32 = 50;

// What clients may send, an entry of the log can hold, with what goes with it.
const _: () = assert!(BATCH_BYTES_MAX + (64 << 10) <= slowdb_repl::ENTRY_BYTES_MAX);

impl Node {
    /// Takes a request; it is answered exactly once.
    pub(crate) fn request(&mut self, now: Now, id: RequestId, request: Request, body: Bytes) {
        let deadline = now.micros + u64::from(request.timeout_ms.clamp(1, TIMEOUT_MS_MAX)) * 1000;
        let taken = self.check_cluster(&request).and_then(|()| match request.kind {
            RequestKind::Map => {
                let map = self.map()?;
                self.reply(id, Reply::Map(map));
                Ok(())
            }
            RequestKind::Status => {
                let status = self.status(now);
                self.reply(id, Reply::Status(Box::new(status)));
                Ok(())
            }
            RequestKind::Join(join) => self.ask_join(now, id, join),
            RequestKind::Cluster => {
                let view = self.cluster_view(now)?;
                self.reply(id, Reply::Cluster(Box::new(view)));
                Ok(())
            }
            RequestKind::Admin(admin) => self.ask_admin(now, id, admin),
            RequestKind::Explain(explain) => {
                let lines = self.explain(&explain)?;
                self.reply(id, Reply::Explained(lines));
                Ok(())
            }
            RequestKind::Write(write) => self.write(Held { id, write, body, deadline }),
            RequestKind::Get(get) => self.get(id, get, deadline),
            RequestKind::Search(search) => self.search(id, &search, &body, deadline),
            RequestKind::Scan(scan) => self.scan(id, scan, deadline),
            RequestKind::Count(count) => self.count(id, count, deadline),
            RequestKind::Hashes(hashes) => self.hashes(id, hashes, deadline),
            RequestKind::Conflicts(asked) => self.conflict_page(id, &asked, deadline),
        });
        if let Err(error) = taken {
            self.reply(id, Reply::Error(*error));
        }
    }

    pub(crate) fn reply(&mut self, id: RequestId, reply: Reply) {
        self.effects.push(Effect::Reply { id, reply, body: Vec::new() });
    }

    fn check_cluster(&self, request: &Request) -> Answer<()> {
        let ours = self.catalog().and_then(|catalog| catalog.cluster);
        match (request.cluster, ours) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(error(
                Code::WrongCluster,
                format!("the request is for cluster {theirs}, this node belongs to cluster {ours}"),
            )),
            _ => Ok(()),
        }
    }

    /// Where everything is, with leaders as this node knows them.
    fn map(&self) -> Answer<ClusterMap> {
        let founded = self.catalog().and_then(|catalog| Some((catalog, catalog.cluster?)));
        let Some((catalog, cluster)) = founded else {
            return Err(self.not_founded());
        };
        let infos = self.hosting.collections.values();
        let mut collections: Vec<CollectionInfo> = infos.map(|info| (**info).clone()).collect();
        for shard in collections.iter_mut().flat_map(|collection| &mut collection.shards) {
            if let Some((leader, term)) = self.repl.leader(GroupId(shard.group)) {
                shard.leader = leader.map(|leader| leader.as_str().to_owned());
                shard.term = term;
            }
        }
        let nodes = catalog.nodes.iter().map(|node| node.to_info()).collect();
        let catalog_leader = self.repl.leader(CATALOG).and_then(|(leader, _)| leader);
        Ok(ClusterMap {
            cluster,
            epoch: catalog.epoch,
            answered_by: self.name.clone(),
            catalog_leader: catalog_leader.map(|leader| leader.as_str().to_owned()),
            nodes,
            collections,
        })
    }

    pub(crate) fn not_founded(&self) -> Box<ErrorReply> {
        let founding = self.setup.own.get().founding;
        let names: Vec<&str> = founding.nodes.iter().map(|(node, _)| node.as_str()).collect();
        let message = format!(
            "node {} is not part of a cluster yet: it waits for a majority of {}",
            self.name,
            names.join(", ")
        );
        let retry_after_ms = UNAVAILABLE_RETRY_MS;
        Box::new(ErrorReply { retry_after_ms, ..ErrorReply::new(Code::Unavailable, message) })
    }

    /// The collection that a request means: the one of this name, if that is the one whose first shard has this group.
    fn collection(&self, name: &str, first_group: u64) -> Answer<Arc<CollectionInfo>> {
        let Some(catalog) = self.catalog().filter(|catalog| catalog.cluster.is_some()) else {
            return Err(self.not_founded());
        };
        let known = self.hosting.collections.get(name);
        let own = known.and_then(|collection| collection.first_group());
        if own == Some(first_group)
            && let Some(collection) = known
        {
            return Ok(Arc::clone(collection));
        }
        let message = match own {
            _ if first_group >= catalog.next_group => {
                format!("node {} has not heard of group {first_group} yet: its catalog is behind", self.name)
            }
            Some(own) => format!(
                "the collection '{name}' is another one than was meant: it begins with group {own}, not {first_group}"
            ),
            None => {
                let names: Vec<&str> = catalog.collections.iter().map(|c| c.name.as_str()).collect();
                let message = format!("no collection is called '{name}'; there is: {}", names.join(", "));
                return Err(error(Code::UnknownCollection, message));
            }
        };
        Err(self.placed(Code::StaleRoute, message))
    }

    /// A shard of a collection; whether this node has a replica of it is another question.
    fn shard_info<'a>(&self, collection: &'a CollectionInfo, shard: u32) -> Answer<&'a ShardInfo> {
        collection.shards.get(shard as usize).ok_or_else(|| {
            let count = collection.shards.len();
            error(
                Code::BadRequest,
                format!(
                    "there is no shard {shard}: collection '{}' has shards 0 to {}",
                    collection.name,
                    count - 1
                ),
            )
        })
    }

    /// The group of a shard, if this node has a replica of it.
    fn hosted(&self, collection: &CollectionInfo, shard: u32) -> Answer<GroupId> {
        let group = GroupId(self.shard_info(collection, shard)?.group);
        self.hosted_group(shard, group)?;
        Ok(group)
    }

    /// Fails if this node has no replica of a group, or none that knows what is in it.
    pub(crate) fn hosted_group(&self, shard: u32, group: GroupId) -> Answer<()> {
        let membership = self.repl.membership(group);
        // A replica that waits for its first snapshot would pass nothing off for everything.
        if membership.is_some_and(|membership| membership.member(membership.own).is_some()) {
            return Ok(());
        }
        let all = self.hosting.collections.values().flat_map(|collection| &collection.shards);
        let nodes = all.filter(|info| info.group == group.0).flat_map(|info| &info.replicas);
        let nodes: Vec<&str> = nodes.map(|replica| replica.node.as_str()).collect();
        Err(error(
            Code::StaleRoute,
            format!("node {} has no replica of shard {shard}; nodes {} have", self.name, nodes.join(", ")),
        ))
    }

    pub(crate) fn write(&mut self, asked: Held) -> Answer<()> {
        let collection = self.collection(&asked.write.collection, asked.write.first_group)?;
        let group = self.hosted(&collection, asked.write.shard)?;
        let Some(Held { id, write, body, deadline }) = self.gaps.hold(group, asked) else { return Ok(()) };
        if !self.repl.leads(group) {
            return Err(self.failure(group, Failure::NotLeader));
        }
        if self.is_stopping() {
            return Err(error(Code::ShuttingDown, format!("node {} is stopping", self.name)));
        }
        let ops = Ops::check(&body, collection.dimension).map_err(|problem| ops_error(&problem))?;
        let shards = collection.shards.len() as u32;
        if let Some(stray) =
            ops.iter().find(|op| slowdb_ring::shard_of(op.id().as_bytes(), shards) != write.shard)
        {
            let home = slowdb_ring::shard_of(stray.id().as_bytes(), shards);
            return Err(error(
                Code::BadRequest,
                format!("id '{}' belongs to shard {home}, not {}", shorten(stray.id()), write.shard),
            ));
        }
        if ops.iter().any(|op| takes_space(&op)) {
            self.check_space(group)?;
        }
        let asked = collection.settings.write_at(write.level);
        let asked = asked.map_err(|why| error(Code::BadRequest, why))?;
        if asked == WriteLevel::One
            && let Some(op) = ops.iter().find(|op| op.depends())
        {
            return Err(error(
                Code::BadRequest,
                format!(
                    "the write to '{}' depends on what is there, and at level one a later leader may come to another \
                     result: write it at quorum or all",
                    shorten(op.id())
                ),
            ));
        }
        #[cfg(feature = "canary")]
        if crate::canary::is_planted(crate::canary::Canary::ConditionByLeader) {
            let shard = self.repl.machine(group).and_then(crate::machine::Machine::shard);
            let unmet = (0..).zip(ops.iter()).find_map(|(write, op)| {
                let current = shard?.version(op.id());
                (!op.condition()?.holds(current)).then_some(Unmet { write, current })
            });
            if let Some(unmet) = unmet {
                let (first, writes, unmet) = (Position::START, ops.writes(), vec![unmet]);
                let reply = WriteReply {
                    first,
                    writes,
                    replaced: Some(0),
                    unmet,
                    durable_on: 1,
                    replicas: 1,
                    group: group.0,
                };
                self.reply(id, Reply::Written(reply));
                return Ok(());
            }
        }
        let writes = ops.writes();
        let level = match asked {
            // Whether an earlier attempt was executed is known when it is applied.
            WriteLevel::One if write.retry => AckLevel::Quorum,
            WriteLevel::One => AckLevel::One,
            WriteLevel::Quorum => AckLevel::Quorum,
            WriteLevel::All => AckLevel::All,
        };
        let token = Pending::token(id);
        let proposal = Proposal {
            token,
            level,
            retry: write.retry,
            writes,
            client: write.client.0,
            sequence: write.sequence,
            body,
            deadline,
        };
        self.repl.propose(group, proposal).map_err(|why| self.failure(group, why))?;
        let again_at_one = asked == WriteLevel::One && write.retry;
        self.pending.writes.insert(token, PendingWrite { writes, group, again_at_one });
        Ok(())
    }

    fn get(&mut self, id: RequestId, get: GetRequest, deadline: u64) -> Answer<()> {
        let collection = self.collection(&get.collection, get.first_group)?;
        let group = GroupId(self.shard_info(&collection, get.shard)?.group);
        if get.ids.len() > GET_IDS_MAX {
            return Err(error(
                Code::TooLarge,
                format!("{} ids in one request, more than {GET_IDS_MAX}", get.ids.len()),
            ));
        }
        if let Some(bad) = get.ids.iter().find(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
            return Err(error(
                Code::BadId,
                format!("an id of {} bytes: an id has 1 to {ID_BYTES_MAX} bytes", bad.len()),
            ));
        }
        let level = read_level(&collection, &get.fresh)?;
        let plan = ReadPlan::Get { shard: get.shard, group, ids: get.ids };
        self.read(id, plan, level, &get.fresh, deadline)
    }

    fn scan(&mut self, id: RequestId, scan: ScanRequest, deadline: u64) -> Answer<()> {
        let collection = self.collection(&scan.collection, scan.first_group)?;
        let group = GroupId(self.shard_info(&collection, scan.shard)?.group);
        let limit = scan.limit as usize;
        if limit == 0 || limit > SCAN_RECORDS_MAX {
            let message = format!("a page of {limit} records: it has to be from 1 to {SCAN_RECORDS_MAX}");
            return Err(error(Code::BadRequest, message));
        }
        check_prefix(&scan.prefix)?;
        let ScanRequest { prefix, after, vectors, payloads, .. } = scan;
        let page = Page { prefix, after, limit, vectors, payloads };
        let level = read_level(&collection, &scan.fresh)?;
        self.read(id, ReadPlan::Scan { shard: scan.shard, group, page }, level, &scan.fresh, deadline)
    }

    fn count(&mut self, id: RequestId, count: CountRequest, deadline: u64) -> Answer<()> {
        let collection = self.collection(&count.collection, count.first_group)?;
        let group = GroupId(self.shard_info(&collection, count.shard)?.group);
        check_prefix(&count.prefix)?;
        let level = read_level(&collection, &count.fresh)?;
        let plan = ReadPlan::Count { shard: count.shard, group, prefix: count.prefix };
        self.read(id, plan, level, &count.fresh, deadline)
    }

    fn hashes(&mut self, id: RequestId, hashes: HashesRequest, deadline: u64) -> Answer<()> {
        let collection = self.collection(&hashes.collection, hashes.first_group)?;
        let group = GroupId(self.shard_info(&collection, hashes.shard)?.group);
        if let Some(range) = hashes.ranges.iter().find(|range| usize::from(**range) >= RANGES) {
            let message = format!("there is no range {range}: ids are in ranges 0 to {}", RANGES - 1);
            return Err(error(Code::BadRequest, message));
        }
        let level = read_level(&collection, &hashes.fresh)?;
        let plan = ReadPlan::Hashes { shard: hashes.shard, group, ranges: hashes.ranges };
        self.read(id, plan, level, &hashes.fresh, deadline)
    }

    fn conflict_page(&mut self, id: RequestId, asked: &ConflictsRequest, deadline: u64) -> Answer<()> {
        let collection = self.collection(&asked.collection, asked.first_group)?;
        let group = GroupId(self.shard_info(&collection, asked.shard)?.group);
        let limit = asked.limit as usize;
        if limit == 0 || limit > CONFLICT_PAGE_MAX {
            let message = format!("a page of {limit} entries: it has to be from 1 to {CONFLICT_PAGE_MAX}");
            return Err(error(Code::BadRequest, message));
        }
        let (shard, from, losers) = (asked.shard, asked.from, asked.losers);
        let level = read_level(&collection, &asked.fresh)?;
        self.read(
            id,
            ReadPlan::Conflicts { shard, group, from, limit, losers },
            level,
            &asked.fresh,
            deadline,
        )
    }

    fn search(&mut self, id: RequestId, search: &SearchRequest, body: &[u8], deadline: u64) -> Answer<()> {
        let collection = self.collection(&search.collection, search.first_group)?;
        if search.shards.len() > SHARDS_MAX as usize {
            return Err(error(
                Code::TooLarge,
                format!("{} shards are named, more than {SHARDS_MAX}", search.shards.len()),
            ));
        }
        let mut shards = Vec::new();
        for shard in &search.shards {
            shards.push((*shard, GroupId(self.shard_info(&collection, *shard)?.group)));
        }
        shards.sort_unstable();
        shards.dedup();
        if shards.is_empty() {
            return Err(error(Code::BadRequest, "the search names no shard"));
        }
        let k = search.k as usize;
        if k == 0 || k > SEARCH_K_MAX {
            return Err(error(Code::BadRequest, format!("k is {k}: it has to be from 1 to {SEARCH_K_MAX}")));
        }
        let metric = search.metric.unwrap_or(collection.metric);
        let queries = check_queries(body, collection.dimension, metric)?;
        let dimension = collection.dimension as usize;
        let level = read_level(&collection, &search.fresh)?;
        let plan = ReadPlan::Search { shards, queries, dimension, k, metric };
        self.read(id, plan, level, &search.fresh, deadline)
    }

    /// A replica is gone: what waits for it is answered.
    pub(crate) fn fail_requests_of(&mut self, group: GroupId) {
        let writes = self.pending.writes.iter().filter(|(_, write)| write.group == group);
        let waiting: Vec<Token> = writes.map(|(token, _)| *token).collect();
        for token in waiting {
            self.answer(Event::Failed { token, group, why: Failure::LeaderChanged });
        }
        self.fail_reads_of(group);
    }

    /// What the replicator says of a request that waits.
    pub(crate) fn answer(&mut self, event: Event<Outcome>) {
        match event {
            Event::Acked { token, first, outcome, durable_on, members } => {
                let Some(write) = self.pending.writes.remove(&token) else { return };
                let reply = |first, replaced, unmet| {
                    let (writes, replicas, group) = (write.writes, members, write.group.0);
                    Reply::Written(WriteReply { first, writes, replaced, unmet, durable_on, replicas, group })
                };
                let reply = match outcome {
                    // Nothing depends on a condition at `one`: what did not take effect came late, and lost.
                    Some(Outcome::Write(WriteOutcome::Done(WriteResult { unmet, .. })))
                        if write.again_at_one && !unmet.is_empty() =>
                    {
                        Reply::Error(ErrorReply::new(Code::Lost, lost(unmet.len(), write.writes)))
                    }
                    Some(Outcome::Write(WriteOutcome::Done(WriteResult { first, replaced, unmet }))) => {
                        reply(first, Some(replaced), unmet)
                    }
                    Some(Outcome::Write(WriteOutcome::Forgotten)) => Reply::Error(ErrorReply::new(
                        Code::UnknownOutcome,
                        "the write was retried after it had been forgotten: whether an earlier attempt took \
                         effect cannot be told, and it was not executed again. Read the ids to find out",
                    )),
                    // Of late writes, which nobody waits for, too.
                    Some(Outcome::Catalog(_) | Outcome::Write(WriteOutcome::NoRoom)) | None => {
                        reply(first, None, Vec::new())
                    }
                };
                self.reply(Pending::request(token), reply);
            }
            Event::Stands { token, group, first, outcome, durable_on, members, missing } => {
                let Some(write) = self.pending.writes.get(&token) else { return };
                let unmet = match &outcome {
                    Outcome::Write(WriteOutcome::Done(result)) => result.unmet.len(),
                    _ => 0,
                };
                let has_outcome = matches!(outcome, Outcome::Write(WriteOutcome::Done(_)));
                if !has_outcome || unmet == write.writes as usize {
                    // Nothing was changed, so there is nothing that others could lack.
                    let outcome = Some(outcome);
                    return self.answer(Event::Acked { token, first, outcome, durable_on, members });
                }
                self.pending.writes.remove(&token);
                let mut reply = self.failure(group, Failure::LevelNotReached { missing: Vec::new() });
                reply.message = stands(&missing, unmet);
                self.reply(Pending::request(token), Reply::Error(*reply));
            }
            Event::Failed { token, group, why } => {
                let why = self.failure(group, why);
                if self.pending.writes.remove(&token).is_some() {
                    self.reply(Pending::request(token), Reply::Error(*why));
                } else {
                    self.decide(token, group, Err(why));
                }
            }
            Event::ReadReady { token, group } => self.decide(token, group, Ok(())),
            Event::Leader { .. }
            | Event::Members { .. }
            | Event::Forwarded { .. }
            | Event::DigestDiffers { .. }
            | Event::Halted { .. } => {}
        }
    }

    /// A failure in the words of the wire, with where to go.
    pub(crate) fn failure(&self, group: GroupId, why: Failure) -> Box<ErrorReply> {
        let (leader, term) = self.repl.leader(group).unwrap_or_default();
        let leader = leader.map(|leader| leader.as_str().to_owned());
        let known =
            leader.as_deref().map_or("nobody at present".to_owned(), |leader| format!("node {leader}"));
        let (code, message, retry_after_ms) = match why {
            Failure::NotLeader => {
                (Code::NotLeader, format!("node {} does not lead {group}; {known} does", self.name), 0)
            }
            Failure::Overloaded => (
                Code::Overloaded,
                format!("node {} has too much waiting for {group}", self.name),
                OVERLOADED_RETRY_MS,
            ),
            Failure::TooLarge { bytes, limit } => (
                Code::TooLarge,
                format!(
                    "it takes {bytes} bytes of an entry of the log, which holds {limit}: send less at a time"
                ),
                0,
            ),
            Failure::LeaderChanged => (
                Code::LeaderChanged,
                format!("leadership of {group} was lost while the write was under way; {known} leads now"),
                0,
            ),
            Failure::Timeout => (
                Code::Timeout,
                format!("{group} did not answer in time: a majority of its replicas may be out of reach"),
                0,
            ),
            Failure::LevelNotReached { missing } => (Code::LevelNotReached, stands(&missing, 0), 0),
            Failure::Halted => {
                let why = self.halted.get(&group).map_or("", String::as_str);
                (Code::StorageFailed, format!("{group} is halted on node {}: {why}", self.name), 0)
            }
        };
        let placed = self.placed(code, message);
        Box::new(ErrorReply { leader, term, retry_after_ms, ..*placed })
    }

    /// An error with the epoch of this node's map.
    pub(crate) fn placed(&self, code: Code, message: String) -> Box<ErrorReply> {
        let epoch = self.catalog().map_or(0, |catalog| catalog.epoch);
        Box::new(ErrorReply { epoch, ..ErrorReply::new(code, message) })
    }
}

/// What is to be said of a batch of which an earlier attempt came late, and so many writes lost.
fn lost(lost: usize, writes: u32) -> String {
    format!(
        "an earlier attempt was overtaken by a failover, and {lost} of its {writes} writes lost against what was there: \
         they changed nothing, and the conflict log keeps them"
    )
}

/// What is to be said of a write that was not confirmed by all.
fn stands(missing: &[NodeId], unmet: usize) -> String {
    let missing: Vec<&str> = missing.iter().map(NodeId::as_str).collect();
    let but = match unmet {
        0 => String::new(),
        unmet => format!(" (but for {unmet} whose conditions did not hold)"),
    };
    format!("the write stands at quorum{but}, but is not confirmed by: {}", missing.join(", "))
}

pub(crate) type Answer<T> = Result<T, Box<ErrorReply>>;

pub(crate) fn error(code: Code, message: impl Into<String>) -> Box<ErrorReply> {
    Box::new(ErrorReply::new(code, message))
}

fn ops_error(problem: &OpsError) -> Box<ErrorReply> {
    let code = match problem {
        OpsError::IdEmpty { .. } | OpsError::IdTooLong { .. } | OpsError::IdNotUtf8 { .. } => Code::BadId,
        OpsError::WrongDimension { .. } => Code::WrongDimension,
        OpsError::NotFinite { .. } => Code::NotFinite,
        OpsError::PayloadTooLarge { .. } | OpsError::TooManyWrites | OpsError::TooManyBytes { .. } => {
            Code::TooLarge
        }
        OpsError::Empty | OpsError::Malformed { .. } => Code::BadRequest,
    };
    error(code, problem.to_string())
}

fn check_prefix(prefix: &str) -> Answer<()> {
    if prefix.len() > ID_BYTES_MAX {
        let message = format!("a prefix of {} bytes: an id has at most {ID_BYTES_MAX}", prefix.len());
        return Err(error(Code::BadId, message));
    }
    Ok(())
}

/// The level of a read: the one that it names, or the collection's.
fn read_level(collection: &CollectionInfo, fresh: &Freshness) -> Answer<ReadLevel> {
    collection.settings.read_at(fresh.level).map_err(|why| error(Code::BadRequest, why))
}

fn check_queries(body: &[u8], dimension: u32, metric: Metric) -> Answer<Vec<f32>> {
    let stride = dimension as usize * 4;
    if body.is_empty() || !body.len().is_multiple_of(stride) {
        return Err(error(
            Code::WrongDimension,
            format!(
                "{} components of queries are no whole number of vectors of dimension {dimension}",
                body.len() / 4
            ),
        ));
    }
    let count = body.len() / stride;
    if count > SEARCH_QUERIES_MAX {
        return Err(error(
            Code::TooLarge,
            format!("{count} queries in one request, more than {SEARCH_QUERIES_MAX}"),
        ));
    }
    let (words, _) = body.as_chunks::<4>();
    let queries: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    if let Some(at) = queries.iter().position(|x| !x.is_finite()) {
        return Err(error(
            Code::NotFinite,
            format!(
                "component {} of query {} is {}: all must be finite numbers",
                at % dimension as usize,
                at / dimension as usize,
                queries[at]
            ),
        ));
    }
    let zero = |query: &[f32]| query.iter().all(|x| *x == 0.0);
    if metric == Metric::Cosine
        && let Some(at) = queries.chunks_exact(dimension as usize).position(zero)
    {
        return Err(error(
            Code::BadRequest,
            format!("query {at} is zero: it has no direction to compare by cosine"),
        ));
    }
    Ok(queries)
}

fn shorten(id: &str) -> String {
    id.chars().take(80).collect()
}
