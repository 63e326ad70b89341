//! What opening decides: the table of docs/format.md, row by row, in every case that it tells apart.

mod common;

use std::sync::Arc;

use common::chain::{chain, index_name};
use common::{DIMENSION, content, options};
use slowdb_disk::{Disk, SimDisk};
use slowdb_storage::{OpenError, Store, Version};

const MANIFESTS: [&str; 5] = ["whole", "one copy damaged", "damaged", "other format", "missing"];
const REMOVED: [&str; 2] = ["there", "missing"];
const DATA: [&str; 3] = ["whole", "short", "missing"];
const DIMENSIONS: [&str; 2] = ["same", "other"];
const INDEXES: [&str; 4] = ["whole", "damaged once", "damaged twice", "missing"];

/// What distinguishes a case, in the order of the table's columns.
type Case = [&'static str; 5];

/// The rows of the document's table: what each column may be, nothing for anything; and the decision.
fn table() -> Vec<(Vec<Vec<String>>, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("### What opening decides\n").unwrap();
    let lines = rest.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let row = |line: &str| {
        let mut cells: Vec<String> = line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        let decision = cells.pop().unwrap();
        let words = |cell: &String| match cell.as_str() {
            "-" => Vec::new(),
            words => words.split(", ").map(str::to_owned).collect(),
        };
        (cells.iter().map(words).collect(), decision)
    };
    lines.take_while(|line| line.starts_with('|')).map(row).collect()
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for manifest in MANIFESTS {
        for removed in REMOVED {
            for data in DATA {
                for dimension in DIMENSIONS {
                    for index in INDEXES {
                        all.push([manifest, removed, data, dimension, index]);
                    }
                }
            }
        }
    }
    all
}

/// Which of the index files the column is about: the only one, or one of three, from the newest, and there either the head
/// or the lists or bitmap.
#[derive(Clone, Copy, Debug)]
enum Which {
    Only,
    OfThree(usize, Part),
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Head,
    Tail,
}

const WHICH: [Which; 6] = [
    Which::Only,
    Which::OfThree(0, Part::Head),
    Which::OfThree(0, Part::Tail),
    Which::OfThree(1, Part::Head),
    Which::OfThree(1, Part::Tail),
    // A base has its head once.
    Which::OfThree(2, Part::Tail),
];

/// A directory that looks like that; perhaps with remains of a checkpoint.
fn directory([manifest, removed, data, _, index]: Case, which: Which, remains: bool) -> SimDisk {
    let disk = SimDisk::new();
    let mut store = Store::open(Arc::new(disk.clone()), "s", options()).unwrap();
    for puts in [40, 5, 1] {
        for n in 0..puts {
            store.put(&[n], (&[1.0; DIMENSION]).into(), b"p", Version::default()).unwrap();
        }
        if matches!(which, Which::OfThree(..)) || puts == 1 {
            store.checkpoint(b"mark").unwrap();
        }
    }
    drop(store);
    let chain = chain(&disk);
    let (file, page) = match which {
        Which::Only => (&chain[0], 2),
        Which::OfThree(n, Part::Head) => (&chain[n], 0),
        Which::OfThree(2, Part::Tail) => (&chain[2], 2),
        Which::OfThree(n, Part::Tail) => (&chain[n], 3),
    };
    assert_eq!(chain.len(), if matches!(which, Which::Only) { 1 } else { 3 });
    let flip_bit = |name: &str, offset, bit| disk.flip_bit(&format!("s/{name}"), offset, bit).unwrap();
    let flip = |name: &str, offset| flip_bit(name, offset, 0);
    match manifest {
        "one copy damaged" => flip("manifest", 60),
        "damaged" => [60, 4096 + 60].map(|at| flip("manifest", at)).into_iter().collect(),
        "other format" => [8, 4096 + 8].map(|at| flip_bit("manifest", at, 2)).into_iter().collect(),
        "missing" => disk.remove("s/manifest").unwrap(),
        _ => {}
    }
    if removed == "there" {
        disk.open("s/manifest.removed", true).unwrap();
    }
    for name in ["heap", "slots", "vectors"] {
        match data {
            "short" => disk.open(&format!("s/{name}"), false).unwrap().truncate(100).unwrap(),
            "missing" => disk.remove(&format!("s/{name}")).unwrap(),
            _ => {}
        }
    }
    let name = index_name(file.number);
    match index {
        "damaged once" => flip(&name, page * 4096 + 9),
        "damaged twice" => [page, page + 1].map(|page| flip(&name, page * 4096 + 9)).into_iter().collect(),
        "missing" => disk.remove(&format!("s/{name}")).unwrap(),
        _ => {}
    }
    if remains {
        disk.open("s/manifest.tmp", true).unwrap();
    }
    disk
}

/// Opens it, and says what was decided in the words of the table.
fn decide(case: Case, which: Which, remains: bool) -> &'static str {
    let disk = directory(case, which, remains);
    let (before, syncs) = (content(&disk), disk.syncs());
    let mut asked = options();
    asked.dimension += usize::from(case[3] == "other");
    let opened = Store::open(Arc::new(disk.clone()), "s", asked);
    let Err(refused) = opened else {
        let store = opened.unwrap();
        let names = disk.list("s").unwrap();
        assert!(!names.contains(&"manifest.tmp".into()), "{case:?}: remains of a checkpoint go");
        let has_records = (store.len(), store.mark()) == (40, b"mark".as_slice());
        return match (has_records, before.contains_key("manifest.removed")) {
            (true, _) if store.damage_at_open().is_empty() => "opened",
            (true, _) => "opened, the damage is reported",
            (false, true) if !names.contains(&"manifest.removed".into()) => "cleared away, a new store",
            (false, false) => "a new store",
            other => panic!("{case:?}: {other:?}, {names:?}"),
        };
    };
    assert!(content(&disk) == before && disk.syncs() == syncs, "{case:?}: what is refused stays as it is");
    match refused {
        OpenError::ManifestMissing { .. } => "refused: no manifest",
        OpenError::UnknownFormat { found: 7, .. } => "refused: the format, by its number",
        OpenError::DimensionMismatch { .. } => "refused: the dimension",
        OpenError::Corrupt(c) if c.file == "s/manifest" => "refused: manifest",
        OpenError::Corrupt(c) if c.file.starts_with("s/index-") && c.what == "missing" => "refused: no index",
        OpenError::Corrupt(c) if c.file.starts_with("s/index-") => "refused: index",
        OpenError::Corrupt(_) => "refused: data file",
        other => panic!("{case:?}: {other}"),
    }
}

#[test]
fn every_case_is_in_one_row_and_decided_as_it_says() {
    let table = table();
    let mut met = vec![0; table.len()];
    for case in cases() {
        let fits = |cells: &[Vec<String>]| {
            cells.iter().zip(case).all(|(words, is)| words.is_empty() || words.iter().any(|word| word == is))
        };
        let rows: Vec<usize> = (0..table.len()).filter(|row| fits(&table[*row].0)).collect();
        assert_eq!(rows.len(), 1, "{case:?} is in rows {rows:?}");
        met[rows[0]] += 1;
        for which in WHICH {
            // A directory without a manifest and without one of three index files is not one without any.
            if case[0] == "missing" && case[4] == "missing" && !matches!(which, Which::Only) {
                continue;
            }
            for remains in [false, true] {
                assert_eq!(decide(case, which, remains), table[rows[0]].1, "{case:?}, {which:?}");
            }
        }
    }
    assert!(met.iter().all(|count| *count > 0), "a row is met by no case: {met:?}");
}
