//! The table of pairs in `docs/guarantees.md` is true: every cell names a run, and the run shows what the cell says.

use slowdb_sim::{Options, Tallies, exercise, table};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_cell_of_the_table_of_pairs_is_shown_by_the_run_that_it_names() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guarantees.md");
    let document = std::fs::read_to_string(&path).expect("the document is there");
    let entries = table::read(&document).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut runs: BTreeMap<u64, Tallies> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (cell, entry) in entries {
        let tallies = runs.entry(entry.seed).or_insert_with(|| {
            exercise(Options::of_seed(entry.seed)).unwrap_or_else(|failure| panic!("{failure}"))
        });
        let tally = tallies.get(&cell).cloned().unwrap_or_default();
        let shown = if entry.promised { tally.judged > 0 && tally.broken == 0 } else { tally.broken > 0 };
        if entry.promised != cell.is_promised() || !shown {
            wrong.push(format!("{cell}: the document says {entry:?}, the run {tally:?}"));
        }
    }
    let again = "cargo xtask sim --seeds 400 -- --pairs --write docs/guarantees.md";
    assert!(wrong.is_empty(), "{}\nlook for other runs with: {again}", wrong.join("\n"));
}
