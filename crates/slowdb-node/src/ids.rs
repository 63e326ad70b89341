//! A file of ids, one a line: checked as a whole, then read again as a stream.
//!
//! Duplicates are found by sorting hashes (16 bytes for each id), and confirmed by reading the lines that
//! collided again, so that a file larger than memory's share is no problem and no id is accused falsely.

use crate::failure::Failure;
use slowdb_proto::limits::ID_BYTES_MAX;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The ids of an import, in the order of its rows.
pub(crate) enum Ids {
    /// Row numbers.
    Rows { next: u64 },
    /// Lines of a file.
    Lines(Lines),
}

/// A file read line by line.
pub(crate) struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: String,
    line_number: u64,
}

impl Ids {
    /// Row numbers, or the lines of a file after checking that there are `rows` good ids in it.
    pub(crate) fn open(path: Option<&Path>, rows: u64) -> Result<Ids, Failure> {
        let Some(path) = path else { return Ok(Ids::Rows { next: 0 }) };
        check(path, rows)?;
        Ok(Ids::Lines(Lines::open(path)?))
    }

    /// The id of the next row.
    pub(crate) fn next(&mut self) -> Result<String, Failure> {
        match self {
            Ids::Rows { next } => {
                *next += 1;
                Ok((*next - 1).to_string())
            }
            Ids::Lines(lines) => match lines.next()? {
                Some(id) => Ok(id.to_owned()),
                None => Err(lines.bad("bad_file", "the file has become shorter while it was read")),
            },
        }
    }
}

impl Lines {
    fn open(path: &Path) -> Result<Lines, Failure> {
        let file = File::open(path)
            .map_err(|error| Failure::bad_file(format!("cannot open {}: {error}", path.display())))?;
        let file = BufReader::with_capacity(1 << 16, file);
        Ok(Lines { path: path.to_owned(), file, line: String::new(), line_number: 0 })
    }

    /// The next line without its end.
    fn next(&mut self) -> Result<Option<&str>, Failure> {
        self.line.clear();
        let read = self.file.read_line(&mut self.line);
        self.line_number += 1;
        match read {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(
                self.line
                    .strip_suffix('\n')
                    .map_or(self.line.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)),
            )),
            Err(error) => Err(self.bad("bad_file", &format!("cannot be read: {error}"))),
        }
    }

    fn bad(&self, code: &str, what: &str) -> Failure {
        Failure::bad_input(code, format!("{}: line {}: {what}", self.path.display(), self.line_number))
    }
}

fn check(path: &Path, rows: u64) -> Result<(), Failure> {
    let mut lines = Lines::open(path)?;
    let mut seen = Seen::default();
    let mut ids = 0;
    while let Some(id) = lines.next()?.map(str::to_owned) {
        if id.is_empty() {
            return Err(lines.bad("bad_id", "an id is missing: the line is empty"));
        }
        if id.len() > ID_BYTES_MAX {
            let what = format!("the id has {} bytes; at most {ID_BYTES_MAX} are allowed", id.len());
            return Err(lines.bad("bad_id", &what));
        }
        seen.note(&id, lines.line_number);
        ids += 1;
    }
    if ids != rows {
        let message =
            format!("{} has {ids} ids, the vectors are {rows}: one id a line is needed", path.display());
        return Err(Failure::bad_file(message));
    }
    let suspects = seen.suspects();
    if suspects.is_empty() {
        return Ok(());
    }
    let mut lines = Lines::open(path)?;
    let next = || {
        let id = lines.next()?.map(str::to_owned);
        Ok(id.map(|id| (lines.line_number, id)))
    };
    suspects.confirm(path, next)
}

/// Ids that were seen, by their hashes and lines.
#[derive(Default)]
pub(crate) struct Seen {
    hasher: RandomState,
    hashes: Vec<(u64, u64)>,
}

impl Seen {
    /// An id is in this line.
    pub(crate) fn note(&mut self, id: &str, line: u64) {
        self.hashes.push((self.hasher.hash_one(id), line));
    }

    /// Lines whose ids may be the same as others.
    pub(crate) fn suspects(mut self) -> Suspects {
        self.hashes.sort_unstable();
        let collided = self.hashes.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        Suspects(collided.flat_map(|pair| [pair[0].1, pair[1].1]).collect())
    }
}

/// Lines whose hashes collided.
pub(crate) struct Suspects(HashSet<u64>);

impl Suspects {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads all lines again, as `next` gives them, and complains about the first id that repeats another.
    pub(crate) fn confirm(
        &self,
        path: &Path,
        mut next: impl FnMut() -> Result<Option<(u64, String)>, Failure>,
    ) -> Result<(), Failure> {
        let mut first_lines: HashMap<String, u64> = HashMap::new();
        while let Some((line, id)) = next()? {
            if !self.0.contains(&line) {
                continue;
            }
            if let Some(first) = first_lines.insert(id.clone(), line) {
                let id: String = id.chars().take(80).collect();
                let what =
                    format!("{}: line {line}: the id '{id}' is in line {first} already", path.display());
                return Err(Failure::bad_input("bad_id", what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &[u8], rows: u64) -> Result<Vec<String>, Failure> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids.txt");
        std::fs::write(&path, text).expect("written");
        let mut ids = Ids::open(Some(&path), rows)?;
        (0..rows).map(|_| ids.next()).collect()
    }

    #[test]
    fn lines_are_ids() {
        assert_eq!(open(b"a\nb c\r\n\xc3\xa4", 3).expect("good"), ["a", "b c", "ä"]);
        let mut rows = Ids::open(None, 2).expect("row numbers");
        assert_eq!((rows.next().expect("one"), rows.next().expect("two")), ("0".into(), "1".into()));
    }

    #[test]
    fn bad_lines_are_named() {
        let long = [&b"ok\n"[..], &[b'x'; 513]].concat();
        for (text, rows, code, wanted) in [
            (&b"a\nb\n"[..], 3, "bad_file", "has 2 ids, the vectors are 3"),
            (b"a\n\nc\n", 3, "bad_id", "line 2: an id is missing"),
            (b"a\nb\nc\nb\n", 4, "bad_id", "line 4: the id 'b' is in line 2 already"),
            (b"a\na\na\n", 3, "bad_id", "line 2: the id 'a' is in line 1 already"),
            (b"a\n\xff\n", 2, "bad_file", "line 2"),
            (&long, 2, "bad_id", "line 2: the id has 513 bytes"),
        ] {
            let failure = open(text, rows).expect_err(wanted);
            assert!(failure.message.contains(wanted), "'{}' should say '{wanted}'", failure.message);
            assert_eq!((failure.code.as_str(), failure.exit), (code, 2));
        }
    }
}
