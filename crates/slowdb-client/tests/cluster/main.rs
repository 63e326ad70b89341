//! The client against a cluster of nodes that do what a test tells them to: one program, linked once.

mod bad_nodes;
mod catalog;
mod fake;
mod fake_catalog;
mod joining;
mod reads;
mod replaced;
mod routing;
