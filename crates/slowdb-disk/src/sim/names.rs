//! The directory tree of the simulated disk: names as programs see them, names as a crash would leave
//! them, and the changes in between. File contents are not its business.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::parent;

/// Identity of a file, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// One change of names that is not durable yet. Changes name the file they are about, so that any subset
/// of them, applied in order, leaves a consistent directory.
enum Change {
    Create { path: String, id: FileId },
    Rename { from: String, to: String, id: FileId },
    Remove { path: String, id: FileId },
    RemoveDir { path: String },
}

struct Pending {
    /// The directory whose sync makes the change durable.
    dir: String,
    change: Change,
}

/// The tree, twice, and what lies between. The root directory always exists and has no entry.
#[derive(Default)]
pub(super) struct Names {
    seen: Tree,
    durable: Tree,
    pending: Vec<Pending>,
}

#[derive(Default)]
struct Tree {
    files: BTreeMap<String, FileId>,
    dirs: BTreeSet<String>,
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { path, id } => {
                self.files.insert(path.clone(), *id);
            }
            Change::Rename { from, to, id } => {
                self.remove(from, *id);
                self.files.insert(to.clone(), *id);
            }
            Change::Remove { path, id } => self.remove(path, *id),
            Change::RemoveDir { path } => {
                let inside = format!("{path}/");
                let empty = !self.files.keys().chain(&self.dirs).any(|p| p.starts_with(&inside));
                if empty {
                    self.dirs.remove(path);
                }
            }
        }
    }

    fn remove(&mut self, path: &str, id: FileId) {
        if self.files.get(path) == Some(&id) {
            self.files.remove(path);
        }
    }
}

impl Names {
    pub(super) fn file(&self, path: &str) -> io::Result<FileId> {
        match self.seen.files.get(path) {
            Some(id) => Ok(*id),
            None if self.is_dir(path) => Err(io::Error::new(io::ErrorKind::IsADirectory, path.to_owned())),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn is_dir(&self, path: &str) -> bool {
        path.is_empty() || self.seen.dirs.contains(path)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.is_dir(path) || self.seen.files.contains_key(path)
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        if !self.is_dir(dir) {
            return Err(not_found(dir));
        }
        let mut names: Vec<String> = self
            .seen
            .files
            .keys()
            .chain(&self.seen.dirs)
            .filter(|path| parent(path) == dir)
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    pub(super) fn create(&mut self, path: &str, id: FileId) -> io::Result<()> {
        if !self.is_dir(parent(path)) {
            return Err(not_found(path));
        }
        self.change(parent(path), Change::Create { path: path.into(), id });
        Ok(())
    }

    pub(super) fn create_dirs(&mut self, dir: &str) -> io::Result<()> {
        let ends = dir.match_indices('/').map(|(at, _)| at).chain([dir.len()]);
        for end in ends {
            let path = &dir[..end];
            if self.seen.files.contains_key(path) {
                return Err(io::Error::new(io::ErrorKind::NotADirectory, path.to_owned()));
            }
            // It is here to stay, though an earlier removal may have been left unsynced.
            self.pending.retain(|p| !matches!(&p.change, Change::RemoveDir { path: gone } if gone == path));
            self.seen.dirs.insert(path.into());
            self.durable.dirs.insert(path.into());
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let id = self.file(from)?;
        if self.is_dir(to) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, to.to_owned()));
        }
        if from != to {
            self.change(parent(from), Change::Rename { from: from.into(), to: to.into(), id });
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<()> {
        let id = self.file(path)?;
        self.change(parent(path), Change::Remove { path: path.into(), id });
        Ok(())
    }

    /// Removes a directory and all in it as programs see it; says whether there was one. The removals are
    /// pending on the parent, as [`Names::sync_removed`] expects.
    pub(super) fn remove_dir(&mut self, dir: &str) -> io::Result<bool> {
        if self.seen.files.contains_key(dir) {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, dir.to_owned()));
        }
        if !self.is_dir(dir) {
            return Ok(false);
        }
        let inside = format!("{dir}/");
        let files: Vec<(String, FileId)> = self
            .seen
            .files
            .iter()
            .filter(|(path, _)| path.starts_with(&inside))
            .map(|(path, id)| (path.clone(), *id))
            .collect();
        // The deepest directories first, so that each is empty when its turn comes.
        let mut dirs: Vec<String> =
            self.seen.dirs.iter().filter(|path| path.starts_with(&inside)).cloned().collect();
        dirs.reverse();
        dirs.push(dir.into());
        let on = parent(dir).to_owned();
        for (path, id) in files {
            self.change(&on, Change::Remove { path, id });
        }
        for path in dirs {
            self.change(&on, Change::RemoveDir { path });
        }
        Ok(true)
    }

    /// Makes what [`Names::remove_dir`] did durable, whatever else was pending inside.
    pub(super) fn sync_removed(&mut self, dir: &str) {
        let inside = format!("{dir}/");
        self.pending.retain(|p| match &p.change {
            Change::Create { path, .. } | Change::Remove { path, .. } | Change::RemoveDir { path } => {
                path != dir && !path.starts_with(&inside)
            }
            Change::Rename { to, .. } => !to.starts_with(&inside),
        });
        self.durable.files.retain(|path, _| !path.starts_with(&inside));
        self.durable.dirs.retain(|path| path != dir && !path.starts_with(&inside));
    }

    pub(super) fn sync(&mut self, dir: &str) {
        let durable = &mut self.durable;
        self.pending.retain(|p| {
            if p.dir == dir {
                durable.apply(&p.change);
            }
            p.dir != dir
        });
    }

    /// Keeps or forgets each pending change.
    pub(super) fn crash(&mut self, rng: &mut impl FnMut() -> u64) {
        for p in std::mem::take(&mut self.pending) {
            if rng() & 1 == 1 {
                self.durable.apply(&p.change);
            }
        }
        self.seen.files.clone_from(&self.durable.files);
        self.seen.dirs.clone_from(&self.durable.dirs);
    }

    /// The files a program can name.
    pub(super) fn named_files(&self) -> impl Iterator<Item = FileId> {
        self.seen.files.values().copied()
    }

    pub(super) fn live_files(&self) -> BTreeSet<FileId> {
        self.named_files().collect()
    }

    /// Whether the file has a name now, or could get one back by a crash.
    pub(super) fn mentions(&self, id: FileId) -> bool {
        self.seen.files.values().chain(self.durable.files.values()).any(|other| *other == id)
            || self.pending.iter().any(|p| match p.change {
                Change::Create { id: other, .. }
                | Change::Rename { id: other, .. }
                | Change::Remove { id: other, .. } => other == id,
                Change::RemoveDir { .. } => false,
            })
    }

    fn change(&mut self, dir: &str, change: Change) {
        self.seen.apply(&change);
        self.pending.push(Pending { dir: dir.into(), change });
    }
}

pub(super) fn not_found(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{path:?} not found"))
}
