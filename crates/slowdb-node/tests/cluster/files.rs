//! Records into a cluster and out of it again, by files.

use crate::nodes::{Nodes, Outcome};
use serde_json::{Value, json};
use std::path::Path;
use xtask::cluster::Shape;

const ROWS: usize = 40;

fn done(outcome: Outcome) -> Value {
    assert_eq!(outcome.exit, 0, "{outcome:?}");
    outcome.json
}

/// Records as lines of JSON; every other one has a payload.
fn records() -> Vec<Value> {
    let record = |n: usize| {
        let mut record = json!({ "id": format!("r{n:02}"), "vector": [n as f32 * 0.25, -1.5] });
        if n.is_multiple_of(2) {
            record["payload"] = json!({ "n": n, "text": "a\nb" });
        }
        record
    };
    (0..ROWS).map(record).collect()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("it is there");
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    lines.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_imported_is_exported_again() {
    let shape = Shape { nodes: 1, dimension: 2, replication_factor: 1, num_shards: 4, ..Shape::default() };
    let (mut nodes, _client) = Nodes::start(shape).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let text: String = records().iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(file("in.jsonl"), text).expect("written");

    // Nobody answers: how far it got is kept, and the next run goes on from there.
    nodes.cluster.kill("n1").expect("killed");
    let import = ["import", &path("in.jsonl"), "--progress", &path("progress"), "--timeout", "1s"];
    assert_eq!(nodes.cli(&import).exit, 3);
    nodes.cluster.start("n1").expect("started");
    xtask::cluster::view::wait_ready(&nodes.cluster, crate::nodes::DEADLINE).await.expect("it leads");
    let import = &import[..4];
    done(nodes.cli(import));
    assert!(!file("progress").exists(), "there is nothing left to go on with");

    assert_eq!(done(nodes.cli(&["count"]))["records"], json!(ROWS));
    assert_eq!(done(nodes.cli(&["count", "--prefix", "r1"]))["records"], json!(10));
    done(nodes.cli(&["export", &path("out.jsonl")]));
    assert_eq!(lines(&file("out.jsonl")), records());
    let there = nodes.cli(&["export", &path("out.jsonl")]);
    assert_eq!((there.exit, there.code()), (2, "usage"), "{there:?}");
    done(nodes.cli(&["export", &path("out.jsonl"), "--force", "--prefix", "r0"]));
    assert_eq!(lines(&file("out.jsonl")), records()[..10]);

    // Without payloads, which .npy has no place for.
    let exported = done(nodes.cli(&["export", &path("out.npy")]));
    assert_eq!(exported["payloads_left_out"], json!(ROWS / 2));
    for id in ["r07", "r08"] {
        done(nodes.cli(&["delete", id]));
    }
    assert_eq!(done(nodes.cli(&["count"]))["records"], json!(ROWS - 2));
    done(nodes.cli(&["import", &path("out.npy"), "--ids", &path("out.ids.txt")]));
    let read = done(nodes.cli(&["get", "r08"]));
    assert_eq!((&read["vector"], &read["payload"]), (&records()[8]["vector"], &Value::Null));

    let payload = r#"{"b": 1, "a": 10000000000000000000001}"#;
    done(nodes.cli(&["put", "r08", "--vector", "1,2", "--payload", payload]));
    let scan = nodes.cli_text(&["scan", "--prefix", "r0", "--payloads"]);
    assert!(scan.contains(&format!(r#""payload":{payload}"#)), "{scan}");
    let bad = nodes.cli(&["put", "r08", "--vector", "1,2", "--payload", "{"]);
    assert_eq!((bad.exit, bad.code()), (2, "bad_payload"), "{bad:?}");

    let some = nodes.cli_text(&["get", "r01", "no such", "r03"]);
    let ids: Vec<Value> = some.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [one, three, error] = &ids[..] else { panic!("{some}") };
    assert_eq!((&one["id"], &three["id"]), (&json!("r01"), &json!("r03")));
    assert_eq!(error["error"]["code"], json!("not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_on_where_the_last_one_ended_and_nowhere_else() {
    let shape = Shape { nodes: 1, dimension: 2, replication_factor: 1, num_shards: 2, ..Shape::default() };
    let (mut nodes, _client) = Nodes::start(shape).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name);
    let path = |name: &str| file(name).display().to_string();
    let text: String = records().iter().map(|record| format!("{record}\n")).collect();
    std::fs::write(file("in.jsonl"), &text).expect("written");
    std::fs::write(file("other.jsonl"), &text).expect("written");
    nodes.cluster.kill("n1").expect("killed");
    // It ends before it knows which cluster it is, so it says nothing.
    assert_eq!(
        nodes.cli(&["import", &path("in.jsonl"), "--progress", &path("p"), "--timeout", "1s"]).exit,
        3
    );
    assert!(!file("p").exists());
    nodes.cluster.start("n1").expect("started");
    let client =
        xtask::cluster::view::wait_ready(&nodes.cluster, crate::nodes::DEADLINE).await.expect("it leads");

    let metadata = std::fs::metadata(file("in.jsonl")).expect("it is there");
    let modified =
        metadata.modified().expect("a time").duration_since(std::time::UNIX_EPOCH).expect("since then");
    let reached = format!(
        r#"{{"import":{{"file":{:?},"bytes":{},"modified_ns":{},"cluster":"{}","collection":"default"}},"records":33}}"#,
        file("in.jsonl").canonicalize().expect("a path"),
        metadata.len(),
        modified.as_nanos(),
        client.cluster_id()
    );
    std::fs::write(file("p"), reached).expect("written");
    let other = nodes.cli(&["import", &path("other.jsonl"), "--progress", &path("p")]);
    assert_eq!((other.exit, other.code()), (2, "bad_file"), "{other:?}");
    assert!(other.message().contains("is of another import"), "{other:?}");
    let rest = done(nodes.cli(&["import", &path("in.jsonl"), "--progress", &path("p")]));
    assert_eq!((&rest["skipped"], &rest["written"]), (&json!(33), &json!(ROWS - 33)));
    assert_eq!(done(nodes.cli(&["count"]))["records"], json!(ROWS - 33));
    assert!(!file("p").exists());
}
