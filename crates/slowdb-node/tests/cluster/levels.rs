//! What each level is worth on real processes: who answers, who has to have it, and what is said when some cannot.

use crate::nodes::{DEADLINE, Direct, Nodes, get, small};
use slowdb_client::{
    Client, ClientError, Collection, ReadLevel, ReadOptions, ScanOptions, SearchOptions, WriteLevel,
    WriteOptions,
};
use slowdb_proto::{Code, Freshness, GroupPosition, Reply, ShardPosition};
use slowdb_ring::shard_of;
use std::collections::BTreeSet;
use std::time::Duration;
use xtask::cluster::{Shape, view};

const DIMENSION: usize = 4;
const RECORDS: usize = 40;
const READ_LEVELS: [ReadLevel; 3] = [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum];
/// For requests that cannot be answered.
const SHORT: Duration = Duration::from_secs(2);

fn vector(n: f32) -> Vec<f32> {
    vec![n; DIMENSION]
}

fn write_at(level: WriteLevel, within: Duration) -> WriteOptions {
    WriteOptions { level: Some(level), timeout: Some(within) }
}

fn read_at(level: ReadLevel) -> ReadOptions {
    ReadOptions { level: Some(level), timeout: Some(DEADLINE) }
}

/// Writes records to all shards at `quorum`. Gives their ids.
async fn write_records(collection: &Collection) -> Vec<String> {
    let ids: Vec<String> = (0..RECORDS).map(|n| format!("record-{n:02}")).collect();
    for (n, id) in (1_u8..).zip(&ids) {
        let options = write_at(WriteLevel::Quorum, DEADLINE);
        let written = collection.put(id, &vector(n.into()), &options).await.expect("written");
        assert!(written.durable_on >= 2 && written.replicas <= 3, "{written:?}");
    }
    ids
}

/// Who leads a shard, and the others.
async fn leader_and_others(nodes: &Nodes, client: &Client, shard: u32) -> (String, Vec<String>) {
    let leader = view::View::of(client).await.leaders()[&shard].clone();
    let others = nodes.cluster.ids().into_iter().filter(|id| *id != leader).collect();
    (leader, others)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_names_who_is_missing_and_what_it_acknowledged_outlives_all_but_one() {
    let shape = small(DIMENSION as u32);
    let shard = shard_of(b"x", shape.num_shards);
    let (mut nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let all = write_at(WriteLevel::All, DEADLINE);
    let written = collection.put("x", &vector(1.0), &all).await.expect("written");
    assert_eq!((written.durable_on, written.replicas), (3, 3));
    let (leader, others) = leader_and_others(&nodes, &client, shard).await;
    let [dead, survivor] = &others[..] else { panic!("three nodes") };

    // Without one of them it is an error that says what holds all the same.
    nodes.cluster.kill(dead).expect("it ran");
    let refused = collection.put("x", &vector(2.0), &write_at(WriteLevel::All, SHORT)).await;
    let Err(ClientError::Refused(error)) = &refused else { panic!("{refused:?}") };
    assert_eq!(error.code, Code::LevelNotReached, "{error}");
    assert!(error.message.contains("stands at quorum") && error.message.contains(dead.as_str()), "{error}");
    assert!(!error.message.contains(survivor.as_str()), "{error}");
    let record = collection.get("x", &read_at(ReadLevel::Quorum)).await.expect("read").expect("there");
    assert_eq!(record.vector, vector(2.0));

    nodes.cluster.start(dead).expect("it starts again");
    let written = collection.put("x", &vector(3.0), &all).await.expect("all are there again");
    assert_eq!((written.durable_on, written.replicas), (3, 3));
    // So that it has not only the bytes, but has heard that they are committed.
    let direct = Direct::to(&nodes.cluster, survivor).await;
    let (reply, _) = direct.ask(get(shard, Freshness::at(ReadLevel::Quorum)), Vec::new(), DEADLINE).await;
    assert!(matches!(reply, Reply::Records { .. }), "{reply:?}");
    for lost in [dead, &leader] {
        nodes.cluster.kill(lost).expect("it ran");
    }
    let record = collection.get("x", &read_at(ReadLevel::One)).await.expect("read").expect("there");
    assert_eq!((record.vector, record.position), (vector(3.0), written.position));
}

/// What a reply says of the record, and how far the shard is.
fn answered(reply: &Reply, body: &[u8]) -> (f32, ShardPosition) {
    let Reply::Records { at, .. } = reply else { panic!("not records: {reply:?}") };
    let first = body.first_chunk().expect("a vector");
    (f32::from_le_bytes(*first), *at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_behind_answers_at_one_and_says_so_at_session_until_it_has_caught_up() {
    let shape = Shape { relayed: true, ..small(DIMENSION as u32) };
    let shard = shard_of(b"x", shape.num_shards);
    let (nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let quorum = write_at(WriteLevel::Quorum, DEADLINE);
    collection.put("x", &vector(1.0), &quorum).await.expect("written");
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("all have it");
    let (_, others) = leader_and_others(&nodes, &client, shard).await;
    let behind = &others[0];
    let direct = Direct::to(&nodes.cluster, behind).await;
    let relays = nodes.cluster.relays().expect("it has relays");
    relays.isolate(behind);
    let written = collection.put("x", &vector(2.0), &quorum).await.expect("a majority is there");

    let (reply, body) = direct.ask(get(shard, Freshness::at(ReadLevel::One)), Vec::new(), DEADLINE).await;
    let (value, at) = answered(&reply, &body);
    assert!(value == 1.0 && at.applied < written.position, "{at:?}, written at {}", written.position);
    let seen = vec![GroupPosition { group: at.group, position: written.position }];
    let session = |wait: Duration| Freshness {
        seen: seen.clone(),
        wait_ms: wait.as_millis() as u32,
        ..Freshness::at(ReadLevel::Session)
    };
    let waited = Duration::from_millis(300);
    let (reply, _) = direct.ask(get(shard, session(waited)), Vec::new(), DEADLINE).await;
    let Reply::Error(error) = &reply else { panic!("it has not seen that: {reply:?}") };
    assert_eq!(error.code, Code::Behind, "{error}");
    let how_far = error.at.as_ref().expect("it says how far it is");
    assert!(how_far.applied < written.position && error.message.contains("1 entries behind"), "{error}");
    let (reply, _) = direct.ask(get(shard, Freshness::at(ReadLevel::Quorum)), Vec::new(), SHORT).await;
    assert!(matches!(reply, Reply::Error(_)), "nobody confirms anything to it: {reply:?}");

    // One that waits is answered once it is there.
    let waits = direct.ask(get(shard, session(DEADLINE)), Vec::new(), DEADLINE);
    let heal = async { relays.heal() };
    let ((reply, body), ()) = tokio::join!(waits, heal);
    let (value, at) = answered(&reply, &body);
    assert!(value == 2.0 && at.applied >= written.position, "{at:?}, written at {}", written.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_node_of_three_fails_no_read_at_any_level() {
    let (mut nodes, client) = Nodes::start(small(DIMENSION as u32)).await;
    let collection = client.collection("default");
    let ids = write_records(&collection).await;
    // At `one` whoever is asked may be behind, but by then nobody is.
    view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("all have everything");
    let (leader, _) = view::View::of(&client).await.busiest_leader().expect("somebody leads");
    nodes.cluster.kill(&leader).expect("it ran");
    let names: Vec<&str> = ids.iter().map(String::as_str).collect();
    for level in READ_LEVELS {
        let found = collection.get_many(&names, &read_at(level)).await.expect("read");
        assert!(found.records.iter().all(Option::is_some), "{level:?}");
        assert_eq!(found.shards.len(), 4, "{level:?}");
        let options = SearchOptions {
            k: RECORDS,
            level: Some(level),
            timeout: Some(DEADLINE),
            ..SearchOptions::default()
        };
        let found = collection.search(&vector(1.0), &options).await.expect("searched");
        assert_eq!((found.results[0].len(), found.shards.len()), (RECORDS, 4), "{level:?}");
        assert_eq!(found.missing, [], "{level:?}");
        let (scanned, missing) = scan(&collection, level, 1.0).await.expect("scanned");
        assert_eq!((scanned, missing), (ids.iter().cloned().collect(), BTreeSet::new()), "{level:?}");
    }
    let written = collection.put("x", &vector(1.0), &write_at(WriteLevel::Quorum, DEADLINE)).await;
    assert_eq!(written.expect("two of three are a majority").durable_on, 2);
}

/// The ids that a scan gives, each once, and the shards that it goes without.
async fn scan(
    collection: &Collection,
    level: ReadLevel,
    min_coverage: f64,
) -> Result<(BTreeSet<String>, BTreeSet<u32>), ClientError> {
    let timeout = Some(if min_coverage < 1.0 { SHORT } else { DEADLINE });
    let options =
        ScanOptions { level: Some(level), page: 7, min_coverage, timeout, ..ScanOptions::default() };
    let mut scan = collection.scan(options).await?;
    let mut ids = BTreeSet::new();
    while let Some(page) = scan.next_page().await? {
        for record in page.records {
            assert!(ids.insert(record.id), "a record came twice");
        }
    }
    let missing = scan.missing().iter().inspect(|missing| assert!(!missing.reason.is_empty()));
    Ok((ids, missing.map(|missing| missing.shard).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_dead_node_has_is_an_error_or_named_where_less_is_enough() {
    let shape = Shape { replication_factor: 1, ..small(DIMENSION as u32) };
    let num_shards = shape.num_shards;
    let (mut nodes, client) = Nodes::start(shape).await;
    let collection = client.collection("default");
    let ids: Vec<String> = (0..RECORDS).map(|n| format!("record-{n:02}")).collect();
    for id in &ids {
        let options = write_at(WriteLevel::All, DEADLINE);
        let written = collection.put(id, &vector(1.0), &options).await.expect("written");
        assert_eq!((written.durable_on, written.replicas), (1, 1));
    }
    let (dead, lost) = view::View::of(&client).await.busiest_leader().expect("somebody leads");
    let lost: BTreeSet<u32> = lost.into_iter().collect();
    assert!(!lost.is_empty() && lost.len() < num_shards as usize, "{lost:?}");
    nodes.cluster.kill(&dead).expect("it ran");
    let left: BTreeSet<String> =
        ids.into_iter().filter(|id| !lost.contains(&shard_of(id.as_bytes(), num_shards))).collect();
    for level in READ_LEVELS {
        let whole = SearchOptions {
            k: RECORDS,
            level: Some(level),
            timeout: Some(SHORT),
            ..SearchOptions::default()
        };
        let refused = collection.search(&vector(1.0), &whole).await;
        let Err(ClientError::ShardUnavailable { shard, .. }) = refused else {
            panic!("{level:?}: {refused:?}")
        };
        assert!(lost.contains(&shard), "{level:?}: {shard} of {lost:?}");
        let part = SearchOptions { min_coverage: 0.25, ..whole };
        let found = collection.search(&vector(1.0), &part).await.expect("the others are enough");
        let hits: BTreeSet<String> = found.results[0].iter().map(|hit| hit.id.clone()).collect();
        assert_eq!(hits, left, "{level:?}");
        let missing: BTreeSet<u32> = found.missing.iter().map(|missing| missing.shard).collect();
        assert_eq!(missing, lost, "{level:?}");
        assert!(found.missing.iter().all(|missing| missing.reason.contains(&dead)), "{:?}", found.missing);
        assert_eq!(found.shards.len() + lost.len(), num_shards as usize, "{level:?}");
    }
    let scanned = scan(&collection, ReadLevel::Quorum, 0.25).await.expect("the others are enough");
    assert_eq!(scanned, (left, lost));
}
