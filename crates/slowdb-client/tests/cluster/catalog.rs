//! What only the catalog's leader answers: found, followed, waited for.

use crate::fake::{CLUSTER, FakeCluster, Manner, SHORT, error};
use slowdb_client::{Admin, Client, ClientError, ClientOptions, Explain, Metric, NodeState};
use slowdb_proto::{Code, CollectionSettings, ErrorReply, Meant, RequestKind};

fn drain() -> Admin {
    Admin::SetNodeState { node: "n3".into(), state: NodeState::Draining }
}

/// The nodes that got something else than a question for the map, in order.
fn asked(cluster: &FakeCluster) -> Vec<String> {
    let others = cluster.seen().into_iter().filter(|seen| seen.kind != RequestKind::Map);
    others.map(|seen| seen.node).collect()
}

async fn hasty_client(cluster: &FakeCluster) -> Client {
    let options = ClientOptions { timeout: SHORT, ..cluster.options() };
    Client::connect(options).await.expect("a client")
}

#[tokio::test]
async fn the_leader_named_by_the_map_is_asked() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n2"));
    let client = cluster.client().await;
    let view = client.cluster().await.expect("a view");
    assert_eq!((view.cluster, view.leader.as_str(), view.nodes.len()), (CLUSTER, "n2", 3));
    assert!(!client.admin(drain(), true).await.expect("a plan").changed);
    assert!(client.admin(drain(), false).await.expect("done").changed);
    assert!(!client.admin(drain(), false).await.expect("nothing to do").changed);
    let why = client.explain(Explain::Node { node: "n3".into() }).await.expect("reasons");
    assert!(why[0].contains("n3"), "{why:?}");
    assert_eq!(client.newest_map().await.expect("a map").catalog_leader.as_deref(), Some("n2"));
    assert!(asked(&cluster).iter().all(|node| node == "n2"), "{:?}", asked(&cluster));
    assert_eq!(cluster.catalog(|catalog| catalog.changes.clone()), [drain()]);
}

#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    cluster.catalog(|catalog| catalog.elect("n3"));
    client.cluster().await.expect("a view");
    assert_eq!(asked(&cluster), ["n1", "n3"]);
    client.cluster().await.expect("a view");
    assert_eq!(asked(&cluster), ["n1", "n3", "n3"]);
}

#[tokio::test]
async fn without_a_known_leader_one_is_found() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let view = tokio::spawn(async move { client.cluster().await });
    cluster.wait_for(|seen| seen.kind == RequestKind::Cluster).await;
    // It hears of it from n3 alone.
    cluster.catalog(|catalog| catalog.tell("n3", "n3"));
    assert_eq!(view.await.expect("no panic").expect("a view").leader, "n3");
}

#[tokio::test]
async fn a_killed_leader_is_left_for_its_successor() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    client.cluster().await.expect("a view");
    cluster.manner("n1", Manner::Mute);
    let change = tokio::spawn(async move { client.admin(Admin::Rebalance, false).await });
    cluster.wait_for(|seen| seen.node == "n1" && matches!(seen.kind, RequestKind::Admin(_))).await;
    cluster.wait_for(|seen| seen.node == "n3" && seen.kind == RequestKind::Map).await;
    // n3 still believes in n1: who says so of itself counts.
    cluster.catalog(|catalog| catalog.tell("n2", "n2"));
    assert!(change.await.expect("no panic").expect("done").changed);
}

#[tokio::test]
async fn nodes_that_name_each_other_are_not_asked_in_circles() {
    let cluster = FakeCluster::start(1).await;
    for (node, leader) in [("n1", "n2"), ("n2", "n3"), ("n3", "n1")] {
        cluster.catalog(|catalog| catalog.tell(node, leader));
    }
    let client = cluster.client().await;
    let view = tokio::spawn(async move { client.cluster().await });
    cluster.wait_for_many(9, |seen| seen.kind == RequestKind::Cluster).await;
    cluster.catalog(|catalog| catalog.elect("n2"));
    assert_eq!(view.await.expect("no panic").expect("a view").leader, "n2");
}

#[tokio::test]
async fn what_is_refused_is_said_at_once_in_the_clusters_words() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    let refusal = ErrorReply::new(Code::Refused, "node n3 holds 4 replicas; drain it first");
    cluster.manner("n1", Manner::Refuse(refusal.clone()));
    let failure =
        client.admin(Admin::RemoveNode { node: "n3".into(), lost: false }, false).await.expect_err("refused");
    assert!(matches!(&failure, ClientError::Refused(error) if *error == refusal), "{failure}");
    assert_eq!((failure.code(), failure.to_string()), ("refused", refusal.message));
    assert_eq!(asked(&cluster), ["n1"]);
    cluster.manner("n1", Manner::Nonsense);
    cluster.manner("n2", Manner::Nonsense);
    cluster.manner("n3", Manner::Nonsense);
    assert_eq!(client.cluster().await.expect_err("nonsense").code(), "bad_reply");
}

#[tokio::test]
async fn a_change_that_may_have_been_made_is_never_said_to_have_failed() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    // Done, not acknowledged, and done again without a trace.
    cluster.manner("n1", Manner::DoButSay(error(Code::Timeout)));
    assert!(!client.admin(drain(), false).await.expect("done").changed, "by the second attempt");
    assert_eq!(cluster.catalog(|catalog| catalog.changes.len()), 1);

    let client = hasty_client(&cluster).await;
    cluster.manner("n1", Manner::Refuse(error(Code::Unavailable)));
    let failure = client.admin(Admin::Rebalance, false).await.expect_err("no majority");
    assert!(matches!(failure, ClientError::OutcomeUnknown { .. }), "{failure}");
    let failure = client.admin(drain(), true).await.expect_err("no majority");
    assert!(matches!(failure, ClientError::TimedOut { .. }), "{failure}");
    assert!(failure.to_string().contains("as the test wants it"), "{failure}");
}

#[tokio::test]
async fn a_collection_that_the_first_attempt_made_is_made() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    let create = |dimension| Admin::CreateCollection {
        name: "words".into(),
        dimension,
        metric: Metric::L2,
        num_shards: 0,
        replication_factor: 3,
        settings: CollectionSettings::default(),
    };
    cluster.manner("n1", Manner::DoButSay(error(Code::Timeout)));
    let reply = client.admin(create(5), false).await.expect("made");
    assert!(reply.changed && reply.notes.len() == 1, "{reply:?}");
    assert_eq!(client.map().collections[1].dimension, 5, "and this client knows it");
    // Asked for again, or for another shape, it is there already.
    for dimension in [5, 6] {
        let failure = client.admin(create(dimension), false).await.expect_err("there is one");
        assert!(matches!(failure, ClientError::Refused(_)), "{failure}");
    }
    // Refused after an attempt that was not acknowledged, and the one that is there is another one.
    cluster.manner("n1", Manner::DoButSay(error(Code::Timeout)));
    let failure = client.admin(create(6), false).await.expect_err("it is of another shape");
    assert!(matches!(failure, ClientError::OutcomeUnknown { .. }), "{failure}");
}

/// Whoever made another one of that name in between must not lose it to the second attempt.
#[tokio::test]
async fn a_change_that_is_sent_again_names_what_the_first_attempt_was_about() {
    let cluster = FakeCluster::start(1).await;
    cluster.catalog(|catalog| catalog.elect("n1"));
    let client = cluster.client().await;
    let name = || "default".to_owned();
    let settings = slowdb_proto::SettingsChange::default();
    let changes = [
        (Admin::DropCollection { name: name() }, Meant::Collection(1)),
        (Admin::AlterCollection { name: name(), replication_factor: None, settings }, Meant::Collection(1)),
        (drain(), Meant::Node([9; 16])),
        (Admin::RemoveNode { node: "n3".into(), lost: false }, Meant::Node([9; 16])),
    ];
    for (admin, meant) in changes {
        cluster.manner("n1", Manner::DoButSay(error(Code::Timeout)));
        client.admin(admin.clone(), false).await.expect("done by the second attempt");
        let requests = cluster.seen().into_iter().filter_map(|seen| match seen.kind {
            RequestKind::Admin(request) if request.admin == admin => Some(request.meant),
            _ => None,
        });
        assert_eq!(requests.collect::<Vec<_>>(), [Some(meant); 2]);
    }
}
