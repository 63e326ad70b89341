//! How far an import got, in a file: what was interrupted goes on from there.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use slowdb_client::{Client, Collection};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// It is written so often at most.
const PAUSE: Duration = Duration::from_millis(500);

/// Which import it is of. Another file, or one that was changed, is another import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Import {
    file: PathBuf,
    bytes: u64,
    modified_ns: u128,
    cluster: String,
    collection: String,
}

#[derive(Serialize, Deserialize)]
struct Reached {
    import: Import,
    /// So many records from the first one on are written.
    records: u64,
}

/// A file that says how far an import got.
pub(crate) struct Progress {
    path: PathBuf,
    import: Import,
    from: u64,
    written_at: Mutex<Option<Instant>>,
}

impl Progress {
    /// Reads how far an earlier run got, if there was one.
    pub(crate) fn open(
        path: &Path,
        file: &Path,
        client: &Client,
        collection: &Collection,
    ) -> Result<Progress, Failure> {
        let unreadable = |error| Failure::bad_file(format!("{}: {error}", file.display()));
        let metadata = std::fs::metadata(file).map_err(unreadable)?;
        let modified = metadata.modified().map_err(unreadable)?;
        let import = Import {
            file: file.canonicalize().map_err(unreadable)?,
            bytes: metadata.len(),
            modified_ns: modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos(),
            cluster: client.cluster_id().to_string(),
            collection: collection.name().to_owned(),
        };
        let from = match std::fs::read(path) {
            Ok(bytes) => {
                let name = path.display();
                let reached: Reached = serde_json::from_slice(&bytes).map_err(|error| {
                    Failure::bad_file(format!("{name} does not say how far an import got: {error}"))
                })?;
                if reached.import != import {
                    let message = format!(
                        "{name} is of another import: {} with {} bytes into '{}' of cluster {}; this is {} with {} \
                         bytes into '{}' of cluster {}, or the file was changed since. Remove it to begin anew",
                        reached.import.file.display(),
                        reached.import.bytes,
                        reached.import.collection,
                        reached.import.cluster,
                        import.file.display(),
                        import.bytes,
                        import.collection,
                        import.cluster
                    );
                    return Err(Failure::bad_file(message));
                }
                reached.records
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(Failure::bad_file(format!("{}: {error}", path.display()))),
        };
        Ok(Progress { path: path.to_owned(), import, from, written_at: Mutex::new(None) })
    }

    /// Records that are written already.
    pub(crate) fn from(&self) -> u64 {
        self.from
    }

    /// So many more are written, from there on without a gap. Written down now and then.
    pub(crate) fn reach(&self, more: u64) {
        let Ok(mut written_at) = self.written_at.lock() else { return };
        if written_at.is_none_or(|at| at.elapsed() >= PAUSE) {
            *written_at = Some(Instant::now());
            // It costs a repetition if it cannot be written; it is said when the import ends.
            let _ = self.save(more);
        }
    }

    /// Writes down how far it got in the end.
    pub(crate) fn save(&self, more: u64) -> Result<(), Failure> {
        let reached = Reached { import: self.import.clone(), records: self.from + more };
        let failed = |error: std::io::Error| {
            Failure::internal(format!("{}: how far it got cannot be written: {error}", self.path.display()))
        };
        let text = serde_json::to_vec(&reached).map_err(|error| Failure::internal(error.to_string()))?;
        let mut partial = self.path.clone().into_os_string();
        partial.push(".part");
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&partial, &self.path)
        };
        write().map_err(failed)
    }

    /// All is written: there is nothing to go on with.
    pub(crate) fn done(&self) {
        // If it stays, the next run finds that nothing is left to do.
        let _ = std::fs::remove_file(&self.path);
    }
}
