//! The table against the plainest model of a history: the list of its entries' terms.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::Position;

/// Terms of the entries at index 1, 2, 3 …: never falling, at least 1.
fn history() -> impl Strategy<Value = Vec<u64>> {
    vec(prop_oneof![4 => Just(0_u64), 1 => 1_u64..4], 0..24).prop_map(|steps| {
        let mut term = 1;
        steps
            .into_iter()
            .map(|step| {
                term += step;
                term
            })
            .collect()
    })
}

fn table_of(history: &[u64]) -> TermTable {
    let mut table = TermTable::new();
    for (index, &term) in (1..).zip(history) {
        table.append(term, index).unwrap();
    }
    table
}

fn model_term(history: &[u64], index: u64) -> Option<u64> {
    history.get(usize::try_from(index).ok()?.checked_sub(1)?).copied()
}

fn model_standing(history: &[u64], position: Position) -> Standing {
    let last_term = history.last().copied().unwrap_or(0);
    if position.term == 0 && position.index == 0 || model_term(history, position.index) == Some(position.term)
    {
        Standing::Held
    } else if position.term > last_term || position.term == last_term && position.index > history.len() as u64
    {
        Standing::Ahead
    } else {
        Standing::Overtaken
    }
}

proptest! {
    #[test]
    fn term_at_as_the_model_says(history in history()) {
        let table = table_of(&history);
        for index in 1..=history.len() as u64 {
            prop_assert_eq!(table.term_at(index), model_term(&history, index));
        }
        prop_assert_eq!(table.term_at(0), None);
    }

    #[test]
    fn standing_as_the_model_says(history in history(), cut in 0..24_usize) {
        // Also for a prefix: a table that knows more than the history it is asked about.
        let prefix = &history[..history.len().min(cut)];
        let table = table_of(&history);
        for (term, index) in (0..12).flat_map(|term| (0..30).map(move |index| (term, index))) {
            let position = Position { term, index, offset: 7 };
            prop_assert_eq!(
                table.standing(position, prefix.len() as u64),
                model_standing(prefix, position),
                "{} in {:?}", position, prefix
            );
        }
    }

    #[test]
    fn cutting_and_going_on(history in history(), cut in 1..30_u64, step in 0..3_u64, more in 0..4_u64) {
        let mut model = history.clone();
        let mut table = table_of(&history);
        model.truncate((cut - 1) as usize);
        table.truncate_from(cut).unwrap();
        prop_assert_eq!(&table, &table_of(&model));
        let term = model.last().copied().unwrap_or(1) + step;
        for _ in 0..more {
            model.push(term);
            table.append(term, model.len() as u64).unwrap();
        }
        prop_assert_eq!(table, table_of(&model));
    }

    #[test]
    fn fork_as_the_model_says(common in history(), a in history(), b in history()) {
        let base = common.last().copied().unwrap_or(1);
        let [a, b] = [a, b].map(|tail| {
            common.iter().copied().chain(tail.into_iter().map(|term| term + base - 1)).collect::<Vec<_>>()
        });
        let model = a.iter().zip(&b).take_while(|(x, y)| x == y).count() as u64;
        let (ta, tb) = (table_of(&a), table_of(&b));
        prop_assert_eq!(ta.fork(a.len() as u64, &tb, b.len() as u64), Some(model));
        prop_assert_eq!(tb.fork(b.len() as u64, &ta, a.len() as u64), Some(model));
    }

    #[test]
    fn compacted_tables_never_lie(common in history(), a in history(), b in history(), at in 0..30_u64) {
        // Histories as consensus makes them: after the fork they share no term, so equal terms mean equal pasts.
        let base = common.last().copied().unwrap_or(0) + 1;
        let [history, other] = [(a, 0), (b, 1)].map(|(tail, parity)| {
            let tail = tail.into_iter().map(|term| base + 2 * term + parity);
            common.iter().copied().chain(tail).collect::<Vec<_>>()
        });
        let (full, last) = (table_of(&history), history.len() as u64);
        let mut table = full.clone();
        table.compact(at);
        for (term, index) in (0..40).flat_map(|term| (0..50).map(move |index| (term, index))) {
            let position = Position { term, index, offset: 0 };
            let (said, truth) = (table.standing(position, last), full.standing(position, last));
            prop_assert!(said == truth || said == Standing::Forgotten, "{:?} for {}", said, position);
            if index >= at.min(last) {
                prop_assert_eq!(said, truth, "{} is not before {}", position, at);
            }
        }
        let other_table = table_of(&other);
        let truth = full.fork(last, &other_table, other.len() as u64);
        let said = table.fork(last, &other_table, other.len() as u64);
        prop_assert!(said.is_none() || said == truth);
        if truth >= Some(at) {
            prop_assert_eq!(said, truth);
        }
    }

    #[test]
    fn bytes_round_trip(history in history()) {
        let table = table_of(&history);
        prop_assert_eq!(TermTable::decode(&table.encode()), Ok(table));
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(mut bytes: Vec<u8>, small: bool) {
        if small && bytes.len() >= 4 {
            let rows = (bytes.len() - 4) / 16;
            bytes[..4].copy_from_slice(&(rows as u32).to_le_bytes());
            bytes.truncate(4 + rows * 16);
        }
        if let Ok(table) = TermTable::decode(&bytes) {
            prop_assert_eq!(table.encode(), bytes);
        }
    }
}

#[test]
fn entries_that_cannot_follow_change_nothing() {
    let mut table = table_of(&[1, 1, 3]);
    let before = table.clone();
    for (term, index) in [(0, 4), (2, 4), (4, 3), (4, 1), (1, 4), (3, 2), (4, 0)] {
        let error = table.append(term, index).unwrap_err();
        assert_eq!(error, TermTableError::OutOfOrder { term, index, last_term: 3, last_first: 3 });
    }
    assert_eq!(table, before);
    assert!(TermTable::new().append(0, 1).is_err());
    assert!(TermTable::new().append(1, 0).is_err());
}

#[test]
fn a_compacted_table_refuses_to_be_cut_to_nothing() {
    let mut table = table_of(&[1, 1, 3, 3]);
    table.compact(4);
    assert_eq!(table.truncate_from(3), Err(TermTableError::CutForgotten { index: 3, known_from: 3 }));
    assert_eq!(table.truncate_from(4), Ok(()));
    assert_eq!(table, TermTable(vec![(3, 3)]));
}

#[test]
fn golden_bytes() {
    let bytes = table_of(&[1, 1, 3]).encode();
    let mut expected = vec![2, 0, 0, 0];
    for word in [1_u8, 1, 3, 3] {
        expected.extend_from_slice(&[word, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(bytes, expected);
}

#[test]
fn malformed_bytes_are_named() {
    let rows = |rows: &[(u64, u64)]| {
        let mut bytes = (rows.len() as u32).to_le_bytes().to_vec();
        for (term, first) in rows {
            bytes.extend_from_slice(&term.to_le_bytes());
            bytes.extend_from_slice(&first.to_le_bytes());
        }
        TermTable::decode(&bytes)
    };
    assert_eq!(rows(&[(1, 1), (2, 5)]), Ok(TermTable(vec![(1, 1), (2, 5)])));
    for bad in [[(0, 1), (2, 5)], [(1, 0), (2, 5)], [(2, 1), (1, 5)], [(1, 5), (2, 5)], [(1, 1), (1, 5)]] {
        assert!(matches!(rows(&bad), Err(DecodeTermTableError::Row { .. })), "{bad:?}");
    }
    assert_eq!(TermTable::decode(&[1, 0]), Err(DecodeTermTableError::Length { len: 2, want: 4 }));
    let huge = DecodeTermTableError::Length { len: 4, want: 4 + 16 * u64::from(u32::MAX) };
    assert_eq!(TermTable::decode(&[255; 4]), Err(huge));
}
