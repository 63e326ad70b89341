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

/// Which import it is of. Other files, or files that were changed, are another import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Import {
    #[serde(flatten)]
    file: Source,
    /// The file of ids, if they are not the numbers of the rows or in the file itself.
    ids: Option<Source>,
    cluster: String,
    collection: String,
}

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    file: PathBuf,
    bytes: u64,
    modified_ns: u64,
}

impl Source {
    fn of(file: &Path) -> Result<Source, Failure> {
        let unreadable = |error| Failure::bad_file(format!("{}: {error}", file.display()));
        let metadata = std::fs::metadata(file).map_err(unreadable)?;
        let modified = metadata.modified().map_err(unreadable)?;
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Source {
            file: file.canonicalize().map_err(unreadable)?,
            bytes: metadata.len(),
            modified_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} bytes", self.file.display(), self.bytes)
    }
}

impl std::fmt::Display for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, ", self.file)?;
        match &self.ids {
            Some(ids) => write!(f, "ids from {ids}")?,
            None => f.write_str("without --ids")?,
        }
        write!(f, ", into '{}' of cluster {}", self.collection, self.cluster)
    }
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
    /// Reads how far an earlier run with the same `file` and `ids` got, if there was one.
    pub(crate) fn open(
        path: &Path,
        file: &Path,
        ids: Option<&Path>,
        client: &Client,
        collection: &Collection,
    ) -> Result<Progress, Failure> {
        let import = Import {
            file: Source::of(file)?,
            ids: ids.map(Source::of).transpose()?,
            cluster: client.cluster_id().to_string(),
            collection: collection.name().to_owned(),
        };
        Progress::of(path, import)
    }

    fn of(path: &Path, import: Import) -> Result<Progress, Failure> {
        let from = match std::fs::read(path) {
            Ok(bytes) => {
                let name = path.display();
                let reached: Reached = serde_json::from_slice(&bytes).map_err(|error| {
                    Failure::bad_file(format!("{name} does not say how far an import got: {error}"))
                })?;
                if reached.import != import {
                    let message = format!(
                        "{name} is of another import: {}; this is {import}, or a file was changed since. Remove it to \
                         begin anew",
                        reached.import,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_import_goes_on_with_the_same_files_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            Source::of(&path).expect("it is there")
        };
        let import = |ids: Option<Source>| Import {
            file: file("vectors.npy", "vectors"),
            ids,
            cluster: "c".into(),
            collection: "default".into(),
        };
        let (rows, names) = (import(None), Some(file("names.txt", "a\nb\n")));
        let kept = dir.path().join("progress");
        Progress::of(&kept, rows.clone()).expect("nothing yet").save(7).expect("saved");
        assert_eq!(Progress::of(&kept, rows.clone()).expect("the same").from(), 7);
        let failure = Progress::of(&kept, Import { ids: names, ..rows.clone() }).err().expect("other ids");
        let wanted = ["without --ids", "names.txt with 4 bytes", "is of another import"];
        assert!(wanted.iter().all(|wanted| failure.message.contains(wanted)), "{}", failure.message);
        assert_eq!(failure.exit, 2);
        let other = Import { collection: "words".into(), ..rows };
        assert!(Progress::of(&kept, other).is_err(), "another collection");
    }
}
