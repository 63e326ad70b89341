//! A node asks to be let in.

use crate::fake::{CLUSTER, FakeCluster, Manner, SHORT, error};
use slowdb_client::{ClientError, Identity, JoinRequest, Role, join};
use slowdb_proto::{Code, ErrorReply, RequestKind};
use std::time::Duration;

/// Longer than anything that is awaited here.
const LONG: Duration = Duration::from_secs(60);

fn request() -> JoinRequest {
    JoinRequest {
        node: "n4".into(),
        storage: [4; 16],
        address: "localhost:8004".into(),
        zone: None,
        weight: 1,
    }
}

fn identity(cluster: &FakeCluster) -> Identity {
    Identity::load(&cluster.certs, Role::Node).expect("a node's identity")
}

fn joins(cluster: &FakeCluster) -> Vec<String> {
    let joins = cluster.seen().into_iter().filter(|seen| matches!(seen.kind, RequestKind::Join(_)));
    joins.map(|seen| seen.node).collect()
}

#[tokio::test]
async fn from_any_seed_the_leader_is_found() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n3"));
    // The first address is nobody's.
    let seeds = ["localhost:1".to_owned(), cluster.seeds[0].clone()];
    let reply = join(&seeds, &identity(&cluster), request(), LONG).await.expect("let in");
    assert_eq!((reply.cluster, reply.replica, reply.nodes.len()), (CLUSTER, 9, 3));
    assert_eq!(joins(&cluster), ["n1", "n3"]);
    assert_eq!(cluster.catalog(|catalog| catalog.joined.clone()), [request()]);
}

#[tokio::test]
async fn a_cluster_without_a_leader_is_waited_for() {
    let cluster = FakeCluster::start(1).await;
    cluster.manner("n2", Manner::Refuse(error(Code::Unavailable)));
    let (seeds, identity) = (cluster.seeds[..2].to_vec(), identity(&cluster));
    let joined = tokio::spawn(async move { join(&seeds, &identity, request(), LONG).await });
    // In turn, round after round.
    cluster.wait_for_many(2, |seen| seen.node == "n2" && matches!(seen.kind, RequestKind::Join(_))).await;
    assert_eq!(joins(&cluster)[..4], ["n1", "n2", "n1", "n2"]);
    cluster.catalog(|catalog| catalog.elect("n3"));
    joined.await.expect("no panic").expect("let in");
}

#[tokio::test]
async fn a_refusal_is_final_and_passed_on() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n2"));
    let refusal = ErrorReply::new(Code::Refused, "another n4 is part of the cluster; choose another id");
    cluster.manner("n2", Manner::Refuse(refusal.clone()));
    let failure = join(&cluster.seeds, &identity(&cluster), request(), LONG).await.expect_err("refused");
    assert!(matches!(&failure, ClientError::Refused(error) if *error == refusal), "{failure}");
    assert_eq!(joins(&cluster), ["n1", "n2"]);
}

#[tokio::test]
async fn what_cannot_be_joined_is_said() {
    let cluster = FakeCluster::start(1).await;
    let identity = identity(&cluster);
    let failure = join(&[], &identity, request(), LONG).await.expect_err("nobody");
    assert!(matches!(failure, ClientError::BadInput { .. }), "{failure}");

    let nobody = ["localhost:1".to_owned()];
    let failure = join(&nobody, &identity, request(), SHORT).await.expect_err("nobody");
    let ClientError::NoNodeReachable { tried } = failure else { panic!("{failure}") };
    assert_eq!(tried[0].address, "localhost:1");

    let failure = join(&cluster.seeds, &identity, request(), SHORT).await.expect_err("no leader");
    assert!(matches!(failure, ClientError::TimedOut { .. }), "{failure}");
    assert!(failure.to_string().contains("does not lead the catalog"), "{failure}");

    let other = FakeCluster::start(1).await;
    let stranger = Identity::load(&other.certs, Role::Node).expect("an identity");
    let failure = join(&cluster.seeds, &stranger, request(), LONG).await.expect_err("a stranger");
    assert!(matches!(failure, ClientError::CertificateRefused { .. }), "{failure}");
}
