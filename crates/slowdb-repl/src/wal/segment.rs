//! Segment files: their names and headers, creating them, and the ones kept to be written again.
//!
//! A file keeps its name for life, `NNNNNNNN.seg`; which segment of the log it is, if any, its header says.
//! So a segment is recycled by writing another header, and no rename need be made durable.

use std::io;
use std::sync::Arc;

use slowdb_disk::{Disk, DiskFile};

use super::error::{Corruption, CorruptionKind, WalOpenError};
use super::format::{COPY_OFFSETS, HEADER_AREA, HeaderCopy, SEGMENT_HEADER, SegmentHeader};

/// A file that holds a segment or can hold one.
#[derive(Clone)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
    /// Which copy of the header is written first: where one of them is damaged or outdated, that one.
    first_copy: usize,
}

/// A file as found when the log is opened.
pub(super) struct FoundFile {
    pub(super) segment: SegmentFile,
    /// Its header, unless it was never used.
    pub(super) header: Option<SegmentHeader>,
    /// Whether one of the two copies of the header is damaged or outdated.
    pub(super) copies_differ: bool,
}

/// The number in the name of a segment file.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

impl SegmentFile {
    /// Makes the header durable, first one copy, then the other.
    ///
    /// So one of the copies is whole at any moment, the old one or the new one; and a segment gets its
    /// first record only when both are.
    pub(super) fn write_header(&self, header: &SegmentHeader) -> io::Result<()> {
        for copy in [self.first_copy, 1 - self.first_copy] {
            self.file.write_at(&[io::IoSlice::new(&header.encode())], COPY_OFFSETS[copy])?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// Reads the header. A file that ends before was being created when a crash came.
    fn inspect(mut self) -> Result<FoundFile, WalOpenError> {
        let mut best: Option<SegmentHeader> = None;
        let (mut zero, mut valid) = (0, 0);
        let mut copies = [HeaderCopy::Zero; 2];
        if self.bytes < u64::from(HEADER_AREA) {
            return Ok(FoundFile { segment: self, header: None, copies_differ: false });
        }
        for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
            let mut bytes = [0; SEGMENT_HEADER];
            self.file.read_at(&mut bytes, offset).map_err(|error| open_io("reading", &self.name, error))?;
            copies[copy] = SegmentHeader::decode(&bytes);
            match copies[copy] {
                HeaderCopy::Zero => zero += 1,
                HeaderCopy::Bad => {}
                HeaderCopy::Version(version) => {
                    return Err(WalOpenError::UnsupportedVersion { file: self.name, version });
                }
                HeaderCopy::Valid(header) => {
                    valid += 1;
                    if best.is_none_or(|best| best.age() < header.age()) {
                        self.first_copy = 1 - copy;
                        best = Some(header);
                    }
                }
            }
        }
        // Where one copy was never written, no record was either: the first header got stuck half way.
        if valid == 0 && zero == 0 {
            return Err(corrupt(&self.name, 0, CorruptionKind::SegmentHeader).into());
        }
        if let Some(header) = best.filter(|header| header.active && header.segment_bytes != self.bytes) {
            let what = CorruptionKind::FileLength { expected: header.segment_bytes, actual: self.bytes };
            return Err(corrupt(&self.name, self.bytes.min(header.segment_bytes), what).into());
        }
        Ok(FoundFile { segment: self, header: best, copies_differ: copies[0] != copies[1] })
    }
}

/// The directory of the log: its files, and the ones that can be used again.
pub(super) struct Pool {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: String,
    next_number: u64,
    pub(super) spares: Vec<SegmentFile>,
}

impl Pool {
    /// Looks at all segment files of the directory, which is created if need be.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<(Self, Vec<FoundFile>), WalOpenError> {
        disk.create_dir_all(dir).map_err(|error| open_io("creating", dir, error))?;
        let names = disk.list(dir).map_err(|error| open_io("listing", dir, error))?;
        let mut pool = Self { disk, dir: dir.to_owned(), next_number: 1, spares: Vec::new() };
        let mut found = Vec::new();
        for name in names {
            let Some(number) = number_of(&name) else { continue };
            pool.next_number = pool.next_number.max(number.saturating_add(1));
            let path = pool.path(&name);
            let file = pool.disk.open(&path, false).map_err(|error| open_io("opening", &path, error))?;
            let bytes = file.len().map_err(|error| open_io("reading the length of", &path, error))?;
            found.push(SegmentFile { name: path, file, bytes, first_copy: 0 }.inspect()?);
        }
        Ok((pool, found))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Creates a file of this size that has never been used, durably.
    pub(super) fn create(&mut self, bytes: u64) -> Result<SegmentFile, (String, io::Error)> {
        let name = self.path(&format!("{:08}.seg", self.next_number));
        self.next_number += 1;
        let create = || {
            let file = self.disk.open(&name, true)?;
            file.allocate(0, bytes)?;
            file.sync()?;
            self.disk.sync_dir(&self.dir)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(SegmentFile { name, file, bytes, first_copy: 0 }),
            Err(error) => {
                // What is left of it would only take space until the next opening removes it.
                let _ = self.disk.remove(&name);
                Err((name, error))
            }
        }
    }

    /// A spare file of this size, or a new one.
    pub(super) fn take(&mut self, bytes: u64) -> Result<SegmentFile, (String, io::Error)> {
        match self.spares.iter().position(|spare| spare.bytes == bytes) {
            Some(place) => Ok(self.spares.remove(place)),
            None => self.create(bytes),
        }
    }

    /// Keeps files to be written again, as long as their size is right and there are not too many,
    /// and removes the others.
    pub(super) fn give_back(
        &mut self,
        files: Vec<SegmentFile>,
        segment_bytes: u64,
        spares_max: usize,
    ) -> Result<(), (String, io::Error)> {
        let mut removed = false;
        for segment in files {
            if segment.bytes == segment_bytes && self.spares.len() < spares_max {
                self.spares.push(segment);
            } else {
                self.disk.remove(&segment.name).map_err(|error| (segment.name, error))?;
                removed = true;
            }
        }
        if removed {
            self.disk.sync_dir(&self.dir).map_err(|error| (self.dir.clone(), error))?;
        }
        Ok(())
    }
}

/// A report that names no groups.
pub(super) fn corrupt(file: &str, offset: u64, what: CorruptionKind) -> Corruption {
    Corruption { file: file.to_owned(), offset, what, groups: Vec::new() }
}

/// The disk failed while the log was opened.
pub(super) fn open_io(operation: &'static str, path: &str, source: io::Error) -> WalOpenError {
    WalOpenError::Io { operation, path: path.to_owned(), source }
}
