//! [`TermTable`]: which positions a history holds, and where two histories part.

/// What a history says of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The position is part of this history.
    Held,
    /// Another write took its place, or the history went on in a later term without it: it will never be held.
    Overtaken,
    /// Beyond the end of this history: it may still come.
    Ahead,
    /// So old that the table no longer tells (see [`TermTable::compact`]).
    Forgotten,
}

/// term → first index, for every term that has an entry in a history.
///
/// Invariants: terms and indexes are at least 1, and both rise strictly. The table does not know where its history
/// ends, so the methods that need the end are given it. Indexes before the first of the table are empty if that is
/// 1, and forgotten otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermTable(Vec<(u64, u64)>);

/// A change that no history can make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermTableError {
    /// The entry cannot follow what is there: terms never fall, and an index belongs to one term.
    #[error(
        "an entry of term {term} at index {index} cannot follow term {last_term}, which begins at index \
         {last_first}: cut the history first"
    )]
    OutOfOrder {
        /// Term of the entry.
        term: u64,
        /// Index of the entry.
        index: u64,
        /// The last term of the table, 0 if it is empty.
        last_term: u64,
        /// Where it begins.
        last_first: u64,
    },
    /// The cut is in or before what the table has forgotten.
    #[error("cannot cut from index {index}: the table has forgotten what is before index {known_from}")]
    CutForgotten {
        /// Where the cut was to be.
        index: u64,
        /// First index known.
        known_from: u64,
    },
}

/// Bytes are no term table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeTermTableError {
    /// The length does not fit the count.
    #[error("term table of {len} bytes, but its count asks for {want}")]
    Length {
        /// Bytes there.
        len: usize,
        /// Bytes needed, at least.
        want: u64,
    },
    /// The rows contradict each other.
    #[error("term table is malformed at row {row}: {source}")]
    Row {
        /// The row, from 0.
        row: usize,
        /// What is wrong.
        source: TermTableError,
    },
}

impl TermTable {
    /// The table of an empty history.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes note of an entry of `term` at `index`. Noting several entries of one term is fine, in order or not.
    ///
    /// # Errors
    /// [`TermTableError::OutOfOrder`], and nothing changed.
    pub fn append(&mut self, term: u64, index: u64) -> Result<(), TermTableError> {
        let (last_term, last_first) = self.0.last().copied().unwrap_or_default();
        if term == last_term && index >= last_first && term != 0 {
            return Ok(());
        }
        if term <= last_term || index <= last_first {
            return Err(TermTableError::OutOfOrder { term, index, last_term, last_first });
        }
        self.0.push((term, index));
        Ok(())
    }

    /// Forgets the entries at `index` and after it, as when they are cut from the log.
    ///
    /// # Errors
    /// [`TermTableError::CutForgotten`] if nothing would be left of a table that has been compacted; nothing changed.
    pub fn truncate_from(&mut self, index: u64) -> Result<(), TermTableError> {
        let keep = self.0.partition_point(|&(_, first)| first < index);
        if keep == 0
            && let Some(&(_, known_from)) = self.0.first()
            && known_from > 1
        {
            return Err(TermTableError::CutForgotten { index, known_from });
        }
        self.0.truncate(keep);
        Ok(())
    }

    /// The term of the entry at `index`, if the history reaches that far; `None` for 0 and what is forgotten.
    #[must_use]
    pub fn term_at(&self, index: u64) -> Option<u64> {
        let row = self.0.partition_point(|&(_, first)| first <= index).checked_sub(1)?;
        Some(self.0[row].0)
    }

    /// The last term, and where it begins.
    #[must_use]
    pub fn last(&self) -> Option<(u64, u64)> {
        self.0.last().copied()
    }

    /// Terms and where they begin, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Where `position` stands in this history up to `last_index`.
    ///
    /// The offset does not matter. [`Position::START`](crate::Position::START) is held by every history.
    #[must_use]
    pub fn standing(&self, position: crate::Position, last_index: u64) -> Standing {
        let (term, index) = (position.term, position.index);
        if (term, index) == (0, 0) {
            return Standing::Held;
        }
        let last_term = self.term_at(last_index).unwrap_or(0);
        // A term that the history has not heard of may yet add to it, or even cut its end.
        if term > last_term || (term == last_term && index > last_index) {
            return Standing::Ahead;
        }
        // From here on the history has an entry at least as late as the position claims to be.
        match self.term_at(index) {
            Some(held) if held == term && index <= last_index => Standing::Held,
            None if self.is_forgotten(term, index) => Standing::Forgotten,
            _ => Standing::Overtaken,
        }
    }

    /// Whether only rows that were dropped could tell about this entry.
    fn is_forgotten(&self, term: u64, index: u64) -> bool {
        // An entry of a term that is in the table lies where the table says, or nowhere.
        self.0.first().is_some_and(|&(known_term, known_from)| {
            index > 0 && term > 0 && index < known_from && term < known_term
        })
    }

    /// The last index up to which this history (ending at `last_index`) and `other` (ending at `other_last`) are the
    /// same; 0 if they part at once, `None` if they part where one of them has forgotten.
    ///
    /// Relies on what consensus guarantees: histories that agree on the term at an index agree on all before it.
    #[must_use]
    pub fn fork(&self, last_index: u64, other: &Self, other_last: u64) -> Option<u64> {
        let end = last_index.min(other_last);
        let known_from = |table: &Self| table.0.first().map_or(1, |&(_, first)| first);
        let start = known_from(self).max(known_from(other));
        if end < start {
            // Too short to reach what both know: nothing to compare, unless there is nothing at all.
            return if end == 0 || start == 1 { Some(end) } else { None };
        }
        let mut index = start;
        while index <= end {
            if self.term_at(index) != other.term_at(index) {
                return if index == 1 || index > start { Some(index - 1) } else { None };
            }
            // Both stay in their terms until the nearer of their next rows.
            index = self.next_row(index).min(other.next_row(index));
        }
        Some(end)
    }

    fn next_row(&self, index: u64) -> u64 {
        let row = self.0.partition_point(|&(_, first)| first <= index);
        self.0.get(row).map_or(u64::MAX, |&(_, first)| first)
    }

    /// Drops rows that are not needed to judge positions at `index` and after it.
    ///
    /// The row that covers `index` stays as it is, so somewhat more than asked for remains known.
    pub fn compact(&mut self, index: u64) {
        let covering = self.0.partition_point(|&(_, first)| first <= index).saturating_sub(1);
        self.0.drain(..covering);
    }

    /// The table as bytes: number of rows as u32, then term and first index of each as u64, all little endian.
    ///
    /// # Panics
    /// With more than `u32::MAX` rows, which would be 64 GiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).expect("a table of 2^32 terms");
        let mut bytes = Vec::with_capacity(COUNT_LEN + self.0.len() * ROW_LEN);
        bytes.extend_from_slice(&count.to_le_bytes());
        for &(term, first) in &self.0 {
            bytes.extend_from_slice(&term.to_le_bytes());
            bytes.extend_from_slice(&first.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`encode`](Self::encode), with every invariant checked.
    ///
    /// # Errors
    /// [`DecodeTermTableError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeTermTableError> {
        let len = bytes.len();
        let (count, rows) = bytes
            .split_first_chunk::<COUNT_LEN>()
            .ok_or(DecodeTermTableError::Length { len, want: COUNT_LEN as u64 })?;
        let want = COUNT_LEN as u64 + u64::from(u32::from_le_bytes(*count)) * ROW_LEN as u64;
        if len as u64 != want {
            return Err(DecodeTermTableError::Length { len, want });
        }
        let mut table = Self::new();
        for (row, bytes) in rows.as_chunks::<ROW_LEN>().0.iter().enumerate() {
            let word = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[at..at + 8]);
                u64::from_le_bytes(word)
            };
            let (term, index) = (word(0), word(8));
            table.append(term, index).map_err(|source| DecodeTermTableError::Row { row, source })?;
            if table.0.len() != row + 1 {
                let (last_term, last_first) = table.0.last().copied().unwrap_or_default();
                let source = TermTableError::OutOfOrder { term, index, last_term, last_first };
                return Err(DecodeTermTableError::Row { row, source });
            }
        }
        Ok(table)
    }
}

const COUNT_LEN: usize = 4;
const ROW_LEN: usize = 16;

#[cfg(test)]
#[path = "tests/term_table.rs"]
mod tests;
