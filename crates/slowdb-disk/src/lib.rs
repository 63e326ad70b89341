//! The one seam for durable I/O: files, mappings and syncs.
//!
//! Everything in SlowDB that must survive a power cut goes through [`Disk`] and [`DiskFile`], so that the
//! same code runs on a [`RealDisk`] and on a [`SimDisk`] that can lose any subset of unsynced sectors.
//! Paths are relative to the disk's root and use `/`.

use std::io::{self, IoSlice};
use std::sync::Arc;

/// A directory tree whose files survive a crash as far as they were synced.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file for reading and writing; creates it empty if `create` and it is missing.
    /// A created file's *name* is durable only after [`Disk::sync_dir`] of its directory.
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &str) -> io::Result<bool>;
    /// The names (not paths) of the entries of a directory, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates a directory and its parents, durably.
    fn create_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Renames a file, replacing the target. Durable after [`Disk::sync_dir`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a directory and all in it, if it exists.
    fn remove_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// An open file. Offsets and lengths are in bytes.
///
/// A byte range is used either through a mapping or through `read_at`/`write_at`, not both at a time.
pub trait DiskFile: Send + Sync {
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Gives every byte of `[0, len)` real space on the disk and makes the file at least `len` long; new
    /// bytes read as zero. A full disk is an error here and never later a fault in a mapping.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Shortens the file. No mapping may reach beyond `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Fills `buf` from `offset`; a file that ends before is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bufs`, one after the other, from `offset`, growing the file if need be.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, through mappings too.
    fn sync(&self) -> io::Result<()>;
    /// Maps `[offset, offset + len)`, shared and writable. `offset` is a multiple of [`MAP_ALIGN`], the
    /// range lies inside the allocated file. The address stays valid as long as the mapping lives,
    /// even when the file is removed.
    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping>;
}

/// Alignment of the offsets that can be mapped, in bytes.
pub const MAP_ALIGN: u64 = 65_536;
