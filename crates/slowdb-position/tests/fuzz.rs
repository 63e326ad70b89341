//! Hostile bytes and texts for positions, term tables and version vectors.

use slowdb_fuzz::Target;
use slowdb_position::{Position, TermTable, VersionVector};

fn vectors() -> Vec<VersionVector> {
    let position = |n: u64| Position::new(n + 1, n << 40, n as u32);
    let few = [0, 1, 3, 40].map(|logs| (0..logs).map(|log| ((log * log) << 20, position(log))).collect());
    // Ids as large as there are, so that one a little larger is none.
    let last = (1..4).map(|n| (u64::MAX - 3 + n, position(n))).collect();
    few.into_iter().chain([last]).collect()
}

/// CRC-32 (IEEE), as written down in the documentation of the format.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn fuzz_version_vector() {
    let corpus = vectors().into_iter().map(|vector| vector.encode());
    let reseal = |bytes: &mut Vec<u8>| {
        if let Some((content, sum)) = bytes.split_last_chunk_mut::<4>() {
            *sum = crc32(content).to_le_bytes();
        }
    };
    Target::new("fuzz_version_vector", corpus).reseal(reseal).run(|bytes| {
        let Ok(vector) = VersionVector::decode(bytes) else { return false };
        assert_eq!(VersionVector::decode(&vector.encode()), Ok(vector.clone()));
        assert_eq!(vector.to_string().parse(), Ok(vector));
        true
    });
}

#[test]
fn fuzz_version_vector_text() {
    let corpus = vectors().into_iter().map(|vector| vector.to_string().into_bytes());
    Target::new("fuzz_version_vector_text", corpus).run(|bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let Ok(vector) = text.parse::<VersionVector>() else { return false };
        assert_eq!(vector.to_string(), text, "one text for each");
        true
    });
}

#[test]
fn fuzz_term_table() {
    let table = |terms: u64| {
        let mut table = TermTable::new();
        (1..=terms).for_each(|term| table.append(term * 2, term * 7).expect("in order"));
        table.encode()
    };
    Target::new("fuzz_term_table", [0, 1, 2, 30].map(table)).run(|bytes| {
        let Ok(table) = TermTable::decode(bytes) else { return false };
        assert_eq!(table.encode(), bytes, "one encoding for each");
        true
    });
}

#[test]
fn fuzz_position_text() {
    let positions = [Position::START, Position::new(3, 1204, 0), Position::new(u64::MAX, u64::MAX, u32::MAX)];
    let corpus = positions.map(|position| position.to_string().into_bytes());
    Target::new("fuzz_position_text", corpus).run(|bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return false };
        let Ok(position) = text.parse::<Position>() else { return false };
        assert_eq!(position.to_string(), text, "one text for each");
        true
    });
}
