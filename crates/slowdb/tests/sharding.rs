//! A sharded store: restarts, copies, and what is refused.

use slowdb::{ClientError, Condition, Error, ReplicationManager, ShardBuilder, ShardManager};
use std::path::Path;
use std::time::Duration;

/// Longer than anything that is awaited here.
const LONG: Duration = Duration::from_secs(60);

fn node(id: &str, path: &Path) -> ShardBuilder {
    ShardManager::builder(id, path, 2).timeout(LONG)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_copies_every_node_has_its_share_and_all_come_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = node("a", dir.path()).num_shards(4).replication_factor(2).start().await.expect("it starts");
    let first_port = first.address().port();
    assert_eq!(first.num_shards(), 4);
    // What the store was founded with counts, not what a node says that joins.
    let second = node("b", dir.path()).num_shards(64).join("localhost", first_port).await.expect("let in");
    let second_port = second.address().port();
    assert_eq!(second.num_shards(), 4);
    first.wait_until_settled(LONG).await.expect("copied");
    for shard in first.shards().await.expect("a map") {
        let mut nodes = shard.nodes.clone();
        nodes.sort();
        assert_eq!(nodes, ["a", "b"], "{shard:?}");
    }
    for nth in 0..20u8 {
        let written =
            second.store_vector(&format!("id{nth}"), &[1.0, f32::from(nth)]).await.expect("written");
        assert_eq!(written.shard, first.shard_of(&format!("id{nth}")));
    }
    second.stop().await.expect("stopped");
    first.stop().await.expect("stopped");

    let first = node("a", dir.path()).port(first_port).num_shards(4).replication_factor(2);
    let first = first.start().await.expect("it is back");
    let second =
        node("b", dir.path()).port(second_port).join("localhost", first_port).await.expect("it is back");
    for manager in [&first, &second] {
        for nth in 0..20u8 {
            let vector = manager.get_vector(&format!("id{nth}")).await.expect("read");
            assert_eq!(vector, Some(vec![1.0, f32::from(nth)]));
        }
        let found = manager.search(&[1.0, 3.0], 2).await.expect("found");
        assert_eq!(found.iter().map(|hit| hit.id.as_str()).collect::<Vec<_>>(), ["id3", "id4"]);
    }
    let made = first.store_vector_if("new", &[1.0, 1.0], Condition::IfAbsent).await.expect("it was absent");
    let again = second.store_vector_if("new", &[2.0, 1.0], Condition::IfAbsent).await;
    let Err(Error::Client(ClientError::ConditionNotMet { current, .. })) = again else { panic!("{again:?}") };
    assert_eq!(current, Some(made.position));
    let condition = Condition::IfVersion(made.position);
    second.store_vector_if("new", &[2.0, 1.0], condition).await.expect("nobody else wrote");
    second.stop().await.expect("stopped");
    first.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_store_is_no_replicated_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = node("a", dir.path()).start().await.expect("it starts");
    let port = manager.address().port();
    let follower = ReplicationManager::builder("b", dir.path(), 2).start_follower("localhost", port).await;
    assert!(matches!(follower, Err(Error::IsSharded { num_shards: 16 })), "{follower:?}");
    let nobody = node("b", dir.path()).join("localhost", 1).await;
    assert!(matches!(nobody, Err(Error::Client(_))), "{nobody:?}");
    manager.stop().await.expect("stopped");
    // Nor after a restart of its founder.
    let leader = ReplicationManager::builder("a", dir.path(), 2).port(port).start_leader().await;
    assert!(matches!(leader, Err(Error::IsSharded { num_shards: 16 })), "{leader:?}");
    node("a", dir.path()).port(port).start().await.expect("as before").stop().await.expect("stopped");
}
