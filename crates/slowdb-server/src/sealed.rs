//! Small files that are replaced as a whole: checksummed, and either the old or the new one after a crash.
//!
//! ```text
//! 0..4    magic
//! 4..8    version    u32   1
//! 8..16   length     u64   of the content
//! 16..24  checksum   u64   xxh3-64 of bytes 0 to 16 and the content
//! 24..    content
//! ```

use rkyv::util::AlignedVec;
use slowdb_disk::Disk;
use std::io::{self, IoSlice};
use xxhash_rust::xxh3::Xxh3;

const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const CONTENT_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(String),
}

/// Reads a file's content when a node starts, and makes sure that it stays; `None` if there is no such file. A process
/// before this one may have ended because a sync failed: what is read then may not be what a power loss leaves.
pub(crate) fn recover(disk: &dyn Disk, path: &str, magic: [u8; 4]) -> Result<Option<AlignedVec>, SealError> {
    let content = read(disk, path, magic)?;
    if let Some(content) = &content {
        write(disk, path, magic, content)?;
    }
    Ok(content)
}

/// Reads a file's content; `None` if there is no such file.
pub(crate) fn read(disk: &dyn Disk, path: &str, magic: [u8; 4]) -> Result<Option<AlignedVec>, SealError> {
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, false)?;
    let len = file.len()?;
    if len < HEADER_BYTES as u64 {
        return Err(SealError::Damaged(format!("{len} bytes, less than a header")));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let version = (word(0) >> 32) as u32;
    if header[..4] != magic {
        return Err(SealError::Damaged("it does not begin as such a file should".into()));
    }
    if version != VERSION {
        return Err(SealError::Damaged(format!(
            "its format is version {version}, this program knows {VERSION}"
        )));
    }
    let content_len = word(8);
    if content_len > CONTENT_BYTES_MAX || content_len + HEADER_BYTES as u64 > len {
        return Err(SealError::Damaged(format!("it says {content_len} bytes, the file has {len}")));
    }
    let mut content = AlignedVec::with_capacity(content_len as usize);
    content.resize(content_len as usize, 0);
    file.read_at(&mut content, HEADER_BYTES as u64)?;
    if checksum(&header[..16], &content) != word(16) {
        return Err(SealError::Damaged("its checksum does not match: it is damaged".into()));
    }
    Ok(Some(content))
}

/// Replaces a file, durably.
pub(crate) fn write(disk: &dyn Disk, path: &str, magic: [u8; 4], content: &[u8]) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&magic);
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let sum = checksum(&header[..16], content);
    header[16..].copy_from_slice(&sum.to_le_bytes());
    let temporary = format!("{path}.new");
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let file = disk.open(&temporary, true)?;
    file.write_at(&[IoSlice::new(&header), IoSlice::new(content)], 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir))
}

fn checksum(head: &[u8], content: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(head);
    hash.update(content);
    hash.digest()
}

#[cfg(test)]
mod tests;
