//! A replicated store over its life: restarts, concurrent writes, failover, and what is refused.

use slowdb::{ClientError, Error, Position, ReplicationBuilder, ReplicationManager};
use std::path::Path;
use std::time::Duration;

/// Longer than anything that is awaited here.
const LONG: Duration = Duration::from_secs(60);

fn node(id: &str, path: &Path) -> ReplicationBuilder {
    ReplicationManager::builder(id, path, 2).timeout(LONG)
}

fn port(manager: &ReplicationManager) -> u16 {
    manager.address().port()
}

/// What a manager that must not start says instead.
fn refused(result: Result<ReplicationManager, Error>) -> Error {
    result.map(|manager| format!("{manager:?} started")).expect_err("refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_come_back_as_what_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let leader = node("a", dir.path()).start_leader().await.expect("a leader");
    let follower =
        node("b", dir.path()).start_follower("localhost", port(&leader)).await.expect("a follower");
    let (leader_port, follower_port) = (port(&leader), port(&follower));
    // Through the follower: it sends the write to the leader.
    let written = follower.replicate_vector("x", &[1.0, 2.0]).await.expect("written");
    assert_eq!(written.replicas, 2, "one voter, and a copy that nobody waits for");
    follower.wait_for(written.position, LONG).await.expect("it comes that far");
    leader.stop().await.expect("stopped");

    // Without the leader the copy can be read, also after a restart, and nothing can be written.
    follower.stop().await.expect("stopped");
    let again = || node("b", dir.path()).start_follower("localhost", leader_port);
    assert!(matches!(refused(again().await), Error::PortNeeded { .. }));
    let follower = node("b", dir.path()).port(follower_port).timeout(Duration::from_secs(2));
    let follower = follower.start_follower("localhost", leader_port).await.expect("it needs nobody");
    assert_eq!(follower.get_vector("x").await.expect("read"), Some(vec![1.0, 2.0]));
    let alone = follower.replicate_vector("y", &[1.0, 2.0]).await;
    let is_time_up = |error: &ClientError| {
        matches!(error, ClientError::TimedOut { .. } | ClientError::OutcomeUnknown { .. })
    };
    assert!(matches!(&alone, Err(Error::Client(error)) if is_time_up(error)), "{alone:?}");
    let never = Position::new(written.position.term, written.position.index + 100, 0);
    let behind = follower.wait_for(never, Duration::from_millis(50)).await;
    assert!(matches!(behind, Err(Error::Behind { wanted, .. }) if wanted == never), "{behind:?}");

    let leader = node("a", dir.path()).port(leader_port).start_leader().await.expect("it is back");
    assert_eq!(leader.get_vector("x").await.expect("read"), Some(vec![1.0, 2.0]));
    let written = leader.replicate_vector("x", &[3.0, 4.0]).await.expect("written");
    follower.wait_for(written.position, LONG).await.expect("it comes that far");
    assert_eq!(follower.get_vector("x").await.expect("read"), Some(vec![3.0, 4.0]));
    follower.stop().await.expect("stopped");
    leader.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_writes_at_once_can_be_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let leader = node("a", dir.path()).start_leader().await.expect("a leader");
    let follower =
        node("b", dir.path()).start_follower("localhost", port(&leader)).await.expect("a follower");
    let vectors = leader.client().collection("default");
    // One batch: several writes in one entry of the log, so positions with offsets.
    let ids: Vec<String> = (0..50).map(|nth| format!("id{nth}")).collect();
    let puts: Vec<slowdb_client::Put<'_>> =
        ids.iter().map(|id| slowdb_client::Put { id, vector: &[0.5, 0.5], payload: b"with it" }).collect();
    vectors.put_batch(&puts, &Default::default()).await.expect("written");
    let mut last = Position::START;
    for id in &ids {
        let record = vectors.get(id, &Default::default()).await.expect("read").expect("there");
        last = last.max(record.position);
        follower.wait_for(record.position, LONG).await.expect("it comes that far");
        assert_eq!(follower.get_vector(id).await.expect("read"), Some(vec![0.5, 0.5]));
    }
    assert!(last.offset > 0, "no entry had more than one write: {last}");
    follower.stop().await.expect("stopped");
    leader.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_two_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let leader = node("a", dir.path()).start_leader().await.expect("a leader");
    let first = port(&leader);
    let second = node("b", dir.path()).start_follower("localhost", first).await.expect("a follower");
    let third = node("c", dir.path()).start_follower("localhost", port(&second)).await.expect("by any node");
    let mut replicas = leader.replicas().await;
    let deadline = tokio::time::Instant::now() + LONG;
    while replicas.len() < 3 || replicas.iter().any(|replica| !replica.votes) {
        assert!(tokio::time::Instant::now() < deadline, "not all of them vote: {replicas:?}");
        replicas = leader.replicas().await;
    }
    let written = leader.replicate_vector("x", &[1.0, 2.0]).await.expect("written");
    assert!(written.durable_on >= 2, "{written:?}");
    leader.stop().await.expect("stopped");

    let written = second.replicate_vector("x", &[3.0, 4.0]).await.expect("a majority goes on");
    for node in [&second, &third] {
        node.wait_for(written.position, LONG).await.expect("it comes that far");
        assert_eq!(node.get_vector("x").await.expect("read"), Some(vec![3.0, 4.0]));
    }
    let replicas = third.replicas().await;
    let away: Vec<&str> =
        replicas.iter().filter(|r| r.applied.is_none()).map(|r| r.node_id.as_str()).collect();
    assert_eq!(away, ["a"], "{replicas:?}");
    assert_eq!(replicas.iter().filter(|replica| replica.leads).count(), 1, "{replicas:?}");
    third.stop().await.expect("stopped");
    second.stop().await.expect("stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let leader = node("a", path).start_leader().await.expect("a leader");
    let first = port(&leader);
    let bad_id = refused(node("../a", path).start_leader().await);
    assert!(matches!(&bad_id, Error::NodeId(_)), "{bad_id}");
    let taken = refused(node("certs", path).start_leader().await);
    assert!(matches!(&taken, Error::NodeId(_)), "{taken}");
    for dimension in [0, 65_537] {
        let none = refused(ReplicationManager::builder("b", path, dimension).start_leader().await);
        assert!(matches!(none, Error::BadDimension { dimension: d } if d == dimension), "{none}");
    }
    let other = ReplicationManager::builder("b", path, 3);
    let other = refused(other.start_follower("localhost", first).await);
    assert!(matches!(other, Error::WrongDimension { given: 3, stored: 2 }), "{other}");
    let founder = refused(node("a", path).port(first).start_follower("localhost", first).await);
    assert!(matches!(&founder, Error::IsFounder { node_id } if node_id == "a"), "{founder}");
    let twice = refused(node("a", path).port(first + 1).start_leader().await);
    assert!(matches!(&twice, Error::Start(_)), "{twice}");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let stranger = refused(node("b", elsewhere.path()).start_follower("localhost", first).await);
    assert!(
        matches!(&stranger, Error::Client(ClientError::CertificateRefused { .. })),
        "certificates of another storage path: {stranger}"
    );
    assert_eq!(leader.replicas().await.len(), 1, "nobody was let in");

    let follower = node("b", path).start_follower("localhost", first).await.expect("b is free still");
    let second = port(&follower);
    let bad = follower.replicate_vector("x", &[1.0]).await;
    assert!(matches!(bad, Err(Error::Client(ClientError::BadInput { .. }))), "{bad:?}");
    follower.stop().await.expect("stopped");
    let member = refused(node("b", path).port(second).start_leader().await);
    assert!(matches!(&member, Error::IsMember { node_id } if node_id == "b"), "{member}");
    leader.stop().await.expect("stopped");
}
