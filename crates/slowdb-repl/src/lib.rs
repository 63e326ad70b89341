//! A replicated log for any state machine: consensus, the durable log, log shipping over QUIC.

pub mod wal;
