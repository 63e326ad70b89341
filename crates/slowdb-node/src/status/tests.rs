use super::view::{Digests, StatusView};
use super::{health, human};
use crate::operate;
use slowdb_client::{ClientError, ClusterMap, ClusterStatus, Metric, NodeReport, Position, Unreached};
use slowdb_proto::{
    ClusterId, CollectionInfo, FollowerStatus, GroupKind, GroupStatus, LateStatus, LogStatus, NodeInfo,
    NodeStatus, PeerStatus, ReplicaInfo, Role, ScrubStatus, ShardInfo, SpaceStatus,
};

fn group(group: u64, role: Role, index: u64, digest: u8) -> GroupStatus {
    let kind = match group {
        0 => GroupKind::Catalog,
        _ => GroupKind::Shard { collection: "default".into(), shard: group as u32 - 1 },
    };
    GroupStatus {
        group,
        kind,
        replica: 1,
        role,
        term: 2,
        leader: Some("n1".into()),
        first_index: 1,
        last_index: 10,
        committed: 10,
        applied: Position { term: 2, index, offset: 0 },
        digest: [digest; 16],
        records: 5,
        late: LateStatus::default(),
        checkpointed: 0,
        followers: vec![],
    }
}

/// Three nodes, two shards, `n1` leads all; all is well.
fn cluster() -> ClusterStatus {
    let names = ["n1", "n2", "n3"];
    let replica = |node: &&str| ReplicaInfo { replica: 1, node: (*node).to_owned(), voter: true };
    let shard = |shard: u32| ShardInfo {
        shard,
        group: u64::from(shard) + 1,
        replicas: names.iter().map(replica).collect(),
        leader: Some("n1".into()),
        term: 2,
    };
    let node = |node: &&str| NodeInfo { id: (*node).to_owned(), address: format!("{node}:1"), zone: None };
    let report = |node: &&str| {
        let role = if *node == "n1" { Role::Leader } else { Role::Follower };
        let status = NodeStatus {
            node: (*node).to_owned(),
            cluster: Some(ClusterId([7; 16])),
            version: "0".into(),
            uptime_ms: 61_000,
            groups: (0..3).map(|g| group(g, role, 10, 1)).collect(),
            log: LogStatus { bytes: 2048, segments: 1, pinned_bytes: 0 },
            scrub: ScrubStatus::default(),
            space: SpaceStatus { free_bytes: Some(5 << 30), ..SpaceStatus::default() },
            peers: vec![],
            warnings: vec![],
        };
        NodeReport { node: (*node).to_owned(), address: format!("{node}:1"), status: Ok(Box::new(status)) }
    };
    let map = ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: 1,
        answered_by: "n1".into(),
        catalog_leader: None,
        nodes: names.iter().map(node).collect(),
        collections: vec![CollectionInfo {
            name: "default".into(),
            dimension: 4,
            metric: Metric::Cosine,
            replication_factor: 3,
            settings: slowdb_proto::CollectionSettings::default(),
            shards: (0..2).map(shard).collect(),
        }],
    };
    ClusterStatus { map, nodes: names.iter().map(report).collect() }
}

fn said(cluster: &mut ClusterStatus, node: usize, group: usize) -> &mut GroupStatus {
    &mut cluster.nodes[node].status.as_mut().expect("it answers").groups[group]
}

fn silence(cluster: &mut ClusterStatus, node: usize) {
    let tried = vec![Unreached { address: "there".into(), reason: "silence".into() }];
    cluster.nodes[node].status = Err(ClientError::NoNodeReachable { tried });
}

#[test]
fn a_healthy_cluster_says_so() {
    let view = StatusView::new(&cluster());
    assert!(view.healthy && view.problems.is_empty() && view.notes.is_empty(), "{view:?}");
    assert_eq!(view.collections[0].records, Some(10));
    assert!(view.collections[0].shards.iter().all(|shard| shard.digests == Digests::Equal));
    let text = human::render(&view);
    assert!(text.contains("is healthy: 3 of 3 nodes answer, 2 of 2 shards have a leader"), "{text}");
}

#[test]
fn replicas_that_differ_are_named() {
    let mut cluster = cluster();
    said(&mut cluster, 2, 2).digest = [9; 16];
    let view = StatusView::new(&cluster);
    assert!(!view.healthy);
    assert_eq!(view.collections[0].shards[1].digests, Digests::Differ);
    assert_eq!(view.problems.len(), 1);
    let problem = &view.problems[0];
    assert!(problem.contains("shard 1: replicas differ") && problem.contains("n3 09090909"), "{problem}");
}

#[test]
fn a_follower_that_is_behind_is_no_problem() {
    let mut cluster = cluster();
    let behind = said(&mut cluster, 1, 1);
    (behind.applied.index, behind.digest) = (7, [3; 16]);
    let pinned = FollowerStatus { node: "n2".into(), matched: 7, active: true, pinned_bytes: 123 };
    said(&mut cluster, 0, 1).followers = vec![pinned];
    let view = StatusView::new(&cluster);
    assert!(view.healthy, "{:?}", view.problems);
    let shard = &view.collections[0].shards[0];
    assert_eq!(shard.digests, Digests::Unsettled);
    let replica = shard.replicas[1].said.as_ref().expect("reached");
    assert_eq!((replica.lag, replica.pinned_bytes), (3, 123));
    assert!(human::render(&view).contains("n2 (2.7.0, 3 behind)"));
}

#[test]
fn a_silent_node_is_one_problem_and_two_are_the_loss_of_the_majority() {
    let mut cluster = cluster();
    silence(&mut cluster, 2);
    let view = StatusView::new(&cluster);
    assert!(!view.healthy);
    assert_eq!(view.problems.len(), 1, "{:?}", view.problems);
    let shard = &view.collections[0].shards[0];
    assert_eq!((shard.has_majority, shard.digests), (true, Digests::Unsettled));
    assert!(shard.replicas[2].said.is_none());

    silence(&mut cluster, 0);
    let view = StatusView::new(&cluster);
    let shard = &view.collections[0].shards[0];
    assert_eq!((shard.has_majority, shard.leader.clone()), (false, None));
    assert!(view.problems.iter().any(|p| p.contains("shards 0, 1: most voters do not answer")));
    assert!(view.problems.iter().any(|p| p.starts_with("the catalog: most voters")));
    assert_eq!(shard.records, Some(5), "what is left says so");
}

#[test]
fn a_node_that_others_do_not_reach_is_a_problem_though_it_answers_here() {
    let mut cluster = cluster();
    for node in [0, 2] {
        let peers = &mut cluster.nodes[node].status.as_mut().expect("it answers").peers;
        peers.push(PeerStatus { node: "n2".into(), address: "n2:1".into(), connected: false });
    }
    let view = StatusView::new(&cluster);
    assert!(!view.healthy);
    assert_eq!(view.problems, ["node n2 answers here, but n1, n3 cannot reach it"]);
    // If it answers nobody, that is said once.
    silence(&mut cluster, 1);
    let problems = StatusView::new(&cluster).problems;
    assert!(problems.len() == 1 && problems[0].contains("does not answer"), "{problems:?}");
}

#[test]
fn a_shard_without_a_leader_is_named() {
    let mut cluster = cluster();
    said(&mut cluster, 0, 1).role = Role::Candidate;
    let view = StatusView::new(&cluster);
    assert_eq!(view.problems.len(), 1, "{:?}", view.problems);
    assert!(view.problems[0].contains("shard 0: no leader"), "{:?}", view.problems);
    // Of two that claim to lead, the one of the newer term does.
    said(&mut cluster, 0, 1).role = Role::Leader;
    let newer = said(&mut cluster, 1, 1);
    (newer.role, newer.term) = (Role::Leader, 3);
    let view = StatusView::new(&cluster);
    assert_eq!(view.collections[0].shards[0].leader.as_deref(), Some("n2"));
}

#[test]
fn what_one_voter_means_is_said() {
    let mut cluster = cluster();
    for shard in &mut cluster.map.collections[0].shards {
        shard.replicas.truncate(1);
    }
    cluster.map.nodes.truncate(1);
    cluster.nodes.truncate(1);
    let warnings = &mut cluster.nodes[0].status.as_mut().expect("it answers").warnings;
    warnings.push("collection 'default' has one voter for each shard".into());
    let view = StatusView::new(&cluster);
    assert!(view.healthy);
    assert!(view.notes.iter().any(|note| note.contains("'quorum' means one disk")), "{:?}", view.notes);
    assert!(view.notes.iter().any(|note| note.contains("3 replicas are wanted, 1 are placed")));
    assert!(health::notes(&[], &[]).is_empty());

    let warnings = &mut cluster.nodes[0].status.as_mut().expect("it answers").warnings;
    warnings.push("shard 1 is halted here".into());
    assert_eq!(StatusView::new(&cluster).problems, ["node n1: shard 1 is halted here"]);
}

#[test]
fn json_leaves_out_what_nobody_said() {
    let mut cluster = cluster();
    silence(&mut cluster, 2);
    let text = serde_json::to_string(&StatusView::new(&cluster)).expect("JSON");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["nodes"][2]["reachable"], false);
    assert!(json["nodes"][2].get("log").is_none());
    assert_eq!(json["nodes"][0]["log"]["bytes"], 2048);
    let shard = &json["collections"][0]["shards"][1];
    assert_eq!((&shard["shard"], &shard["digests"]), (&1.into(), &"unsettled".into()));
    assert_eq!(shard["replicas"][0]["applied"]["index"], 10);
    assert!(shard["replicas"][2].get("applied").is_none());
    assert!(json["catalog"].get("shard").is_none());
}

#[test]
fn what_the_catalogs_leader_says_is_shown_and_missed() {
    let mut said = operate::tests::moving(vec![operate::tests::copied("n3", 1 << 20, 2 << 20)]);
    said.nodes[2].state = slowdb_proto::NodeState::Draining;
    said.nodes[1].down = true;
    let view =
        StatusView::new(&cluster()).with_cluster(Ok(operate::Cluster::new(&said, &Default::default())));
    assert!(!view.healthy && view.problems.len() == 1, "{:?}", view.problems);
    assert!(view.problems[0].starts_with("node n2 answers here, but is DOWN"), "{:?}", view.problems);
    let json = serde_json::to_value(&view).expect("JSON");
    assert_eq!((&json["nodes"][2]["state"], &json["nodes"][1]["down"]), (&"draining".into(), &true.into()));
    assert_eq!(json["moves"][0]["replicas"][0]["of_bytes"], 2 << 20);
    let text = human::render(&view);
    for wanted in ["up, draining", "up, DOWN", "1.0 MiB of 2.0 MiB", "node n3 is draining"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }

    let tried = vec![Unreached { address: "there".into(), reason: "silence".into() }];
    let view = StatusView::new(&cluster()).with_cluster(Err(ClientError::NoNodeReachable { tried }));
    assert!(view.healthy && view.notes[0].contains("what is being moved is not known"), "{:?}", view.notes);
    assert!(serde_json::to_value(&view).expect("JSON").get("moves").is_none());
}
