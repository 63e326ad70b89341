//! The documents and the tree say the same: the map of crates with their arrows and absences, and every path and
//! test that a document names.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const DOCUMENTS: [&str; 6] = [
    "docs/architecture.md",
    "docs/faults.md",
    "docs/format.md",
    "docs/guarantees.md",
    "docs/placement.md",
    "docs/wire.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace").to_owned()
}

fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Crate → names of its direct dependencies, those of tests and examples aside.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("names are strings").to_owned();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().expect("every package has a list");
        all.iter().filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
    };
    let packages = metadata["packages"].as_array().expect("there are packages");
    packages.iter().map(|package| (text(&package["name"]), dependencies(package))).collect()
}

/// A line of the map.
struct Entry {
    forbidden: BTreeSet<String>,
    but_through: bool,
    depends_on: BTreeSet<String>,
}

fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn map() -> BTreeMap<String, Entry> {
    let text = document("docs/architecture.md");
    let (_, map) = text.split_once("\n## The map\n").expect("there is a map");
    let rows = map.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let entry = |row: &str| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let [name, _, forbidden, depends_on] = cells[..] else { panic!("not four cells: {row}") };
        let names = |cell: &str| backticked(cell).map(str::to_owned).collect::<BTreeSet<_>>();
        let name = backticked(name).next().unwrap_or_else(|| panic!("no crate: {row}")).to_owned();
        let forbidden_names =
            names(forbidden.split("but through").next().unwrap_or_default()).into_iter().collect();
        let but_through = forbidden.contains("but through");
        (name, Entry { forbidden: forbidden_names, but_through, depends_on: names(depends_on) })
    };
    rows.map(entry).collect()
}

/// A crate and all of the workspace below it.
fn below(name: &str, workspace: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(next) = open.pop() {
        if seen.insert(next.clone()) {
            open.extend(workspace[&next].iter().filter(|d| workspace.contains_key(*d)).cloned());
        }
    }
    seen
}

#[test]
fn the_map_lists_the_crates_that_exist() {
    let crates: Vec<String> = workspace().into_keys().collect();
    let listed: Vec<String> = map().into_keys().collect();
    assert_eq!(listed, crates, "left: docs/architecture.md, right: the workspace");
}

#[test]
fn the_arrows_are_those_of_the_map() {
    let workspace = workspace();
    for (name, entry) in map() {
        let Some(dependencies) = workspace.get(&name) else { continue };
        let arrows: BTreeSet<_> =
            dependencies.iter().filter(|d| workspace.contains_key(*d)).cloned().collect();
        assert_eq!(entry.depends_on, arrows, "{name}: left: docs/architecture.md, right: its Cargo.toml");
    }
}

#[test]
fn no_crate_depends_on_what_it_must_never_know() {
    let workspace = workspace();
    for (name, entry) in map().into_iter().filter(|(name, _)| workspace.contains_key(name)) {
        let looked_at =
            if entry.but_through { BTreeSet::from([name.clone()]) } else { below(&name, &workspace) };
        for place in looked_at {
            let known: Vec<_> = workspace[&place].intersection(&entry.forbidden).collect();
            assert!(known.is_empty(), "{name} must never know {known:?}, but {place} depends on it");
        }
    }
}

/// A check that finds nothing to forbid would be no check.
#[test]
fn the_map_forbids_something_to_every_library() {
    let map = map();
    for library in ["slowdb-storage", "slowdb-ring", "slowdb-repl", "slowdb-proto", "slowdb-client"] {
        assert!(!map[library].forbidden.is_empty(), "{library}");
    }
    assert!(map["slowdb-client"].forbidden.contains("raft"));
}

/// Paths in backticks exist; what follows a `#` is a test in that file.
#[test]
fn paths_and_tests_named_in_documents_exist() {
    let mut checked = 0;
    for name in DOCUMENTS {
        let text = document(name);
        let paths = text.lines().flat_map(backticked);
        let in_tree =
            |path: &&str| ["crates/", "xtask/", "docs/", "benches/"].iter().any(|p| path.starts_with(p));
        for path in paths.filter(in_tree) {
            let (file, test) = path.split_once('#').unwrap_or((path, ""));
            let content = root().join(file);
            assert!(content.exists(), "{name} names {file}, which does not exist");
            if !test.is_empty() {
                let code = fs::read_to_string(content).expect("a file of tests can be read");
                assert!(code.contains(&format!("fn {test}(")), "{name} names the test {path}: no such test");
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} paths were found in {DOCUMENTS:?}");
}
