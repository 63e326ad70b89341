//! A whole SlowDB cluster in one deterministic thread
