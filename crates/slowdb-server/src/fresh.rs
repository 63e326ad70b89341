//! When a read may be answered: the levels, what it waits for, and which of its shards it goes without.
//!
//! A read waits for each of its shards on its own, at `quorum` for the leader's word, at `session` until what the caller
//! has seen is applied here. It runs when none is waited for any more, on those that can be read. A read of one shard
//! that cannot be read is answered with why.

use crate::conflicts::Entries;
use crate::machine::Machine;
use crate::node::{Effect, Node, RequestId};
use crate::pending::{Pending, PendingRead, ReadPlan};
use crate::read::{ReadWork, ShardReader};
use crate::requests::{Answer, error};
use crate::shard::ShardMachine;
use slowdb_proto::limits::SHARDS_MAX;
use slowdb_proto::{
    Code, ConflictPage, ErrorReply, Freshness, GroupPosition, MissingShard, Position, ReadLevel, Reply,
    ShardPosition,
};
use slowdb_repl::{Failure, GroupId, Standing, Token};
use std::collections::{BTreeMap, BTreeSet};

/// Planted bug: what a session has seen is not looked at.
#[cfg(feature = "canary")]
fn sessions_are_believed() -> bool {
    crate::canary::is_planted(crate::canary::Canary::SessionNotAwaited)
}

#[cfg(not(feature = "canary"))]
fn sessions_are_believed() -> bool {
    false
}

/// Most reads that wait for something to be applied, times shards.
const SESSION_WAITS_MAX: usize = 65_536;
/// When to come back to an overloaded node, in milliseconds.
const OVERLOADED_RETRY_MS: u32 = 20;

/// Reads that wait until shards are applied further.
#[derive(Default)]
pub(crate) struct SessionWaits {
    groups: BTreeMap<GroupId, GroupWaits>,
    count: usize,
}

#[derive(Default)]
struct GroupWaits {
    /// How far the shard was applied when it was last looked at.
    looked_at: Position,
    /// What is waited for, by index.
    wanted: BTreeMap<(u64, Token), Position>,
}

impl SessionWaits {
    fn add(&mut self, group: GroupId, token: Token, wanted: Position) {
        let waits = self.groups.entry(group).or_default();
        waits.looked_at = Position::START;
        self.count += usize::from(waits.wanted.insert((wanted.index, token), wanted).is_none());
    }

    fn remove(&mut self, group: GroupId, key: (u64, Token)) -> Option<Position> {
        let waits = self.groups.get_mut(&group)?;
        let wanted = waits.wanted.remove(&key)?;
        self.count -= 1;
        if waits.wanted.is_empty() {
            self.groups.remove(&group);
        }
        Some(wanted)
    }

    fn remove_all(&mut self, group: GroupId) {
        self.count -= self.groups.remove(&group).map_or(0, |waits| waits.wanted.len());
    }
}

impl Node {
    /// Takes a read at a level. It is answered once its shards are as fresh as it wants them, or cannot be in time.
    pub(crate) fn read(
        &mut self,
        id: RequestId,
        plan: ReadPlan,
        level: ReadLevel,
        fresh: &Freshness,
        deadline: u64,
    ) -> Answer<()> {
        let wanted = if level == ReadLevel::Session { self.wanted(fresh)? } else { BTreeMap::new() };
        let until = deadline.min(self.now.micros.saturating_add(u64::from(fresh.wait_ms) * 1000));
        let token = Pending::token(id);
        let shards = plan.shards();
        let seen = match level {
            ReadLevel::Session => fresh.seen.clone(),
            ReadLevel::One | ReadLevel::Quorum => Vec::new(),
        };
        let mut read =
            PendingRead { waits_for: BTreeSet::new(), missing: BTreeMap::new(), plan, until, seen };
        for (shard, group) in shards {
            let is_ready = self.hosted_group(shard, group).and_then(|()| match level {
                ReadLevel::One => Ok(true),
                ReadLevel::Session => self.is_applied(token, shard, group, wanted.get(&group.0)),
                ReadLevel::Quorum => {
                    let asked = self.repl.read(group, token, until);
                    asked.map(|()| false).map_err(|why| self.failure(group, why))
                }
            });
            match is_ready {
                Ok(true) => {}
                Ok(false) => drop(read.waits_for.insert(group)),
                Err(error) => drop(read.missing.insert(shard, *error)),
            }
        }
        if read.waits_for.is_empty() {
            self.run(id, read);
        } else {
            self.pending.reads.insert(token, read);
        }
        Ok(())
    }

    /// What has to be applied of which group, at `session`.
    fn wanted(&self, fresh: &Freshness) -> Answer<BTreeMap<u64, Position>> {
        if fresh.seen.len() > SHARDS_MAX as usize {
            let count = fresh.seen.len();
            return Err(error(Code::TooLarge, format!("{count} positions are seen, more than {SHARDS_MAX}")));
        }
        // A group that is gone has nothing to be waited for. One that is yet to come here shows that this node's catalog
        // is behind, and that what it takes for the collection may be another of that name.
        let next_group = self.catalog().map_or(0, |catalog| catalog.next_group);
        if let Some(GroupPosition { group, .. }) = fresh.seen.iter().find(|seen| seen.group >= next_group) {
            let message =
                format!("node {} has not heard of group {group} yet: its catalog is behind", self.name);
            return Err(error(Code::Behind, message));
        }
        let mut wanted = BTreeMap::new();
        for GroupPosition { group, position } in &fresh.seen {
            let known: &mut Position = wanted.entry(*group).or_default();
            *known = (*known).max(*position);
        }
        Ok(wanted)
    }

    /// Whether a position is applied here; if it is still to come, the read waits for it.
    fn is_applied(
        &mut self,
        token: Token,
        shard: u32,
        group: GroupId,
        wanted: Option<&Position>,
    ) -> Answer<bool> {
        let Some(wanted) = wanted else { return Ok(true) };
        #[cfg(feature = "canary")]
        if crate::canary::is_planted(crate::canary::Canary::SessionNotAwaited) {
            return Ok(true);
        }
        match self.standing(group, *wanted) {
            Some(Standing::Held) | None => Ok(true),
            Some(Standing::Ahead) => {
                if self.pending.sessions.count >= SESSION_WAITS_MAX {
                    let message = format!("too many reads wait on node {} already", self.name);
                    let error = ErrorReply::new(Code::Overloaded, message);
                    return Err(Box::new(ErrorReply { retry_after_ms: OVERLOADED_RETRY_MS, ..error }));
                }
                self.pending.sessions.add(group, token, *wanted);
                Ok(false)
            }
            Some(Standing::Overtaken | Standing::Forgotten) => Err(overtaken(shard, group, *wanted)),
        }
    }

    fn standing(&self, group: GroupId, position: Position) -> Option<Standing> {
        let applied = self.repl.applied(group)?;
        let shard = self.repl.machine(group).and_then(Machine::shard)?;
        Some(shard.standing(position, applied.index))
    }

    /// Looks whether what reads wait for has been applied meanwhile.
    pub(crate) fn look_at_sessions(&mut self) {
        let mut decided = Vec::new();
        for (group, waits) in &mut self.pending.sessions.groups {
            let applied = self.repl.applied(*group).unwrap_or_default();
            if applied == waits.looked_at {
                continue;
            }
            // A later term can overtake what is further on; the same one brings only what it reaches.
            let reach = if applied.term == waits.looked_at.term { applied.index } else { u64::MAX };
            waits.looked_at = applied;
            let Some(shard) = self.repl.machine(*group).and_then(Machine::shard) else { continue };
            let reached = waits.wanted.range(..=(reach, Token(u64::MAX)));
            let standing = reached.map(|(key, wanted)| (*key, shard.standing(*wanted, applied.index)));
            decided.extend(standing.filter(|(_, s)| *s != Standing::Ahead).map(|(key, s)| (*group, key, s)));
        }
        for (group, key, standing) in decided {
            let Some(wanted) = self.pending.sessions.remove(group, key) else { continue };
            let token = key.1;
            let outcome = match standing {
                Standing::Held | Standing::Ahead => Ok(()),
                Standing::Overtaken | Standing::Forgotten => {
                    let shard = self.pending.reads.get(&token).and_then(|read| read.plan.shard_of(group));
                    Err(overtaken(shard.unwrap_or_default(), group, wanted))
                }
            };
            self.decide(token, group, outcome);
        }
    }

    /// Reads that have waited long enough for something to be applied go without it.
    pub(crate) fn expire_sessions(&mut self) {
        let now = self.now.micros;
        let groups = &self.pending.sessions.groups;
        let waits = groups.iter().flat_map(|(group, waits)| waits.wanted.keys().map(|key| (*group, *key)));
        let is_late = |token: &Token| self.pending.reads.get(token).is_none_or(|read| read.until <= now);
        let late: Vec<(GroupId, (u64, Token))> = waits.filter(|(_, (_, token))| is_late(token)).collect();
        for (group, key) in late {
            let Some(wanted) = self.pending.sessions.remove(group, key) else { continue };
            let token = key.1;
            let applied = self.repl.applied(group).unwrap_or_default();
            let shard = self.pending.reads.get(&token).and_then(|read| read.plan.shard_of(group));
            let at =
                ShardPosition { shard: shard.unwrap_or_default(), group: group.0, applied, latest: applied };
            let message = format!(
                "shard {} is applied up to {applied} on node {}, and not yet up to {wanted}, which was seen: it is \
                 {} entries behind",
                at.shard,
                self.name,
                wanted.index.saturating_sub(applied.index)
            );
            let behind = ErrorReply { at: Some(Box::new(at)), ..*self.placed(Code::Behind, message) };
            self.decide(token, group, Err(Box::new(behind)));
        }
    }

    /// A shard can be read now, or cannot be.
    pub(crate) fn decide(&mut self, token: Token, group: GroupId, outcome: Answer<()>) {
        let Some(read) = self.pending.reads.get_mut(&token) else { return };
        if !read.waits_for.remove(&group) {
            return;
        }
        if let (Err(error), Some(shard)) = (outcome, read.plan.shard_of(group)) {
            read.missing.insert(shard, *error);
        }
        if read.waits_for.is_empty()
            && let Some(read) = self.pending.reads.remove(&token)
        {
            self.run(Pending::request(token), read);
        }
    }

    /// A replica is gone: reads that wait for it go without it.
    pub(crate) fn fail_reads_of(&mut self, group: GroupId) {
        let waits = self.pending.reads.iter().filter(|(_, read)| read.waits_for.contains(&group));
        let tokens: Vec<Token> = waits.map(|(token, _)| *token).collect();
        self.pending.sessions.remove_all(group);
        for token in tokens {
            let why = self.failure(group, Failure::LeaderChanged);
            self.decide(token, group, Err(why));
        }
    }

    /// Hands out the work, or answers that there is none to be done.
    fn run(&mut self, id: RequestId, read: PendingRead) {
        match self.work_of(read) {
            Ok(work) => self.effects.push(Effect::Read { id, work }),
            Err(error) => self.reply(id, Reply::Error(*error)),
        }
    }

    fn work_of(&self, read: PendingRead) -> Answer<ReadWork> {
        let PendingRead { plan, mut missing, seen, .. } = read;
        // The furthest position that was seen is applied; one of an earlier term may have been overtaken all the same.
        for GroupPosition { group, position } in seen {
            let group = GroupId(group);
            let standing = self.standing(group, position);
            if let (Some(Standing::Overtaken | Standing::Forgotten), Some(shard)) =
                (standing, plan.shard_of(group))
                && !sessions_are_believed()
            {
                missing.entry(shard).or_insert_with(|| *overtaken(shard, group, position));
            }
        }
        let mut one = |shard, group| match missing.remove(&shard) {
            Some(error) => Err(Box::new(error)),
            None => self.reader(shard, group),
        };
        Ok(match plan {
            ReadPlan::Get { shard, group, ids } => {
                let (at, reader) = one(shard, group)?;
                let machine = self.repl.machine(group).and_then(Machine::shard);
                let siblings = machine.map_or_else(|| Ok(BTreeMap::new()), |shard| shard.siblings(&ids))?;
                ReadWork::Get { reader, at, ids, siblings }
            }
            ReadPlan::Scan { shard, group, page } => {
                let (at, reader) = one(shard, group)?;
                ReadWork::Scan { reader, at, page }
            }
            ReadPlan::Count { shard, group, prefix } => {
                let (at, reader) = one(shard, group)?;
                ReadWork::Count { reader, at, prefix }
            }
            ReadPlan::Hashes { shard, group, ranges } => {
                let (at, reader) = one(shard, group)?;
                ReadWork::Hashes { reader, at, ranges }
            }
            ReadPlan::Conflicts { shard, group, from, limit, losers } => {
                if let Some(error) = missing.remove(&shard) {
                    return Err(Box::new(error));
                }
                let (at, machine) = self.shard_at(shard, group)?;
                let Entries { entries, losers, next } = machine.conflicts().page(from, limit, losers);
                ReadWork::Conflicts { page: ConflictPage { at, entries, next }, losers }
            }
            ReadPlan::Search { shards: wanted, queries, dimension, k, metric } => {
                let mut shards = Vec::with_capacity(wanted.len());
                let mut gone = Vec::new();
                for (shard, group) in wanted {
                    match one(shard, group) {
                        Ok(found) => shards.push(found),
                        Err(error) => gone.push(MissingShard { shard, error: *error }),
                    }
                }
                ReadWork::Search { shards, missing: gone, queries, dimension, k, metric }
            }
        })
    }

    fn reader(&self, shard: u32, group: GroupId) -> Answer<(ShardPosition, ShardReader)> {
        let (at, machine) = self.shard_at(shard, group)?;
        Ok((at, machine.reader()))
    }

    fn shard_at(&self, shard: u32, group: GroupId) -> Answer<(ShardPosition, &ShardMachine)> {
        let machine = self.repl.machine(group).and_then(Machine::shard);
        let machine =
            machine.ok_or_else(|| error(Code::StaleRoute, format!("{group} is not here any more")))?;
        let applied = self.repl.applied(group).unwrap_or_default();
        Ok((ShardPosition { shard, group: group.0, applied, latest: applied }, machine))
    }
}

fn overtaken(shard: u32, group: GroupId, position: Position) -> Box<ErrorReply> {
    let message = format!(
        "what the session has seen of shard {shard}, {position} of {group}, was overtaken by a failover: it was a \
         write at level one, and no replica will ever hold it there. The session has to forget it to go on"
    );
    let at = ShardPosition { shard, group: group.0, applied: position, latest: position };
    Box::new(ErrorReply { at: Some(Box::new(at)), ..ErrorReply::new(Code::Overtaken, message) })
}
