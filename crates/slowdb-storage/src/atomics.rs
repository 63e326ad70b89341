//! The atomics by which the writer of a store and its readers know of each other.
//!
//! With the feature `model` they are a model checker's, which decides at each of them who goes on. It is for the test of
//! that name alone: a store works nowhere else then.

#[cfg(feature = "model")]
pub(crate) use shuttle::sync::atomic::{AtomicU64, AtomicUsize};
#[cfg(not(feature = "model"))]
pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Where a model checker may let others go on between a look at these atomics and the bytes they stand for.
#[inline(always)]
pub(crate) fn pause() {
    #[cfg(feature = "model")]
    shuttle::thread::yield_now();
}
