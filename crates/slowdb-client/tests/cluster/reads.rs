//! Sessions, answers without some shards, scans, and who is nearest.

use crate::fake::{FakeCluster, Manner, SHORT, error, within};
use slowdb_client::{
    Client, ClientError, ClientOptions, Collection, CountOptions, ReadLevel, ReadOptions, ScanOptions,
    SearchOptions, Session, WriteOptions,
};
use slowdb_proto::{Code, ErrorReply, Freshness, GroupPosition, Position, RequestKind, ShardPosition};
use slowdb_ring::shard_of;

fn at(level: ReadLevel) -> ReadOptions {
    ReadOptions { level: Some(level), ..ReadOptions::default() }
}

/// What the reads asked for, in order, with the nodes that they were sent to.
fn asked(cluster: &FakeCluster) -> Vec<(String, Freshness)> {
    let fresh = |kind| match kind {
        RequestKind::Get(get) => Some(get.fresh),
        RequestKind::Search(search) => Some(search.fresh),
        RequestKind::Scan(scan) => Some(scan.fresh),
        _ => None,
    };
    cluster.seen().into_iter().filter_map(|seen| Some((seen.node, fresh(seen.kind)?))).collect()
}

async fn put(collection: &Collection, id: &str) -> Position {
    collection.put(id, &[1.0, 1.0], &WriteOptions::default()).await.expect("written").position
}

fn position(index: u64) -> Position {
    Position { term: 1, index, offset: 0 }
}

#[tokio::test]
async fn a_session_carries_what_was_written_and_read_to_any_replica() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n1", 1);
    let client = cluster.client().await;
    let collection = client.collection("default");
    let seen = |index| vec![GroupPosition { group: 1, position: position(index) }];
    collection.get("a", &at(ReadLevel::Session)).await.expect("answered");
    put(&collection, "a").await;
    collection.get("a", &at(ReadLevel::Session)).await.expect("answered").expect("there");
    collection.get("a", &at(ReadLevel::One)).await.expect("answered");

    // Another writer; what the search shows of that is seen from then on.
    put(&cluster.client().await.collection("default"), "b").await;
    let search = SearchOptions { level: Some(ReadLevel::One), ..SearchOptions::default() };
    collection.search(&[1.0, 1.0], &search).await.expect("answered");
    collection.get("b", &at(ReadLevel::Session)).await.expect("answered").expect("there");

    // Handed on as a text, and used beside the client's own.
    let token = client.session().to_string();
    let handed: Session = token.parse().expect("a session");
    let other = cluster.client().await.collection("default").in_session(&handed).expect("the same cluster");
    let search = SearchOptions { level: Some(ReadLevel::Session), ..SearchOptions::default() };
    other.search(&[1.0, 1.0], &search).await.expect("answered");
    let fresh = collection.in_session(&Session::new()).expect("it is of none yet");
    fresh.get("b", &at(ReadLevel::Session)).await.expect("answered").expect("there");

    let seen_each: Vec<Vec<GroupPosition>> =
        asked(&cluster).into_iter().map(|(_, fresh)| fresh.seen).collect();
    assert_eq!(seen_each, [vec![], seen(1), vec![], vec![], seen(2), seen(2), vec![]]);
}

#[tokio::test]
async fn a_replica_that_is_behind_sends_the_read_to_another() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    put(&collection, "a").await;
    for node in ["n2", "n3"] {
        cluster.manner(node, Manner::Refuse(error(Code::Behind)));
    }
    for _ in 0..4 {
        collection.get("a", &at(ReadLevel::Session)).await.expect("n1 answers").expect("there");
        let search = SearchOptions { level: Some(ReadLevel::Session), ..SearchOptions::default() };
        let found = collection.search(&[1.0, 1.0], &search).await.expect("n1 answers");
        assert_eq!(found.results[0].len(), 1);
    }
    let waits: Vec<u32> = asked(&cluster).iter().map(|(_, fresh)| fresh.wait_ms).collect();
    assert!(waits.iter().all(|wait| *wait <= 10_000), "half of what is left is for others: {waits:?}");
}

#[tokio::test]
async fn what_was_overtaken_is_final_until_the_session_forgets_it() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n1", 1);
    let client = cluster.client().await;
    let collection = client.collection("default");
    put(&collection, "a").await;
    let at_position = ShardPosition { shard: 0, group: 1, applied: position(1), latest: position(1) };
    let overtaken = ErrorReply { at: Some(Box::new(at_position)), ..error(Code::Overtaken) };
    for node in ["n1", "n2", "n3"] {
        cluster.manner(node, Manner::Refuse(overtaken.clone()));
    }
    let before = asked(&cluster).len();
    let read = collection.get("a", &at(ReadLevel::Session)).await;
    let Err(ClientError::Refused(reply)) = read else { panic!("{read:?}") };
    assert_eq!((reply.code, reply.at), (Code::Overtaken, Some(Box::new(at_position))));
    assert_eq!(asked(&cluster).len(), before + 1, "nobody else is asked");
    for node in ["n1", "n2", "n3"] {
        cluster.manner(node, Manner::Proper);
    }
    client.session().forget(at_position.group);
    collection.get("a", &at(ReadLevel::Session)).await.expect("answered").expect("there");
    assert!(asked(&cluster).last().is_some_and(|(_, fresh)| fresh.seen.is_empty()));
}

#[tokio::test]
async fn a_search_goes_without_shards_only_if_it_may() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    for id in ["a", "b", "c", "d", "e", "f"] {
        put(&collection, id).await;
    }
    for node in ["n1", "n2", "n3"] {
        cluster.manner(node, Manner::Without(vec![2], error(Code::StorageFailed)));
    }
    for level in [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum] {
        let all = SearchOptions { level: Some(level), timeout: Some(SHORT), ..SearchOptions::default() };
        let found = collection.search(&[1.0, 1.0], &all).await;
        let Err(ClientError::ShardUnavailable { shard: 2, last: Some(last), .. }) = &found else {
            panic!("{found:?}")
        };
        assert!(last.contains("storage_failed"), "{last}");
        let some = SearchOptions { min_coverage: 0.75, timeout: None, ..all.clone() };
        let found = collection.search(&[1.0, 1.0], &some).await.expect("three of four are enough");
        assert_eq!(found.shards.iter().map(|at| at.shard).collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(found.missing.iter().map(|missing| missing.shard).collect::<Vec<_>>(), [2]);
        assert!(found.missing[0].reason.contains("storage_failed"), "{:?}", found.missing);
        let more = SearchOptions { min_coverage: 0.8, ..all };
        collection.search(&[1.0, 1.0], &more).await.expect_err("three of four are not enough");
    }
    let bad = SearchOptions { min_coverage: 1.5, ..SearchOptions::default() };
    let refused = collection.search(&[1.0, 1.0], &bad).await;
    assert!(matches!(refused, Err(ClientError::BadInput { code: Code::BadRequest, .. })), "{refused:?}");
}

#[tokio::test]
async fn one_dead_node_of_three_fails_nothing_at_any_level() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n2", 1);
    let collection = cluster.client().await.collection("default");
    put(&collection, "a").await;
    cluster.manner("n2", Manner::Mute);
    cluster.elect_all("n3", 2);
    for level in [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum] {
        collection.get("a", &at(level)).await.expect("answered").expect("there");
        let search = SearchOptions { level: Some(level), ..SearchOptions::default() };
        let found = collection.search(&[1.0, 1.0], &search).await.expect("answered");
        assert_eq!((found.shards.len(), found.missing.len()), (4, 0), "{level:?}");
        let mut scan = collection
            .scan(ScanOptions { level: Some(level), ..ScanOptions::default() })
            .await
            .expect("a scan");
        let mut records = 0;
        while let Some(page) = scan.next_page().await.expect("answered") {
            records += page.records.len();
        }
        assert_eq!(records, 1, "{level:?}");
    }
}

#[tokio::test]
async fn a_scan_gives_every_record_once() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    let mut ids: Vec<String> = (0..40).map(|n| format!("id-{n}")).collect();
    for id in &ids {
        put(&collection, id).await;
    }
    let options = || ScanOptions { page: 3, vectors: true, ..ScanOptions::default() };
    let mut scan = collection.scan(options()).await.expect("a scan");
    let mut found = Vec::new();
    while let Some(page) = scan.next_page().await.expect("answered") {
        assert!(page.records.len() <= 3 && page.at.applied == position(40));
        for record in page.records {
            assert_eq!((record.vector.as_deref(), record.payload), (Some(&[1.0, 1.0][..]), None));
            assert_eq!(page.at.shard, shard_of(record.id.as_bytes(), 4));
            found.push(record.id);
        }
    }
    found.sort();
    ids.sort();
    assert_eq!(found, ids);

    let prefix = || "id-1".to_owned();
    let mut scan = collection.scan(ScanOptions { prefix: prefix(), ..options() }).await.expect("a scan");
    let mut found = 0;
    while let Some(page) = scan.next_page().await.expect("answered") {
        assert!(page.records.iter().all(|record| record.id.starts_with("id-1")));
        found += page.records.len() as u64;
    }
    let all = collection.count(&CountOptions::default()).await.expect("answered");
    let some = CountOptions { prefix: prefix(), ..CountOptions::default() };
    let some = collection.count(&some).await.expect("answered");
    assert_eq!((found, all.records, some.records), (11, 40, 11));

    for node in ["n1", "n2", "n3"] {
        cluster.manner(node, Manner::Without(vec![1], error(Code::Unavailable)));
    }
    for (min_coverage, is_enough) in [(1.0, false), (0.5, true)] {
        let options = ScanOptions { min_coverage, timeout: Some(SHORT), ..options() };
        let mut scan = collection.scan(options).await.expect("a scan");
        let mut shards = std::collections::BTreeSet::new();
        let outcome = loop {
            match scan.next_page().await {
                Ok(Some(page)) => drop(shards.insert(page.at.shard)),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        assert_eq!(outcome, is_enough);
        assert_eq!(scan.missing().len(), usize::from(is_enough));
        assert_eq!(shards.contains(&3), is_enough, "the others are read all the same");
    }
    collection.scan(ScanOptions { page: 0, ..ScanOptions::default() }).await.expect_err("no page at all");

    let some = || CountOptions { timeout: Some(SHORT), ..CountOptions::default() };
    collection.count(&some()).await.expect_err("a shard does not answer");
    let part = collection.count(&CountOptions { min_coverage: 0.5, ..some() }).await.expect("most of them");
    assert_eq!((part.missing.len(), part.shards.len()), (1, 3));
}

#[tokio::test]
async fn reads_of_any_replica_stay_in_the_zone_and_on_the_own_node() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n1", 1);
    cluster.zone("n2", "here");
    cluster.zone("n3", "there");
    let connect = |options: ClientOptions| async {
        Client::connect(options).await.expect("a client").collection("default")
    };
    let here = connect(ClientOptions { zone: Some("here".into()), ..cluster.options() }).await;
    let beside =
        connect(ClientOptions { node: Some("n3".into()), zone: Some("here".into()), ..cluster.options() })
            .await;
    for (collection, node) in [(here, "n2"), (beside, "n3")] {
        let before = asked(&cluster).len();
        for _ in 0..6 {
            for level in [ReadLevel::One, ReadLevel::Session] {
                collection.get("a", &at(level)).await.expect("answered");
            }
        }
        assert!(asked(&cluster)[before..].iter().all(|(asked, _)| asked == node), "{node}");
    }
}

#[tokio::test]
async fn a_session_of_another_cluster_is_refused() {
    let cluster = FakeCluster::start(1).await;
    cluster.elect_all("n1", 1);
    let collection = cluster.client().await.collection("default");
    put(&collection, "a").await;
    let token = collection.session().to_string();
    let foreign = format!("{}{}", "00".repeat(16), &token[32..]);
    let session: Session = foreign.parse().expect("well formed");
    let refused = collection.in_session(&session).map(drop);
    assert!(matches!(refused, Err(ClientError::BadInput { code: Code::WrongCluster, .. })), "{refused:?}");
    collection.put("b", &[1.0, 1.0], &within(SHORT)).await.expect("its own goes on");
}
