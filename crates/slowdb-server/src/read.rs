//! Executing reads: no decisions, just the stores. Runs on any thread.

use bytes::Bytes;
use slowdb_proto::limits::{BODY_BYTES_MAX, HASHES_MAX, META_BYTES_MAX};
use slowdb_proto::{
    Code, ConflictPage, ErrorReply, Hit, Metric, MissingShard, PageRecord, Position, RangeDigest, RecordHash,
    RecordInfo, Reply, ShardPosition, SiblingInfo,
};
use slowdb_storage::{RANGES, Reader, RecordRef, SearchQuery};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, PoisonError};

use crate::envelope::Envelope;
use crate::requests::Answer;
use crate::shard::position_of;

/// Largest set of hits in one reply, in bytes: what is left of its frame's meta part beside the rest of it.
const HITS_BYTES_MAX: usize = META_BYTES_MAX - (1 << 20);

/// An archived hit, beside its id: 4 bytes of score, 8 of reference.
const HIT_BYTES: usize = 12;

/// A page of a scan is closed at so many bytes: its last record may go beyond.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// A read that may be answered now.
pub enum ReadWork {
    /// Records by id.
    Get {
        /// The shard's records.
        reader: ShardReader,
        /// The shard, and how far it is applied at least.
        at: ShardPosition,
        /// The ids.
        ids: Vec<String>,
        /// What is to be read beside them.
        siblings: Siblings,
    },
    /// Records in the order of their ids.
    Scan {
        /// The shard's records.
        reader: ShardReader,
        /// The shard, and how far it is applied at least.
        at: ShardPosition,
        /// Which of them.
        page: Page,
    },
    /// How many records there are.
    Count {
        /// The shard's records.
        reader: ShardReader,
        /// The shard, and how far it is applied at least.
        at: ShardPosition,
        /// What their ids begin with.
        prefix: String,
    },
    /// Hashes of records.
    Hashes {
        /// The shard's records.
        reader: ShardReader,
        /// The shard, and how far it is applied at least.
        at: ShardPosition,
        /// The ranges of ids whose records are wanted; empty: the digests of all.
        ranges: Vec<u16>,
    },
    /// Entries of a conflict log, which are read already.
    Conflicts {
        /// The answer.
        page: ConflictPage,
        /// Its body.
        losers: Vec<u8>,
    },
    /// Nearest neighbours.
    Search {
        /// The shards' records, and how far each is applied at least.
        shards: Vec<(ShardPosition, ShardReader)>,
        /// Shards that cannot be searched, and why.
        missing: Vec<MissingShard>,
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

/// What lost against a record, and is readable beside it.
pub struct Sibling {
    /// Position that its own write had.
    pub(crate) position: Position,
    /// Its vector, f32 little endian.
    pub(crate) vector: Vec<u8>,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
}

/// What is readable beside records, by their ids.
pub(crate) type Siblings = BTreeMap<String, Vec<Sibling>>;

/// A shard's records, and what may show of them.
pub struct ShardReader {
    pub(crate) records: Reader,
    pub(crate) latest: Arc<Latest>,
}

/// The last write that a reader may have seen of a shard. Whoever applies one says so before; whoever reads asks after.
pub(crate) struct Latest(Mutex<Position>);

impl Latest {
    pub(crate) fn at(position: Position) -> Self {
        Latest(Mutex::new(position))
    }

    pub(crate) fn reach(&self, position: Position) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }

    /// Where an answer stands that was begun at a position, and has been read.
    fn seen(&self, begun: ShardPosition) -> ShardPosition {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ShardPosition { latest: latest.max(begun.applied), ..begun }
    }
}

/// A part of a shard's records.
pub struct Page {
    /// Only ids that begin with this.
    pub(crate) prefix: String,
    /// Only ids after this one.
    pub(crate) after: Option<String>,
    /// Most records.
    pub(crate) limit: usize,
    /// Whether vectors are wanted.
    pub(crate) vectors: bool,
    /// Whether payloads are wanted.
    pub(crate) payloads: bool,
}

impl ReadWork {
    /// Whether it is over in microseconds, so that it need not be moved to a thread for long work.
    pub fn is_quick(&self) -> bool {
        match self {
            ReadWork::Get { ids, .. } => ids.len() <= 64,
            ReadWork::Count { prefix, .. } => prefix.is_empty(),
            ReadWork::Conflicts { .. } => true,
            ReadWork::Scan { .. } | ReadWork::Hashes { .. } | ReadWork::Search { .. } => false,
        }
    }

    /// Does it.
    pub fn run(self) -> (Reply, Vec<Bytes>) {
        let done = match self {
            ReadWork::Get { reader, at, ids, siblings } => get(&reader, at, &ids, &siblings),
            ReadWork::Scan { reader, at, page } => scan(&reader, at, &page),
            ReadWork::Count { reader, at, prefix } => count(&reader, at, &prefix),
            ReadWork::Hashes { reader, at, ranges } => hashes(&reader, at, &ranges),
            ReadWork::Conflicts { page, losers } => Ok((Reply::Conflicts(Box::new(page)), body_of(losers))),
            ReadWork::Search { shards, missing, queries, dimension, k, metric } => {
                search(&shards, missing, &queries, dimension, k, metric).map(|reply| (reply, Vec::new()))
            }
        };
        done.unwrap_or_else(|error| (Reply::Error(*error), Vec::new()))
    }
}

fn body_of(bytes: Vec<u8>) -> Vec<Bytes> {
    if bytes.is_empty() { Vec::new() } else { vec![Bytes::from(bytes)] }
}

fn corrupt(error: &impl std::fmt::Display) -> Box<ErrorReply> {
    Box::new(ErrorReply::new(Code::Corrupt, format!("this replica cannot answer: {error}")))
}

fn get(
    reader: &ShardReader,
    at: ShardPosition,
    ids: &[String],
    siblings: &Siblings,
) -> Answer<(Reply, Vec<Bytes>)> {
    let mut body = Vec::new();
    let mut records = Vec::with_capacity(ids.len());
    let beside = |id: &String| siblings.get(id).into_iter().flatten();
    let all = ids.iter().flat_map(beside);
    let sibling_bytes: usize = all.map(|sibling| sibling.vector.len() + sibling.payload.len()).sum();
    for id in ids {
        let found = reader.records.get_with(id.as_bytes(), |record| {
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
        if body.len() + sibling_bytes > BODY_BYTES_MAX {
            let message = format!(
                "the first {} of the {} records asked for take more than {BODY_BYTES_MAX} bytes: ask for fewer \
                 at a time",
                records.len(),
                ids.len()
            );
            return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
        }
    }
    let mut infos = Vec::new();
    for (nth, id) in ids.iter().enumerate().filter(|(nth, _)| records[*nth].is_some()) {
        for Sibling { position, vector, payload } in beside(id) {
            body.extend_from_slice(vector);
            body.extend_from_slice(payload);
            let (record, payload_bytes) = (nth as u32, payload.len() as u32);
            infos.push(SiblingInfo { record, position: *position, payload_bytes });
        }
    }
    Ok((Reply::Records { at: reader.latest.seen(at), records, siblings: infos }, body_of(body)))
}

/// The store keeps no order, so a page looks at all ids. For that any replica can give the next one, and a record that is
/// there all the time is in exactly one page, whatever is written meanwhile.
fn scan(reader: &ShardReader, at: ShardPosition, page: &Page) -> Answer<(Reply, Vec<Bytes>)> {
    let snapshot = reader.records.snapshot();
    let mut first: BinaryHeap<ById<'_>> = BinaryHeap::with_capacity(page.limit + 2);
    for record in snapshot.iter() {
        let record = record.map_err(|error| corrupt(&error))?;
        let is_past = page.after.as_ref().is_none_or(|after| record.id > after.as_bytes());
        if !is_past || !record.id.starts_with(page.prefix.as_bytes()) {
            continue;
        }
        if first.len() <= page.limit || first.peek().is_some_and(|last| record.id < last.0.id) {
            first.push(ById(record));
            if first.len() > page.limit + 1 {
                first.pop();
            }
        }
    }
    let found = first.into_sorted_vec();
    let (mut records, mut body) = (Vec::new(), Vec::new());
    for ById(record) in found.iter().take(page.limit) {
        if body.len() >= PAGE_BYTES {
            break;
        }
        if page.vectors {
            record.vector.iter().for_each(|component| body.extend_from_slice(&component.to_le_bytes()));
        }
        // Ids were checked to be UTF-8 when they were written.
        let id = String::from_utf8_lossy(record.id).into_owned();
        let (_, payload) = Envelope::unwrap(record.payload)
            .ok_or_else(|| corrupt(&format!("the record '{id}' does not say how it came to be")))?;
        if page.payloads {
            body.extend_from_slice(payload);
        }
        records.push(PageRecord {
            id,
            position: position_of(record.version),
            payload_bytes: payload.len() as u32,
        });
    }
    let more = records.len() < found.len();
    Ok((Reply::Page { at: reader.latest.seen(at), records, more }, body_of(body)))
}

fn count(reader: &ShardReader, at: ShardPosition, prefix: &str) -> Answer<(Reply, Vec<Bytes>)> {
    let mut records = reader.records.len();
    if !prefix.is_empty() {
        records = 0;
        for record in reader.records.snapshot().iter() {
            let record = record.map_err(|error| corrupt(&error))?;
            records += u64::from(record.id.starts_with(prefix.as_bytes()));
        }
    }
    Ok((Reply::Counted { at: reader.latest.seen(at), records }, Vec::new()))
}

fn hashes(reader: &ShardReader, at: ShardPosition, wanted: &[u16]) -> Answer<(Reply, Vec<Bytes>)> {
    let snapshot = reader.records.snapshot();
    if wanted.is_empty() {
        let ranges = snapshot.range_digests().map_err(|error| corrupt(&error))?;
        let digest = |range: &slowdb_storage::RangeDigest| RangeDigest {
            records: range.records,
            digest: range.digest.0.to_le_bytes(),
        };
        let ranges = ranges.iter().map(digest).collect();
        return Ok((Reply::Ranges { at: reader.latest.seen(at), ranges }, Vec::new()));
    }
    let mut is_wanted = vec![false; RANGES];
    wanted.iter().for_each(|range| is_wanted[usize::from(*range)] = true);
    let mut records = Vec::new();
    for record in snapshot.record_hashes(|range| is_wanted[range]) {
        let record = record.map_err(|error| corrupt(&error))?;
        if records.len() == HASHES_MAX {
            let message = format!(
                "the {} ranges asked for have more than {HASHES_MAX} records: ask for fewer at a time",
                wanted.len()
            );
            return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
        }
        // Ids were checked to be UTF-8 when they were written.
        let id = String::from_utf8_lossy(record.id).into_owned();
        let position = position_of(record.version);
        records.push(RecordHash { id, position, hash: record.hash.to_le_bytes() });
    }
    records.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok((Reply::Hashes { at: reader.latest.seen(at), records }, Vec::new()))
}

struct ById<'a>(RecordRef<'a>);

impl PartialEq for ById<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById<'_> {}

impl PartialOrd for ById<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(other.0.id)
    }
}

fn search(
    shards: &[(ShardPosition, ShardReader)],
    mut missing: Vec<MissingShard>,
    queries: &[f32],
    dimension: usize,
    k: usize,
    metric: Metric,
) -> Answer<Reply> {
    let stored_metric = match metric {
        Metric::L2 => slowdb_storage::Metric::L2,
        Metric::InnerProduct => slowdb_storage::Metric::InnerProduct,
        Metric::Cosine => slowdb_storage::Metric::Cosine,
        Metric::L1 => slowdb_storage::Metric::L1,
    };
    let count = queries.len() / dimension;
    // Every query has `k` hits if there are so many records: what is too much for certain is not looked for.
    let records: u64 = shards.iter().map(|(_, reader)| reader.records.len()).sum();
    let hits = k.min(usize::try_from(records).unwrap_or(usize::MAX));
    let bytes_min = count.saturating_mul(hits).saturating_mul(HIT_BYTES + 1);
    if bytes_min > HITS_BYTES_MAX {
        let message = format!(
            "{count} queries with k = {k} over {records} records have hits of at least {bytes_min} bytes, more than \
             {HITS_BYTES_MAX}: ask with fewer queries at a time, or a smaller k"
        );
        return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
    }
    let mut results: Vec<Vec<Hit>> = vec![Vec::new(); count];
    let mut searched = Vec::with_capacity(shards.len());
    for (at, reader) in shards {
        let query = SearchQuery::new(queries, k, stored_metric);
        let found = match reader.records.search(&query) {
            Ok(found) => found,
            Err(error) => {
                missing.push(MissingShard { shard: at.shard, error: *corrupt(&error) });
                continue;
            }
        };
        searched.push(reader.latest.seen(*at));
        for (result, hits) in results.iter_mut().zip(found) {
            // Ids were checked to be UTF-8 when they were written.
            let hit = |hit: slowdb_storage::Hit| Hit {
                id: String::from_utf8_lossy(&hit.id).into_owned(),
                score: hit.score,
            };
            result.extend(hits.into_iter().map(hit));
            keep_nearest(result, k, metric);
        }
    }
    let bytes: usize = results.iter().flatten().map(|hit| HIT_BYTES + hit.id.len()).sum();
    if bytes > HITS_BYTES_MAX {
        let message = format!(
            "{} queries with k = {k} have hits of {bytes} bytes, more than {HITS_BYTES_MAX}: ask with fewer \
             queries at a time, or a smaller k",
            results.len()
        );
        return Err(Box::new(ErrorReply::new(Code::TooLarge, message)));
    }
    Ok(Reply::Hits { metric, shards: searched, missing, results })
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
