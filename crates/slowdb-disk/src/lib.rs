//! The one seam for durable I/O: files, mappings and syncs.
//!
//! Everything in SlowDB that must survive a power cut goes through [`Disk`] and [`DiskFile`], so that the
//! same code runs on a [`RealDisk`] and on a [`SimDisk`] that can lose any subset of unsynced sectors.
//! Paths are relative to the disk's root and use `/`.
//!
//! This crate knows nothing of what is in the files, and offers no caching, buffering or retries.
#![doc = include_str!("../README.md")]

use std::io::{self, IoSlice};
use std::sync::Arc;

mod mapping;
mod path;
mod real;
mod sim;

pub use mapping::Mapping;
pub use real::{DirLock, LockError, RealDisk};
pub use sim::{SECTOR_BYTES, SimDisk};

/// A directory tree whose files survive a crash as far as they were synced.
///
/// Paths are relative, with `/` between components; empty, `.` and `..` components are refused with
/// `InvalidInput`. The root itself is the empty path, as a directory.
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
    /// Renames a file inside its directory, replacing the target. Atomic; durable after
    /// [`Disk::sync_dir`]. A target in another directory is `InvalidInput`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. Durable after [`Disk::sync_dir`].
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a directory and all in it, if it exists. Durable when it returns, also if the directory was
    /// gone because of an earlier call that failed; after a crash on the way any part of it may be left.
    fn remove_dir_all(&self, dir: &str) -> io::Result<()>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// How much room there is where the root is. Others may take of it at any time.
    fn space(&self) -> io::Result<Space>;
}

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What files may still take. Limits of a user, such as quotas, are not seen.
    pub free: u64,
    /// What all files may take, those that are there included.
    pub total: u64,
}

/// An open file. Offsets and lengths are in bytes.
///
/// A byte range is used either through a mapping or through `read_at`/`write_at`, not both at a time.
pub trait DiskFile: Send + Sync {
    /// Takes the file for this handle alone, until the handle is dropped; says whether it could be had.
    /// Another handle of the same file may have it, in this process or another; under what name either was
    /// opened does not matter. It keeps out only those that ask for it too. Asking again gives the same.
    fn lock(&self) -> io::Result<bool>;
    /// The file's length.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Gives every byte of `[offset, offset + len)` real space on the disk and makes the file at least that
    /// long; new bytes read as zero. A full disk is an error here and never later a fault in a mapping.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the space of `[offset, offset + len)` back to the disk; both are multiples of [`MAP_ALIGN`], and
    /// the file stays as long as it is. The bytes are void: they read as zero, or as they were where a file
    /// system cannot do this. Before any of them is written again, it has to be allocated.
    fn give_back(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Shortens the file. No mapping may reach beyond `len`. A length beyond the file's is
    /// `InvalidInput`.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Fills `buf` from `offset`; a file that ends before is `UnexpectedEof`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bufs`, one after the other, from `offset`, growing the file if need be.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, through mappings too. After an error the file's unsynced
    /// bytes are in doubt for ever: a later success does not cover them.
    fn sync(&self) -> io::Result<()>;
    /// Maps `[offset, offset + len)`, shared and writable. `offset` is a multiple of [`MAP_ALIGN`], the
    /// range is not empty and lies inside the allocated file. The address stays valid as long as the
    /// mapping lives, even when the file is removed.
    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping>;
}

/// Alignment of the offsets that can be mapped, in bytes.
pub const MAP_ALIGN: u64 = 65_536;

/// Whether an error says that the disk, or what of it may be used (a quota, the largest size of a file), is
/// full. After a failed allocation or write that is all that happened; what a failed *sync* should have made
/// durable is in doubt whatever the error says.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Checks what both disks ask of a range to give back.
fn check_give_back(offset: u64, len: u64) -> io::Result<()> {
    if len == 0 || !offset.is_multiple_of(MAP_ALIGN) || !len.is_multiple_of(MAP_ALIGN) {
        let why = format!("cannot give back {len} bytes at {offset}: both must be multiples of {MAP_ALIGN}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(())
}

/// Checks what both disks ask of a range to map.
fn check_map_range(offset: u64, len: usize, file_len: u64) -> io::Result<()> {
    let end = offset.checked_add(len as u64);
    if len == 0 || !offset.is_multiple_of(MAP_ALIGN) || end.is_none_or(|end| end > file_len) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "cannot map {len} bytes at {offset} of a file of {file_len}: the offset must be a multiple \
                 of {MAP_ALIGN} and the range lie inside the file"
            ),
        ));
    }
    Ok(())
}
