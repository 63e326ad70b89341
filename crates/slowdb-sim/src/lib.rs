//! A whole SlowDB cluster in one deterministic thread.
//!
//! The real node core, replication, log and storage run on simulated disks, a simulated network and virtual
//! time; simulated clients read and write; faults come from a schedule. Everything is drawn from one seed, so
//! that a run can be repeated exactly. What happened is kept as a log of events, which checkers read.
//!
//! What is not simulated: QUIC itself, threads, and the operating system's scheduling; those are for tests with
//! real processes.

#[cfg(feature = "canary")]
mod canary;
mod checks;
mod client;
mod cluster;
mod conflicts;
mod events;
mod faults;
mod identity;
mod keys;
mod network;
mod node;
mod operator;
mod options;
mod queue;
mod random;
mod rot;
mod run;
#[cfg(test)]
mod scenarios;
mod shrink;
mod strike;
pub mod table;
mod traffic;

#[cfg(feature = "canary")]
pub use canary::{Catch, SEEDS_MAX, hunt};
pub use checks::{Cell, Property, Tallies, Tally, Violation};
pub use events::{Ask, Conflict, Event, EventLog, Expected, Key, OpId, Outcome, Seen, Stop};
pub use options::{Bug, ChangeOptions, DiskOptions, FaultOptions, NetOptions, Options, Profile, Span};
pub use run::{Report, RunFailure, exercise, run};
pub use shrink::shrink;
