//! Reading records by id.

use crate::client::Inner;
use crate::collection::{GetResults, Record, Shape, Sibling};
use crate::deadline::Deadline;
use crate::error::ClientError;
use crate::leader::{AtLeader, any_replica};
use crate::pool::Answer;
use crate::race::Race;
use crate::search::unexpected;
use crate::session::Session;
use bytes::Bytes;
use slowdb_proto::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, TIMEOUT_MS_MAX};
use slowdb_proto::{
    Freshness, GetRequest, ReadLevel, RecordInfo, Reply, RequestKind, ShardPosition, SiblingInfo,
};
use slowdb_ring::shard_of;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Requests under way at once for one call.
const IN_FLIGHT: usize = 16;
const IDS_PER_REQUEST_MAX: usize = 1_000;

/// Ids that one request asks for, with their places in the caller's list.
struct Chunk {
    shard: u32,
    places: Vec<usize>,
    ids: Vec<String>,
}

/// Who may answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// `None`: as the collection says.
    pub(crate) level: Option<ReadLevel>,
    /// At level `one`: this node, and no other.
    pub(crate) only: Option<&'a str>,
    pub(crate) session: &'a Session,
}

/// How fresh an attempt wants shards to be. It lets a node wait for half of the time that is left: so much is left for
/// another one.
pub(crate) fn fresh(
    inner: &Inner,
    collection: &str,
    shards: &[u32],
    from: Source<'_>,
    deadline: Deadline,
) -> Freshness {
    let seen = match from.level {
        Some(ReadLevel::Session) | None => from.session.seen_of(&inner.read_routes(), collection, shards),
        Some(ReadLevel::One | ReadLevel::Quorum) => Vec::new(),
    };
    let wait_ms = (deadline.left() / 2).as_millis().clamp(1, u128::from(TIMEOUT_MS_MAX)) as u32;
    Freshness { level: from.level, seen, wait_ms }
}

pub(crate) async fn get_many(
    inner: &Arc<Inner>,
    collection: &str,
    shape: Shape,
    ids: &[&str],
    from: Source<'_>,
    deadline: Deadline,
) -> Result<GetResults, ClientError> {
    let mut chunks = chunks(shape, ids).into_iter();
    let mut records: Vec<Option<Record>> = vec![None; ids.len()];
    let mut shards: BTreeMap<u32, ShardPosition> = BTreeMap::new();
    let mut race = Race::new();
    loop {
        while race.len() < IN_FLIGHT
            && let Some(chunk) = chunks.next()
        {
            race.push(get_chunk(inner, collection, shape, chunk, from, deadline));
        }
        if race.is_empty() {
            return Ok(GetResults { records, shards: shards.into_values().collect() });
        }
        let (at, found) = race.next().await?;
        // Of a shard that is asked more than once the answer that is the furthest behind is what is sure of all.
        shards
            .entry(at.shard)
            .and_modify(|known| known.applied = known.applied.min(at.applied))
            .or_insert(at);
        for (place, record) in found {
            records[place] = record;
        }
    }
}

/// Groups ids by shard, so that no reply can be over the limit of a frame.
fn chunks(shape: Shape, ids: &[&str]) -> Vec<Chunk> {
    let record_bytes_max = shape.dimension * 4 + PAYLOAD_BYTES_MAX;
    let ids_max = (BODY_BYTES_MAX / record_bytes_max).clamp(1, IDS_PER_REQUEST_MAX);
    let mut by_shard: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, id) in ids.iter().enumerate() {
        by_shard.entry(shard_of(id.as_bytes(), shape.num_shards)).or_default().push(place);
    }
    let mut chunks = Vec::new();
    for (shard, places) in by_shard {
        for places in places.chunks(ids_max) {
            let ids = places.iter().map(|place| ids[*place].to_owned()).collect();
            chunks.push(Chunk { shard, places: places.to_vec(), ids });
        }
    }
    chunks
}

async fn get_chunk(
    inner: &Arc<Inner>,
    collection: &str,
    shape: Shape,
    chunk: Chunk,
    from: Source<'_>,
    deadline: Deadline,
) -> Result<(ShardPosition, Vec<(usize, Option<Record>)>), ClientError> {
    let only = from.only;
    let request = || {
        let (collection, ids) = (collection.to_owned(), chunk.ids.clone());
        let fresh = fresh(inner, &collection, &[chunk.shard], from, deadline);
        RequestKind::Get(GetRequest {
            collection,
            first_group: shape.first_group,
            shard: chunk.shard,
            fresh,
            ids,
        })
    };
    let call = AtLeader { inner, collection, shape, shard: chunk.shard, deadline, is_write: false, only };
    let read = |answer: Answer| {
        let Answer { reply: Reply::Records { at, records, siblings }, body, .. } = answer else {
            return Err(unexpected("a read", &answer.reply));
        };
        let found = split(&chunk, shape.dimension, &records, &siblings, &body).ok_or_else(|| {
            format!("{} records in {} bytes, asked for {}", records.len(), body.len(), chunk.ids.len())
        })?;
        Ok((at, found))
    };
    let (at, found) = read_shard(&call, from, request, read).await?;
    Ok((at, chunk.places.into_iter().zip(found).collect()))
}

/// Reads one shard: its leader or any replica, as the level is, and the session takes note. `read` takes the answer apart,
/// or says what it is instead of one.
pub(crate) async fn read_shard<T>(
    call: &AtLeader<'_>,
    from: Source<'_>,
    request: impl Fn() -> RequestKind,
    read: impl Fn(Answer) -> Result<(ShardPosition, T), String>,
) -> Result<(ShardPosition, T), ClientError> {
    let Source { level, session, .. } = from;
    let named = session.alone();
    let (at, found) = match level.unwrap_or(call.shape.read_level) {
        ReadLevel::Quorum => call.run(|_| request(), Bytes::new(), read).await?,
        ReadLevel::One | ReadLevel::Session => any_replica(call, request, read).await?,
    };
    session.read(&at);
    if level == Some(ReadLevel::Session) {
        session.confirm(at.group, &named);
    }
    Ok((at, found))
}

/// Takes a reply apart; `None` if its parts do not add up.
fn split(
    chunk: &Chunk,
    dimension: usize,
    infos: &[Option<RecordInfo>],
    siblings: &[SiblingInfo],
    body: &Bytes,
) -> Option<Vec<Option<Record>>> {
    if infos.len() != chunk.ids.len() {
        return None;
    }
    let mut rest = body.clone();
    let mut take = |payload_bytes: u32| take(&mut rest, dimension, payload_bytes as usize);
    let mut records = Vec::with_capacity(infos.len());
    for (info, id) in infos.iter().zip(&chunk.ids) {
        let Some(info) = info else {
            records.push(None);
            continue;
        };
        let (vector, payload) = take(info.payload_bytes)?;
        let (id, siblings) = (id.clone(), Vec::new());
        records.push(Some(Record {
            id,
            vector,
            payload,
            shard: chunk.shard,
            position: info.position,
            siblings,
        }));
    }
    for info in siblings {
        let record = records.get_mut(info.record as usize)?.as_mut()?;
        let (vector, payload) = take(info.payload_bytes)?;
        record.siblings.push(Sibling { position: info.position, vector, payload });
    }
    rest.is_empty().then_some(records)
}

/// The vector and payload that come next; `None` if there is less.
fn take(rest: &mut Bytes, dimension: usize, payload_bytes: usize) -> Option<(Vec<f32>, Bytes)> {
    if rest.len() < dimension * 4 + payload_bytes {
        return None;
    }
    let vector = rest.split_to(dimension * 4);
    let (components, _) = vector.as_chunks::<4>();
    let vector = components.iter().map(|c| f32::from_le_bytes(*c)).collect();
    // A copy, so that a small payload does not keep a large reply in memory.
    Some((vector, Bytes::copy_from_slice(&rest.split_to(payload_bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowdb_proto::{Metric, Position};

    fn chunk() -> Chunk {
        Chunk { shard: 3, places: vec![0, 1, 2], ids: vec!["a".into(), "b".into(), "c".into()] }
    }

    fn info(payload_bytes: u32) -> Option<RecordInfo> {
        Some(RecordInfo { position: Position { term: 1, index: 2, offset: 3 }, payload_bytes })
    }

    #[test]
    fn a_reply_is_taken_apart() {
        let mut body = Vec::new();
        body.extend_from_slice(&1.5f32.to_le_bytes());
        body.extend_from_slice(b"pay");
        body.extend_from_slice(&(-2.0f32).to_le_bytes());
        let body = Bytes::from(body);
        let records = split(&chunk(), 1, &[info(3), None, info(0)], &[], &body).expect("it adds up");
        assert_eq!(
            records[0].as_ref().map(|r| (&r.vector[..], &r.payload[..])),
            Some((&[1.5][..], &b"pay"[..]))
        );
        assert_eq!(records[1], None);
        assert_eq!(records[2].as_ref().map(|r| (r.id.as_str(), r.vector[0])), Some(("c", -2.0)));
        for bad in [
            &[info(3), None][..],
            &[info(3), info(0), info(0)],
            &[info(3), None, None],
            &[None, None, info(90)],
        ] {
            assert!(split(&chunk(), 1, bad, &[], &body).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn siblings_go_with_their_records() {
        let mut body = Vec::new();
        for (component, payload) in [(1.0_f32, &b"p"[..]), (2.0, b""), (3.0, b"one"), (4.0, b"two")] {
            body.extend_from_slice(&component.to_le_bytes());
            body.extend_from_slice(payload);
        }
        let body = Bytes::from(body);
        let position = Position { term: 3, index: 4, offset: 0 };
        let sibling = |record| SiblingInfo { record, position, payload_bytes: 3 };
        let infos = [info(1), None, info(0)];
        let split = |siblings: &[SiblingInfo]| split(&chunk(), 1, &infos, siblings, &body);
        let records = split(&[sibling(2), sibling(2)]).expect("it adds up");
        let found = &records[2].as_ref().expect("it is there").siblings;
        let found: Vec<_> = found.iter().map(|it| (it.position, it.vector[0], &it.payload[..])).collect();
        assert_eq!(found, [(position, 3.0, &b"one"[..]), (position, 4.0, &b"two"[..])]);
        assert_eq!(records[0].as_ref().map(|it| it.siblings.len()), Some(0));
        for bad in [&[sibling(2)][..], &[sibling(1), sibling(2)], &[sibling(2), sibling(3)]] {
            assert!(split(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn requests_stay_inside_the_limits_and_ask_for_all() {
        let names: Vec<String> = (0..5_000).map(|i| format!("id{i}")).collect();
        let ids: Vec<&str> = names.iter().map(String::as_str).collect();
        let (num_shards, read_level) = (4, ReadLevel::Quorum);
        let shape = Shape { first_group: 1, dimension: 65_536, metric: Metric::L2, num_shards, read_level };
        let mut seen = vec![0; ids.len()];
        for chunk in chunks(shape, &ids) {
            assert!(chunk.ids.len() * (65_536 * 4 + PAYLOAD_BYTES_MAX) <= BODY_BYTES_MAX);
            for (place, id) in chunk.places.iter().zip(&chunk.ids) {
                assert_eq!((ids[*place], shard_of(id.as_bytes(), 4)), (id.as_str(), chunk.shard));
                seen[*place] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
    }
}
