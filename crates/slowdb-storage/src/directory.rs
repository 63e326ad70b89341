//! What is in a directory, and removing a store.
//!
//! Removal begins by giving the manifest another name, durably. From then on the directory holds remains, not
//! a store, and not a damaged one either; the file of that name goes last.

use std::io;

use slowdb_disk::Disk;

use crate::error::OpenError;
use crate::manifest::{self, in_dir};

/// What the manifest is called while the store is being removed.
const REMOVED: &str = "manifest.removed";

/// What there is in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No directory, an empty one, or one where a store was about to be created.
    Absent,
    /// What a removal left that was cut short. [`remove`] finishes it; [`crate::Store::open`] finishes it and
    /// creates a store.
    Remains,
    /// A store. Whether its files are sound is found out by opening it.
    Store,
}

/// Says what is in `dir`, without changing anything.
///
/// # Errors
/// [`OpenError::ManifestMissing`] if there are files of a store, but the one that tells what belongs to it is
/// gone, and no removal took it; [`OpenError::Io`] if the directory cannot be listed.
pub fn presence(disk: &dyn Disk, dir: &str) -> Result<Presence, OpenError> {
    let names = match disk.list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Presence::Absent),
        Err(e) => return Err(e.into()),
    };
    let there = |name: &str| names.iter().any(|other| other == name);
    if there(manifest::NAME) {
        return Ok(Presence::Store);
    }
    if there(REMOVED) {
        return Ok(Presence::Remains);
    }
    // The manifest is the first file that a store has, so others without it are what is left of a store.
    match names.into_iter().find(|name| name != manifest::NAME_TEMPORARY) {
        Some(file) => Err(OpenError::ManifestMissing { dir: dir.into(), file }),
        None => Ok(Presence::Absent),
    }
}

/// Removes the store in the directory `dir` and the directory with it, durably. The store and its checkpoints
/// are dropped before, and `dir` is not the root of the disk.
///
/// Readers and snapshots need not be: they go on, as what is mapped stays when its files lose their names. The
/// disk has the room back when the last of them is gone. A store can be created under the same name before
/// that, and is another one. So a store can be replaced by one in a directory beside it at any time: open the
/// new one, drop the old one, remove the old one's directory.
///
/// Does nothing if there is no such directory. After a crash on the way, or an error, [`presence`] finds the
/// whole store, [`Presence::Remains`] or [`Presence::Absent`], and removing can be begun again. A store whose
/// manifest is missing goes too, and is found as such until it is gone.
///
/// # Errors
/// If the disk fails, or if there are directories in `dir`, which are nothing of the store's.
pub fn remove(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    if dir.is_empty() {
        let why = "a store in the root of a disk cannot be removed: the root stays";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    if disk.exists(dir)? {
        match disk.rename(&in_dir(dir, manifest::NAME), &in_dir(dir, REMOVED)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => disk.sync_dir(dir)?,
        }
        remove_others(disk, dir)?;
    }
    disk.remove_dir_all(dir)
}

/// Finishes a removal that was cut short, but for the directory.
pub(crate) fn clear_remains(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    // Its name may not be durable yet.
    disk.sync_dir(dir)?;
    remove_others(disk, dir)?;
    disk.remove(&in_dir(dir, REMOVED))?;
    disk.sync_dir(dir)
}

/// Removes, durably, all but the file that says that the store is being removed.
fn remove_others(disk: &dyn Disk, dir: &str) -> io::Result<()> {
    for name in disk.list(dir)?.iter().filter(|name| *name != REMOVED) {
        disk.remove(&in_dir(dir, name))?;
    }
    disk.sync_dir(dir)
}
