//! A disk in memory that can crash.
//!
//! # The fault contract
//! What a program must survive, because real disks do it:
//! - **Crash** ([`SimDisk::crash`]). Of each file, every sector ([`SECTOR_BYTES`]) changed since its last
//!   successful sync, through `write_at` or a mapping, holds its old or its new content, independently of
//!   all others; sectors themselves are never torn. An unsynced length is the old one, the new one, or
//!   between. Names created, renamed or removed and not followed by `sync_dir` are, each on its own, as
//!   before or as after; a rename happens as a whole. Every handle and mapping from before is dead: it
//!   can be used, and what it does goes nowhere. Files that were locked are not any more.
//! - **Power going away at a sync** ([`SimDisk::crash_at_sync`]). That sync and everything after it fail
//!   until [`SimDisk::crash`].
//! - **A failed sync** ([`SimDisk::fail_sync_in`]). The call fails; what it should have written is dropped
//!   but still read back and taken for clean, so that a second sync succeeds without writing it.
//! - **A failed write** ([`SimDisk::fail_write_in`]). Part of it may be there.
//! - **A full disk** ([`SimDisk::set_capacity`]). Growing fails with `StorageFull`; what is there stays.
//!   Space that was given back counts as free at once; its bytes are written with zeros, as any others are.
//!
//! What a program must notice, but cannot always repair: **a flipped bit** ([`SimDisk::flip_bit`]).
//!
//! Nothing here draws randomness, reads a clock or depends on addresses: the same calls with the same
//! random source give the same disk.
//!
//! It costs memory only for what was written or mapped. A sync costs what was written with `write_at` and a
//! comparison of what is mapped.

mod content;
mod names;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mapping::Mapping;
use crate::path::{check_dir, check_file, check_rename, parent};
use crate::{Disk, DiskFile, Space, check_give_back, check_map_range};
use content::Content;
use names::{FileId, Names};

/// What a disk without a limit says that it has room for, in bytes: 1 PiB.
const UNLIMITED_BYTES: u64 = 1 << 50;

/// The unit in which unsynced data is lost, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// A simulated disk; see the fault contract at the head of its module. Clones are handles to one disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
    /// How often the disk had crashed when this handle was made; a handle of an earlier life is dead.
    life: u64,
}

#[derive(Default)]
struct Shared {
    life: u64,
    names: Names,
    files: BTreeMap<FileId, Content>,
    file_next: u64,
    syncs: u64,
    down: bool,
    crash_at_sync: Option<u64>,
    fail_sync_at: Option<u64>,
    writes: u64,
    fail_write_at: Option<u64>,
    capacity: Option<u64>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk without limits or faults.
    pub fn new() -> Self {
        Self { shared: Arc::default(), life: 0 }
    }

    /// Cuts the power and turns it on again: loses a subset, drawn from `rng`, of what was not synced (see
    /// the module's contract), and returns the handle of the new life. All older handles, files and
    /// mappings are dead from now on. Capacity stays; other faults asked for and not yet met are off.
    ///
    /// Of each file, `rng` first chooses between losing all (0 modulo 4), keeping all (1 modulo 4) and
    /// drawing for each sector, since the extremes would otherwise hardly ever be tried.
    pub fn crash(&self, rng: &mut impl FnMut() -> u64) -> Self {
        let mut shared = self.shared();
        shared.life += 1;
        shared.down = false;
        shared.crash_at_sync = None;
        shared.fail_sync_at = None;
        shared.fail_write_at = None;
        shared.names.crash(rng);
        let live = shared.names.live_files();
        shared.files.retain(|id, _| live.contains(id));
        for content in shared.files.values_mut() {
            content.crash(rng);
        }
        Self { shared: Arc::clone(&self.shared), life: shared.life }
    }

    /// How many syncs were asked for so far: of files and directories, and one for each call that creates
    /// directories or removes one with all in it.
    pub fn syncs(&self) -> u64 {
        self.shared().syncs
    }

    /// Lets the power go away when sync number `k` (the first ever has number 0) is asked for: it fails,
    /// nothing of it is written, and every operation fails from then on, until [`SimDisk::crash`].
    pub fn crash_at_sync(&self, k: u64) {
        self.shared().crash_at_sync = Some(k);
    }

    /// Whether the power is gone: [`SimDisk::crash_at_sync`] has struck.
    pub fn is_down(&self) -> bool {
        self.shared().down
    }

    /// Fails the sync that comes after `n` others. What it should have made durable never will be, though
    /// it is still read back and a later sync succeeds.
    pub fn fail_sync_in(&self, n: u64) {
        let mut shared = self.shared();
        shared.fail_sync_at = Some(shared.syncs + n);
    }

    /// Fails the `write_at` that comes after `n` others, once half of its bytes are written.
    pub fn fail_write_in(&self, n: u64) {
        let mut shared = self.shared();
        shared.fail_write_at = Some(shared.writes + n);
    }

    /// Limits what all named files take: their lengths, less what was given back. `None` lifts the limit.
    pub fn set_capacity(&self, bytes_max: Option<u64>) {
        self.shared().capacity = bytes_max;
    }

    /// What all named files take: the sum of their lengths, less what was given back of them.
    pub fn bytes_used(&self) -> u64 {
        self.shared().bytes_used()
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset` of a file, on the disk and in what is mapped of it.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `InvalidInput` for an offset beyond it.
    ///
    /// # Panics
    /// If `bit` is over 7.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) -> io::Result<()> {
        assert!(bit < 8, "a byte has bits 0 to 7, not {bit}");
        check_file(path)?;
        let mut shared = self.shared();
        let id = shared.names.file(path)?;
        shared.content(id)?.flip(offset, 1 << bit)
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic of some test thread while it held the lock leaves the disk as good as before the call.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> io::Result<MutexGuard<'_, Shared>> {
        let shared = self.shared();
        if shared.life != self.life {
            return Err(io::Error::other("simulated disk: this handle is from before a crash"));
        }
        shared.check_power()?;
        Ok(shared)
    }
}

impl Shared {
    fn check_power(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("simulated disk: the power is gone")) } else { Ok(()) }
    }

    fn content(&mut self, id: FileId) -> io::Result<&mut Content> {
        self.files.get_mut(&id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn bytes_used(&self) -> u64 {
        self.names.named_files().filter_map(|id| self.files.get(&id)).map(Content::space).sum()
    }

    /// Room for a file to grow by `more` bytes, or `StorageFull`.
    fn check_room(&self, more: u64) -> io::Result<()> {
        match self.capacity {
            Some(max) if more > 0 && self.bytes_used() + more > max => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("simulated disk: full at {max} bytes, {more} more asked for"),
            )),
            _ => Ok(()),
        }
    }

    /// Frees the files that are not open and that no crash could give a name again.
    fn drop_nameless(&mut self) {
        let Self { names, files, .. } = self;
        files.retain(|id, content| content.handles > 0 || names.mentions(*id));
    }

    /// Counts a sync; says whether it is to fail, or fails because the power goes.
    fn begin_sync(&mut self) -> io::Result<SyncFate> {
        let number = self.syncs;
        self.syncs += 1;
        if self.crash_at_sync.is_some_and(|k| number >= k) {
            self.down = true;
            self.check_power()?;
        }
        if self.fail_sync_at == Some(number) {
            self.fail_sync_at = None;
            return Ok(SyncFate::Fail);
        }
        Ok(SyncFate::Succeed)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SyncFate {
    Succeed,
    Fail,
}

fn sync_failed() -> io::Error {
    io::Error::other("simulated disk: the sync failed")
}

impl Disk for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        check_file(path)?;
        let mut shared = self.live()?;
        let id = match shared.names.file(path) {
            Ok(id) => id,
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
                let id = FileId(shared.file_next);
                shared.names.create(path, id)?;
                shared.file_next += 1;
                shared.files.insert(id, Content::default());
                id
            }
            Err(e) => return Err(e),
        };
        shared.content(id)?.handles += 1;
        Ok(Arc::new(SimFile { disk: self.clone(), id, path: path.into(), locks: AtomicBool::new(false) }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        check_dir(path)?;
        Ok(self.live()?.names.exists(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        self.live()?.names.list(dir)
    }

    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let mut shared = self.live()?;
        if shared.names.is_dir(dir) {
            return Ok(());
        }
        match shared.begin_sync()? {
            SyncFate::Succeed => shared.names.create_dirs(dir),
            SyncFate::Fail => Err(sync_failed()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        self.live()?.names.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        self.live()?.names.remove(path)
    }

    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        check_file(dir)?;
        let mut shared = self.live()?;
        // Missing, it may have been removed by a call that failed before the removal was durable.
        if !shared.names.remove_dir(dir)? && !shared.names.is_dir(parent(dir)) {
            return Ok(());
        }
        match shared.begin_sync()? {
            SyncFate::Succeed => {
                shared.names.sync_removed(dir);
                shared.drop_nameless();
            }
            SyncFate::Fail => return Err(sync_failed()),
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let mut shared = self.live()?;
        if !shared.names.is_dir(dir) {
            return Err(names::not_found(dir));
        }
        match shared.begin_sync()? {
            SyncFate::Succeed => {
                shared.names.sync(dir);
                shared.drop_nameless();
            }
            SyncFate::Fail => return Err(sync_failed()),
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let shared = self.live()?;
        let total = shared.capacity.unwrap_or(UNLIMITED_BYTES);
        Ok(Space { free: total.saturating_sub(shared.bytes_used()), total })
    }
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
    path: Box<str>,
    /// Whether this handle has the file for itself.
    locks: AtomicBool,
}

impl SimFile {
    /// Runs `f` on the file's content while the disk is live.
    fn with<R>(&self, f: impl FnOnce(&mut Shared, FileId) -> io::Result<R>) -> io::Result<R> {
        let mut shared = self.disk.live()?;
        f(&mut shared, self.id).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", self.path)))
    }
}

impl DiskFile for SimFile {
    fn lock(&self) -> io::Result<bool> {
        self.with(|shared, id| {
            let content = shared.content(id)?;
            if !content.locked {
                content.locked = true;
                self.locks.store(true, Ordering::Relaxed);
            }
            Ok(self.locks.load(Ordering::Relaxed))
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|shared, id| Ok(shared.content(id)?.len()))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(|shared, id| {
            let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
            let content = shared.content(id)?;
            let more = end.saturating_sub(content.len()) + content.given_back(offset, end);
            shared.check_room(more)?;
            shared.content(id)?.allocate(offset, end);
            Ok(())
        })
    }

    fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        check_give_back(offset, len)?;
        self.with(|shared, id| {
            shared.content(id)?.give_back(offset, len);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|shared, id| shared.content(id)?.truncate(len))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|shared, id| shared.content(id)?.read(buf, offset))
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.with(|shared, id| {
            let total: u64 = bufs.iter().map(|b| b.len() as u64).sum();
            let end = offset.checked_add(total).ok_or(io::ErrorKind::InvalidInput)?;
            let number = shared.writes;
            shared.writes += 1;
            let fails = shared.fail_write_at == Some(number);
            let more = end.saturating_sub(shared.content(id)?.len());
            shared.check_room(more)?;
            let content = shared.content(id)?;
            let mut left = if fails { total / 2 } else { total };
            let mut at = offset;
            for buf in bufs {
                let part = &buf[..buf.len().min(left as usize)];
                content.write(part, at);
                at += part.len() as u64;
                left -= part.len() as u64;
            }
            if fails {
                shared.fail_write_at = None;
                return Err(io::Error::other("simulated disk: the write failed half way"));
            }
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|shared, id| {
            let fate = shared.begin_sync()?;
            let content = shared.content(id)?;
            match fate {
                SyncFate::Succeed => content.sync(),
                SyncFate::Fail => {
                    content.lose_unsynced();
                    return Err(sync_failed());
                }
            }
            Ok(())
        })
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping> {
        self.with(|shared, id| {
            let content = shared.content(id)?;
            check_map_range(offset, len, content.len())?;
            content.map(offset, len)
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut shared = self.disk.shared();
        if shared.life != self.disk.life {
            return;
        }
        if let Some(content) = shared.files.get_mut(&self.id) {
            content.handles -= 1;
            content.locked &= !self.locks.load(Ordering::Relaxed);
            if content.handles == 0 && !shared.names.mentions(self.id) {
                shared.files.remove(&self.id);
            }
        }
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = self.shared();
        f.debug_struct("SimDisk")
            .field("life", &self.life)
            .field("syncs", &shared.syncs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
