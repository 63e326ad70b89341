//! [`VersionVector`]: merging, comparing, and handing one on as a short text.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::Position;
use crate::text::{crc32, from_text, to_text};

/// A causal cut across logs: log id → highest position seen.
///
/// A log that is not in it has not been seen at all, which is the same as [`Position::START`]; that position is
/// never stored. Vectors are partially ordered: `a <= b` when `b` has seen all that `a` has.
///
/// Positions are compared by value. Of two positions of different histories of one log (one acknowledged at level
/// `one` and overtaken since) the later term wins; whether a position still stands is for a
/// [`TermTable`](crate::TermTable) to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<u64, Position>);

impl VersionVector {
    /// A vector that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The highest position seen of `log`, or `None` if none.
    #[must_use]
    pub fn get(&self, log: u64) -> Option<Position> {
        self.0.get(&log).copied()
    }

    /// Remembers that `position` of `log` has been seen. Never goes back.
    pub fn observe(&mut self, log: u64, position: Position) {
        if position > self.0.get(&log).copied().unwrap_or_default() {
            self.0.insert(log, position);
        }
    }

    /// Forgets `log`, as when it no longer exists; returns what had been seen of it.
    pub fn remove(&mut self, log: u64) -> Option<Position> {
        self.0.remove(&log)
    }

    /// Remembers everything that `other` has seen: the least vector that covers both.
    pub fn merge(&mut self, other: &Self) {
        for (log, position) in other.iter() {
            self.observe(log, position);
        }
    }

    /// Whether this has seen everything that `other` has.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(log, position)| self.get(log).is_some_and(|seen| seen >= position))
    }

    /// Logs and positions, by ascending log id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Position)> + '_ {
        self.0.iter().map(|(&log, &position)| (log, position))
    }

    /// Number of logs seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The vector as bytes: version 1, number of logs, then for each log by ascending id the difference of its id
    /// to the one before, term, index and offset, all as LEB128; last the CRC-32 of all that, little endian.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        push_varint(&mut bytes, self.0.len() as u64);
        let mut log_before = 0;
        for (log, position) in self.iter() {
            for value in [log - log_before, position.term, position.index, position.offset.into()] {
                push_varint(&mut bytes, value);
            }
            log_before = log;
        }
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes
    }

    /// The inverse of [`encode`](Self::encode); takes nothing that it would not have written.
    ///
    /// # Errors
    /// [`DecodeVectorError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeVectorError> {
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(DecodeVectorError::CutShort)?;
        if crc32(content) != u32::from_le_bytes(*checksum) {
            return Err(DecodeVectorError::Checksum);
        }
        let mut reader = Reader(content);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(DecodeVectorError::Version { found: version });
        }
        let count = reader.varint()?;
        let mut vector = BTreeMap::new();
        let mut log_before = None;
        for _ in 0..count {
            let step = reader.varint()?;
            let log = match log_before {
                None => step,
                Some(_) if step == 0 => return Err(DecodeVectorError::Malformed("a log id twice")),
                Some(before) => u64::checked_add(before, step)
                    .ok_or(DecodeVectorError::Malformed("a log id too large"))?,
            };
            let (term, index) = (reader.varint()?, reader.varint()?);
            let offset = u32::try_from(reader.varint()?)
                .map_err(|_| DecodeVectorError::Malformed("an offset too large"))?;
            let position = Position { term, index, offset };
            if position == Position::START {
                return Err(DecodeVectorError::Malformed("a log of which nothing was seen"));
            }
            vector.insert(log, position);
            log_before = Some(log);
        }
        if !reader.0.is_empty() {
            return Err(DecodeVectorError::Malformed("bytes after the end"));
        }
        Ok(Self(vector))
    }
}

const VERSION: u8 = 1;

impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl FromIterator<(u64, Position)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (u64, Position)>>(pairs: I) -> Self {
        let mut vector = Self::new();
        for (log, position) in pairs {
            vector.observe(log, position);
        }
        vector
    }
}

/// The encoded bytes in the URL alphabet of base64, unpadded: letters, digits, `-` and `_`.
impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_text(&self.encode()))
    }
}

impl FromStr for VersionVector {
    type Err = DecodeVectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = from_text(text).map_err(|problem| DecodeVectorError::Text { at: problem.at })?;
        Self::decode(&bytes)
    }
}

/// Bytes or a text are no version vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeVectorError {
    /// The text holds something else than letters, digits, `-` and `_`, or ends in the middle of a byte.
    #[error("no version vector: unexpected text at byte {at}; hand it on exactly as it was given")]
    Text {
        /// Byte offset in the text.
        at: usize,
    },
    /// The bytes end too early.
    #[error("no version vector: it was cut short; hand it on exactly as it was given")]
    CutShort,
    /// The checksum does not match.
    #[error("version vector is damaged: its checksum does not match; hand it on exactly as it was given")]
    Checksum,
    /// It was written by a release that this one does not know.
    #[error("version vector has format {found}, this release knows only 1")]
    Version {
        /// The format found.
        found: u8,
    },
    /// The checksum matches, but the content makes no sense.
    #[error("version vector is malformed: {0}")]
    Malformed(&'static str),
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DecodeVectorError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeVectorError::CutShort)?;
        self.0 = rest;
        Ok(first)
    }

    /// Only the shortest form, so that one value has one text.
    fn varint(&mut self) -> Result<u64, DecodeVectorError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(DecodeVectorError::Malformed("a number in a longer form than needed"));
                }
                return Ok(value);
            }
        }
        Err(DecodeVectorError::Malformed("a number too large"))
    }
}

#[cfg(test)]
#[path = "tests/vector.rs"]
mod tests;
