//! The client against nodes that lead, deny, fall silent and come back.

use crate::fake::{CLUSTER, FakeCluster, Manner, SHORT, error, is_write, within};
use slowdb_client::{
    BulkOptions, BulkProgress, Client, ClientError, ClientOptions, Condition, Identity, Put, ReadLevel,
    ReadOptions, Role, SearchOptions, WriteLevel, WriteOptions,
};
use slowdb_proto::{ClusterId, Code, ErrorReply, RequestKind};
use slowdb_ring::shard_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn what_is_written_is_read_found_and_removed() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n2", 1);
    let collection = cluster.client().await.collection("default");
    let put = Put { id: "a", vector: &[1.0, 2.0], payload: b"with it" };
    let written = collection.put_record(put, &WriteOptions::default()).await.expect("written");
    assert_eq!((written.shard, written.existed), (shard_of(b"a", 4), Some(false)));
    assert_eq!((written.durable_on, written.replicas), (2, 3));
    collection.put("b", &[5.0, 5.0], &WriteOptions::default()).await.expect("written");

    for level in [ReadLevel::Quorum, ReadLevel::One] {
        let options = ReadOptions { level: Some(level), ..ReadOptions::default() };
        let record = collection.get("a", &options).await.expect("answered").expect("there");
        assert_eq!((&record.vector[..], &record.payload[..]), (&[1.0, 2.0][..], &b"with it"[..]));
        assert_eq!(record.position, written.position);
        assert_eq!(collection.get("none", &options).await.expect("answered"), None);
        let search = SearchOptions { k: 1, level: Some(level), ..SearchOptions::default() };
        let found = collection.search(&[5.0, 4.0, 0.0, 0.0], &search).await.expect("answered");
        let ids: Vec<_> = found.results.iter().map(|hits| (hits[0].id.as_str(), hits[0].score)).collect();
        assert_eq!(ids, [("b", 1.0), ("a", 5.0)]);
        assert_eq!(found.shards.iter().map(|p| p.shard).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    let again = collection.put("a", &[3.0, 3.0], &WriteOptions::default()).await.expect("written");
    assert_eq!(again.existed, Some(true));
    assert_eq!(collection.delete("a", &WriteOptions::default()).await.expect("done").existed, Some(true));
    assert_eq!(collection.delete("a", &WriteOptions::default()).await.expect("done").existed, Some(false));
    assert_eq!(cluster.ids(), ["b"]);
    // All went to the leader at once, and for this cluster.
    assert!(cluster.writes().iter().all(|(node, _, retry)| node == "n2" && !retry));
    let after_the_first = &cluster.seen()[1..];
    assert!(after_the_first.iter().all(|seen| seen.cluster == Some(CLUSTER)));
}

/// The reply to a write that took effect is lost: by then its condition does not hold any more, and it is none the
/// less what the first attempt came to that is told.
#[tokio::test]
async fn a_condition_is_decided_by_the_first_attempt() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n2", 1);
    let collection = cluster.client().await.collection("default");
    let options = WriteOptions::default();
    let put = Put { id: "a", vector: &[1.0, 2.0], payload: b"" };
    cluster.manner("n2", Manner::DoButSay(error(Code::LeaderChanged)));
    let made = collection.put_if(put, Condition::IfAbsent, &options).await.expect("it was absent");
    assert_eq!(cluster.writes().iter().map(|(_, _, retry)| *retry).collect::<Vec<_>>(), [false, true]);
    cluster.manner("n2", Manner::DoButSay(error(Code::LeaderChanged)));
    let again = collection.put_if(put, Condition::IfAbsent, &options).await.expect_err("it is there");
    assert_eq!(again.code(), "condition_not_met");
    let ClientError::ConditionNotMet { id, current } = again else { panic!("{again}") };
    assert_eq!((id.as_str(), current), ("a", Some(made.position)));
    let version = Condition::IfVersion(made.position);
    assert_eq!(collection.delete_if("a", version, &options).await.expect("it is that").existed, Some(true));
    let gone = collection.delete_if("a", version, &options).await.expect_err("it is gone");
    assert!(gone.to_string().contains("there is no record"), "{gone}");
}

#[tokio::test]
async fn a_hint_is_followed_at_the_same_sequence() {
    let cluster = FakeCluster::start(1).await;
    // The client's map knows no leader; the preferred replica (n1) knows better.
    let client = cluster.client().await;
    cluster.elect(0, "n3", 4);
    client.collection("default").put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    // Nothing was changed by the first attempt: the second one is no retry.
    assert_eq!(cluster.writes(), [("n1".into(), 1, false), ("n3".into(), 1, false)]);
    assert_eq!(client.map().collections[0].shards[0].term, 4);
    client.collection("default").put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    assert_eq!(cluster.writes()[2], ("n3".into(), 2, false));
}

#[tokio::test]
async fn a_killed_leader_is_left_for_its_successor() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let client = cluster.client().await;
    let collection = client.collection("default");
    collection.put("before", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.manner("n1", Manner::Mute);
    let write =
        tokio::spawn(async move { collection.put("after", &[1.0, 1.0], &WriteOptions::default()).await });
    cluster.wait_for(|seen| matches!(&seen.kind, RequestKind::Write(write) if write.sequence == 2)).await;
    cluster.wait_for(|seen| seen.node == "n3" && seen.kind == RequestKind::Map).await;
    for node in ["n2", "n3"] {
        cluster.tell(node, 0, "n2", 2);
    }
    write.await.expect("no panic").expect("written at the successor");
    // The same tag, and it says that it may be a second attempt.
    let writes = cluster.writes();
    assert_eq!(writes[1..], [("n1".into(), 2, false), ("n2".into(), 2, true)]);
    assert_eq!(cluster.ids(), ["after", "before"]);
}

#[tokio::test]
async fn a_late_error_of_the_old_leader_does_not_win_over_the_new_one() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let client = cluster.client().await;
    cluster.manner("n1", Manner::RefuseLate(error(Code::BadRequest)));
    cluster.manner("n2", Manner::RefuseLate(error(Code::LeaderChanged)));
    let collection = client.collection("default");
    let write = tokio::spawn(async move { collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await });
    cluster.wait_for(|seen| seen.node == "n1" && is_write(&seen.kind)).await;
    cluster.elect(0, "n2", 2);
    cluster.wait_for(|seen| seen.node == "n2" && is_write(&seen.kind)).await;
    // Both attempts end in errors now; a third is made at n3, the newest leader.
    cluster.elect(0, "n3", 3);
    cluster.wait_for(|seen| seen.node == "n3" && is_write(&seen.kind)).await;
    cluster.open_gate();
    write.await.expect("no panic").expect("written");
    assert_eq!(cluster.executed(), 1);
}

#[tokio::test]
async fn an_acknowledgement_that_got_lost_is_asked_for_again_and_nothing_is_done_twice() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    cluster.manner("n1", Manner::DoButSay(error(Code::LeaderChanged)));
    let collection = cluster.client().await.collection("default");
    let written = collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    assert_eq!(cluster.executed(), 1);
    assert_eq!((written.position.index, written.existed), (1, Some(false)), "the stored result");
    assert_eq!(cluster.writes(), [("n1".into(), 1, false), ("n1".into(), 1, true)]);
}

#[tokio::test]
async fn an_overloaded_node_is_asked_again() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let overloaded = ErrorReply { retry_after_ms: 30, ..error(Code::Overloaded) };
    cluster.manner("n1", Manner::RefuseOnce(overloaded));
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    assert_eq!(cluster.writes(), [("n1".into(), 1, false), ("n1".into(), 1, false)]);
}

#[tokio::test]
async fn what_trying_again_does_not_mend_is_said_at_once() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    for code in [Code::BadRequest, Code::UnknownOutcome, Code::LevelNotReached, Code::WrongCluster] {
        cluster.manner("n1", Manner::Refuse(error(code)));
        let before = cluster.writes().len();
        let result = collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await;
        assert_eq!(result.expect_err("refused").code(), code.as_str());
        assert_eq!(cluster.writes().len(), before + 1, "{code:?}");
    }
}

#[tokio::test]
async fn bad_input_is_refused_before_anything_is_sent() {
    let cluster = FakeCluster::start(1).await;
    let collection = cluster.client().await.collection("default");
    let before = cluster.seen().len();
    let options = WriteOptions::default();
    let long = "x".repeat(513);
    let cases: [(&str, &[f32], &str); 5] = [
        ("", &[1.0, 1.0], "bad_id"),
        (&long, &[1.0, 1.0], "bad_id"),
        ("a", &[1.0], "wrong_dimension"),
        ("a", &[1.0, f32::NAN], "not_finite"),
        ("a", &[f32::INFINITY, 1.0], "not_finite"),
    ];
    for (id, vector, code) in cases {
        let error = collection.put(id, vector, &options).await.expect_err(code);
        assert_eq!(error.code(), code, "{error}");
        // One bad record, and none of a batch is sent.
        let puts = [Put { id: "good", vector: &[0.0, 0.0], payload: b"" }, Put { id, vector, payload: b"" }];
        assert_eq!(collection.put_batch(&puts, &options).await.expect_err(code).code(), code);
    }
    let large = vec![0; 64 * 1024 + 1];
    let put = Put { id: "a", vector: &[1.0, 1.0], payload: &large };
    assert_eq!(collection.put_record(put, &options).await.expect_err("large").code(), "too_large");
    for (k, queries, code) in [
        (0, &[1.0, 1.0][..], "bad_request"),
        (10_001, &[1.0, 1.0][..], "too_large"),
        (1, &[1.0, 1.0, 1.0][..], "wrong_dimension"),
        (1, &[][..], "wrong_dimension"),
        (1, &[1.0, f32::NAN][..], "not_finite"),
    ] {
        let options = SearchOptions { k, ..SearchOptions::default() };
        assert_eq!(collection.search(queries, &options).await.expect_err(code).code(), code);
    }
    assert_eq!(cluster.seen().len(), before);
    let error = cluster.client().await.collection("other").get("a", &ReadOptions::default()).await;
    assert_eq!(error.expect_err("no such collection").code(), "unknown_collection");
}

#[tokio::test]
async fn without_an_answer_the_outcome_of_a_write_is_unknown() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    cluster.manner("n1", Manner::Mute);
    let error = collection.put("a", &[1.0, 1.0], &within(SHORT)).await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    assert_eq!(error.code(), "unknown_outcome");
    let read = ReadOptions { timeout: Some(SHORT), ..ReadOptions::default() };
    let error = collection.get("a", &read).await.expect_err("nobody answers");
    assert!(matches!(error, ClientError::ShardUnavailable { shard: 0, .. }), "{error}");
}

#[tokio::test]
async fn a_write_that_was_only_ever_refused_changed_nothing() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    // Not again before the deadline: so no attempt is under way when it comes.
    let overloaded = ErrorReply { retry_after_ms: 60_000, ..error(Code::Overloaded) };
    cluster.manner("n1", Manner::Refuse(overloaded));
    let error = collection.put("a", &[1.0, 1.0], &within(SHORT)).await.expect_err("refused");
    assert!(matches!(error, ClientError::TimedOut { .. }), "{error}");
    assert_eq!(error.code(), "timeout");
    assert_eq!(cluster.writes().len(), 1);
}

#[tokio::test]
async fn without_a_leader_replicas_are_asked_in_turn() {
    let cluster = FakeCluster::start(1).await;
    let collection = cluster.client().await.collection("default");
    let write = tokio::spawn(async move { collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await });
    cluster.wait_for(|seen| seen.node == "n3" && is_write(&seen.kind)).await;
    write.abort();
    let asked: Vec<String> = cluster.writes().into_iter().map(|w| w.0).take(3).collect();
    assert_eq!(asked, ["n1", "n2", "n3"]);
}

#[tokio::test]
async fn a_read_at_one_goes_on_to_the_next_replica() {
    let cluster = FakeCluster::start(2).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.manner("n1", Manner::Mute);
    cluster.manner("n2", Manner::Refuse(error(Code::Corrupt)));
    let options = ReadOptions { level: Some(ReadLevel::One), ..ReadOptions::default() };
    for _ in 0..4 {
        let record = collection.get("a", &options).await.expect("answered");
        assert_eq!(record.expect("there").vector, [1.0, 1.0]);
    }
}

/// The leader that is known has no replica any more, and nobody who has one was ever heard of.
#[tokio::test]
async fn a_shard_that_moved_altogether_is_found() {
    let cluster = FakeCluster::start(1).await;
    cluster.move_shard(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.move_shard(0, "n3", 2);
    cluster.manner("n1", Manner::Refuse(error(Code::StaleRoute)));
    let record = collection.get("a", &ReadOptions::default()).await.expect("read");
    assert_eq!(record.expect("there").vector, [1.0, 1.0]);
    cluster.move_shard(0, "n2", 3);
    cluster.manner("n3", Manner::Refuse(error(Code::StaleRoute)));
    collection.put("a", &[2.0, 2.0], &WriteOptions::default()).await.expect("written");
    let mut asked: Vec<String> = cluster.writes().into_iter().map(|write| write.0).collect();
    // The one that is there no more may be asked again before it has said where the shard is.
    asked.dedup();
    assert_eq!(asked, ["n1", "n3", "n2"]);
}

#[tokio::test]
async fn a_read_from_one_node_goes_to_no_other() {
    let cluster = FakeCluster::start(2).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    let reads = || {
        let reads = cluster.seen().into_iter().filter(|seen| matches!(seen.kind, RequestKind::Get(_)));
        reads.map(|seen| seen.node).collect::<Vec<String>>()
    };
    for node in ["n1", "n2", "n3"] {
        let record = collection.get_from(node, "a", None).await.expect("answered").expect("there");
        assert_eq!(record.vector, [1.0, 1.0]);
    }
    assert_eq!(reads(), ["n1", "n2", "n3"]);
    for (node, manner) in [("n2", Manner::Mute), ("n3", Manner::Refuse(error(Code::Corrupt)))] {
        cluster.manner(node, manner);
        let read = collection.get_from(node, "a", Some(SHORT)).await;
        assert!(read.is_err(), "nobody else is asked instead: {read:?}");
    }
    let nowhere = collection.get_from("n9", "a", Some(SHORT)).await;
    assert!(matches!(nowhere, Err(ClientError::ShardUnavailable { .. })), "{nowhere:?}");
    assert!(reads().iter().skip(3).all(|node| node != "n1"), "{:?}", reads());
}

#[tokio::test]
async fn one_node_is_asked_how_it_is() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let nowhere = client.node_status("n9", SHORT).await;
    assert!(matches!(nowhere, Err(ClientError::NoNodeReachable { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn a_search_at_one_leaves_a_node_that_says_nothing_at_all() {
    let cluster = FakeCluster::start(2).await;
    cluster.elect_all("n1", 1);
    // Only n1 was ever heard of, so it is asked first.
    let options = ClientOptions { seeds: vec![cluster.seeds[0].clone()], ..cluster.options() };
    let collection = Client::connect(options).await.expect("a client").collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.manner("n1", Manner::Mute);
    let options = SearchOptions { level: Some(ReadLevel::One), ..SearchOptions::default() };
    let found = collection.search(&[1.0, 1.0], &options).await.expect("another node answers");
    assert_eq!(found.results[0][0].id, "a");
    let asked: Vec<String> = cluster
        .seen()
        .into_iter()
        .filter(|seen| matches!(seen.kind, RequestKind::Search(_)))
        .map(|seen| seen.node)
        .collect();
    assert_eq!((asked.len(), asked[0].as_str()), (2, "n1"));
}

#[tokio::test]
async fn a_search_survives_the_loss_of_a_node() {
    let cluster = FakeCluster::start(8).await;
    for shard in 0..8 {
        cluster.elect(shard, ["n1", "n2", "n3"][shard as usize % 3], 1);
    }
    let client = cluster.client().await;
    let collection = client.collection("default");
    let ids: Vec<String> = (0..100).map(|i| format!("r{i:03}")).collect();
    let vectors: Vec<[f32; 2]> = (0..100).map(|i| [i as f32, 0.0]).collect();
    let puts: Vec<Put<'_>> =
        ids.iter().zip(&vectors).map(|(id, vector)| Put { id, vector, payload: b"" }).collect();
    let report = collection.put_batch(&puts, &WriteOptions::default()).await.expect("written");
    assert_eq!((report.written, report.shards.len()), (100, 8));

    cluster.manner("n2", Manner::Mute);
    let options = SearchOptions { k: 3, ..SearchOptions::default() };
    // More queries than go into one request.
    let queries: Vec<f32> = (0..150).flat_map(|i| [(i % 100) as f32 + 0.1, 0.0]).collect();
    let search = {
        let (collection, queries, options) = (collection.clone(), queries.clone(), options.clone());
        tokio::spawn(async move { collection.search(&queries, &options).await })
    };
    cluster.wait_for(|seen| seen.node == "n2" && matches!(seen.kind, RequestKind::Search(_))).await;
    for shard in [1, 4, 7] {
        cluster.elect(shard, "n3", 2);
    }
    let found = search.await.expect("no panic").expect("answered");
    assert_eq!(found.results.len(), 150);
    for (i, hits) in found.results.iter().enumerate() {
        assert_eq!(hits[0].id, ids[i % 100]);
        assert_eq!(hits.len(), 3);
    }
    let options = SearchOptions { level: Some(ReadLevel::One), ..options };
    let found = collection.search(&queries, &options).await.expect("answered by the others");
    assert_eq!(found.results[42][0].id, ids[42]);

    // A shard without a leader is named.
    cluster.elect(4, "n2", 3);
    let options = SearchOptions { level: Some(ReadLevel::Quorum), timeout: Some(SHORT), ..options };
    let error = cluster.client().await.collection("default").search(&queries[..2], &options).await;
    let error = error.expect_err("shard 4 cannot be searched");
    assert!(matches!(error, ClientError::ShardUnavailable { shard: 4, .. }), "{error}");
}

#[tokio::test]
async fn a_bulk_write_keeps_its_bounds_and_counts_what_was_acknowledged() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    let highest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&highest);
    let progress = move |p: BulkProgress| {
        assert!(p.through <= p.written);
        seen.fetch_max(p.through, Ordering::Relaxed);
    };
    let options = BulkOptions {
        in_flight: 3,
        batch_writes: 7,
        progress: Some(Arc::new(progress)),
        ..BulkOptions::default()
    };
    let mut writer = collection.bulk_writer(options).await.expect("a writer");
    for i in 0..500 {
        writer.put(&format!("r{i}"), &[i as f32, 1.0], b"p").await.expect("taken");
    }
    let bad = writer.put("bad", &[f32::NAN, 0.0], b"").await.expect_err("not finite");
    assert_eq!(bad.code(), "not_finite");
    let report = writer.finish().await.expect("all written");
    assert_eq!(report.written, 500);
    assert_eq!(highest.load(Ordering::Relaxed), 500);
    assert_eq!(cluster.ids().len(), 500);
    assert!(cluster.under_way_max() <= 3, "{} at once", cluster.under_way_max());
    let batches = 4 * 500u64.div_ceil(4).div_ceil(7);
    assert!(cluster.executed() <= batches + 8, "{} batches", cluster.executed());
}

#[tokio::test]
async fn a_bulk_write_that_fails_says_how_much_was_written() {
    let cluster = FakeCluster::start(2).await;
    cluster.elect(0, "n1", 1);
    cluster.elect(1, "n2", 1);
    cluster.manner("n2", Manner::Refuse(error(Code::LevelNotReached)));
    let collection = cluster.client().await.collection("default");
    let through = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&through);
    let progress = move |p: BulkProgress| {
        seen.fetch_max(p.through, Ordering::Relaxed);
    };
    let options = BulkOptions {
        level: Some(WriteLevel::All),
        batch_writes: 10,
        progress: Some(Arc::new(progress)),
        ..BulkOptions::default()
    };
    let mut writer = collection.bulk_writer(options).await.expect("a writer");
    let mut failed = None;
    for i in 0..1_000 {
        if let Err(error) = writer.put(&format!("r{i}"), &[1.0, 1.0], b"").await {
            failed = Some(error);
            break;
        }
    }
    let error = match failed {
        Some(error) => error,
        None => writer.finish().await.expect_err("shard 1 refuses"),
    };
    let ClientError::Partial { written, at_quorum, source } = &error else { panic!("{error}") };
    assert_eq!(*written as usize, cluster.ids().len());
    assert!(
        *at_quorum >= 1 && error.to_string().contains(&format!(" and {at_quorum} more stand at quorum")),
        "{error}"
    );
    assert_eq!((source.code(), error.code()), ("level_not_reached", "level_not_reached"));
    // Up to there nothing is missing, whatever was written after it.
    let there = cluster.ids();
    let through = through.load(Ordering::Relaxed);
    assert!((0..through).all(|i| there.contains(&format!("r{i}"))), "{through}: {there:?}");
}

#[tokio::test]
async fn a_node_that_was_restarted_is_connected_to_again() {
    let mut cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.restart(0).await;
    collection.put("b", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    assert_eq!(cluster.ids(), ["a", "b"]);
}

#[tokio::test]
async fn seeds_are_tried_and_the_reasons_given() {
    let cluster = FakeCluster::start(1).await;
    // A socket that listens but does not speak: nobody else can get its port meanwhile.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address").to_string();
    let seeds = [silent.clone(), "no.such.host.invalid:1".into(), cluster.seeds[2].clone()];
    let options = ClientOptions { seeds: seeds.to_vec(), ..cluster.options() };
    let client = Client::connect(options.clone()).await.expect("the third seed answers");
    assert_eq!(client.cluster_id(), CLUSTER);

    let options =
        ClientOptions { seeds: seeds[..2].to_vec(), timeout: Duration::from_millis(500), ..options };
    let error = Client::connect(options).await.expect_err("neither answers");
    let ClientError::NoNodeReachable { tried } = &error else { panic!("{error}") };
    let mut addresses: Vec<&str> = tried.iter().map(|t| t.address.as_str()).collect();
    addresses.sort_unstable();
    let mut wanted = [silent.as_str(), "no.such.host.invalid:1"];
    wanted.sort_unstable();
    assert_eq!(addresses, wanted);
    assert_eq!(error.code(), "unreachable");
}

#[tokio::test]
async fn strangers_get_nowhere() {
    let cluster = FakeCluster::start(1).await;
    let dir = tempfile::tempdir().expect("a directory");
    let certs = dir.path().join("others");
    slowdb_net::create(&certs).expect("certificates");
    let stranger = Identity::load(&certs, Role::Client).expect("an identity");
    let error = Client::connect(ClientOptions::new(&cluster.seeds, stranger)).await.expect_err("a stranger");
    assert_eq!(error.code(), "certificate_refused", "{error}");
    assert!(cluster.seen().is_empty(), "nothing of a stranger is looked at");

    let other = ClusterId([1; 16]);
    let options = ClientOptions { cluster: Some(other), ..cluster.options() };
    let error = Client::connect(options).await.expect_err("another cluster");
    assert!(matches!(error, ClientError::WrongCluster { got: CLUSTER, .. }), "{error}");
}

#[tokio::test]
async fn concurrent_writes_have_tags_of_their_own() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    let client = cluster.client().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..50)
        .map(|i| {
            let (client, done) = (client.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let collection = client.collection("default");
                let written = collection.put(&format!("r{i}"), &[1.0, 1.0], &WriteOptions::default()).await;
                done.lock().unwrap().push(written.expect("written"));
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let mut sequences: Vec<u64> = cluster.writes().into_iter().map(|w| w.1).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=50).collect::<Vec<_>>());
    assert_eq!(cluster.ids().len(), 50);
}
