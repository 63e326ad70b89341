//! Requests that make no sense are answered with what was wrong, and change nothing.

mod common;

use common::{Cluster, FIRST_GROUP, assert_error, bytes_of, founding, get, id_in, put, write};
use slowdb_proto::limits::{BATCH_WRITES_MAX, GET_IDS_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX, SEARCH_K_MAX};
use slowdb_proto::{
    ClusterId, Code, ConflictsRequest, CountRequest, Freshness, GetRequest, HashesRequest, Metric,
    OpsBuilder, ReadLevel, Reply, Request, RequestKind, ScanRequest, SearchRequest, WriteLevel, WriteRequest,
};

const V: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

fn single() -> Cluster {
    Cluster::founded(&founding(&["ada"], 4, 2))
}

fn search(shards: &[u32], k: u32) -> SearchRequest {
    let collection = "default".to_owned();
    let fresh = Freshness::at(ReadLevel::One);
    SearchRequest { collection, first_group: FIRST_GROUP, shards: shards.to_vec(), fresh, k, metric: None }
}

/// One write by hand: what no builder would make.
fn raw(kind: u8, condition: u8, id: &[u8], vector: &[f32], payload: usize) -> Vec<u8> {
    let mut out = vec![kind, condition];
    out.extend_from_slice(&(id.len() as u16).to_le_bytes());
    out.extend_from_slice(&(payload as u32).to_le_bytes());
    out.extend_from_slice(&(vector.len() as u32 * 4).to_le_bytes());
    out.extend_from_slice(id);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(&bytes_of(vector));
    out.resize(out.len() + payload.next_multiple_of(4), 0);
    out
}

#[test]
fn bad_batches_change_nothing() {
    let mut cluster = single();
    let good = id_in(0, 2, 0);
    let id = good.as_bytes();
    let stray = id_in(1, 2, 0);
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put(&good, &V));
    let before = cluster.state(0, 0);

    let too_many: Vec<u8> = (0..=BATCH_WRITES_MAX).flat_map(|_| raw(2, 0, id, &[], 0)).collect();
    let second_bad = [raw(1, 0, id, &V, 0), raw(1, 0, id, &[1.0, f32::NAN, 3.0, 4.0], 0)].concat();
    let mut cut = raw(1, 0, id, &V, 0);
    cut.pop();
    let cases = [
        (Vec::new(), Code::BadRequest, "the batch is empty"),
        (vec![1, 2, 3], Code::BadRequest, "write 0: it ends inside a header"),
        (cut, Code::BadRequest, "write 0: it is longer than what is left"),
        (raw(6, 0, id, &V, 0), Code::BadRequest, "its kind is unknown"),
        (raw(1, 3, id, &V, 0), Code::BadRequest, "its condition is unknown"),
        (raw(1, 0, id, &[], 0), Code::BadRequest, "without components"),
        (raw(2, 0, id, &V, 0), Code::BadRequest, "it deletes, but carries"),
        (raw(1, 0, b"", &V, 0), Code::BadId, "write 0: the id is empty"),
        (raw(1, 0, &[b'x'; ID_BYTES_MAX + 1], &V, 0), Code::BadId, "the id has 513 bytes"),
        (raw(1, 0, b"\xff\xfe", &V, 0), Code::BadId, "not UTF-8"),
        (raw(1, 0, id, &V[..3], 0), Code::WrongDimension, "3 components, the collection has 4"),
        (second_bad, Code::NotFinite, "write 1: component 1 is NaN"),
        (raw(1, 0, id, &[1.0, 2.0, 3.0, f32::INFINITY], 0), Code::NotFinite, "component 3 is inf"),
        (raw(1, 0, id, &V, PAYLOAD_BYTES_MAX + 1), Code::TooLarge, "the payload has 65537 bytes"),
        (too_many, Code::TooLarge, "more than 10000 writes"),
        (vec![0; 9 << 20], Code::TooLarge, "9437184 bytes"),
        (put(&stray, &V), Code::BadRequest, "belongs to shard 1, not 0"),
    ];
    for (body, code, says) in cases {
        let error = cluster.refused(0, RequestKind::Write(write(0, 2, WriteLevel::Quorum)), &body);
        assert_error(&error, code, says);
    }
    assert_eq!(cluster.state(0, 0), before, "a refused batch left a trace");
    cluster.written(0, write(0, 2, WriteLevel::Quorum), &put(&good, &V));
    assert_ne!(cluster.state(0, 0), before, "and a good one does");
}

#[test]
fn what_does_not_exist_is_named() {
    let mut cluster = single();
    let id = id_in(0, 2, 0);
    let unknown = |mut write: slowdb_proto::WriteRequest| {
        write.collection = "nonesuch".to_owned();
        RequestKind::Write(write)
    };
    let error = cluster.refused(0, unknown(write(0, 1, WriteLevel::Quorum)), &put(&id, &V));
    assert_error(&error, Code::UnknownCollection, "'nonesuch'; there is: default");
    let error = cluster.refused(0, RequestKind::Write(write(2, 1, WriteLevel::Quorum)), &put(&id, &V));
    assert_error(&error, Code::BadRequest, "there is no shard 2: collection 'default' has shards 0 to 1");
    let error = cluster.refused(0, get(u32::MAX, ReadLevel::One, &["x"]), b"");
    assert_error(&error, Code::BadRequest, "there is no shard 4294967295");
    let error = cluster.refused(0, RequestKind::Search(search(&[0, 9], 1)), &bytes_of(&V));
    assert_error(&error, Code::BadRequest, "there is no shard 9");
}

#[test]
fn another_cluster_is_refused() {
    let mut cluster = single();
    let own = cluster.cluster_id(0).expect("it is founded");
    let ask = |cluster: &mut Cluster, id| {
        let request = Request { cluster: Some(id), timeout_ms: 1_000, kind: RequestKind::Map };
        cluster.ask_as(0, request, b"").0
    };
    assert!(matches!(ask(&mut cluster, own), Reply::Map(map) if map.cluster == own));
    let Reply::Error(error) = ask(&mut cluster, ClusterId([9; 16])) else { panic!("wanted an error") };
    assert_error(&error, Code::WrongCluster, &format!("this node belongs to cluster {own}"));
}

#[test]
fn bad_gets_are_named() {
    let mut cluster = single();
    for level in [ReadLevel::One, ReadLevel::Quorum] {
        let long = "x".repeat(ID_BYTES_MAX + 1);
        assert_error(&cluster.refused(0, get(0, level, &["a", ""]), b""), Code::BadId, "an id of 0 bytes");
        assert_error(&cluster.refused(0, get(0, level, &[&long]), b""), Code::BadId, "an id of 513 bytes");
        let many = vec!["x"; GET_IDS_MAX + 1];
        assert_error(&cluster.refused(0, get(0, level, &many), b""), Code::TooLarge, "10001 ids");
        let (reply, body) = cluster.ask(0, get(0, level, &[]), b"");
        assert!(matches!(reply, Reply::Records { records, .. } if records.is_empty()) && body.is_empty());
        let (reply, _) = cluster.ask(0, get(0, level, &["no such id"]), b"");
        assert!(matches!(reply, Reply::Records { records, .. } if records == [None]));
    }
}

/// 256 records of the largest dimension fill a frame; one more is an error and not a frame that nobody takes.
#[test]
fn a_reply_larger_than_a_frame_is_an_error() {
    let dimension = 65_536;
    let mut cluster = Cluster::founded(&founding(&["ada"], dimension, 1));
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put("x", &vec![0.5; dimension as usize]));
    let (reply, body) = cluster.ask(0, get(0, ReadLevel::One, &["x"; 256]), b"");
    assert!(matches!(reply, Reply::Records { records, .. } if records.len() == 256));
    assert_eq!(body.len(), 64 << 20);
    let error = cluster.refused(0, get(0, ReadLevel::One, &["x"; 300]), b"");
    assert_error(&error, Code::TooLarge, "the first 257 of the 300 records");
}

#[test]
fn bad_searches_are_named() {
    let mut cluster = single();
    let ask = |cluster: &mut Cluster, request: SearchRequest, queries: &[f32]| {
        cluster.refused(0, RequestKind::Search(request), &bytes_of(queries))
    };
    let good = || search(&[0, 1], 3);
    assert_error(&ask(&mut cluster, search(&[], 3), &V), Code::BadRequest, "names no shard");
    assert_error(&ask(&mut cluster, search(&[0], 0), &V), Code::BadRequest, "k is 0");
    let k = SEARCH_K_MAX as u32 + 1;
    assert_error(&ask(&mut cluster, search(&[0], k), &V), Code::BadRequest, "k is 10001");
    assert_error(&ask(&mut cluster, good(), &[]), Code::WrongDimension, "0 components");
    assert_error(&ask(&mut cluster, good(), &V[..3]), Code::WrongDimension, "3 components");
    assert_error(&ask(&mut cluster, good(), &[1.0; 4 * 1025]), Code::TooLarge, "1025 queries");
    let second = [V, [1.0, 2.0, f32::NAN, 4.0]].concat();
    assert_error(&ask(&mut cluster, good(), &second), Code::NotFinite, "component 2 of query 1 is NaN");
    let zero = [V, [0.0, -0.0, 0.0, 0.0]].concat();
    assert_error(&ask(&mut cluster, good(), &zero), Code::BadRequest, "query 1 is zero");
    let metric = Some(Metric::L2);
    let (reply, _) =
        cluster.ask(0, RequestKind::Search(SearchRequest { metric, ..good() }), &bytes_of(&zero));
    assert!(matches!(reply, Reply::Hits { metric: Metric::L2, .. }), "by distance zero is as good as any");
}

/// 1,024 queries with 1,210 hits each, of 13 bytes at least: a few more than what is left of a frame.
#[test]
fn a_search_whose_hits_fit_no_frame_is_refused_before_it_is_done() {
    let mut cluster = Cluster::founded(&founding(&["ada"], 1, 1));
    let mut batch = OpsBuilder::new();
    (0..1_210).for_each(|number| batch.put(&format!("{number}"), &[1.0], b"").expect("a good put"));
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &batch.finish());
    let queries = vec![1.0; 1_024];
    for k in [1_210, SEARCH_K_MAX as u32] {
        let error = cluster.refused(0, RequestKind::Search(search(&[0], k)), &bytes_of(&queries));
        let says =
            format!("1024 queries with k = {k} over 1210 records have hits of at least 16107520 bytes");
        assert_error(&error, Code::TooLarge, &says);
    }
    // However large a `k` is, there are no more hits than records.
    let request = RequestKind::Search(search(&[0], SEARCH_K_MAX as u32));
    let (reply, _) = cluster.ask(0, request, &bytes_of(&queries[..100]));
    assert!(matches!(reply, Reply::Hits { results, .. } if results.iter().all(|hits| hits.len() == 1_210)));
}

#[test]
fn a_search_covers_each_shard_once_and_sorts_over_all() {
    let mut cluster = single();
    for shard in 0..2 {
        for number in 0..5 {
            let x = (number * 2 + shard as usize) as f32;
            let body = put(&id_in(shard, 2, number), &[x, 0.0, 0.0, 0.0]);
            cluster.written(0, write(shard, number as u64 + 1, WriteLevel::Quorum), &body);
        }
    }
    let request = SearchRequest { metric: Some(Metric::L2), ..search(&[1, 0, 1, 1], 4) };
    let (reply, _) = cluster.ask(0, RequestKind::Search(request), &bytes_of(&[0.0; 4]));
    let Reply::Hits { shards, results, .. } = reply else { panic!("wanted hits") };
    assert_eq!(shards.iter().map(|shard| shard.shard).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(results[0].iter().map(|hit| hit.score).collect::<Vec<_>>(), [0.0, 1.0, 4.0, 9.0]);
}

#[test]
fn a_node_that_does_not_lead_says_who_does() {
    let mut cluster = Cluster::founded(&founding(&["ada", "bob", "cyd"], 4, 4));
    let names = ["ada", "bob", "cyd"];
    let leader = cluster.leader(0);
    let id = id_in(0, 4, 0);
    for other in (0..3).filter(|at| *at != leader) {
        let asked = RequestKind::Write(write(0, 1, WriteLevel::Quorum));
        let error = cluster.refused(other, asked, &put(&id, &V));
        assert_error(&error, Code::NotLeader, &format!("node {} does not lead", names[other]));
        assert_eq!(error.leader.as_deref(), Some(names[leader]));
        assert!(error.term > 0 && error.epoch == 1, "{error:?}");
        assert_eq!(cluster.get(other, 0, &id), None, "at one it answers itself");
    }
}

#[test]
fn a_node_without_a_replica_says_who_has_one() {
    let mut cluster = Cluster::founded(&founding(&["a", "b", "c", "d"], 4, 4));
    let Reply::Map(map) = cluster.ask(0, RequestKind::Map, b"").0 else { panic!("wanted a map") };
    let shard = &map.collections[0].shards[0];
    let hosts: Vec<&str> = shard.replicas.iter().map(|replica| replica.node.as_str()).collect();
    let outsider = ["a", "b", "c", "d"].iter().position(|n| !hosts.contains(n)).expect("factor 3 of 4 nodes");
    let id = id_in(0, 4, 0);
    let error = cluster.refused(outsider, get(0, ReadLevel::One, &[&id]), b"");
    assert_error(&error, Code::StaleRoute, &format!("nodes {} have", hosts.join(", ")));
    let asked = RequestKind::Write(write(0, 1, WriteLevel::Quorum));
    let error = cluster.refused(outsider, asked, &put(&id, &V));
    assert_error(&error, Code::StaleRoute, "has no replica of shard 0");
}

#[test]
fn before_the_founding_everything_is_unavailable() {
    let mut cluster = Cluster::start(&founding(&["ada", "bob", "cyd"], 4, 2));
    cluster.kill(1);
    cluster.kill(2);
    for _ in 0..200 {
        cluster.tick();
    }
    assert_eq!(cluster.cluster_id(0), None, "one of three founds nothing");
    let id = id_in(0, 2, 0);
    let asked = RequestKind::Write(write(0, 1, WriteLevel::Quorum));
    for error in [
        cluster.refused(0, RequestKind::Map, b""),
        cluster.refused(0, asked, &put(&id, &V)),
        cluster.refused(0, get(0, ReadLevel::One, &[&id]), b""),
    ] {
        assert_error(&error, Code::Unavailable, "waits for a majority of ada, bob, cyd");
        assert!(error.retry_after_ms > 0);
    }
    assert!(
        matches!(cluster.ask(0, RequestKind::Status, b"").0, Reply::Status(status) if status.cluster.is_none())
    );
}

#[test]
fn a_node_that_stops_takes_no_writes() {
    let mut cluster = single();
    let id = id_in(0, 2, 0);
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    let mut batch = OpsBuilder::new();
    batch.delete(&id).expect("a good delete");
    cluster.prepare_to_stop(0);
    let error = cluster.refused(0, RequestKind::Write(write(0, 2, WriteLevel::Quorum)), &batch.finish());
    assert_error(&error, Code::ShuttingDown, "node ada is stopping");
    assert!(cluster.get(0, 0, &id).is_some(), "reads go on");
}

/// Whoever placed ids on the shards of a collection that is gone must not be told of others.
#[test]
fn requests_for_a_collection_of_the_same_name_that_is_gone_or_to_come_are_stale_routes() {
    let mut cluster = single();
    let id = id_in(0, 2, 0);
    cluster.written(0, write(0, 1, WriteLevel::Quorum), &put(&id, &V));
    let before = cluster.state(0, 0);
    for (first_group, says) in [(0, "it begins with group 1, not 0"), (3, "has not heard of group 3 yet")] {
        let (collection, fresh) = ("default".to_owned(), Freshness::at(ReadLevel::Quorum));
        let kinds = [
            RequestKind::Write(WriteRequest { first_group, ..write(0, 2, WriteLevel::Quorum) }),
            RequestKind::Search(SearchRequest { first_group, ..search(&[0], 1) }),
            RequestKind::Get(GetRequest {
                collection: collection.clone(),
                first_group,
                // More than there are here, which is nothing final either.
                shard: 7,
                fresh: fresh.clone(),
                ids: vec![id.clone()],
            }),
            RequestKind::Count(CountRequest {
                collection: collection.clone(),
                first_group,
                shard: 0,
                fresh: fresh.clone(),
                prefix: String::new(),
            }),
            RequestKind::Hashes(HashesRequest {
                collection: collection.clone(),
                first_group,
                shard: 0,
                fresh: fresh.clone(),
                ranges: vec![],
            }),
            RequestKind::Scan(ScanRequest {
                collection: collection.clone(),
                first_group,
                shard: 0,
                fresh: fresh.clone(),
                prefix: String::new(),
                after: None,
                limit: 1,
                vectors: false,
                payloads: false,
            }),
            RequestKind::Conflicts(ConflictsRequest {
                collection,
                first_group,
                shard: 0,
                fresh,
                from: slowdb_proto::Position::START,
                limit: 1,
                losers: false,
            }),
        ];
        for kind in kinds {
            let error = cluster.refused(0, kind, &put(&id, &V));
            assert_error(&error, Code::StaleRoute, says);
        }
    }
    assert_eq!(cluster.state(0, 0), before, "nothing was changed");
}
