//! `verify`: reads all files of a node that does not run, and says what is damaged.

use crate::args::VerifyArgs;
use crate::bar;
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use slowdb_server::{VerifiedPart, VerifyError};

#[derive(Serialize)]
struct PartView {
    path: String,
    records: u64,
    bytes: u64,
    damage: Vec<String>,
}

#[derive(Serialize)]
struct VerifyView {
    records: u64,
    bytes: u64,
    damaged: usize,
    parts: Vec<PartView>,
}

/// `verify PATH`
pub(crate) fn run(args: &VerifyArgs, output: Output) -> Result<(), Failure> {
    let bar = bar::records(0, output);
    let parts = slowdb_server::verify(&args.path, |_, done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let parts = parts.map_err(|error| match error {
        VerifyError::NoNode(_) => Failure::usage(error.to_string()),
        other => Failure::node(other.to_string()),
    })?;
    let view = VerifyView {
        records: parts.iter().map(|part| part.records).sum(),
        bytes: parts.iter().map(|part| part.bytes).sum(),
        damaged: parts.iter().map(|part| part.damage.len()).sum(),
        parts: parts.into_iter().map(part).collect(),
    };
    output.print(&view, human)?;
    match view.damaged {
        0 => Ok(()),
        1 => Err(Failure::refused("damaged", "one place is damaged")),
        many => Err(Failure::refused("damaged", format!("{many} places are damaged"))),
    }
}

fn part(part: VerifiedPart) -> PartView {
    PartView { path: part.path, records: part.records, bytes: part.bytes, damage: part.damage }
}

fn human(view: &VerifyView) -> String {
    let mut lines = Vec::new();
    for part in &view.parts {
        let state = if part.damage.is_empty() { "good" } else { "DAMAGED" };
        lines.push(format!("{:8} {}: {} records, {} bytes", state, part.path, part.records, part.bytes));
        lines.extend(part.damage.iter().map(|damage| format!("         {damage}")));
    }
    lines.push(format!("{} good records", view.records));
    lines.join("\n")
}
