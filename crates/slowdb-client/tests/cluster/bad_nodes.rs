//! One node hangs, refuses or is not what it should be, and the others would do.

use crate::fake::{FakeCluster, Manner, error, is_write, within};
use slowdb_client::{
    BulkOptions, Client, ClientError, ClientOptions, Put, ReadLevel, ReadOptions, SearchOptions, WriteOptions,
};
use slowdb_proto::{Code, ErrorReply, RequestKind};
use std::time::Duration;

fn at_one() -> ReadOptions {
    ReadOptions { level: Some(ReadLevel::One), ..ReadOptions::default() }
}

fn search_at_one() -> SearchOptions {
    SearchOptions { level: Some(ReadLevel::One), ..SearchOptions::default() }
}

#[tokio::test]
async fn a_new_leader_that_refuses_once_is_asked_again_while_the_old_one_hangs() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    // The gate stays shut: n1 takes writes, and says nothing more of them.
    cluster.manner("n1", Manner::RefuseLate(error(Code::Timeout)));
    cluster.manner("n2", Manner::RefuseOnce(error(Code::Overloaded)));
    let write = tokio::spawn(async move { collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await });
    cluster.wait_for(|seen| seen.node == "n1" && is_write(&seen.kind)).await;
    cluster.elect(0, "n2", 2);
    write.await.expect("no panic").expect("written at the new leader");
    let writes = cluster.writes();
    assert_eq!(writes, [("n1".into(), 1, false), ("n2".into(), 1, true), ("n2".into(), 1, true)]);
}

#[tokio::test]
async fn a_read_at_one_is_tried_again_while_one_replica_hangs() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.manner("n1", Manner::RefuseLate(error(Code::Unavailable)));
    cluster.manner("n2", Manner::RefuseOnce(error(Code::Unavailable)));
    cluster.manner("n3", Manner::RefuseOnce(error(Code::Unavailable)));
    for _ in 0..3 {
        let record = collection.get("a", &at_one()).await.expect("answered");
        assert_eq!(record.expect("there").vector, [1.0, 1.0]);
    }
    // None is asked again while it is being asked.
    let at_n1 =
        cluster.seen().into_iter().filter(|s| s.node == "n1" && matches!(s.kind, RequestKind::Get(_)));
    assert!(at_n1.count() <= 3);
}

#[tokio::test]
async fn a_bulk_write_loses_nothing_when_a_put_is_cancelled() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    cluster.manner("n1", Manner::RefuseLate(error(Code::Overloaded)));
    let collection = cluster.client().await.collection("default");
    let options = BulkOptions { in_flight: 1, batch_writes: 10, ..BulkOptions::default() };
    let mut writer = collection.bulk_writer(options).await.expect("a writer");
    let mut taken = Vec::new();
    for i in 0..35 {
        let id = format!("r{i:02}");
        // Polled once, and cancelled if it has to wait.
        tokio::select! {
            biased;
            put = writer.put(&id, &[1.0, 1.0], b"") => {
                put.expect("taken");
                taken.push(id);
            }
            () = std::future::ready(()) => {}
        }
    }
    // One batch is under way, one is ready: a third is not begun.
    assert_eq!(taken.len(), 20);
    cluster.manner("n1", Manner::Proper);
    cluster.open_gate();
    let report = writer.finish().await.expect("all written");
    assert_eq!(report.written, 20);
    assert_eq!(cluster.ids(), taken);
}

#[tokio::test]
async fn one_impostor_does_not_fail_a_read_that_others_can_answer() {
    let (cluster, other) = (FakeCluster::start(1).await, FakeCluster::start(1).await);
    cluster.elect(0, "n1", 1);
    let [n1, n3] = [&cluster.seeds[0], &cluster.seeds[2]].map(String::clone);
    cluster.move_to(&[n1, other.seeds[1].clone(), n3]);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    // Each replica has its turn.
    for _ in 0..3 {
        assert!(collection.get("a", &at_one()).await.expect("answered").is_some());
        let found = collection.search(&[1.0, 1.0], &search_at_one()).await.expect("answered");
        assert_eq!(found.results[0][0].id, "a");
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn when_all_replicas_are_impostors_the_error_says_so() {
    let (cluster, other) = (FakeCluster::start(1).await, FakeCluster::start(1).await);
    cluster.elect(0, "n1", 1);
    cluster.move_to(&other.seeds);
    let collection = cluster.client().await.collection("default");
    for level in [ReadLevel::One, ReadLevel::Quorum] {
        let read = collection.get("a", &ReadOptions { level: Some(level), ..ReadOptions::default() }).await;
        assert_eq!(read.expect_err("nobody is right").code(), "certificate_refused", "{level:?}");
    }
    let search = collection.search(&[1.0, 1.0], &search_at_one()).await;
    assert_eq!(search.expect_err("nobody is right").code(), "certificate_refused");
    let write = collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await;
    assert_eq!(write.expect_err("nobody is right").code(), "certificate_refused");
}

#[tokio::test]
async fn a_write_that_may_be_done_is_never_said_to_have_failed() {
    let (cluster, other) = (FakeCluster::start(1).await, FakeCluster::start(1).await);
    cluster.elect(0, "n1", 1);
    cluster.manner("n1", Manner::Refuse(error(Code::Timeout)));
    let collection = cluster.client().await.collection("default");
    let write = tokio::spawn(async move { collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await });
    cluster.wait_for(|seen| is_write(&seen.kind)).await;
    // What the first attempt did cannot be found out any more.
    cluster.move_to(&other.seeds);
    let error = write.await.expect("no panic").expect_err("nobody to ask");
    let ClientError::OutcomeUnknown { last: Some(reason), .. } = &error else { panic!("{error}") };
    assert!(reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn a_node_that_answers_nonsense_is_one_that_failed() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let collection = cluster.client().await.collection("default");
    collection.put("a", &[1.0, 1.0], &WriteOptions::default()).await.expect("written");
    cluster.manner("n1", Manner::Nonsense);
    for _ in 0..3 {
        assert!(collection.get("a", &at_one()).await.expect("answered").is_some());
        let found = collection.search(&[1.0, 1.0], &search_at_one()).await.expect("answered");
        assert_eq!(found.results[0][0].id, "a");
    }
    let write = collection.put("b", &[1.0, 1.0], &within(Duration::from_millis(500))).await;
    let error = write.expect_err("not acknowledged");
    assert!(matches!(error, ClientError::OutcomeUnknown { .. }), "{error}");
    for node in ["n2", "n3"] {
        cluster.manner(node, Manner::Nonsense);
    }
    let error = collection.get("a", &at_one()).await.expect_err("nonsense everywhere");
    assert!(matches!(error, ClientError::BadReply { .. }), "{error}");
}

#[tokio::test]
async fn a_forming_cluster_is_waited_for_though_one_seed_hangs() {
    let cluster = FakeCluster::start(1).await;
    cluster.manner("n1", Manner::Mute);
    for node in ["n2", "n3"] {
        cluster.manner(node, Manner::RefuseMapOnce(error(Code::Unavailable)));
    }
    Client::connect(cluster.options()).await.expect("formed meanwhile");
}

#[tokio::test]
async fn one_deadline_holds_for_all_requests_of_a_read() {
    // One shard more than are asked for at once.
    let cluster = FakeCluster::start(17).await;
    cluster.elect_all("n1", 1);
    cluster.elect(16, "n2", 1);
    let collection = cluster.client().await.collection("default");
    let names: Vec<String> = (0..400).map(|i| format!("r{i}")).collect();
    let puts: Vec<Put<'_>> = names.iter().map(|id| Put { id, vector: &[1.0, 1.0], payload: b"" }).collect();
    collection.put_batch(&puts, &WriteOptions::default()).await.expect("written");
    // Neither round fits into the time twice: after the first one there is no time left for the second.
    let overloaded = ErrorReply { retry_after_ms: 600, ..error(Code::Overloaded) };
    cluster.manner("n1", Manner::Refuse(overloaded.clone()));
    cluster.manner("n2", Manner::RefuseOnce(overloaded));
    let ids: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = ReadOptions { timeout: Some(Duration::from_secs(1)), ..ReadOptions::default() };
    let read = collection.get_many(&ids, &options);
    let relief = async {
        cluster.wait_for_many(16, |seen| matches!(seen.kind, RequestKind::Get(_))).await;
        cluster.manner("n1", Manner::Proper);
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = read => outcome,
        () = relief => unreachable!("it waits for ever"),
    };
    let error = outcome.expect_err("the second round comes too late");
    assert!(matches!(error, ClientError::ShardUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn no_time_out_is_too_long() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect(0, "n1", 1);
    let options = ClientOptions { timeout: Duration::MAX, ..cluster.options() };
    let client = Client::connect(options).await.expect("a client");
    let collection = client.collection("default");
    let timeout = Some(Duration::MAX);
    collection.put("a", &[1.0, 1.0], &within(Duration::MAX)).await.expect("written");
    for level in [ReadLevel::One, ReadLevel::Quorum] {
        assert!(
            collection
                .get("a", &ReadOptions { level: Some(level), timeout })
                .await
                .expect("answered")
                .is_some()
        );
        let options = SearchOptions { level: Some(level), timeout, ..SearchOptions::default() };
        let found = collection.search(&[1.0, 1.0], &options).await.expect("answered");
        assert_eq!(found.results[0][0].id, "a");
    }
    assert_eq!(client.refresh(Duration::MAX).await.nodes.len(), 3);
    assert_eq!(client.status(Duration::MAX).await.nodes.len(), 3);
}
