//! The operating system's files under one root directory.
//!
//! Space is allocated before it is mapped, so that a full disk is an error of [`DiskFile::allocate`] and
//! never a fault while touching memory. Nothing is retried: after a failed sync the caller decides.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::MmapOptions;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use rustix::io::{Errno, retry_on_intr};

use crate::mapping::{MappedPart, Mapping};
use crate::path::{check_dir, check_file, check_rename};
use crate::{Disk, DiskFile, Space, check_give_back, check_map_range};

/// The file in the root that [`RealDisk::lock`] locks.
const LOCK_FILE: &str = "LOCK";
/// How many buffers one system call takes.
const IOV_MAX: usize = 1024;

/// A directory of the operating system as a [`Disk`].
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Opens the directory `root`, creating it (and its parents, durably) if it is missing.
    ///
    /// # Errors
    /// Whatever the operating system says, with the path.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = root.as_ref();
        create_dirs(root).map_err(|e| at(root, &e))?;
        let root = fs::canonicalize(root).map_err(|e| at(root, &e))?;
        Ok(Self { root })
    }

    /// The root directory, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the root directory for this process alone, until the lock is dropped or the process ends.
    /// It keeps out only those that ask for it too.
    ///
    /// # Errors
    /// [`LockError::InUse`] if somebody else holds it, also inside this process.
    pub fn lock(&self) -> Result<DirLock, LockError> {
        let path = self.root.join(LOCK_FILE);
        let io_error = |e: io::Error| LockError::Io(at(&path, &e));
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error)?;
        match try_lock(&file).map_err(io_error)? {
            true => Ok(DirLock { _file: file }),
            false => Err(LockError::InUse { root: self.root.clone() }),
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// The exclusive hold on a root directory, given back when dropped.
#[derive(Debug)]
#[must_use = "the directory is locked only as long as this value lives"]
pub struct DirLock {
    _file: File,
}

/// Why a root directory could not be locked.
#[derive(Debug)]
#[non_exhaustive]
pub enum LockError {
    /// Somebody else holds the directory.
    InUse {
        /// The directory.
        root: PathBuf,
    },
    /// The lock file could not be opened or locked.
    Io(io::Error),
}

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InUse { root } => write!(
                f,
                "storage path {} is in use by another process: stop it, or choose another path",
                root.display()
            ),
            Self::Io(e) => write!(f, "cannot lock the storage path: {e}"),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InUse { .. } => None,
            Self::Io(e) => Some(e),
        }
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        check_file(path)?;
        let full = self.path(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .open(&full)
            .map_err(|e| at(&full, &e))?;
        Ok(Arc::new(RealFile { file: Arc::new(file), path: full, locked: AtomicBool::new(false) }))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        check_dir(path)?;
        self.path(path).try_exists()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        let full = self.path(dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(|e| at(&full, &e))? {
            let name = entry.map_err(|e| at(&full, &e))?.file_name();
            // Names that are not UTF-8 are not ours, and cannot be named through this interface.
            if let Ok(name) = name.into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let full = self.path(dir);
        create_dirs(&full).map_err(|e| at(&full, &e))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_rename(from, to)?;
        let full = self.path(from);
        fs::rename(&full, self.path(to)).map_err(|e| at(&full, &e))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_file(path)?;
        let full = self.path(path);
        fs::remove_file(&full).map_err(|e| at(&full, &e))
    }

    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        check_file(dir)?;
        let full = self.path(dir);
        // Missing, it may have been removed by a call that failed before the removal was durable.
        ignore_missing(fs::remove_dir_all(&full))
            .and_then(|()| ignore_missing(full.parent().map_or(Ok(()), sync_directory)))
            .map_err(|e| at(&full, &e))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let full = self.path(dir);
        sync_directory(&full).map_err(|e| at(&full, &e))
    }

    fn space(&self) -> io::Result<Space> {
        let stat = retry_on_intr(|| statvfs(&self.root)).map_err(|errno| at(&self.root, &errno.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        // What only the superuser may take is no room for a node that might run as somebody else tomorrow.
        Ok(Space { free: bytes(stat.f_bavail), total: bytes(stat.f_blocks) })
    }
}

struct RealFile {
    file: Arc<File>,
    path: PathBuf,
    locked: AtomicBool,
}

impl DiskFile for RealFile {
    fn lock(&self) -> io::Result<bool> {
        let locked = try_lock(&self.file).map_err(|e| at(&self.path, &e))?;
        self.locked.fetch_or(locked, Ordering::Relaxed);
        Ok(locked)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata().map_err(|e| at(&self.path, &e))?.len())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), offset, len)) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => self.allocate_by_writing(offset + len),
            Err(errno) => Err(at(&self.path, &errno.into())),
        }
    }

    fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        check_give_back(offset, len)?;
        #[cfg(target_os = "linux")]
        {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match retry_on_intr(|| fallocate(&self.file, hole, offset, len)) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(at(&self.path, &errno.into())),
            }
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let present = self.len()?;
        if len > present {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot truncate {} of {present} bytes to {len}", self.path.display()),
            ));
        }
        self.file.set_len(len).map_err(|e| at(&self.path, &e))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|e| at(&self.path, &e))
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut bufs: Vec<IoSlice<'_>> = bufs.iter().copied().filter(|b| !b.is_empty()).collect();
        let mut rest = bufs.as_mut_slice();
        while !rest.is_empty() {
            let upto = rest.len().min(IOV_MAX);
            match rustix::io::pwritev(&self.file, &rest[..upto], offset) {
                Ok(0) => return Err(at(&self.path, &io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    offset += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(at(&self.path, &errno.into())),
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| at(&self.path, &e))
    }

    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping> {
        check_map_range(offset, len, self.len()?)?;
        let map = MmapOptions::new()
            .offset(offset)
            .len(len)
            .map_raw(&*self.file)
            .map_err(|e| at(&self.path, &e))?;
        let file = Arc::clone(&self.file);
        Ok(Mapping::new(map.as_mut_ptr(), len, Arc::new(MappedPart { map, file, offset })))
    }
}

impl RealFile {
    /// For file systems that cannot allocate, nor take space back: write the zeros.
    fn allocate_by_writing(&self, len: u64) -> io::Result<()> {
        static ZEROS: [u8; 65_536] = [0; 65_536];
        let mut from = self.len()?;
        while from < len {
            let part = (len - from).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..part as usize], from).map_err(|e| at(&self.path, &e))?;
            from += part;
        }
        Ok(())
    }
}

impl Drop for RealFile {
    fn drop(&mut self) {
        if self.locked.load(Ordering::Relaxed) {
            // Closing would do, but for a process that is being started and has not closed its copy yet.
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}

/// Whether the open file could be had alone.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Creates `dir` and its missing parents, and syncs every directory that got a new entry.
fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dirs(parent)?;
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    sync_directory(parent)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The error with the path it is about; the kind stays.
fn at(path: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}
