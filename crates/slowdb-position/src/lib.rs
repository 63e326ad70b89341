//! Positions in replicated logs: the version of every record, the cut of every session.
//!
//! A [`Position`] is a write's place in one shard's log. Positions of one log are ordered only within one
//! history; whether a position is *in* a history is answered by that history's [`TermTable`]. A
//! [`VersionVector`] maps logs to positions: the causal cut across them.

use std::collections::BTreeMap;

/// A write's place in a log: the term and index of its entry, and its place among the writes of that entry.
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

/// A causal cut across logs: log id → highest position seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionVector(BTreeMap<u64, Position>);

/// What a history says of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The position is part of this history.
    Held,
    /// Another write took its place.
    Overtaken,
    /// Beyond the end of this history.
    Ahead,
}

/// term → first index, for every term that has an entry in a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermTable(Vec<(u64, u64)>);
