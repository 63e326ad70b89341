//! Requests that wait for the replicator.

use crate::admin::AdminAsk;
use crate::node::RequestId;
use slowdb_repl::{GroupId, Token};
use std::collections::{BTreeMap, BTreeSet};

/// A read that waits until every shard it covers is confirmed.
pub(crate) struct PendingRead {
    pub(crate) waits_for: BTreeSet<GroupId>,
    pub(crate) plan: ReadPlan,
}

/// A read before its shards' readers are taken.
pub(crate) enum ReadPlan {
    Get {
        group: GroupId,
        ids: Vec<String>,
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
}

/// What waits, by the token that the replicator knows it by. A request's token is its id; tokens of the node's
/// own proposals count down from the top.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) writes: BTreeMap<Token, PendingWrite>,
    pub(crate) reads: BTreeMap<Token, PendingRead>,
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
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        match self {
            ReadPlan::Get { group, .. } => vec![*group],
            ReadPlan::Search { shards, .. } => shards.iter().map(|(_, group)| *group).collect(),
        }
    }
}
