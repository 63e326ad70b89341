//! SlowDB's routing client
