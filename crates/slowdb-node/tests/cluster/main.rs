//! Tests on real processes: one program, so that it is linked once.

mod addresses;
mod bad_input;
mod compare;
mod conditions;
mod damage;
mod deposed;
mod failover;
mod files;
mod levels;
mod links;
mod low_space;
mod nodes;
mod operate;
mod quarantine;
mod refused;
mod sessions;
mod start;
