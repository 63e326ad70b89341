//! Development tasks: clusters of real processes, the demo, the bench, the simulator, CI.
//!
//! A library, so that tests of other crates drive real nodes with the same harness. It knows SlowDB only
//! from outside: through the client, the command line and the nodes' processes.

pub mod arguments;
pub mod bench;
pub mod chain;
pub mod ci;
pub mod cluster;
pub mod dataset;
pub mod demo;
pub mod direct;
pub mod failover;
pub mod fuzz;
pub mod load;
pub mod movement;
pub mod overtaken;
pub mod placement;
pub mod ports;
pub mod process;
pub mod relay;
pub mod rolling;
pub mod sim;
pub mod stats;
mod svg;
pub mod torture;
pub mod torture_storage;
pub mod truth;
pub mod ui;
pub mod workspace;
