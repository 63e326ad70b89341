//! The decision table covers every case, once.

use super::super::decide::{Action, Case, TABLE, decide};

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
