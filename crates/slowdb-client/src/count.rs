//! How many records there are.

use crate::collection::{Collection, Shape};
use crate::coverage::{MissingShard, check_coverage, suffices};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::leader::AtLeader;
use crate::pool::Answer;
use crate::race::Race;
use crate::reads::{Source, fresh, read_shard};
use crate::search::unexpected;
use slowdb_proto::{CountRequest, ReadLevel, Reply, RequestKind, ShardPosition};
use std::time::Duration;

/// Shards asked at once.
const IN_FLIGHT: usize = 16;

/// How to count.
#[derive(Clone, Debug)]
pub struct CountOptions {
    /// Who may answer; the collection's own level if not given.
    pub level: Option<ReadLevel>,
    /// Only records whose ids begin with this. Default: all.
    pub prefix: String,
    /// Share of the shards, 0 to 1, that have to answer. Default: 1.
    pub min_coverage: f64,
    /// For all of it; the client's own time-out if not given.
    pub timeout: Option<Duration>,
}

impl Default for CountOptions {
    fn default() -> Self {
        CountOptions { level: None, prefix: String::new(), min_coverage: 1.0, timeout: None }
    }
}

/// How many records there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// In all shards that answered.
    pub records: u64,
    /// Each shard that answered, and how far it was applied at least when its records were counted; sorted by number.
    pub shards: Vec<ShardPosition>,
    /// Shards that did not answer. There are none unless [`CountOptions::min_coverage`] allows it.
    pub missing: Vec<MissingShard>,
}

pub(crate) async fn count(
    collection: &Collection,
    shape: Shape,
    options: &CountOptions,
    deadline: Deadline,
) -> Result<Counted, ClientError> {
    check_coverage(options.min_coverage)?;
    let mut counted = Counted { records: 0, shards: Vec::new(), missing: Vec::new() };
    let mut shards = 0..shape.num_shards;
    let mut race = Race::new();
    loop {
        while race.len() < IN_FLIGHT
            && let Some(shard) = shards.next()
        {
            let of_shard = count_shard(collection, shape, options, shard, deadline);
            race.push(async move { (shard, of_shard.await) });
        }
        if race.is_empty() {
            counted.shards.sort_by_key(|at| at.shard);
            counted.missing.sort_by_key(|missing| missing.shard);
            return Ok(counted);
        }
        let (shard, answer) = race.next().await;
        match answer {
            Ok((at, records)) => {
                counted.records += records;
                counted.shards.push(at);
            }
            Err(error) => {
                let all = shape.num_shards as usize;
                let covered = all - counted.missing.len() - 1;
                if !error.is_of_shard() || !suffices(covered, all, options.min_coverage) {
                    return Err(error);
                }
                counted.missing.push(MissingShard { shard, reason: error.to_string() });
            }
        }
    }
}

async fn count_shard(
    collection: &Collection,
    shape: Shape,
    options: &CountOptions,
    shard: u32,
    deadline: Deadline,
) -> Result<(ShardPosition, u64), ClientError> {
    let Collection { inner, name, session } = collection;
    let source = Source { level: options.level, only: None, session };
    let request = || {
        let fresh = fresh(inner, name, &[shard], source, deadline);
        let (collection, prefix) = (name.to_string(), options.prefix.clone());
        RequestKind::Count(CountRequest { collection, first_group: shape.first_group, shard, fresh, prefix })
    };
    let read = |answer: Answer| match answer.reply {
        Reply::Counted { at, records } => Ok((at, records)),
        other => Err(unexpected("a count", &other)),
    };
    let call = AtLeader { inner, collection: name, shape, shard, deadline, is_write: false, only: None };
    read_shard(&call, source, request, read).await
}
