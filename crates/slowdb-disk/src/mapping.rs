//! A mapped range of a file: an address, a length, and what keeps the address valid.
//!
//! It hands out raw pointers only. Who reads and who writes which byte when is the business of the code
//! that lays out the file; a `&mut` over a mapping would claim more than anyone can promise.
#![expect(unsafe_code, reason = "the address of mapped memory is shared between threads")]

use std::any::Any;
use std::fmt;
use std::sync::Arc;

#[cfg(target_os = "linux")]
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

    /// Has the pages of `[at, at + len)` in memory and writable, all at once: cheaper than a fault at the first write to
    /// each. Changes no byte, but the pages count as written. A hint: where it cannot be followed, nothing happens.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    pub fn populate(&self, at: usize, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "{len} bytes at {at} of a mapping of {}", self.len);
        #[cfg(target_os = "linux")]
        if let Some(map) = self.owner.downcast_ref::<MmapRaw>() {
            // Kernels before 5.14 do not know it; then each first touch is a fault.
            let _ = map.advise_range(memmap2::Advice::PopulateWrite, at, len);
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("ptr", &self.ptr).field("len", &self.len).finish_non_exhaustive()
    }
}
