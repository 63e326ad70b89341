//! The manifest: the one file that says what the last durable checkpoint consists of.
//!
//! It is written under a temporary name, synced, and renamed; a crash leaves the old one or the new one.

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
pub(crate) const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SLOWDBMF";
pub(crate) const NAME: &str = "manifest";
pub(crate) const NAME_TEMPORARY: &str = "manifest.tmp";
/// magic, format version, zero, length of the body, checksum.
const HEAD_BYTES: usize = 40;

/// What a checkpoint consists of.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) dimension: u32,
    pub(crate) slots_log2: u32,
    pub(crate) heap_log2: u32,
    pub(crate) hash_seed: u64,
    /// Slots below this number have been used.
    pub(crate) slots: u64,
    /// Bytes of the heap below this one have been used.
    pub(crate) heap_len: u64,
    pub(crate) records: u64,
    pub(crate) digest: u128,
    /// The number of the index file; none before there is a record.
    pub(crate) index: Option<u64>,
    /// The caller's words.
    pub(crate) mark: Vec<u8>,
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

    fn encode(&self) -> io::Result<Vec<u8>> {
        let body = rkyv::to_bytes::<RkyvError>(self).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        let sum = checksum(&bytes, &body);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads the manifest of a directory that has one.
    pub(crate) fn read(disk: &dyn Disk, dir: &str) -> Result<Self, OpenError> {
        let path = in_dir(dir, NAME);
        let file = disk.open(&path, false)?;
        Self::decode(&path, &*file)
    }

    fn decode(path: &str, file: &dyn DiskFile) -> Result<Self, OpenError> {
        let corrupt = |what| Corruption { file: path.to_owned(), offset: 0, slot: None, what };
        let len = file.len()?;
        if len < HEAD_BYTES as u64 {
            return Err(corrupt("shorter than a manifest's head").into());
        }
        let mut head = [0; HEAD_BYTES];
        file.read_at(&mut head, 0)?;
        if head[..8] != MAGIC {
            return Err(corrupt("not a manifest: wrong magic").into());
        }
        let found = u32::from_le_bytes(head[8..12].try_into().unwrap_or_default());
        if found != FORMAT_VERSION {
            return Err(OpenError::UnknownFormat { file: path.into(), found, known: FORMAT_VERSION });
        }
        let body_len = u64::from_le_bytes(head[16..24].try_into().unwrap_or_default());
        if body_len != len - HEAD_BYTES as u64 {
            return Err(corrupt("the length does not fit").into());
        }
        let mut body: AlignedVec = AlignedVec::with_capacity(body_len as usize);
        body.resize(body_len as usize, 0);
        file.read_at(&mut body, HEAD_BYTES as u64)?;
        let sum = u128::from_le_bytes(head[24..40].try_into().unwrap_or_default());
        if sum != checksum(&head[..24], &body) {
            return Err(corrupt("the checksum does not fit").into());
        }
        let manifest = rkyv::access::<ArchivedManifest, RkyvError>(&body)
            .and_then(rkyv::deserialize::<Self, RkyvError>)
            .map_err(|_| corrupt("the archive does not validate"))?;
        if manifest.is_sane() { Ok(manifest) } else { Err(corrupt("impossible measures").into()) }
    }

    /// Whether the measures are ones that this crate could have written.
    fn is_sane(&self) -> bool {
        (1..=crate::DIMENSION_MAX as u32).contains(&self.dimension)
            && self.slots_log2 <= 30
            && (17..=30).contains(&self.heap_log2)
            && self.slots <= crate::SLOTS_MAX
            && self.records <= self.slots
            && self.heap_len <= 1 << 56
            && (self.index.is_some() || self.records == 0)
    }
}

/// Removes what no manifest refers to: remains of checkpoints that did not become durable.
pub(crate) fn remove_remains(disk: &dyn Disk, dir: &str, index: Option<u64>) -> io::Result<()> {
    let keep = index.map(index_name);
    for name in disk.list(dir)? {
        let stale_index = name.starts_with(INDEX_PREFIX) && Some(&name) != keep.as_ref();
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
