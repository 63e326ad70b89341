//! A simulated client: one operation at a time, redirects, retries with the same tag, patience that ends.
//!
//! It decides what to ask and whom; sending and time are the cluster's business.

mod parse;

use crate::events::{Ask, By, Conflict, Expected, Key, OpId, Outcome, Seen};
use crate::keys::Keys;
use crate::node::node_name;
use crate::options::Options;
use crate::random::Random;
use bytes::Bytes;
use parse::{parse_conflicts, parse_page, parse_records};
use slowdb_proto::limits::CONFLICT_PAGE_MAX;
use slowdb_proto::{
    ClientId, Code, ConflictsRequest, ErrorReply, Freshness, GetRequest, GroupPosition, Metric, Position,
    ReadLevel, Reply, Request, RequestKind, ScanRequest, SearchRequest, ShardPosition, WriteLevel,
    WriteRequest,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const COLLECTION: &str = "default";
/// Of the collection that is there from the start, and never dropped.
const FIRST_GROUP: u64 = 1;

/// What a client does next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Send the request that [`Client::request`] gives, and wait so long for the answer.
    Send { node: usize, within: u64 },
    /// Come back later.
    Wait { micros: u64 },
    /// The operation is over.
    Done { op: OpId, outcome: Outcome },
    /// There is nothing to do any more.
    Nothing,
}

/// Where its operations come from.
enum Source {
    /// Drawn, until it is told to stop.
    Drawn { stopped: bool },
    /// From a list.
    Script(VecDeque<Ask>),
}

/// An operation under way.
pub(crate) struct Current {
    pub(crate) op: OpId,
    pub(crate) shard: u32,
    pub(crate) ask: Ask,
    sequence: u64,
    body: Bytes,
    /// An earlier attempt may have arrived, and may take effect yet.
    uncertain: bool,
    give_up_at: u64,
    node: usize,
    /// What came of a log of conflicts so far, and where the rest begins.
    listed: Vec<Conflict>,
    from: Position,
}

pub(crate) struct Client {
    pub(crate) index: usize,
    id: ClientId,
    random: Random,
    source: Source,
    sequence: u64,
    leaders: Vec<Option<usize>>,
    /// What it last knew of each id, for writes that depend on that.
    known: BTreeMap<Key, Expected>,
    /// What it has seen of each shard.
    session: BTreeMap<u32, GroupPosition>,
    /// Own writes at `one` of each shard that no read at `session` has shown yet: the last of each term.
    alone: BTreeMap<u32, BTreeMap<u64, Position>>,
    /// Ids that it has seen siblings of.
    beside: BTreeSet<Key>,
    /// Conflicts that it knows of.
    conflicts: Vec<Conflict>,
    pub(crate) current: Option<Current>,
    /// The attempt whose answer is waited for; answers to others are late.
    pub(crate) attempt: Option<u64>,
    /// Grows with everything that the client begins to wait for.
    pub(crate) timer: u64,
}

impl Client {
    pub(crate) fn new(index: usize, options: &Options, mut random: Random) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.next().to_le_bytes());
        id[8..].copy_from_slice(&(index as u64).to_le_bytes());
        Client {
            index,
            id: ClientId(id),
            random,
            source: Source::Drawn { stopped: false },
            sequence: 0,
            leaders: vec![None; options.shards as usize],
            known: BTreeMap::new(),
            session: BTreeMap::new(),
            alone: BTreeMap::new(),
            beside: BTreeSet::new(),
            conflicts: Vec::new(),
            current: None,
            attempt: None,
            timer: 0,
        }
    }

    /// A client that asks what it is told to, one after the other.
    pub(crate) fn scripted(index: usize, options: &Options, random: Random, script: Vec<Ask>) -> Self {
        let source = Source::Script(script.into());
        Client { source, ..Client::new(index, options, random) }
    }

    /// Lets the operation under way be the last.
    pub(crate) fn finish(&mut self) {
        if let Source::Drawn { stopped } = &mut self.source {
            *stopped = true;
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        let more = match &self.source {
            Source::Drawn { stopped } => !stopped,
            Source::Script(script) => !script.is_empty(),
        };
        self.current.is_none() && !more
    }

    /// Begins the next operation; `None` if there is none.
    pub(crate) fn begin(&mut self, now: u64, op: OpId, keys: &Keys, options: &Options) -> Option<&Current> {
        let (ask, patience) = match &mut self.source {
            Source::Drawn { stopped: true } => return None,
            Source::Drawn { .. } => {
                let ask = self.draw(op, keys, options);
                (ask, self.random.between(options.patience))
            }
            Source::Script(script) => (script.pop_front()?, u64::MAX / 2),
        };
        self.sequence += 1;
        let (shard, body) = (keys.shard_of(&ask), keys.body(&ask));
        self.current = Some(Current {
            op,
            shard,
            ask,
            sequence: self.sequence,
            body,
            uncertain: false,
            give_up_at: now + patience,
            node: 0,
            listed: Vec::new(),
            from: Position::START,
        });
        self.current.as_ref()
    }

    fn draw(&mut self, op: OpId, keys: &Keys, options: &Options) -> Ask {
        let only_reads = self.index < options.readers;
        if !only_reads && let Some(ask) = self.settles(op, options) {
            return ask;
        }
        let ask = draw(&mut self.random, op, only_reads, keys, options);
        sometimes_if(&mut self.random, &self.known, ask)
    }

    /// Something about conflicts, now and then: resolves siblings that it has seen, by compare-and-set; or does what an
    /// operator does, lists a log of conflicts, and replays or discards entries.
    fn settles(&mut self, op: OpId, options: &Options) -> Option<Ask> {
        if let Some(key) = self.beside.first().copied()
            && self.random.chance(500)
        {
            self.beside.remove(&key);
            let condition = self.known.get(&key).copied();
            let writes = vec![(key, Some(value(op, 0)))];
            return condition.map(|it| Ask::Write { level: WriteLevel::Quorum, writes, condition: Some(it) });
        }
        if !self.conflicts.is_empty() && self.random.chance(500) {
            let at = self.random.index(self.conflicts.len());
            // Sometimes it forgets that it has done it.
            let done = self.random.chance(700);
            let conflict = if done { self.conflicts.swap_remove(at) } else { self.conflicts[at] };
            let replays = conflict.loser.is_some() && self.random.chance(500);
            let lost = (conflict.key, conflict.loser.flatten());
            return Some(Ask::Resolve { entry: conflict.was, lost, replays });
        }
        let lists = self.random.chance(options.resolves);
        lists.then(|| Ask::Conflicts { shard: self.random.below(u64::from(options.shards)) as u32 })
    }

    /// Sends, the first time or once more, to one of these nodes.
    pub(crate) fn send(&mut self, options: &Options, nodes: &[usize]) -> Step {
        let Some(current) = &mut self.current else { return Step::Nothing };
        let at_random = nodes[self.random.index(nodes.len())];
        let leader = self.leaders[current.shard as usize].unwrap_or(at_random);
        current.node = match current.ask {
            Ask::Read { at: Some(node), .. } => node,
            Ask::Read { level: ReadLevel::One | ReadLevel::Session, .. } => at_random,
            // Whoever follows may answer as well.
            Ask::Read { .. } | Ask::Conflicts { .. } if self.random.chance(150) => at_random,
            _ => leader,
        };
        Step::Send { node: current.node, within: self.random.between(options.attempt) }
    }

    /// The request to send, and whether it is a retry.
    pub(crate) fn request(&mut self, within: u64, names: &Keys) -> Option<(OpId, bool, Request, Bytes)> {
        let client = self.id;
        let current = self.current.as_mut()?;
        let retry = current.uncertain;
        let write = |level| {
            RequestKind::Write(WriteRequest {
                collection: COLLECTION.into(),
                first_group: FIRST_GROUP,
                shard: current.shard,
                level: Some(level),
                client,
                sequence: current.sequence,
                retry,
            })
        };
        let kind = match &current.ask {
            Ask::Write { level, .. } => write(*level),
            Ask::Resolve { .. } => write(WriteLevel::Quorum),
            Ask::Conflicts { .. } => RequestKind::Conflicts(ConflictsRequest {
                collection: COLLECTION.into(),
                first_group: FIRST_GROUP,
                shard: current.shard,
                fresh: Freshness::at(ReadLevel::Quorum),
                from: current.from,
                limit: CONFLICT_PAGE_MAX as u32,
                losers: true,
            }),
            Ask::Read { level, keys, by, .. } => {
                let seen = match level {
                    ReadLevel::Session => named(&self.session, &self.alone, current.shard),
                    ReadLevel::One | ReadLevel::Quorum => Vec::new(),
                };
                let fresh = Freshness { seen, ..Freshness::at(*level) };
                let (collection, first_group, shard) = (COLLECTION.into(), FIRST_GROUP, current.shard);
                let all = keys.len() as u32;
                match by {
                    By::Get => {
                        let ids = keys.iter().map(|key| names.name(*key).to_owned()).collect();
                        RequestKind::Get(GetRequest { collection, first_group, shard, fresh, ids })
                    }
                    By::Scan => RequestKind::Scan(ScanRequest {
                        collection,
                        first_group,
                        shard,
                        fresh,
                        prefix: String::new(),
                        after: None,
                        limit: all,
                        vectors: true,
                        payloads: true,
                    }),
                    By::Search => RequestKind::Search(SearchRequest {
                        collection,
                        first_group,
                        shards: vec![shard],
                        fresh,
                        k: all,
                        metric: Some(Metric::InnerProduct),
                    }),
                }
            }
        };
        let request = Request { cluster: None, timeout_ms: (within / 1000) as u32, kind };
        Some((current.op, retry, request, current.body.clone()))
    }

    /// No answer came in time.
    pub(crate) fn timed_out(&mut self, now: u64) -> Step {
        if let Some(current) = &mut self.current {
            current.uncertain = true;
            self.leaders[current.shard as usize] = None;
        }
        self.again(now, 0)
    }

    fn again(&mut self, now: u64, wait: u64) -> Step {
        let Some(current) = &self.current else { return Step::Nothing };
        if now + wait >= current.give_up_at {
            let known = !current.uncertain;
            return self.done(if known { Outcome::Refused(Code::Unavailable) } else { Outcome::Unknown });
        }
        Step::Wait { micros: wait }
    }

    fn done(&mut self, outcome: Outcome) -> Step {
        match self.current.take() {
            Some(current) => Step::Done { op: current.op, outcome },
            None => Step::Nothing,
        }
    }

    /// An answer to the attempt that is waited for.
    pub(crate) fn answer(
        &mut self,
        now: u64,
        reply: Reply,
        body: &[u8],
        keys: &Keys,
        options: &Options,
    ) -> Result<Step, Box<ErrorReply>> {
        let Some(current) = &mut self.current else { return Ok(Step::Nothing) };
        let outcome = match (reply, &current.ask) {
            (Reply::Written(written), Ask::Write { .. } | Ask::Resolve { .. }) => {
                self.leaders[current.shard as usize] = Some(current.node);
                let offset = written.first.offset + written.writes.saturating_sub(1);
                let position = Position { offset, ..written.first };
                see(&mut self.session, current.shard, GroupPosition { group: written.group, position });
                if matches!(current.ask, Ask::Write { level: WriteLevel::One, .. }) {
                    self.alone.entry(current.shard).or_default().insert(position.term, position);
                }
                match written.unmet.first() {
                    Some(unmet) => Outcome::Unmet { current: unmet.current },
                    None => Outcome::Written { first: written.first, durable_on: written.durable_on },
                }
            }
            (Reply::Records { at, records, siblings }, Ask::Read { keys: asked, .. }) => {
                let (seen, siblings) = parse_records(asked, &records, &siblings, body, keys)?;
                self.showed(&at);
                Outcome::Read { applied: at.applied, seen, siblings }
            }
            (Reply::Conflicts(page), Ask::Conflicts { .. }) => {
                parse_conflicts(&page, body, keys, &mut current.listed)?;
                if let Some(next) = page.next {
                    current.from = next;
                    return Ok(Step::Wait { micros: 0 });
                }
                Outcome::Conflicts { entries: std::mem::take(&mut current.listed) }
            }
            (Reply::Page { at, records, more: false }, Ask::Read { keys: asked, by: By::Scan, .. }) => {
                let seen = parse_page(asked, &records, body, keys)?;
                self.showed(&at);
                Outcome::Read { applied: at.applied, seen, siblings: Vec::new() }
            }
            (Reply::Hits { shards, missing, results, .. }, Ask::Read { keys: asked, by: By::Search, .. })
                if shards.len() == 1 && missing.is_empty() && results.len() == 1 =>
            {
                let mut values = vec![None; asked.len()];
                for hit in &results[0] {
                    values[keys.nth_of(asked, &hit.id)?] = Some(f64::from(hit.score) as u64);
                }
                self.showed(&shards[0]);
                Outcome::Found { applied: shards[0].applied, values }
            }
            (Reply::Hits { missing, .. }, Ask::Read { by: By::Search, .. }) if missing.len() == 1 => {
                return Ok(self.setback(now, &missing[0].error, options));
            }
            (Reply::Error(error), _) => return Ok(self.setback(now, &error, options)),
            (other, ask) => {
                let message = format!("{ask:?} was answered with {other:?}");
                return Err(Box::new(ErrorReply::new(Code::BadRequest, message)));
            }
        };
        self.learn(&outcome);
        Ok(self.done(outcome))
    }

    /// A read was answered as of there.
    fn showed(&mut self, at: &ShardPosition) {
        let Some(current) = &self.current else { return };
        see(&mut self.session, current.shard, GroupPosition { group: at.group, position: at.latest });
        if matches!(current.ask, Ask::Read { level: ReadLevel::Session, .. }) {
            self.alone.remove(&current.shard);
        }
    }

    /// Remembers what it was told, right or stale.
    fn learn(&mut self, outcome: &Outcome) {
        let Some(current) = &self.current else { return };
        match (&current.ask, outcome) {
            (ask, Outcome::Written { first, .. }) => {
                let (_, writes) = ask.writes().unwrap_or((WriteLevel::Quorum, &[]));
                for (offset, (key, value)) in (first.offset..).zip(writes) {
                    let position = Position { offset, ..*first };
                    let state =
                        value.map_or(Expected::Absent, |value| Expected::Record(Seen { value, position }));
                    self.known.insert(*key, state);
                }
            }
            (Ask::Read { keys, .. }, Outcome::Read { seen, siblings, .. }) => {
                let states = seen.iter().map(|seen| seen.map_or(Expected::Absent, Expected::Record));
                self.known.extend(keys.iter().copied().zip(states));
                self.beside.extend(siblings.iter().map(|(key, _)| *key));
            }
            (_, Outcome::Conflicts { entries }) => self.conflicts.clone_from(entries),
            _ => {}
        }
    }

    fn setback(&mut self, now: u64, error: &ErrorReply, options: &Options) -> Step {
        let Some(current) = &mut self.current else { return Step::Nothing };
        let nothing_happened = matches!(
            error.code,
            Code::NotLeader
                | Code::StaleRoute
                | Code::Overloaded
                | Code::Unavailable
                | Code::ShuttingDown
                | Code::Behind
                | Code::Overtaken
                | Code::LowSpace
        );
        if error.code == Code::Overtaken {
            self.session.remove(&current.shard);
            self.alone.remove(&current.shard);
        }
        current.uncertain |= !nothing_happened;
        let hint = error
            .leader
            .as_ref()
            .and_then(|name| (0..options.nodes_max()).find(|node| node_name(*node) == *name));
        self.leaders[current.shard as usize] = hint.filter(|node| *node != current.node);
        match error.code {
            Code::LevelNotReached => self.done(Outcome::StandsAtQuorum),
            Code::UnknownOutcome => self.done(Outcome::Unknown),
            code if code.is_retryable() => {
                let wait = u64::from(error.retry_after_ms) * 1000 + self.random.below(20_000);
                self.again(now, wait)
            }
            code if nothing_happened => self.done(Outcome::Refused(code)),
            _ => self.done(Outcome::Unknown),
        }
    }
}

/// What a read at `session` names.
fn named(
    session: &BTreeMap<u32, GroupPosition>,
    alone: &BTreeMap<u32, BTreeMap<u64, Position>>,
    shard: u32,
) -> Vec<GroupPosition> {
    let Some(seen) = session.get(&shard) else { return Vec::new() };
    let alone = alone.get(&shard).into_iter().flat_map(BTreeMap::values);
    let alone = alone.map(|position| GroupPosition { group: seen.group, position: *position });
    std::iter::once(*seen).chain(alone).collect()
}

/// Folds in what a reply shows.
fn see(session: &mut BTreeMap<u32, GroupPosition>, shard: u32, shown: GroupPosition) {
    let known = session.entry(shard).or_insert(shown);
    known.position = known.position.max(shown.position);
}

/// A value that no other write has.
fn value(op: OpId, at: usize) -> u64 {
    u64::from(op.0) * 16 + at as u64 + 1
}

fn draw(random: &mut Random, op: OpId, only_reads: bool, keys: &Keys, options: &Options) -> Ask {
    let shard = random.below(u64::from(options.shards)) as u32;
    let strict = random.chance(600);
    let class = keys.class(shard, strict);
    if only_reads || random.chance(400) {
        let level = match random.below(100) {
            0..55 => ReadLevel::Quorum,
            55..75 => ReadLevel::One,
            _ => ReadLevel::Session,
        };
        let by = match random.below(100) {
            0..10 => By::Scan,
            10..20 => By::Search,
            _ => By::Get,
        };
        let keys = if by == By::Get { some_of(random, class) } else { keys.of_shard(shard).to_vec() };
        return Ask::Read { level, keys, by, at: None };
    }
    let level = match random.below(100) {
        _ if strict && options.strict_at_all => WriteLevel::All,
        0..15 => WriteLevel::All,
        15..60 if !strict => WriteLevel::One,
        _ => WriteLevel::Quorum,
    };
    let keys = some_of(random, class);
    let mut write = |(at, key): (usize, &Key)| (*key, (!random.chance(200)).then(|| value(op, at)));
    let writes = keys.iter().enumerate().map(&mut write).collect();
    Ask::Write { level, writes, condition: None }
}

/// Lets some writes depend on what the client last knew.
fn sometimes_if(random: &mut Random, known: &BTreeMap<Key, Expected>, ask: Ask) -> Ask {
    match ask {
        Ask::Write { level, writes, condition: None }
            if level != WriteLevel::One && writes.len() == 1 && random.chance(300) =>
        {
            let condition = known.get(&writes[0].0).copied().or(Some(Expected::Absent));
            Ask::Write { level, writes, condition }
        }
        other => other,
    }
}

/// One id mostly, now and then several.
fn some_of(random: &mut Random, class: &[Key]) -> Vec<Key> {
    let count = if random.chance(150) { 1 + random.index(class.len()) } else { 1 };
    let first = random.index(class.len());
    (0..count).map(|at| class[(first + at) % class.len()]).collect()
}
