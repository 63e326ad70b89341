//! The decision table covers every case, once.

use super::super::decide::{Action, Case, Damage, TABLE, decide};

fn all_cases() -> impl Iterator<Item = Case> {
    (0..64u8).map(|bits| Case {
        header: bits & 1 != 0,
        opening: bits & 2 != 0,
        sane: bits & 4 != 0,
        chain: bits & 8 != 0,
        body: bits & 16 != 0,
        synced: bits & 32 != 0,
    })
}

#[test]
fn every_case_has_exactly_one_row() {
    for case in all_cases() {
        let rows: Vec<usize> = (0..TABLE.len()).filter(|row| TABLE[*row].matches(case)).collect();
        assert_eq!(rows.len(), 1, "{case:?} is decided by rows {rows:?}");
        assert_eq!(decide(case), TABLE[rows[0]].action());
    }
}

#[test]
fn every_row_decides_some_case() {
    for (number, row) in TABLE.iter().enumerate() {
        assert!(all_cases().any(|case| row.matches(case)), "row {number} decides nothing");
    }
}

#[test]
fn what_was_synced_is_accepted_or_reported_but_never_the_end() {
    for case in all_cases().filter(|case| case.synced) {
        assert_ne!(decide(case), Action::End, "{case:?} would lose what was synced");
    }
}

#[test]
fn only_a_whole_record_is_accepted() {
    for case in all_cases() {
        let whole = case.header && case.opening && case.sane && case.chain && case.body;
        assert_eq!(decide(case) == Action::Accept, whole, "{case:?}");
    }
}

/// The rows of the table in the document: whether a case fits, and the decision in words.
fn documented() -> Vec<(Vec<String>, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("### What recovery decides\n").unwrap();
    let lines = rest.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let row = |line: &str| {
        let mut cells: Vec<String> = line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
        let decision = cells.pop().unwrap();
        (cells, decision)
    };
    lines.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn the_document_has_the_same_table() {
    let rows = documented();
    for case in all_cases() {
        let answers = [
            if case.header { "good" } else { "bad" },
            if case.opening { "same" } else { "other" },
            if case.sane { "yes" } else { "no" },
            if case.chain { "holds" } else { "broken" },
            if case.body { "good" } else { "bad" },
            if case.synced { "yes" } else { "no" },
        ];
        let fits = |cells: &[String]| cells.iter().zip(answers).all(|(cell, is)| cell == "-" || cell == is);
        let fitting: Vec<&str> =
            rows.iter().filter(|(cells, _)| fits(cells)).map(|(_, decision)| decision.as_str()).collect();
        let decided = match decide(case) {
            Action::Accept => "the record is taken",
            Action::End => "the log ends here",
            Action::Corrupt(Damage::Header) => "corruption: header damaged",
            Action::Corrupt(Damage::Opening) => "corruption: other opening",
            Action::Corrupt(Damage::Malformed) => "corruption: no crash does this",
            Action::Corrupt(Damage::Chain) => "corruption: chain broken",
            Action::Corrupt(Damage::Body) => "corruption: payload damaged",
        };
        assert_eq!(fitting, [decided], "{case:?}");
    }
    assert_eq!(rows.len(), TABLE.len());
}
