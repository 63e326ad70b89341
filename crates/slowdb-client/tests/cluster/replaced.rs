//! A collection that is dropped and made anew with another number of shards, while clients know the old one.

use crate::fake::{FakeCluster, Manner, error, first_group_of, is_write};
use slowdb_client::{
    BulkOptions, ClientError, Collection, CountOptions, Put, ReadLevel, ReadOptions, ScanOptions,
    SearchOptions, WriteOptions,
};
use slowdb_proto::Code;
use slowdb_ring::shard_of;

const NEW_SHARDS: u32 = 16;
const NEW_GROUP: u64 = 101;
const LEVELS: [ReadLevel; 3] = [ReadLevel::One, ReadLevel::Session, ReadLevel::Quorum];

/// A cluster, and collections of clients that each know the old one.
async fn replaced(clients: usize) -> (FakeCluster, Vec<Collection>) {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    let mut collections = Vec::new();
    for _ in 0..clients {
        collections.push(cluster.client().await.collection("default"));
    }
    cluster.replace(NEW_SHARDS, NEW_GROUP);
    cluster.elect_all("n2", 1);
    (cluster, collections)
}

fn ids() -> Vec<String> {
    (0..60).map(|n| format!("r{n}")).collect()
}

async fn fill(cluster: &FakeCluster) {
    let collection = cluster.client().await.collection("default");
    let ids = ids();
    let puts: Vec<Put> = ids.iter().map(|id| Put { id, vector: &[1.0, 2.0], payload: b"" }).collect();
    collection.put_batch(&puts, &WriteOptions::default()).await.expect("written");
}

#[tokio::test]
async fn reads_of_a_collection_made_anew_with_more_shards_find_all_that_is_in_it() {
    let (cluster, mut old) = replaced(4 * LEVELS.len()).await;
    fill(&cluster).await;
    let all = ids();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut next = || old.pop().expect("one for each call");
    for level in LEVELS {
        let options = ReadOptions { level: Some(level), ..ReadOptions::default() };
        let found = next().get_many(&names, &options).await.expect("answered").records;
        assert!(found.iter().all(Option::is_some), "{level:?}: {found:?}");
        let search = SearchOptions { k: 100, level: Some(level), ..SearchOptions::default() };
        let found = next().search(&[1.0, 2.0], &search).await.expect("answered");
        assert_eq!((found.results[0].len(), found.shards.len()), (all.len(), NEW_SHARDS as usize));
        let count = CountOptions { level: Some(level), ..CountOptions::default() };
        let counted = next().count(&count).await.expect("answered");
        assert_eq!((counted.records, counted.shards.len()), (all.len() as u64, NEW_SHARDS as usize));
        let mut scan =
            next().scan(ScanOptions { level: Some(level), ..ScanOptions::default() }).await.expect("a scan");
        let mut scanned = 0;
        while let Some(page) = scan.next_page().await.expect("answered") {
            scanned += page.records.len();
        }
        assert_eq!(scanned, all.len());
    }
}

#[tokio::test]
async fn writes_to_a_collection_made_anew_are_placed_anew_and_done_once() {
    let (cluster, old) = replaced(3).await;
    let options = WriteOptions::default();
    old[0].put("a", &[1.0, 2.0], &options).await.expect("written");
    old[1].delete("a", &options).await.expect("written");
    let ids = ids();
    let puts: Vec<Put> = ids.iter().map(|id| Put { id, vector: &[1.0, 2.0], payload: b"" }).collect();
    let report = old[2].put_batch(&puts, &options).await.expect("written");
    assert_eq!((report.written, cluster.ids().len()), (60, 60));
    assert_eq!(cluster.executed(), 2 + report.shards.len() as u64);
    for (shard, written) in report.shards {
        let own = ids.iter().filter(|id| shard_of(id.as_bytes(), NEW_SHARDS) == shard).count();
        assert_eq!(written.written, own as u64);
    }
}

/// Nothing tells what became of it, and it must not be written to the new one as if nothing had been.
#[tokio::test]
async fn a_write_that_may_have_been_done_in_the_collection_that_is_gone_is_of_unknown_outcome() {
    for (code, is_sure) in [(Code::LeaderChanged, false), (Code::Timeout, false), (Code::StaleRoute, true)] {
        let cluster = FakeCluster::start(4).await;
        cluster.elect_all("n1", 1);
        let collection = cluster.client().await.collection("default");
        cluster.manner("n1", Manner::RefuseLate(error(code)));
        let put =
            tokio::spawn(async move { collection.put("a", &[1.0, 2.0], &WriteOptions::default()).await });
        cluster.wait_for(|seen| is_write(&seen.kind)).await;
        cluster.replace(NEW_SHARDS, NEW_GROUP);
        cluster.elect_all("n2", 1);
        cluster.manner("n1", Manner::Proper);
        cluster.open_gate();
        let outcome = put.await.expect("no panic");
        let to_new =
            cluster.seen().iter().filter(|seen| first_group_of(&seen.kind) == Some(NEW_GROUP)).count();
        if is_sure {
            outcome.expect("nothing had been done");
            assert_eq!((to_new, cluster.executed()), (1, 1));
        } else {
            assert!(matches!(outcome, Err(ClientError::OutcomeUnknown { .. })), "{code:?}: {outcome:?}");
            assert_eq!((to_new, cluster.executed()), (0, 0), "{code:?}");
        }
    }
}

#[tokio::test]
async fn what_was_begun_in_the_collection_that_is_gone_ends_with_a_clear_error() {
    let cluster = FakeCluster::start(4).await;
    cluster.elect_all("n1", 1);
    fill(&cluster).await;
    let collection = cluster.client().await.collection("default");
    let mut scan = collection.scan(ScanOptions { page: 5, ..ScanOptions::default() }).await.expect("a scan");
    scan.next_page().await.expect("answered").expect("there is more");
    let mut writer = collection.bulk_writer(BulkOptions::default()).await.expect("a writer");
    cluster.replace(NEW_SHARDS, NEW_GROUP);
    cluster.elect_all("n2", 1);
    for _ in 0..2 {
        let error = scan.next_page().await.expect_err("there are no more pages of it");
        assert!(matches!(&error, ClientError::Replaced { name } if name == "default"), "{error}");
        assert_eq!(error.code(), "stale_route");
    }
    writer.put("b", &[1.0, 2.0], b"").await.expect("taken");
    let error = writer.finish().await.expect_err("the shards are others");
    assert!(
        matches!(&error, ClientError::Partial { source, .. } if matches!(**source, ClientError::Replaced { .. })),
        "{error}"
    );
    assert_eq!(cluster.ids(), Vec::<String>::new(), "what is there now was not asked for");
}
