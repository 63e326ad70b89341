//! `export`: all records into a file.

use crate::args::ExportArgs;
use crate::bar;
use crate::connect::{self, read_options};
use crate::failure::Failure;
use crate::output::Output;
use crate::payload::PayloadView;
use crate::start::on;
use serde::Serialize;
use slowdb_client::vectors::NpyWriter;
use slowdb_client::{CountOptions, ScanOptions, ScanRecord};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::signal::unix::SignalKind;

const PAGE: usize = 10_000;

#[derive(Serialize)]
struct Exported<'a> {
    file: &'a Path,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<&'a Path>,
    records: u64,
    /// Payloads that have no place in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    payloads_left_out: Option<u64>,
    seconds: f64,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    vector: &'a [f32],
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<PayloadView>,
}

/// `export FILE`
pub(crate) async fn run(args: ExportArgs, output: Output) -> Result<(), Failure> {
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let stopped = || Failure::refused("interrupted", "interrupted: nothing of the file was kept");
    tokio::select! {
        done = export(args, output) => done,
        _ = terminate.recv() => Err(stopped()),
        _ = interrupt.recv() => Err(stopped()),
    }
}

async fn export(args: ExportArgs, output: Output) -> Result<(), Failure> {
    let start = Instant::now();
    let kind = Kind::of(&args)?;
    let level = read_options(&args.on)?.level;
    let (collection, carried) = connect::collection(&args.on).await?;
    let dimension = collection.dimension().await?;
    let prefix = args.prefix.unwrap_or_default();
    let count = CountOptions { level, prefix: prefix.clone(), ..CountOptions::default() };
    let bar = bar::records(collection.count(&count).await?.records, output);
    let mut target = Target::create(&args.file, kind, dimension)?;
    let options =
        ScanOptions { level, prefix, vectors: true, payloads: true, page: PAGE, ..ScanOptions::default() };
    let mut scan = collection.scan(options).await?;
    let mut records = 0;
    while let Some(page) = scan.next_page().await? {
        page.records.iter().try_for_each(|record| target.write(record))?;
        records += page.records.len() as u64;
        bar.set_position(records);
    }
    bar.finish_and_clear();
    let (ids, left_out) = target.finish()?;
    carried.save()?;
    if left_out > 0 {
        eprintln!("{left_out} payloads were left out, for .npy has no place for them: export to .jsonl");
    }
    let exported = Exported {
        file: &args.file,
        ids: ids.as_deref(),
        records,
        payloads_left_out: ids.is_some().then_some(left_out),
        seconds: start.elapsed().as_secs_f64(),
    };
    output.print(&exported, |e| {
        let ids = e.ids.map(|ids| format!(", their ids into {}", ids.display())).unwrap_or_default();
        format!("wrote {} records into {}{ids} in {:.1} s", e.records, e.file.display(), e.seconds)
    })
}

/// What kind of file, and where the ids go.
enum Kind {
    Npy { ids: PathBuf },
    JsonLines,
}

impl Kind {
    fn of(args: &ExportArgs) -> Result<Kind, Failure> {
        let file = &args.file;
        let ids = args.ids.as_ref();
        let kind = match file.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => Kind::Npy { ids: ids.cloned().unwrap_or_else(|| file.with_extension("ids.txt")) },
            Some("jsonl") if ids.is_some() => {
                return Err(Failure::usage(".jsonl holds the ids: leave --ids out"));
            }
            Some("jsonl") => Kind::JsonLines,
            _ => {
                let what = "what kind of file is it to be? The name has to end in .npy or .jsonl";
                return Err(Failure::usage(format!("{}: {what}", file.display())));
            }
        };
        let ids = if let Kind::Npy { ids } = &kind { Some(ids) } else { None };
        [Some(file), ids].into_iter().flatten().try_for_each(|path| check_dir(path))?;
        let there = [Some(file), ids].into_iter().flatten().find(|path| !args.force && path.exists());
        if let Some(path) = there {
            return Err(Failure::usage(format!("{} is there already: --force replaces it", path.display())));
        }
        Ok(kind)
    }
}

/// Before anything is asked of the cluster.
fn check_dir(path: &Path) -> Result<(), Failure> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    match dir.filter(|dir| !dir.is_dir()) {
        Some(dir) => {
            Err(Failure::usage(format!("{}: there is no directory {}", path.display(), dir.display())))
        }
        None => Ok(()),
    }
}

/// A file under a name for the meantime: what is under its own name is whole. It is removed if it is not kept.
struct Draft {
    path: PathBuf,
    part: PathBuf,
}

impl Draft {
    fn create(path: &Path) -> Result<(Draft, BufWriter<File>), Failure> {
        let mut part = path.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part)
            .map_err(|error| Failure::bad_file(format!("{} cannot be written: {error}", path.display())))?;
        Ok((Draft { path: path.to_owned(), part }, BufWriter::with_capacity(1 << 20, file)))
    }

    /// Gives it its name.
    fn keep(self, file: BufWriter<File>) -> Result<PathBuf, Failure> {
        let failed = |error: std::io::Error| cannot_write(&self.path, &error);
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().and_then(|()| std::fs::rename(&self.part, &self.path)).map_err(failed)?;
        Ok(self.path.clone())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // If it was kept it is not there any more; if it cannot be removed, its name says what it is.
        let _ = std::fs::remove_file(&self.part);
    }
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::internal(format!("{} cannot be written: {error}", path.display()))
}

enum Target {
    Npy {
        vectors: NpyWriter<BufWriter<File>>,
        draft: Draft,
        ids: BufWriter<File>,
        ids_draft: Draft,
        left_out: u64,
    },
    JsonLines {
        lines: BufWriter<File>,
        draft: Draft,
    },
}

impl Target {
    fn create(path: &Path, kind: Kind, dimension: usize) -> Result<Target, Failure> {
        let (draft, file) = Draft::create(path)?;
        Ok(match kind {
            Kind::JsonLines => Target::JsonLines { lines: file, draft },
            Kind::Npy { ids } => {
                let (ids_draft, ids) = Draft::create(&ids)?;
                let vectors = NpyWriter::new(file, dimension).map_err(|error| cannot_write(path, &error))?;
                Target::Npy { vectors, draft, ids, ids_draft, left_out: 0 }
            }
        })
    }

    fn write(&mut self, record: &ScanRecord) -> Result<(), Failure> {
        let vector = record.vector.as_deref().unwrap_or_default();
        let payload = record.payload.as_deref().unwrap_or_default();
        match self {
            Target::JsonLines { lines, draft } => {
                let line = Line { id: &record.id, vector, payload: PayloadView::of(payload) };
                let written = serde_json::to_writer(&mut *lines, &line).map_err(std::io::Error::from);
                let written = written.and_then(|()| lines.write_all(b"\n"));
                written.map_err(|error| cannot_write(&draft.path, &error))
            }
            Target::Npy { vectors, draft, ids, ids_draft, left_out } => {
                if record.id.contains(['\n', '\r']) {
                    let id: String = record.id.escape_debug().take(80).collect();
                    let message = format!("the id '{id}' does not fit into a line: export to .jsonl");
                    return Err(Failure::bad_input("bad_id", message));
                }
                *left_out += u64::from(!payload.is_empty());
                vectors.write(vector).map_err(|error| cannot_write(&draft.path, &error))?;
                writeln!(ids, "{}", record.id).map_err(|error| cannot_write(&ids_draft.path, &error))
            }
        }
    }

    /// The file of ids, if there is one, and how many payloads were left out.
    fn finish(self) -> Result<(Option<PathBuf>, u64), Failure> {
        match self {
            Target::JsonLines { lines, draft } => draft.keep(lines).map(|_| (None, 0)),
            Target::Npy { vectors, draft, ids, ids_draft, left_out } => {
                let file = vectors.finish().map_err(|error| cannot_write(&draft.path, &error))?;
                let ids = ids_draft.keep(ids)?;
                draft.keep(file)?;
                Ok((Some(ids), left_out))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("an entry").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = std::fs::read_dir(dir).expect("a directory").map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn an_export_that_does_not_end_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let (npy, lines) = (dir.path().join("v.npy"), dir.path().join("r.jsonl"));
        let npy_kind = || Kind::Npy { ids: dir.path().join("v.ids.txt") };
        let target = Target::create(&npy, npy_kind(), 2).expect("made");
        assert_eq!(names(dir.path()), ["v.ids.txt.part", "v.npy.part"]);
        drop(target);
        drop(Target::create(&lines, Kind::JsonLines, 2).expect("made"));
        assert_eq!(names(dir.path()), [""; 0]);
        Target::create(&npy, npy_kind(), 2).expect("made").finish().expect("whole");
        Target::create(&lines, Kind::JsonLines, 2).expect("made").finish().expect("whole");
        assert_eq!(names(dir.path()), ["r.jsonl", "v.ids.txt", "v.npy"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_a_bad_argument() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = check_dir(&dir.path().join("no/r.jsonl")).expect_err("no such directory");
        assert!(
            failure.exit == 2 && failure.message.contains("there is no directory"),
            "{}",
            failure.message
        );
        check_dir(&dir.path().join("r.jsonl")).expect("there is one");
        check_dir(Path::new("r.jsonl")).expect("the current one");
    }
}
