//! What the guarantees cost is measured beside a node that goes without them: feature `unguarded`, for the bench alone.
//!
//! Such a node replicates, syncs and elects leaders as any other. It does not keep what became of earlier writes (a retry
//! is executed again), the table of terms, tombstones, levels and times of records, or hashes of records and of all
//! else (replicas are not compared, damage is not noticed). What is part of an entry or of a slot keeps its place there.

/// Whether this build keeps its promises.
pub(crate) const GUARDED: bool = !cfg!(feature = "unguarded");

/// Says so where it does not.
pub(crate) fn warn() {
    if !GUARDED {
        tracing::error!("this is a build for measurements, without guarantees: it must not hold data");
    }
}
