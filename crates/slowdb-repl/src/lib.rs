//! A replicated log for any state machine: consensus, durable log, log shipping over QUIC
