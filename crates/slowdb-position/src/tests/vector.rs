//! The vector against a plain model, and its text against damage.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn position() -> impl Strategy<Value = Position> {
    prop_oneof![
        (0_u64..4, 0_u64..4, 0_u32..3).prop_map(|(term, index, offset)| Position { term, index, offset }),
        (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(term, index, offset)| Position {
            term,
            index,
            offset
        }),
    ]
}

fn pairs() -> impl Strategy<Value = Vec<(u64, Position)>> {
    vec((prop_oneof![0_u64..5, any::<u64>()], position()), 0..12)
}

/// The model: every position ever seen, nothing merged.
fn seen(pairs: &[(u64, Position)], log: u64) -> Position {
    pairs.iter().filter(|pair| pair.0 == log).map(|pair| pair.1).max().unwrap_or_default()
}

proptest! {
    #[test]
    fn observing_keeps_the_highest(pairs in pairs(), probe in 0_u64..5) {
        let vector: VersionVector = pairs.iter().copied().collect();
        prop_assert_eq!(vector.get(probe).unwrap_or_default(), seen(&pairs, probe));
        let logs: Vec<u64> = vector.iter().map(|(log, _)| log).collect();
        prop_assert!(logs.is_sorted());
        prop_assert!(vector.iter().all(|(log, position)| position == seen(&pairs, log)));
    }

    #[test]
    fn merge_is_the_least_upper_bound(a in pairs(), b in pairs(), c in pairs()) {
        let [va, vb, vc] = [&a, &b, &c].map(|pairs| pairs.iter().copied().collect::<VersionVector>());
        let mut merged = va.clone();
        merged.merge(&vb);
        let both: Vec<_> = a.iter().chain(&b).copied().collect();
        prop_assert_eq!(&merged, &both.into_iter().collect());
        prop_assert!(merged.covers(&va) && merged.covers(&vb));
        prop_assert_eq!(vc.covers(&va) && vc.covers(&vb), vc.covers(&merged));
    }

    #[test]
    fn covers_as_the_model_says(a in pairs(), b in pairs()) {
        let [va, vb] = [&a, &b].map(|pairs| pairs.iter().copied().collect::<VersionVector>());
        let logs: HashMap<u64, ()> = a.iter().chain(&b).map(|pair| (pair.0, ())).collect();
        let model = logs.keys().all(|&log| seen(&a, log) >= seen(&b, log));
        prop_assert_eq!(va.covers(&vb), model);
        prop_assert_eq!(va == vb, va.partial_cmp(&vb) == Some(Ordering::Equal));
    }

    #[test]
    fn text_round_trips(pairs in pairs()) {
        let vector: VersionVector = pairs.into_iter().collect();
        let text = vector.to_string();
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        prop_assert_eq!(text.parse(), Ok(vector));
    }

    #[test]
    fn any_damaged_bit_is_noticed(pairs in pairs(), at: prop::sample::Index, bit in 0..8_u32) {
        let mut bytes = pairs.into_iter().collect::<VersionVector>().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert_eq!(VersionVector::decode(&bytes), Err(DecodeVectorError::Checksum));
    }

    #[test]
    fn what_is_accepted_is_canonical(mut content: Vec<u8>) {
        // With a right checksum, so that the checks behind it are reached.
        content.insert(0, 1);
        content.extend_from_slice(&crc32(&content).to_le_bytes());
        if let Ok(vector) = VersionVector::decode(&content) {
            prop_assert_eq!(vector.encode(), content);
        }
    }
}

#[test]
fn golden_text() {
    let vector: VersionVector =
        [(3, Position::new(2, 300, 1)), (0, Position::new(1, 1, 0))].into_iter().collect();
    assert_eq!(vector.encode()[..11], [1, 2, 0, 1, 1, 0, 3, 2, 0xac, 2, 1]);
    assert_eq!(vector.to_string().len(), 20);
    assert_eq!(VersionVector::new().encode()[..2], [1, 0]);
}

#[test]
fn malformed_content_is_named() {
    let with_checksum = |content: &[u8]| {
        let mut bytes = content.to_vec();
        bytes.extend_from_slice(&crc32(content).to_le_bytes());
        VersionVector::decode(&bytes).unwrap_err()
    };
    assert_eq!(with_checksum(&[2, 0]), DecodeVectorError::Version { found: 2 });
    assert_eq!(with_checksum(&[1]), DecodeVectorError::CutShort);
    assert_eq!(with_checksum(&[1, 1, 0, 1]), DecodeVectorError::CutShort);
    assert_eq!(
        with_checksum(&[1, 2, 5, 1, 1, 0, 0, 1, 1, 0]),
        DecodeVectorError::Malformed("a log id twice")
    );
    assert_eq!(with_checksum(&[1, 0, 0]), DecodeVectorError::Malformed("bytes after the end"));
    assert_eq!(
        with_checksum(&[1, 0x80, 0]),
        DecodeVectorError::Malformed("a number in a longer form than needed")
    );
    assert_eq!(
        with_checksum(&[1, 1, 0, 0, 0, 0]),
        DecodeVectorError::Malformed("a log of which nothing was seen")
    );
    let too_large = [&[1, 1][..], &[0xff; 9], &[2]].concat();
    assert_eq!(with_checksum(&too_large), DecodeVectorError::Malformed("a number too large"));
    // A count of 2^64-1 must not be believed.
    let huge_count = [&[1][..], &[0xff; 9], &[1]].concat();
    assert_eq!(with_checksum(&huge_count), DecodeVectorError::CutShort);
    assert_eq!("".parse::<VersionVector>(), Err(DecodeVectorError::CutShort));
    assert_eq!("AQ!".parse::<VersionVector>(), Err(DecodeVectorError::Text { at: 2 }));
}
