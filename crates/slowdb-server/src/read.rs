//! Executing reads: no decisions, just the stores. Runs on any thread.

use bytes::Bytes;
use slowdb_proto::limits::{BODY_BYTES_MAX, META_BYTES_MAX};
use slowdb_proto::{Code, ErrorReply, Hit, Metric, Position, RecordInfo, Reply, ShardPosition};
use slowdb_storage::{Reader, SearchQuery};

use crate::envelope::Envelope;
use crate::requests::Answer;
use crate::shard::position_of;

/// Largest set of hits in one reply, in bytes: what is left of its frame's meta part beside the rest of it.
const HITS_BYTES_MAX: usize = META_BYTES_MAX - (1 << 20);

/// A read that may be answered now.
pub enum ReadWork {
    /// Records by id.
    Get {
        /// The shard's records.
        reader: Reader,
        /// How far the shard is applied at least.
        applied: Position,
        /// The ids.
        ids: Vec<String>,
    },
    /// Nearest neighbours.
    Search {
        /// The shards' records, and how far each is applied at least.
        shards: Vec<(ShardPosition, Reader)>,
        /// Queries, one after the other.
        queries: Vec<f32>,
        /// Components of each.
        dimension: usize,
        /// Hits for each query.
        k: usize,
        /// How similarity is measured.
        metric: Metric,
    },
}

impl ReadWork {
    /// Whether it is over in microseconds, so that it need not be moved to a thread for long work.
    pub fn is_quick(&self) -> bool {
        matches!(self, ReadWork::Get { ids, .. } if ids.len() <= 64)
    }

    /// Does it.
    pub fn run(self) -> (Reply, Vec<Bytes>) {
        let done = match self {
            ReadWork::Get { reader, applied, ids } => get(&reader, applied, &ids),
            ReadWork::Search { shards, queries, dimension, k, metric } => {
                search(&shards, &queries, dimension, k, metric).map(|reply| (reply, Vec::new()))
            }
        };
        done.unwrap_or_else(|error| (Reply::Error(*error), Vec::new()))
    }
}

fn corrupt(error: &impl std::fmt::Display) -> Box<ErrorReply> {
    Box::new(ErrorReply::new(Code::Corrupt, format!("this replica cannot answer: {error}")))
}

fn get(reader: &Reader, applied: Position, ids: &[String]) -> Answer<(Reply, Vec<Bytes>)> {
    let mut body = Vec::new();
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        let found = reader.get_with(id.as_bytes(), |record| {
            for component in record.vector {
                body.extend_from_slice(&component.to_le_bytes());
            }
            let (_, payload) = Envelope::unwrap(record.payload)?;
            body.extend_from_slice(payload);
            Some(RecordInfo { position: position_of(record.version), payload_bytes: payload.len() as u32 })
        });
        let found = found.map_err(|error| corrupt(&error))?;
        if found.is_some_and(|record| record.is_none()) {
            return Err(corrupt(&format!("the record '{id}' does not say how it came to be")));
        }
        records.push(found.flatten());
        if body.len() > BODY_BYTES_MAX {
            let message = format!(
                "the first {} of the {} records asked for take more than {BODY_BYTES_MAX} bytes: ask for fewer \
                 at a time",
                records.len(),
                ids.len()
            );
            return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
        }
    }
    let body = if body.is_empty() { Vec::new() } else { vec![Bytes::from(body)] };
    Ok((Reply::Records { applied, records }, body))
}

fn search(
    shards: &[(ShardPosition, Reader)],
    queries: &[f32],
    dimension: usize,
    k: usize,
    metric: Metric,
) -> Answer<Reply> {
    let stored_metric = match metric {
        Metric::L2 => slowdb_storage::Metric::L2,
        Metric::InnerProduct => slowdb_storage::Metric::InnerProduct,
        Metric::Cosine => slowdb_storage::Metric::Cosine,
    };
    let mut results: Vec<Vec<Hit>> = vec![Vec::new(); queries.len() / dimension];
    for (_, reader) in shards {
        let query = SearchQuery::new(queries, k, stored_metric);
        for (result, hits) in results.iter_mut().zip(reader.search(&query).map_err(|error| corrupt(&error))?)
        {
            // Ids were checked to be UTF-8 when they were written.
            let hit = |hit: slowdb_storage::Hit| Hit {
                id: String::from_utf8_lossy(&hit.id).into_owned(),
                score: hit.score,
            };
            result.extend(hits.into_iter().map(hit));
            keep_nearest(result, k, metric);
        }
    }
    // An archived hit: 4 bytes of score, 8 of reference, and the id.
    let bytes: usize = results.iter().flatten().map(|hit| 12 + hit.id.len()).sum();
    if bytes > HITS_BYTES_MAX {
        let message = format!(
            "{} queries with k = {k} have hits of {bytes} bytes, more than {HITS_BYTES_MAX}: ask with fewer \
             queries at a time, or a smaller k",
            results.len()
        );
        return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
    }
    Ok(Reply::Hits { metric, shards: shards.iter().map(|(position, _)| *position).collect(), results })
}

/// Sorts hits, nearest first, ties by id, and drops all but `k`.
fn keep_nearest(hits: &mut Vec<Hit>, k: usize, metric: Metric) {
    hits.sort_by(|a, b| {
        let nearer = if metric.greater_is_nearer() {
            b.score.total_cmp(&a.score)
        } else {
            a.score.total_cmp(&b.score)
        };
        nearer.then_with(|| a.id.cmp(&b.id))
    });
    hits.truncate(k);
}
