//! The records of an import: a file of vectors with their ids, or lines of JSON. Checked as a whole before anything is
//! written, then read again as a stream.

use crate::failure::Failure;
use crate::ids::{Ids, Seen};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use slowdb_client::vectors::Vectors;
use slowdb_proto::limits::{DIMENSION_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line: every digit of a vector and a payload.
const LINE_BYTES_MAX: u64 = DIMENSION_MAX as u64 * 64 + PAYLOAD_BYTES_MAX as u64 * 2 + (1 << 16);

/// Records that are read one after the other.
pub(crate) enum Rows {
    /// Vectors of a file, and their ids.
    Matrix { vectors: Vectors, ids: Ids },
    /// Lines of JSON.
    Lines { lines: JsonLines, rows: u64, dimension: usize },
}

/// A record to be written.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) vector: Vec<f32>,
    pub(crate) payload: Vec<u8>,
}

impl Rows {
    /// Opens a file by the ending of its name, and checks all of it.
    pub(crate) fn open(path: &Path, ids: Option<&Path>) -> Result<Rows, Failure> {
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            if ids.is_some() {
                return Err(Failure::usage(".jsonl holds the ids: leave --ids out"));
            }
            let (rows, dimension) = JsonLines::check(path)?;
            return Ok(Rows::Lines { lines: JsonLines::open(path)?, rows, dimension });
        }
        let is_known = path.extension().is_some_and(|ending| ending == "npy" || ending == "fvecs");
        if !is_known {
            let what = match std::fs::metadata(path) {
                Err(error) => format!("cannot be opened: {error}"),
                Ok(it) if it.is_dir() => "it is a directory".to_owned(),
                Ok(_) => "what kind of file is it? The name has to end in .jsonl, .npy or .fvecs".to_owned(),
            };
            return Err(Failure::bad_file(format!("{}: {what}", path.display())));
        }
        let mut vectors = Vectors::open(path)?;
        let ids = Ids::open(ids, vectors.rows())?;
        vectors.check()?;
        Ok(Rows::Matrix { vectors, ids })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Rows::Matrix { vectors, .. } => vectors.rows(),
            Rows::Lines { rows, .. } => *rows,
        }
    }

    /// Components of each vector; `None` if there is none to tell.
    pub(crate) fn dimension(&self) -> Option<usize> {
        match self {
            Rows::Matrix { vectors, .. } => Some(vectors.dimension()),
            Rows::Lines { rows: 0, .. } => None,
            Rows::Lines { dimension, .. } => Some(*dimension),
        }
    }

    /// Reads the next one into `row`; false at the end.
    pub(crate) fn next(&mut self, row: &mut Row) -> Result<bool, Failure> {
        match self {
            Rows::Matrix { vectors, ids } => {
                if !vectors.next_row(&mut row.vector)? {
                    return Ok(false);
                }
                row.id = ids.next()?;
                Ok(true)
            }
            Rows::Lines { lines, .. } => lines.next(row),
        }
    }
}

/// A file of JSON objects, one a line: `{"id": …, "vector": […], "payload": …}`. Other keys are passed over.
pub(crate) struct JsonLines {
    path: PathBuf,
    file: BufReader<File>,
    line: String,
    number: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    id: String,
    vector: Vec<f32>,
    #[serde(borrow, default, deserialize_with = "there")]
    payload: Option<&'a RawValue>,
}

/// A payload that is `null` is one, unlike one that is left out.
fn there<'de, D: Deserializer<'de>>(payload: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(payload).map(Some)
}

impl JsonLines {
    fn open(path: &Path) -> Result<JsonLines, Failure> {
        let file = File::open(path)
            .map_err(|error| Failure::bad_file(format!("cannot open {}: {error}", path.display())))?;
        let file = BufReader::with_capacity(1 << 20, file);
        Ok(JsonLines { path: path.to_owned(), file, line: String::new(), number: 0 })
    }

    fn bad(&self, code: &str, what: &str) -> Failure {
        Failure::bad_input(code, format!("{}: line {}: {what}", self.path.display(), self.number))
    }

    /// Reads all of it: how many rows there are, and of how many components each is.
    fn check(path: &Path) -> Result<(u64, usize), Failure> {
        let mut lines = JsonLines::open(path)?;
        let (mut row, mut rows, mut dimension) = (Row::default(), 0, 0);
        let mut ids = Seen::default();
        while lines.next(&mut row)? {
            if rows == 0 {
                dimension = row.vector.len();
            }
            if row.vector.is_empty() || row.vector.len() != dimension {
                let what = format!("{} components, the first vector has {dimension}", row.vector.len());
                return Err(lines.bad("wrong_dimension", &what));
            }
            ids.note(&row.id, lines.number);
            rows += 1;
        }
        let suspects = ids.suspects();
        if !suspects.is_empty() {
            let mut lines = JsonLines::open(path)?;
            let next = || {
                let more = lines.next(&mut row)?;
                Ok(more.then(|| (lines.number, row.id.clone())))
            };
            suspects.confirm(path, next)?;
        }
        Ok((rows, dimension))
    }

    fn next(&mut self, row: &mut Row) -> Result<bool, Failure> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = (&mut self.file).take(LINE_BYTES_MAX).read_line(&mut self.line);
            match read {
                Ok(0) => return Ok(false),
                Ok(bytes) if bytes as u64 == LINE_BYTES_MAX => {
                    return Err(self.bad("bad_file", &format!("it has {LINE_BYTES_MAX} bytes or more")));
                }
                Ok(_) if self.line.trim().is_empty() => {}
                Ok(_) => break,
                Err(error) => return Err(self.bad("bad_file", &format!("cannot be read: {error}"))),
            }
        }
        let Line { id, vector, payload } = serde_json::from_str(&self.line)
            .map_err(|error| self.bad("bad_file", &format!("no record: {error}")))?;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            let what = format!("the id has {} bytes; 1 to {ID_BYTES_MAX} are allowed", id.len());
            return Err(self.bad("bad_id", &what));
        }
        if let Some(component) = vector.iter().position(|component| !component.is_finite()) {
            // JSON knows no infinities.
            let what = format!("component {component} is too large for 32 bits: at most {:e}", f32::MAX);
            return Err(self.bad("not_finite", &what));
        }
        let payload = payload.map_or("", |payload| payload.get());
        if payload.len() > PAYLOAD_BYTES_MAX {
            let what =
                format!("the payload has {} bytes; at most {PAYLOAD_BYTES_MAX} are allowed", payload.len());
            return Err(self.bad("bad_payload", &what));
        }
        row.id = id;
        row.vector = vector;
        row.payload.clear();
        row.payload.extend_from_slice(payload.as_bytes());
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, Failure> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("records.jsonl");
        std::fs::write(&path, text).expect("written");
        let mut rows = Rows::open(&path, None)?;
        let mut all = Vec::new();
        for _ in 0..rows.count() {
            let mut row = Row::default();
            assert!(rows.next(&mut row)?);
            assert_eq!(Some(row.vector.len()), rows.dimension());
            all.push(row);
        }
        Ok(all)
    }

    #[test]
    fn lines_are_records() {
        let text = "{\"id\":\"a\",\"vector\":[0.1,-2],\"payload\":{\"k\": [1, 2]},\"shard\":3}\n\n\
                    {\"vector\":[1e-3,4],\"id\":\"b \\u00e4\",\"payload\":null}\n\
                    {\"id\":\"c\",\"vector\":[0,0]}";
        let rows = read(text).expect("good");
        let a = Row { id: "a".into(), vector: vec![0.1, -2.0], payload: b"{\"k\": [1, 2]}".to_vec() };
        let b = Row { id: "b \u{e4}".into(), vector: vec![0.001, 4.0], payload: b"null".to_vec() };
        let c = Row { id: "c".into(), vector: vec![0.0, 0.0], payload: Vec::new() };
        assert_eq!(rows, [a, b, c]);
        // What an export of nothing has written.
        assert_eq!(read("\n").expect("no records"), []);
    }

    #[test]
    fn what_is_no_file_of_records_is_told_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let unknown = dir.path().join("vectors.bin");
        std::fs::write(&unknown, "x").expect("written");
        for (path, wanted) in [
            (unknown.as_path(), "has to end in .jsonl, .npy or .fvecs"),
            (dir.path(), "it is a directory"),
            (&dir.path().join("nofile"), "cannot be opened"),
        ] {
            let failure = Rows::open(path, None).err().expect(wanted);
            assert!(failure.exit == 2 && failure.message.contains(wanted), "{}", failure.message);
        }
    }

    #[test]
    fn bad_lines_are_named() {
        let good = "{\"id\":\"a\",\"vector\":[1,2]}\n";
        let long =
            format!("{{\"id\":\"b\",\"vector\":[1,2],\"payload\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
        for (line, code, wanted) in [
            (
                "{\"id\":\"b\",\"vector\":[1]}",
                "wrong_dimension",
                "line 2: 1 components, the first vector has 2",
            ),
            ("{\"id\":\"\",\"vector\":[1,2]}", "bad_id", "line 2: the id has 0 bytes"),
            (
                "{\"id\":\"b\",\"vector\":[1,1e39]}",
                "not_finite",
                "line 2: component 1 is too large for 32 bits",
            ),
            ("{\"id\":\"b\"}", "bad_file", "line 2: no record: missing field `vector`"),
            ("[1,2]", "bad_file", "line 2: no record"),
            ("{\"id\":\"b\",\"vector\":[1,2]} x", "bad_file", "line 2: no record"),
            ("{\"id\":\"a\",\"vector\":[3,4]}", "bad_id", "line 2: the id 'a' is in line 1 already"),
            (&long, "bad_payload", "line 2: the payload has 65538 bytes"),
        ] {
            let failure = read(&format!("{good}{line}\n")).expect_err(wanted);
            assert!(failure.message.contains(wanted), "'{}' should say '{wanted}'", failure.message);
            assert_eq!((failure.code.as_str(), failure.exit), (code, 2));
        }
    }

    #[test]
    fn fuzz_json_lines() {
        let lines = [
            "{\"id\":\"a\",\"vector\":[0.1,-2],\"payload\":{\"k\": [1, 2]},\"shard\":3}\n\n",
            "{\"vector\":[1e-3,4],\"id\":\"b \\u00e4\",\"payload\":null}\n",
            "{\"id\":\"c\",\"vector\":[1e38,0],\"payload\":[[[[\"x\"]]]]}",
        ];
        let corpus = [lines.concat(), lines[0].to_owned(), lines[2].to_owned()].map(String::into_bytes);
        // Two buffers of a file each time.
        let target = slowdb_fuzz::Target::new("fuzz_json_lines", corpus).cases(300).memory(4 << 20, 64);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("records.jsonl");
        target.run(|bytes| {
            std::fs::write(&path, bytes).expect("written");
            let Ok(mut rows) = Rows::open(&path, None) else { return false };
            let mut row = Row::default();
            for _ in 0..rows.count() {
                assert!(rows.next(&mut row).expect("it was checked"));
                assert_eq!(Some(row.vector.len()), rows.dimension());
                assert!((1..=ID_BYTES_MAX).contains(&row.id.len()) && row.payload.len() <= PAYLOAD_BYTES_MAX);
                assert!(row.vector.iter().all(|component| component.is_finite()));
                if !row.payload.is_empty() {
                    let text = str::from_utf8(&row.payload).expect("it is text");
                    serde_json::from_str::<&RawValue>(text).expect("it is JSON");
                }
            }
            assert!(!rows.next(&mut row).expect("it was checked"), "as many as were counted");
            true
        });
    }
}
