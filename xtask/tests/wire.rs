//! What docs/wire.md says of requests, replies, frames, batches, codes and limits is what the code does.

use bytes::Bytes;
use slowdb_net::FrameOut;
use slowdb_proto::{Code, Condition, OpsBuilder, Position, Request, RequestKind, limits};
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the workspace");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The content of the block that begins with this line.
fn block(head: &str) -> String {
    let text = read("docs/wire.md");
    let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
    rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
}

/// As the document writes bytes: sixteen to a line.
fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// The rows of the table below a heading, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let text = read("docs/wire.md");
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).expect("the heading is there");
    let rows = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    rows.take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn frame() {
    let frame =
        FrameOut { kind: 1, meta: Bytes::from_static(b"meta"), body: vec![Bytes::from_static(b"body")] };
    assert_eq!(block("hex frame"), hex(&slowdb_net::encode(&frame).expect("it is short")));
}

#[test]
fn request() {
    let request = Request { cluster: None, timeout_ms: 5_000, kind: RequestKind::Map };
    assert_eq!(block("hex request"), hex(&slowdb_proto::encode_request(&request)));
}

#[test]
fn batch() {
    let mut batch = OpsBuilder::new();
    batch.put("a", &[1.0, -2.0], b"p").expect("a good put");
    batch.delete("bcdef").expect("a good delete");
    assert_eq!(block("hex batch"), hex(&batch.finish()));
    let mut batch = OpsBuilder::new();
    let version = Condition::IfVersion(Position::new(2, 7, 1));
    batch.put_if("a", &[1.0], b"", Some(version)).expect("a good put");
    batch.delete_if("b", Some(Condition::IfAbsent)).expect("a good delete");
    assert_eq!(block("hex batch with conditions"), hex(&batch.finish()));
    let mut batch = OpsBuilder::new();
    batch.replay("a", Position::new(2, 7, 1), false).expect("a good replay");
    assert_eq!(block("hex batch with a replay"), hex(&batch.finish()));
}

/// Every limit: no row is missing, and none is left over.
#[test]
fn limits_table() {
    macro_rules! all {
        ($($name:ident)*) => { vec![$((stringify!($name), limits::$name.to_string())),*] };
    }
    let known = all!(ID_BYTES_MAX PAYLOAD_BYTES_MAX DIMENSION_MAX NAME_BYTES_MAX BATCH_WRITES_MAX BATCH_BYTES_MAX
        TOMBSTONE_BYTES_MAX CONFLICT_BYTES_MAX CONFLICT_NOTE_BYTES_MAX HASHES_MAX CONFLICT_PAGE_MAX GET_IDS_MAX
        SEARCH_QUERIES_MAX SEARCH_K_MAX SCAN_RECORDS_MAX META_BYTES_MAX BODY_BYTES_MAX SHARDS_MAX INITIAL_NODES_MAX
        REPLICATION_FACTOR_MAX TIMEOUT_MS_MAX);
    let source = read("crates/slowdb-proto/src/limits.rs");
    let declared = source.lines().filter(|line| line.starts_with("pub const ")).count();
    assert_eq!(known.len(), declared, "a limit was added: name it here and in docs/wire.md");
    let rows: Vec<_> = table("Limits").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected: Vec<_> = known.into_iter().map(|(name, value)| (format!("`{name}`"), value)).collect();
    assert_eq!(rows, expected, "left: docs/wire.md, right: the code");
}

/// Every code: number, name and whether it may be tried again.
#[test]
fn codes_table() {
    use Code::*;
    let known = [
        BadRequest,
        WrongDimension,
        NotFinite,
        BadId,
        TooLarge,
        NotFound,
        UnknownCollection,
        WrongCluster,
        NotLeader,
        StaleRoute,
        Overloaded,
        Timeout,
        Unavailable,
        LeaderChanged,
        UnknownOutcome,
        LevelNotReached,
        Corrupt,
        StorageFailed,
        ShuttingDown,
        Refused,
        ConditionNotMet,
        Behind,
        Overtaken,
        Lost,
        LowSpace,
    ];
    let declared = read("crates/slowdb-proto/src/error.rs").matches("=> \"").count();
    assert_eq!(known.len(), declared, "a code was added: name it here and in docs/wire.md");
    let expected: Vec<_> = known
        .iter()
        .map(|code| {
            let again = if code.is_retryable() { "yes" } else { "no" };
            [(*code as u8).to_string(), format!("`{}`", code.as_str()), again.to_owned()]
        })
        .collect();
    let rows: Vec<_> = table("Error codes")
        .into_iter()
        .map(|row| [row[0].clone(), row[1].clone(), row[2].clone()])
        .collect();
    assert_eq!(rows, expected, "left: docs/wire.md, right: the code");
}

/// The listing of archived types is their declarations, without attributes and comments.
#[test]
fn schema() {
    let mut listing = String::new();
    for file in ["request", "settings", "cluster", "map", "status", "error", "conflicts"] {
        let source = read(&format!("crates/slowdb-proto/src/{file}.rs"));
        let (mut derives, mut inside) = (String::new(), false);
        for line in source.lines() {
            let trimmed = line.trim();
            let begins = trimmed.starts_with("pub enum ") || trimmed.starts_with("pub struct ");
            if inside {
                if !trimmed.starts_with("//") && !trimmed.starts_with("#[") {
                    writeln!(listing, "{}", line.replace("pub ", "")).expect("memory takes text");
                }
                inside = line != "}";
            } else if begins && derives.contains("Archive") {
                writeln!(listing, "{}", line.replace("pub ", "")).expect("memory takes text");
                inside = !line.ends_with(';');
                derives.clear();
            } else if trimmed.starts_with("#[derive(") {
                derives = trimmed.to_owned();
            } else if !derives.is_empty() && !derives.ends_with(")]") {
                derives.push_str(trimmed);
            } else if !trimmed.starts_with("#[") && !trimmed.starts_with("///") {
                derives.clear();
            }
        }
    }
    assert!(listing.contains("enum Code {"), "the sources are not read as they should be:\n{listing}");
    assert_eq!(block("rust schema"), listing.trim_end(), "left: docs/wire.md, right: the code");
}
