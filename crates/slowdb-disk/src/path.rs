//! What a path on a disk may look like. The same rule for the real and the simulated disk, so that neither
//! can be led outside its root.

use std::io;

/// Refuses anything but relative paths of plain components.
pub(crate) fn check_file(path: &str) -> io::Result<()> {
    if path.is_empty() {
        return Err(bad(path));
    }
    check_dir(path)
}

/// As [`check_file`], but the empty path, the root, is a directory.
pub(crate) fn check_dir(path: &str) -> io::Result<()> {
    let plain = |c: &str| !c.is_empty() && c != "." && c != ".." && !c.contains(['\0', '\\']);
    if path.is_empty() || path.split('/').all(plain) { Ok(()) } else { Err(bad(path)) }
}

/// The directory a path is in; the root is the empty path.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// Renames stay in one directory, so that one directory sync makes them durable.
pub(crate) fn check_rename(from: &str, to: &str) -> io::Result<()> {
    check_file(from)?;
    check_file(to)?;
    if parent(from) == parent(to) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("cannot rename {from:?} to {to:?}: renames stay inside one directory"),
    ))
}

fn bad(path: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("bad path {path:?}: paths are relative to the disk's root, without empty, '.' or '..' parts"),
    )
}
