//! Positions in replicated logs: the version of every record, the cut of every session.
//!
//! A [`Position`] is a write's place in one shard's log. Positions of one log are ordered only within one
//! history; whether a position is *in* a history is answered by that history's [`TermTable`]. A
//! [`VersionVector`] maps logs to positions: the causal cut across them.
//!
//! Values only: nothing here knows a log, a network or a clock, and nothing decides what to do with an answer.

mod position;
mod term_table;
mod text;
mod vector;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

pub use position::{ParsePositionError, Position};
pub use term_table::{DecodeTermTableError, Standing, TermTable, TermTableError};
pub use vector::{DecodeVectorError, VersionVector};
