//! A mapped range of a file: an address, a length, and what keeps the address valid.
//!
//! It hands out raw pointers only. Who reads and who writes which byte when is the business of the code
//! that lays out the file; a `&mut` over a mapping would claim more than anyone can promise.
#![expect(unsafe_code, reason = "the address of mapped memory is shared between threads")]

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memmap2::MmapRaw;

/// A shared, writable mapping of part of a file. Cloning it shares the memory.
#[derive(Clone)]
pub struct Mapping {
    ptr: *mut u8,
    len: usize,
    /// Unmaps when the last one goes.
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: a mapping is an address and a length; the memory behind it is owned by `owner`, which is itself
// `Send + Sync`. Every access goes through a raw pointer in an `unsafe` block of the caller, who argues
// there why it does not race.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; no method reads or writes the mapped memory.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `ptr` is valid for reads and writes of `len` bytes for as long as `owner` lives.
    pub(crate) fn new(ptr: *mut u8, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Self {
        Self { ptr, len, owner }
    }

    /// The address of the first byte, valid for reads and writes of [`Mapping::len`] bytes as long as
    /// this mapping or a clone of it lives. Aligned to at least 4,096 bytes.
    pub fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// The number of bytes mapped; never zero.
    #[expect(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes `[at, at + len)` zero, and has its pages in memory, in runs: a fraction of what it costs to bring in each at the
    /// first write to it. For ranges that are about to be written for the first time.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    ///
    /// # Safety
    /// Nobody else reads or writes these bytes now.
    pub unsafe fn clear(&self, at: usize, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "{len} bytes at {at} of a mapping of {}", self.len);
        let part = self.owner.downcast_ref::<MappedPart>();
        if part.is_some_and(|part| part.clear(at, len).is_ok()) {
            return;
        }
        // SAFETY: inside the mapping, and the caller promises that it is his alone.
        unsafe { self.ptr.add(at).write_bytes(0, len) }
    }
}

/// A mapping of the operating system, and what it is a mapping of.
pub(crate) struct MappedPart {
    #[expect(dead_code, reason = "unmaps when it is dropped")]
    pub(crate) map: MmapRaw,
    pub(crate) file: Arc<File>,
    /// Where in the file it begins.
    pub(crate) offset: u64,
}

impl MappedPart {
    /// Pages of zeros that are written to the file are in the cache, and dirty, in runs. A first touch then maps a whole run
    /// of them, and neither reads nothing from the disk nor looks for a block.
    fn clear(&self, at: usize, len: usize) -> io::Result<()> {
        static ZEROS: [u8; 262_144] = [0; 262_144];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(ZEROS.len());
            self.file.write_all_at(&ZEROS[..part], self.offset + (at + done) as u64)?;
            done += part;
        }
        Ok(())
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("ptr", &self.ptr).field("len", &self.len).finish_non_exhaustive()
    }
}
