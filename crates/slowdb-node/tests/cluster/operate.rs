//! The operator's commands against real nodes.

use crate::nodes::{Nodes, Outcome, small};
use serde_json::json;

fn good(outcome: &Outcome) -> &serde_json::Value {
    assert_eq!(outcome.exit, 0, "{outcome:?}");
    &outcome.json
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_looks_changes_and_asks_why() {
    let (nodes, _client) = Nodes::start(small(4)).await;
    let view = nodes.cli(&["nodes", "list"]);
    let ids: Vec<_> = good(&view)["nodes"].as_array().expect("nodes").iter().map(|it| &it["node"]).collect();
    assert_eq!(ids, ["n1", "n2", "n3"]);

    // A dry run changes nothing, and a change is made once.
    let cordon = ["nodes", "cordon", "n3"];
    let dry = nodes.cli(&["nodes", "cordon", "n3", "--dry-run"]);
    assert_eq!((&good(&dry)["dry_run"], &dry.json["changed"]), (&json!(true), &json!(false)));
    assert_eq!(good(&nodes.cli(&cordon))["changed"], true);
    assert_eq!(good(&nodes.cli(&cordon))["changed"], false);
    assert_eq!(good(&nodes.cli(&["nodes", "list"]))["nodes"][2]["state"], "cordoned");
    assert_eq!(good(&nodes.cli(&["status"]))["nodes"][2]["state"], "cordoned");
    assert_eq!(good(&nodes.cli(&["nodes", "uncordon", "n3"]))["changed"], true);
    good(&nodes.cli(&["rebalance", "--dry-run"]));

    let create = ["collections", "create", "words", "--dimension", "3", "--num-shards", "2"];
    assert_eq!(good(&nodes.cli(&create))["changed"], true);
    let other = nodes.cli(&["collections", "create", "words", "--dimension", "4", "--num-shards", "2"]);
    assert!(other.exit == 1 && other.message().contains("words"), "{other:?}");
    let listed = nodes.cli(&["collections", "list"]);
    let words = json!(
        {"name": "words", "dimension": 3, "metric": "cosine", "num_shards": 2, "replication_factor": 3,
         "write_level": "quorum", "read_level": "quorum", "write_floor": "one", "read_floor": "one", "conflicts": "newest"}
    );
    assert_eq!(good(&listed)["collections"][1], words);
    let alter = ["collections", "alter", "words", "--write-level", "all", "--write-floor", "quorum"];
    assert_eq!(good(&nodes.cli(&alter))["changed"], true);
    assert_eq!(good(&nodes.cli(&alter))["changed"], false);
    let words = &good(&nodes.cli(&["collections", "list"]))["collections"][1].clone();
    assert_eq!((&words["write_level"], &words["write_floor"]), (&json!("all"), &json!("quorum")));
    let settled = nodes.cli(&["nodes", "watch", "--until-settled", "--timeout", "60s"]);
    assert_eq!(settled.exit, 0, "{settled:?}");
    let why = nodes.cli(&["explain", "shard", "1", "--collection", "words"]);
    assert!(!good(&why)["explanation"].as_array().expect("sentences").is_empty());
    good(&nodes.cli(&["explain", "node", "n2"]));
    let put = ["put", "cat", "--vector", "1,2,3", "--collection", "words"];
    let written = nodes.cli(&put);
    assert_eq!((&good(&written)["durable_on"], &written.json["replicas"]), (&json!(3), &json!(3)));
    let low = nodes.cli(&[&put[..], &["--consistency", "one"]].concat());
    assert!(low.exit == 1 && low.message().contains("takes writes at quorum"), "{low:?}");
    let below = nodes.cli(&["collections", "alter", "words", "--write-level", "one"]);
    assert!(below.exit == 1 && below.message().contains("below their floor quorum"), "{below:?}");
    let dropped = nodes.cli(&["collections", "drop", "words", "--dry-run"]);
    let notes = json!(["2 shards go, 6 replicas with all their records"]);
    assert_eq!((&good(&dropped)["notes"], &dropped.json["changed"]), (&notes, &json!(false)));
    assert_eq!(good(&nodes.cli(&["collections", "drop", "words"]))["changed"], true);
    let listed = nodes.cli(&["collections", "list"]);
    assert_eq!(good(&listed)["collections"].as_array().map(Vec::len), Some(1));

    // What cannot be is refused in words that name it.
    for (args, name, exit) in [
        (["nodes", "drain", "n9"], "n9", 4),
        (["nodes", "remove", "n9"], "n9", 4),
        (["nodes", "remove", "n2"], "n2", 1),
        (["collections", "drop", "words"], "words", 4),
        (["explain", "shard", "99"], "99", 4),
        (["explain", "node", "n9"], "n9", 4),
        (["conflicts", "show", "99:1.1.1"], "there is no shard 99: 'default' has 0 to ", 4),
    ] {
        let refused = nodes.cli(&args);
        assert!(refused.exit == exit && refused.message().contains(name), "{args:?}: {refused:?}");
    }
}
