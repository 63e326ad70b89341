//! Tests of the parts of the log that are not visible from outside.

mod decide;
mod format;
mod fuzz;
mod group;
