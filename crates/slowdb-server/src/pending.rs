//! Requests that wait for the replicator.

use crate::admin::AdminAsk;
use crate::fresh::SessionWaits;
use crate::node::RequestId;
use crate::read::Page;
use slowdb_proto::{ErrorReply, GroupPosition, Position};
use slowdb_repl::{GroupId, Token};
use std::collections::{BTreeMap, BTreeSet};

/// A read that waits for some of its shards.
pub(crate) struct PendingRead {
    /// At `session`: what the caller has seen.
    pub(crate) seen: Vec<GroupPosition>,
    pub(crate) waits_for: BTreeSet<GroupId>,
    /// Shards that cannot be read, and why.
    pub(crate) missing: BTreeMap<u32, ErrorReply>,
    pub(crate) plan: ReadPlan,
    /// When it waits no longer, in microseconds.
    pub(crate) until: u64,
}

/// A read before its shards' readers are taken.
pub(crate) enum ReadPlan {
    Get {
        shard: u32,
        group: GroupId,
        ids: Vec<String>,
    },
    Scan {
        shard: u32,
        group: GroupId,
        page: Page,
    },
    Count {
        shard: u32,
        group: GroupId,
        prefix: String,
    },
    Hashes {
        shard: u32,
        group: GroupId,
        ranges: Vec<u16>,
    },
    Conflicts {
        shard: u32,
        group: GroupId,
        from: Position,
        limit: usize,
        losers: bool,
    },
    Search {
        shards: Vec<(u32, GroupId)>,
        queries: Vec<f32>,
        dimension: usize,
        k: usize,
        metric: slowdb_proto::Metric,
    },
}

/// A write that waits to be acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct PendingWrite {
    pub(crate) writes: u32,
    pub(crate) group: GroupId,
    /// A retry at level `one`.
    pub(crate) again_at_one: bool,
}

/// What waits, by the token that the replicator knows it by. A request's token is its id; tokens of the node's
/// own proposals count down from the top.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) writes: BTreeMap<Token, PendingWrite>,
    pub(crate) reads: BTreeMap<Token, PendingRead>,
    pub(crate) sessions: SessionWaits,
    pub(crate) admin: BTreeMap<RequestId, AdminAsk>,
    own_tokens: u64,
}

impl Pending {
    pub(crate) fn token(id: RequestId) -> Token {
        Token(id.0)
    }

    pub(crate) fn request(token: Token) -> RequestId {
        RequestId(token.0)
    }

    pub(crate) fn own_token(&mut self) -> Token {
        self.own_tokens += 1;
        Token(u64::MAX - self.own_tokens)
    }
}

impl ReadPlan {
    /// Shards of the plan, with their groups.
    pub(crate) fn shards(&self) -> Vec<(u32, GroupId)> {
        match self {
            ReadPlan::Get { shard, group, .. }
            | ReadPlan::Scan { shard, group, .. }
            | ReadPlan::Count { shard, group, .. }
            | ReadPlan::Hashes { shard, group, .. }
            | ReadPlan::Conflicts { shard, group, .. } => {
                vec![(*shard, *group)]
            }
            ReadPlan::Search { shards, .. } => shards.clone(),
        }
    }

    /// The shard that a group replicates, if the plan has it.
    pub(crate) fn shard_of(&self, group: GroupId) -> Option<u32> {
        self.shards().into_iter().find(|(_, of)| *of == group).map(|(shard, _)| shard)
    }
}
