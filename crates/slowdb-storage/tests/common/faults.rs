//! A disk that fails what a test tells it to fail, with the error that the test wants.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::{Arc, Mutex};

use slowdb_disk::{Disk, DiskFile, Mapping, SimDisk, Space};

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Allocate,
    Write,
    Sync,
    SyncDir,
    Remove,
}

/// The next such operation on a file whose name begins like this (any name: `""`) fails like that.
type Fault = (Op, &'static str, ErrorKind);

/// A simulated disk with such faults. Clones are handles to one disk.
#[derive(Clone)]
pub(crate) struct FaultyDisk {
    pub(crate) sim: SimDisk,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl FaultyDisk {
    pub(crate) fn new() -> Self {
        Self { sim: SimDisk::new(), fault: Arc::default() }
    }

    pub(crate) fn fail(&self, op: Op, name: &'static str, kind: ErrorKind) {
        *self.fault.lock().unwrap() = Some((op, name, kind));
    }

    /// Whether the fault that was asked for has been met.
    pub(crate) fn has_failed(&self) -> bool {
        self.fault.lock().unwrap().is_none()
    }

    fn check(&self, op: Op, path: &str) -> io::Result<()> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let met = |fault: &mut Fault| fault.0 == op && name.starts_with(fault.1);
        self.fault.lock().unwrap().take_if(met).map_or(Ok(()), |(.., kind)| Err(kind.into()))
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.sim.open(path, create)?;
        Ok(Arc::new(FaultyFile { file, path: path.into(), disk: self.clone() }))
    }
    fn exists(&self, path: &str) -> io::Result<bool> {
        self.sim.exists(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.sim.list(dir)
    }
    fn create_dir_all(&self, dir: &str) -> io::Result<()> {
        self.sim.create_dir_all(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.check(Op::Remove, path)?;
        self.sim.remove(path)
    }
    fn remove_dir_all(&self, dir: &str) -> io::Result<()> {
        self.sim.remove_dir_all(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if let Err(e) = self.check(Op::SyncDir, dir) {
            self.sim.fail_sync_in(0);
            assert!(self.sim.sync_dir(dir).is_err());
            return Err(e);
        }
        self.sim.sync_dir(dir)
    }
    fn space(&self) -> io::Result<Space> {
        self.sim.space()
    }
}

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    path: String,
    disk: FaultyDisk,
}

impl DiskFile for FaultyFile {
    fn lock(&self) -> io::Result<bool> {
        self.file.lock()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.check(Op::Allocate, &self.path)?;
        self.file.allocate(offset, len)
    }
    fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.give_back(offset, len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.disk.check(Op::Write, &self.path)?;
        self.file.write_at(bufs, offset)
    }
    fn sync(&self) -> io::Result<()> {
        if let Err(e) = self.disk.check(Op::Sync, &self.path) {
            // What it should have made durable never will be.
            self.disk.sim.fail_sync_in(0);
            assert!(self.file.sync().is_err());
            return Err(e);
        }
        self.file.sync()
    }
    fn map(&self, offset: u64, len: usize) -> io::Result<Mapping> {
        self.file.map(offset, len)
    }
}
