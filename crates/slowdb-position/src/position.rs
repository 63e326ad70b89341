//! [`Position`]: its order, its 20 bytes, its text.

use std::fmt;
use std::str::FromStr;

/// A write's place in a log: the term and index of its entry, and its place among the writes of that entry.
///
/// Ordered by term, then index, then offset, which is the order of the log within one history. The default, all
/// zero, is the place before the first write. Written `term.index.offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "rkyv", derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize))]
pub struct Position {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Index of the entry in its log, from 1.
    pub index: u64,
    /// Place of the write inside the entry, from 0.
    pub offset: u32,
}

impl Position {
    /// Length of an encoded position in bytes.
    pub const ENCODED_LEN: usize = 20;

    /// The place before the first write of any log.
    pub const START: Self = Self { term: 0, index: 0, offset: 0 };

    /// A position from its parts.
    #[must_use]
    pub const fn new(term: u64, index: u64, offset: u32) -> Self {
        Self { term, index, offset }
    }

    /// Term, index and offset, little endian, one after the other.
    #[must_use]
    pub fn encode(self) -> [u8; Self::ENCODED_LEN] {
        let mut bytes = [0; Self::ENCODED_LEN];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_le_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// The inverse of [`encode`](Self::encode). Every value of the bytes is a position.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::ENCODED_LEN]) -> Self {
        let [t0, t1, t2, t3, t4, t5, t6, t7, i0, i1, i2, i3, i4, i5, i6, i7, o0, o1, o2, o3] = *bytes;
        Self {
            term: u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            index: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.term, self.index, self.offset)
    }
}

/// A text is no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no position: expected TERM.INDEX.OFFSET, three whole numbers, as in `3.1204.0`")]
pub struct ParsePositionError {
    /// The text, shortened if it was long.
    pub text: String,
}

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split('.');
            let position = Self {
                term: number(parts.next()?)?,
                index: number(parts.next()?)?,
                offset: u32::try_from(number(parts.next()?)?).ok()?,
            };
            parts.next().is_none().then_some(position)
        };
        parse().ok_or_else(|| ParsePositionError { text: text.chars().take(64).collect() })
    }
}

/// Only what `Display` writes: no sign, no leading zero.
fn number(text: &str) -> Option<u64> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    canonical.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_are_as_documented() {
        let bytes = Position::new(0x0102, 0x0304, 0x0506).encode();
        assert_eq!(bytes, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 0, 0, 0, 0, 6, 5, 0, 0]);
    }

    #[test]
    fn order_is_term_then_index_then_offset() {
        let mut positions =
            ["2.1.0", "1.9.9", "1.10.0", "2.1.1", "0.0.0"].map(|text| text.parse::<Position>());
        positions.sort_by_key(|position| position.clone().unwrap());
        let texts = positions.map(|position| position.unwrap().to_string());
        assert_eq!(texts, ["0.0.0", "1.9.9", "1.10.0", "2.1.0", "2.1.1"]);
    }

    #[test]
    fn texts_that_are_no_positions() {
        for text in [
            "",
            ".",
            "1",
            "1.2",
            "1.2.3.4",
            "1.2.",
            ".2.3",
            "+1.2.3",
            "-1.2.3",
            "01.2.3",
            "1.2.x",
            "1 .2.3",
            "18446744073709551616.1.1",
            "1.1.4294967296",
            "1.2.3\n",
            "١.2.3",
        ] {
            let error = text.parse::<Position>().unwrap_err();
            assert_eq!(error.text, text, "the error names what was wrong");
        }
        assert_eq!("9".repeat(1000).parse::<Position>().unwrap_err().text.len(), 64);
    }

    proptest! {
        #[test]
        fn round_trips(term: u64, index: u64, offset: u32) {
            let position = Position::new(term, index, offset);
            prop_assert_eq!(Position::decode(&position.encode()), position);
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }
    }
}
