//! Bad input on the command line, against real nodes: the right code, an exit code that is not 0, and nothing
//! changed.

use crate::nodes::{DEADLINE, Nodes, Outcome};
use std::fs;
use tempfile::TempDir;
use xtask::cluster::{Shape, view};

const DIMENSION: usize = 4;

struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).expect("written");
        path
    }

    /// A NumPy file with this header and these numbers.
    fn npy(&self, name: &str, dtype: &str, order: &str, shape: &str, numbers: &[f32]) -> String {
        let mut header =
            format!("{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}").into_bytes();
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(b' ');
        }
        header.push(b'\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header);
        bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        self.write(name, &bytes)
    }
}

fn refused(outcome: &Outcome, code: &str, words: &str) {
    assert_eq!(outcome.code(), code, "{outcome:?}");
    assert!(outcome.exit != 0 && outcome.exit != -1, "{outcome:?}");
    assert!(outcome.message().contains(words), "{words:?} in {outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_named_and_changes_nothing() {
    let shape = Shape {
        nodes: 1,
        dimension: DIMENSION as u32,
        replication_factor: 1,
        num_shards: 2,
        ..Shape::default()
    };
    let (nodes, client) = Nodes::start(shape).await;
    assert_eq!(nodes.cli(&["put", "kept", "--vector", "1,2,3,4"]).exit, 0);
    // To find out that there is nothing to delete takes a write, so it is remembered as one.
    not_found(&nodes, "delete");
    let before = view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("it answers");

    bad_records(&nodes);
    bad_searches(&nodes);
    bad_files(&nodes, &Files(tempfile::tempdir().expect("a directory")));

    let kept = nodes.cli(&["get", "kept"]);
    assert_eq!(kept.json["vector"], serde_json::json!([1.0, 2.0, 3.0, 4.0]), "{kept:?}");
    let after = view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("it answers");
    assert_eq!(digests(&before), digests(&after), "something was changed");
}

fn digests(view: &view::View) -> Vec<(u64, [u8; 16], u64)> {
    let groups = view.nodes.values().flat_map(|status| &status.groups);
    groups.map(|group| (group.group, group.digest, group.records)).collect()
}

fn not_found(nodes: &Nodes, command: &str) {
    let missing = nodes.cli(&[command, "never-written"]);
    refused(&missing, "not_found", "never-written");
    assert_eq!(missing.exit, 4);
}

fn bad_records(nodes: &Nodes) {
    let long = "x".repeat(513);
    for (args, code, words) in [
        (vec!["put", "a", "--vector", "1,2,3"], "wrong_dimension", "3"),
        (vec!["put", "a", "--vector", "1,2,3,4,5"], "wrong_dimension", "5"),
        (vec!["put", "a", "--vector", "1,NaN,3,4"], "not_finite", "NaN"),
        (vec!["put", "a", "--vector", "1,2,inf,4"], "not_finite", "inf"),
        (vec!["put", "a", "--vector", "1,2,-inf,4"], "not_finite", "-inf"),
        (vec!["put", "a", "--vector", "1,two,3,4"], "bad_request", "two"),
        (vec!["put", "", "--vector", "1,2,3,4"], "bad_id", "empty"),
        (vec!["put", &long, "--vector", "1,2,3,4"], "bad_id", "513"),
        (vec!["get", ""], "bad_id", "empty"),
        (vec!["get", &long], "bad_id", "513"),
        (vec!["delete", ""], "bad_id", "empty"),
        (vec!["get", "a", "--consistency", "all"], "usage", "all"),
        (vec!["put", "a", "--vector", "1,2,3,4", "--consistency", "most"], "usage", "most"),
        (vec!["get", "a", "--collection", "nowhere"], "unknown_collection", "nowhere"),
        (vec!["put", "a", "--vector", "1,2,3,4", "--timeout", "soon"], "usage", "soon"),
    ] {
        refused(&nodes.cli(&args), code, words);
    }
    for (input, words) in [("[1, 2, 3", "JSON"), ("{}", "JSON"), ("", "no vector")] {
        let outcome = nodes.cli_with_input(&["put", "a"], input);
        assert!(outcome.exit != 0 && outcome.message().contains(words), "{outcome:?}");
    }
    not_found(nodes, "get");
}

fn bad_searches(nodes: &Nodes) {
    for (args, code, words) in [
        (vec!["search", "--vector", "1,2"], "wrong_dimension", "2"),
        (vec!["search", "--vector", "1,2,nan,4"], "not_finite", "NaN"),
        (vec!["search", "--vector", "1,2,3,4", "-k", "0"], "bad_request", "0"),
        (vec!["search", "--vector", "1,2,3,4", "-k", "10001"], "too_large", "10001"),
        (vec!["search", "--vector", "1,2,3,4", "--metric", "manhattan"], "usage", "manhattan"),
        (vec!["search", "--id", "never-written"], "not_found", "never-written"),
    ] {
        refused(&nodes.cli(&args), code, words);
    }
}

fn bad_files(nodes: &Nodes, files: &Files) {
    let numbers: Vec<f32> = (0..12).map(|n| n as f32).collect();
    let good = files.npy("good.npy", "<f4", "False", "(3, 4)", &numbers);
    let truncated = files.npy("truncated.npy", "<f4", "False", "(3, 4)", &numbers[..11]);
    let doubles = files.npy("doubles.npy", "<f8", "False", "(3, 2)", &numbers);
    let columns = files.npy("columns.npy", "<f4", "True", "(3, 4)", &numbers);
    let wide = files.npy("wide.npy", "<f4", "False", "(2, 6)", &numbers);
    let flat = files.npy("flat.npy", "<f4", "False", "(12,)", &numbers);
    let mut with_nan = numbers.clone();
    with_nan[9] = f32::NAN;
    let nan = files.npy("nan.npy", "<f4", "False", "(3, 4)", &with_nan);
    let text = files.write("text.npy", b"these are no vectors");
    let unknown = files.write("vectors.bin", b"x");
    let missing = files.path("missing.npy");
    for (file, code, words) in [
        (&truncated, "bad_file", "truncated"),
        (&doubles, "bad_file", "<f8"),
        (&columns, "bad_file", "Fortran"),
        (&flat, "bad_file", "shape"),
        (&wide, "wrong_dimension", "6"),
        (&nan, "not_finite", "row 2"),
        (&text, "bad_file", "text.npy"),
        (&unknown, "bad_file", ".npy"),
        (&missing, "bad_file", "missing.npy"),
    ] {
        refused(&nodes.cli(&["import", file]), code, words);
    }
    let twice = files.write("twice.txt", b"a\nb\na\n");
    let few = files.write("few.txt", b"a\nb\n");
    let empty_line = files.write("empty-line.txt", b"a\n\nc\n");
    let long_line = files.write("long.txt", format!("a\n{}\nc\n", "x".repeat(600)).as_bytes());
    for (ids, words) in [(&twice, "3"), (&few, "2"), (&empty_line, "2"), (&long_line, "2")] {
        let outcome = nodes.cli(&["import", &good, "--ids", ids]);
        assert!(outcome.exit != 0 && outcome.message().contains(words), "{ids}: {outcome:?}");
    }
    refused(&nodes.cli(&["search", "--queries", &wide]), "wrong_dimension", "6");
}
