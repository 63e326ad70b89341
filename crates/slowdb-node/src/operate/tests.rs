//! What is printed, for hand-made views.

use super::human;
use super::rates::Rates;
use super::view::{Changed, Cluster, Collections};
use slowdb_proto::{
    Admin, AdminReply, ClusterId, ClusterMap, ClusterView, CollectionInfo, CollectionSettings, Metric,
    MoveView, NodeState, NodeView, PlannedMove, ReplicaView, Standing, Wanted,
};
use std::time::Duration;

/// A replica that is being copied to a node.
pub(crate) fn copied(node: &str, bytes: u64, of_bytes: u64) -> ReplicaView {
    let (wanted, standing) = (Wanted::Voter, Standing::Learner);
    ReplicaView { replica: 77, node: node.to_owned(), wanted, standing, bytes, of_bytes }
}

/// Three nodes with four replicas each; shard 3 of 'default' with these replicas is on its way, and shard 4 is
/// planned to be.
pub(crate) fn moving(replicas: Vec<ReplicaView>) -> ClusterView {
    let node = |id: &str| NodeView {
        id: id.to_owned(),
        address: format!("{id}:8000"),
        zone: None,
        weight: 1,
        state: NodeState::Active,
        down: false,
        silent_ms: 120,
        replicas: 4,
        leads: 1,
        catalog: Standing::Voter,
        storage: None,
    };
    let reason = "node n3 is draining".to_owned();
    let shard = Some(("default".to_owned(), 3));
    ClusterView {
        cluster: ClusterId([7; 16]),
        epoch: 9,
        leader: "n1".into(),
        nodes: ["n1", "n2", "n3"].map(node).to_vec(),
        moves: vec![MoveView { group: 4, shard, replicas, reason }],
        planned: vec![PlannedMove {
            collection: "default".into(),
            shard: 4,
            to: Some("n4".into()),
            from: None,
            bytes: 2048,
            reason: "3 replicas are wanted".into(),
        }],
        lost: vec![],
    }
}

/// Two views a second apart: 10 MiB of 100 MiB have arrived, and 10 MiB more a second later.
fn two_views() -> Cluster {
    const MIB: u64 = 1 << 20;
    let leaving = ReplicaView { replica: 12, wanted: Wanted::Gone, ..copied("n3", 0, 0) };
    let staying = ReplicaView { replica: 10, standing: Standing::Voter, ..copied("n1", 0, 0) };
    let view = |bytes| {
        let leaving = ReplicaView { standing: Standing::Voter, ..leaving.clone() };
        moving(vec![staying.clone(), copied("n4", bytes, 100 * MIB), leaving])
    };
    let mut rates = Rates::default();
    rates.take(&view(10 * MIB), Duration::from_secs(1));
    rates.take(&view(20 * MIB), Duration::from_secs(2));
    Cluster::new(&view(20 * MIB), &rates)
}

#[test]
fn people_see_what_moves_how_fast_and_why() {
    let text = human::cluster(&two_views());
    let row = text.lines().find(|line| line.contains("n4  ")).expect("a row");
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let wanted = [
        "default/3",
        "n4",
        "learner",
        "voter",
        "20.0 MiB of 100.0 MiB",
        "10.0 MiB/s",
        "8 s left",
        "node n3 is draining",
    ];
    assert_eq!(cells, wanted);
    assert!(text.contains("groups on their way: 1, moves planned: 1"), "{text}");
    assert!(text.contains("default/4  -     n4  2.0 KiB  3 replicas are wanted"), "{text}");
    assert!(!text.contains("n1    voter"), "n1 is as it is wanted: {text}");
}

#[test]
fn lines_say_the_same_in_words() {
    let lines = human::lines(&two_views());
    assert_eq!(
        lines,
        [
            "groups on their way: 1, moves planned: 1",
            "default/3 on n4, learner to be voter: 20.0 MiB of 100.0 MiB, 10.0 MiB/s, 8 s left \
             (node n3 is draining)",
            "default/3 on n3, voter to be gone (node n3 is draining)",
        ]
    );
}

#[test]
fn json_is_small_and_leaves_out_what_is_not_known() {
    let json = serde_json::to_value(two_views()).expect("JSON");
    assert_eq!((&json["settled"], &json["leader"]), (&false.into(), &"n1".into()));
    let node = serde_json::json!({
        "node": "n1", "address": "n1:8000", "zone": null, "weight": 1, "state": "active", "down": false,
        "silent_ms": 120, "replicas": 4, "should_lead": 1, "catalog": "voter",
    });
    assert_eq!(json["nodes"][0], node);
    let copied = serde_json::json!({
        "node": "n4", "replica": 77, "wanted": "voter", "standing": "learner", "bytes": 20 << 20,
        "of_bytes": 100 << 20, "bytes_per_second": 10 << 20, "seconds_left": 8,
    });
    assert_eq!(json["moves"][0]["replicas"][1], copied);
    assert!(json["moves"][0]["replicas"][2].get("seconds_left").is_none());
    assert_eq!((&json["moves"][0]["collection"], &json["moves"][0]["shard"]), (&"default".into(), &3.into()));

    let mut catalog = moving(vec![]);
    catalog.moves[0].shard = None;
    let json = serde_json::to_value(Cluster::new(&catalog, &Rates::default())).expect("JSON");
    assert!(json["moves"][0].get("collection").is_none());
    assert!(human::lines(&Cluster::new(&catalog, &Rates::default())).len() == 1);
}

#[test]
fn a_settled_cluster_says_so_and_a_lost_shard_is_named() {
    let mut view = moving(vec![]);
    view.moves.clear();
    view.planned.clear();
    view.nodes[1].down = true;
    view.lost.push("shard 2 of 'default' has lost the majority".into());
    let view = Cluster::new(&view, &Rates::default());
    let text = human::cluster(&view);
    assert!(view.settled && text.contains("n1 leads the catalog; settled"), "{text}");
    assert!(text.contains("! shard 2 of 'default'") && text.contains("active, DOWN"), "{text}");
}

#[test]
fn a_change_says_what_is_done_or_would_be() {
    let reply = |changed| AdminReply { changed, moves: moving(vec![]).planned, notes: vec!["beware".into()] };
    let drain = Admin::SetNodeState { node: "n3".into(), state: NodeState::Draining };
    let text =
        |admin: &Admin, changed, dry_run| human::changed(admin, &Changed::new(&reply(changed), dry_run));
    assert!(
        text(&drain, true, false).starts_with("node n3 is draining now\n- beware\nmoves planned: 1, 2.0 KiB")
    );
    assert!(text(&drain, false, false).starts_with("nothing had to be changed\n"));
    assert!(
        text(&drain, false, true).starts_with("dry run: node n3 would be draining; nothing was changed\n")
    );
    assert!(text(&Admin::Rebalance, false, false).starts_with("a better placement is looked for\n"));
    let none = AdminReply { changed: true, moves: vec![], notes: vec![] };
    let drop = Admin::DropCollection { name: "c".into() };
    let text = human::changed(&drop, &Changed::new(&none, false));
    assert_eq!(text, "collection 'c' is dropped\nnothing is to be moved");

    let json = serde_json::to_value(Changed::new(&reply(true), false)).expect("JSON");
    let planned = serde_json::json!({
        "collection": "default", "shard": 4, "from": null, "to": "n4", "bytes": 2048,
        "reason": "3 replicas are wanted",
    });
    let wanted =
        serde_json::json!({"dry_run": false, "changed": true, "moves": [planned], "notes": ["beware"]});
    assert_eq!(json, wanted);
}

#[test]
fn collections_are_listed() {
    let map = ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: 1,
        answered_by: "n1".into(),
        catalog_leader: Some("n1".into()),
        nodes: vec![],
        collections: vec![CollectionInfo {
            name: "words".into(),
            dimension: 384,
            metric: Metric::Cosine,
            replication_factor: 3,
            settings: CollectionSettings::default(),
            shards: vec![],
        }],
    };
    let all = Collections::from(&map);
    let wanted = serde_json::json!({"collections": [
        {"name": "words", "dimension": 384, "metric": "cosine", "num_shards": 0, "replication_factor": 3,
         "write_level": "quorum", "read_level": "quorum", "write_floor": "one", "read_floor": "one", "conflicts": "newest"},
    ]});
    assert_eq!(serde_json::to_value(&all).expect("JSON"), wanted);
    assert!(human::collections(&all).ends_with(
        "words        384  cosine       0                3  quorum (from one)  quorum (from one)  newest"
    ));
}
