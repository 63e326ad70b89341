//! The table of pairs in `docs/guarantees.md`: which promise each pair of levels gives, and a seed that shows it.
//!
//! A row is `| write, read | durable against … | cell | cell | cell | cell |`, a cell `yes: seed` or `no: seed`, in the order
//! of [`COLUMNS`]. *Yes* means that the run had occasions to break the promise, and did not; *no* that it was broken there.

use crate::checks::{Cell, Property};
use slowdb_proto::{ReadLevel, WriteLevel};
use std::collections::BTreeMap;

/// What the columns say that name seeds.
pub const COLUMNS: [Property; 4] =
    [Property::Durable, Property::OwnWrites, Property::Monotonic, Property::Linearizable];

/// Columns before those.
const BEFORE: usize = 2;

/// What a cell of the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether the promise is given.
    pub promised: bool,
    /// A run that shows it.
    pub seed: u64,
}

/// The cells of the table in a document. An error says which line makes no sense.
pub fn read(document: &str) -> Result<BTreeMap<Cell, Entry>, String> {
    let mut entries = BTreeMap::new();
    for line in document.lines() {
        let Some((write, read)) = levels(line) else { continue };
        for (property, text) in COLUMNS.into_iter().zip(columns(line).skip(BEFORE)) {
            let entry =
                entry(text).ok_or_else(|| format!("'{text}' is no 'yes: seed' or 'no: seed', in: {line}"))?;
            entries.insert(Cell { write, read, property }, entry);
        }
    }
    let missing = Cell::all().find(|cell| !entries.contains_key(cell));
    match missing {
        Some(cell) => Err(format!("the table says nothing of {cell}")),
        None => Ok(entries),
    }
}

/// The document with these seeds in its table.
pub fn write(document: &str, seeds: &BTreeMap<Cell, u64>) -> String {
    let mut lines = Vec::new();
    for line in document.lines() {
        let Some((write, read)) = levels(line) else {
            lines.push(line.to_owned());
            continue;
        };
        let mut words: Vec<String> = columns(line).map(str::to_owned).collect();
        for (word, property) in words.iter_mut().skip(BEFORE).zip(COLUMNS) {
            let cell = Cell { write, read, property };
            if let Some(seed) = seeds.get(&cell) {
                *word = format!("{}: {seed}", if cell.is_promised() { "yes" } else { "no" });
            }
        }
        lines.push(format!("| {} |", words.join(" | ")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn columns(line: &str) -> impl Iterator<Item = &str> {
    line.trim().trim_matches('|').split('|').map(str::trim)
}

/// The levels of a row, if the line is one.
fn levels(line: &str) -> Option<(WriteLevel, ReadLevel)> {
    let (write, read) = columns(line).next().filter(|_| line.starts_with('|'))?.split_once(", ")?;
    let write = match write {
        "`one`" => WriteLevel::One,
        "`quorum`" => WriteLevel::Quorum,
        "`all`" => WriteLevel::All,
        _ => return None,
    };
    let read = match read {
        "`one`" => ReadLevel::One,
        "`session`" => ReadLevel::Session,
        "`quorum`" => ReadLevel::Quorum,
        _ => return None,
    };
    Some((write, read))
}

fn entry(text: &str) -> Option<Entry> {
    let (word, seed) = text.split_once(": ")?;
    let promised = match word {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    Some(Entry { promised, seed: seed.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut document = String::from("# Title\n\n| write, read | durable against |\n|---|---|\n");
        let levels =
            Cell::all().map(|cell| (cell.write, cell.read)).collect::<std::collections::BTreeSet<_>>();
        for (write, read) in levels {
            let name = |level: String| format!("`{}`", level.to_lowercase());
            let (write, read) = (name(format!("{write:?}")), name(format!("{read:?}")));
            document.push_str(&format!("| {write}, {read} | loss | no: 0 | no: 0 | no: 0 | no: 0 |\n"));
        }
        document.push_str("\nThe end.\n");
        let seeds: BTreeMap<Cell, u64> = Cell::all().zip(100..).collect();
        let written = super::write(&document, &seeds);
        assert!(written.starts_with("# Title\n") && written.ends_with("\nThe end.\n"));
        for (cell, entry) in super::read(&written).expect("it is whole") {
            assert_eq!(entry, Entry { promised: cell.is_promised(), seed: seeds[&cell] });
        }
        assert!(super::read("nothing").is_err());
        assert!(super::read(&written.replace("yes: 1", "maybe: 1")).is_err());
    }
}
