//! The manifest: the one file that says what the last durable checkpoint consists of.
//!
//! It is written under a temporary name, synced, and renamed; a crash leaves the old one or the new one. It holds
//! everything twice, so that a damaged place in it costs nothing.

use std::io::{self, IoSlice};
use std::sync::Arc;

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_disk::{Disk, DiskFile};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Corruption, OpenError};
use crate::layout::{Geometry, stride};

/// The version of all of a store's files. A store of another version is refused by name.
pub(crate) const FORMAT_VERSION: u32 = 3;
/// The oldest that is read. There is nothing in it that the newest has not.
pub(crate) const FORMAT_OLDEST: u32 = 2;
const MAGIC: [u8; 8] = *b"SLOWDBMF";
pub(crate) const NAME: &str = "manifest";
pub(crate) const NAME_TEMPORARY: &str = "manifest.tmp";
/// magic, format version, zero, length of the body, checksum.
const HEAD_BYTES: usize = 40;
/// A copy takes a multiple of this.
const COPY_ALIGN: usize = 4096;
const COPIES: u64 = 2;

/// What a checkpoint consists of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) dimension: u32,
    pub(crate) slots_log2: u32,
    pub(crate) heap_log2: u32,
    pub(crate) hash_seed: u64,
    /// Slots below this number have been used.
    pub(crate) slots: u64,
    /// The extent of the heap that the next record goes to if there is room left in it.
    pub(crate) heap_current: Option<u32>,
    pub(crate) records: u64,
    pub(crate) digest: u128,
    /// The number of the newest index file, which leads to those below it; none before there is a record.
    pub(crate) index: Option<u64>,
    /// The extents of the heap.
    pub(crate) heap: Vec<HeapUse>,
    /// The caller's words.
    pub(crate) mark: Vec<u8>,
}

/// How much of an extent of the heap is in use, in bytes.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeapUse {
    /// From its beginning to the end of the last record in it.
    pub(crate) filled: u32,
    /// Of records that live.
    pub(crate) live: u32,
}

impl Manifest {
    /// Writes the temporary file, which is not synced. It becomes the manifest by [`Manifest::publish`].
    pub(crate) fn write(&self, disk: &dyn Disk, dir: &str) -> io::Result<Arc<dyn DiskFile>> {
        let bytes = self.encode()?;
        let file = disk.open(&in_dir(dir, NAME_TEMPORARY), true)?;
        file.truncate(0)?;
        // So that a full disk is noticed here, and not by the sync.
        file.allocate(0, bytes.len() as u64)?;
        file.write_at(&[IoSlice::new(&bytes)], 0)?;
        Ok(file)
    }

    /// Turns the temporary file, which is synced, into the manifest, durably.
    pub(crate) fn publish(disk: &dyn Disk, dir: &str) -> io::Result<()> {
        disk.rename(&in_dir(dir, NAME_TEMPORARY), &in_dir(dir, NAME))?;
        disk.sync_dir(dir)
    }

    pub(crate) fn geometry(&self) -> Geometry {
        let dimension = self.dimension as usize;
        Geometry {
            dimension,
            stride: stride(dimension),
            slots_log2: self.slots_log2,
            heap_log2: self.heap_log2,
        }
    }

    /// Both copies.
    fn encode(&self) -> io::Result<Vec<u8>> {
        let body = rkyv::to_bytes::<RkyvError>(self).map_err(io::Error::other)?;
        let copy_bytes = (HEAD_BYTES + body.len()).next_multiple_of(COPY_ALIGN);
        let mut bytes = Vec::with_capacity(copy_bytes * COPIES as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let sum = checksum(&bytes, &body);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(copy_bytes, 0);
        bytes.extend_from_within(..);
        Ok(bytes)
    }

    /// Reads the manifest of a directory that has one. Says also what of it is damaged, if one copy of it is
    /// good.
    pub(crate) fn read(disk: &dyn Disk, dir: &str) -> Result<(Self, Vec<Corruption>), OpenError> {
        let path = in_dir(dir, NAME);
        let file = disk.open(&path, false)?;
        let len = file.len()?;
        let mut first = vec![0; len.min(HEAD_BYTES as u64) as usize];
        file.read_at(&mut first, 0)?;
        if !len.is_multiple_of(COPIES * COPY_ALIGN as u64) || len == 0 {
            // Before anything else: a manifest of another format may be of any length.
            check_format(&path, &first)?;
            let what = "not two copies of a manifest, of whole pages";
            return Err(Corruption { file: path, offset: 0, slot: None, what }.into());
        }
        let copy_bytes = len / COPIES;
        let copy = |n| Self::read_copy(&path, &*file, n * copy_bytes, copy_bytes);
        match (copy(0)?, copy(1)?) {
            // A crash leaves no file with two different ones.
            (Ok(one), Ok(other)) if one != other => {
                let what = "the copies differ";
                Err(Corruption { file: path, offset: copy_bytes, slot: None, what }.into())
            }
            (Ok(manifest), other) => Ok((manifest, other.err().into_iter().collect())),
            (Err(damage), Ok(manifest)) => Ok((manifest, vec![damage])),
            (Err(damage), Err(_)) => {
                check_format(&path, &first)?;
                Err(damage.into())
            }
        }
    }

    /// One copy, or what is wrong with it.
    fn read_copy(
        path: &str,
        file: &dyn DiskFile,
        offset: u64,
        len: u64,
    ) -> Result<Result<Self, Corruption>, OpenError> {
        let mut bytes = vec![0; len as usize];
        file.read_at(&mut bytes, offset)?;
        let corrupt = |what| Corruption { file: path.to_owned(), offset, slot: None, what };
        Ok(Self::decode(&bytes).map_err(corrupt))
    }

    fn decode(copy: &[u8]) -> Result<Self, &'static str> {
        let (head, rest) = copy.split_at(HEAD_BYTES);
        if head[..8] != MAGIC {
            return Err("not a manifest: wrong magic");
        }
        if !is_known(head[8..12].try_into().unwrap_or_default()) {
            return Err("another format version");
        }
        let body_len = u64::from_le_bytes(head[16..24].try_into().unwrap_or_default());
        let Some((body, zeros)) = usize::try_from(body_len).ok().and_then(|len| rest.split_at_checked(len))
        else {
            return Err("the length does not fit");
        };
        let sum = u128::from_le_bytes(head[24..40].try_into().unwrap_or_default());
        if sum != checksum(&head[..24], body) {
            return Err("the checksum does not fit");
        }
        if zeros.iter().any(|b| *b != 0) {
            return Err("the padding is not zero");
        }
        let mut aligned: AlignedVec = AlignedVec::with_capacity(body.len());
        aligned.extend_from_slice(body);
        let manifest = rkyv::access::<ArchivedManifest, RkyvError>(&aligned)
            .and_then(rkyv::deserialize::<Self, RkyvError>)
            .map_err(|_| "the archive does not validate")?;
        if manifest.is_sane() { Ok(manifest) } else { Err("impossible measures") }
    }

    /// Whether the measures are ones that this crate could have written.
    fn is_sane(&self) -> bool {
        (1..=crate::DIMENSION_MAX as u32).contains(&self.dimension)
            && self.slots_log2 <= 30
            && (17..=30).contains(&self.heap_log2)
            && self.slots <= crate::SLOTS_MAX
            && self.records <= self.slots
            && (self.index.is_some() || self.records == 0)
            && self.heap.len() as u64 <= 1 << (56 - self.heap_log2)
            && self
                .heap
                .iter()
                .all(|extent| extent.live <= extent.filled && extent.filled <= 1 << self.heap_log2)
            && self.heap_current.is_some() != self.heap.is_empty()
            && self.heap_current.is_none_or(|current| (current as usize) < self.heap.len())
    }
}

/// Refuses a manifest of another format by its number.
fn check_format(path: &str, head: &[u8]) -> Result<(), OpenError> {
    let Some(version) = head.strip_prefix(&MAGIC).and_then(|rest| rest.first_chunk()) else { return Ok(()) };
    if is_known(*version) {
        return Ok(());
    }
    let found = u32::from_le_bytes(*version);
    Err(OpenError::UnknownFormat { file: path.into(), found, known: FORMAT_VERSION })
}

fn is_known(version: [u8; 4]) -> bool {
    (FORMAT_OLDEST..=FORMAT_VERSION).contains(&u32::from_le_bytes(version))
}

/// Removes what no manifest refers to: remains of checkpoints that did not become durable.
pub(crate) fn remove_remains(disk: &dyn Disk, dir: &str, indexes: &[u64]) -> io::Result<()> {
    let keep: Vec<String> = indexes.iter().copied().map(index_name).collect();
    for name in disk.list(dir)? {
        let stale_index = name.starts_with(INDEX_PREFIX) && !keep.contains(&name);
        if stale_index || name == NAME_TEMPORARY {
            disk.remove(&in_dir(dir, &name))?;
        }
    }
    Ok(())
}

const INDEX_PREFIX: &str = "index-";

/// The name of the index file of this number.
pub(crate) fn index_name(generation: u64) -> String {
    format!("{INDEX_PREFIX}{generation:016x}")
}

pub(crate) fn in_dir(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

fn checksum(head: &[u8], body: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(body);
    hasher.digest128()
}
