//! Printing: for people, or one JSON object on stdout.

use crate::failure::Failure;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};
use std::process::ExitCode;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) is_json: bool,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
}

impl Output {
    /// Prints `value` as JSON, or what `human` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let text = if self.is_json {
            serde_json::to_string(value).map_err(|error| Failure::internal(error.to_string()))?
        } else {
            human(value)
        };
        line(&text)
    }

    pub(crate) fn failure(self, failure: &Failure) -> ExitCode {
        if failure.is_silent() {
            return ExitCode::from(failure.exit);
        }
        if self.is_json {
            let error = ErrorBody { code: &failure.code, message: &failure.message };
            let text = serde_json::to_string(&ErrorObject { error }).unwrap_or_default();
            // If stdout is gone the exit code has to do.
            let _ = line(&text);
        } else {
            eprintln!("error: {} ({})", failure.message, failure.code);
        }
        ExitCode::from(failure.exit)
    }
}

/// Prints some lines. A reader that has seen enough (`| head`) ends the command without a word.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::reader_gone(),
            _ => Failure::internal(format!("cannot write to stdout: {error}")),
        })
}

/// Arguments that make no sense; also `--help` and `--version`, which clap takes for errors.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !std::env::args_os().any(|arg| arg == "--json") {
        // As in `line`: nobody to tell.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.render().to_string();
    let message = text.trim().trim_start_matches("error: ");
    Output { is_json: true }.failure(&Failure::usage(message))
}

/// Aligns a table: columns are as wide as their widest cell; `right` names the columns of numbers.
pub(crate) fn table(head: &[&str], right: &[usize], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let width = *width;
            line +=
                &if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line += "  ";
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

/// A name that somebody chose, as it can be shown on a terminal: without control characters and what else cannot be seen.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| matches!(c, '\'' | '"') || c.escape_debug().len() == 1;
    if text.chars().all(is_plain) { text.into() } else { text.escape_debug().to_string().into() }
}

/// Bytes as people read them.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["n1".to_owned(), "5".to_owned()], vec!["long".to_owned(), "12345".to_owned()]];
        assert_eq!(table(&["NODE", "LOG"], &[1], &rows), "NODE    LOG\nn1        5\nlong  12345");
    }

    #[test]
    fn names_cannot_command_the_terminal() {
        for (name, shown) in [
            ("cat", "cat"),
            ("it's \u{e4} \"cat\"", "it's \u{e4} \"cat\""),
            ("\u{1b}[2Jcat", "\\u{1b}[2Jcat"),
            ("two\nlines\r", "two\\nlines\\r"),
            ("\u{9b}31m \u{202e}", "\\u{9b}31m \\u{202e}"),
        ] {
            assert_eq!(visible(name), shown);
        }
    }

    #[test]
    fn bytes_are_readable() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(n), text);
        }
        assert!(bytes(u64::MAX).ends_with("TiB"));
    }
}
