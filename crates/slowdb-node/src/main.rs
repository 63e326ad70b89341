//! The SlowDB binary.

fn main() {}
