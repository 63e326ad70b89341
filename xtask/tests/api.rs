//! What the crates that others embed show to the outside, kept as a listing in `crates/*/api.txt`, so that a change to
//! it is seen. `SLOWDB_WRITE_API=1 cargo test -p xtask --test api` writes the listings anew.
//!
//! Every item that is `pub` can be reached (the lint `unreachable_pub` sees to it), and the code is formatted by
//! rustfmt, so its lines tell all there is: no compiler is asked.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 4] = ["slowdb-client", "slowdb-repl", "slowdb-ring", "slowdb-storage"];

/// All source files below a directory, but those of tests, in order.
fn sources(dir: &Path, all: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("tests" | "tests.rs") => {}
            _ if path.is_dir() => sources(&path, all),
            Some(name) if name.ends_with(".rs") => all.push(path),
            _ => {}
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line up to what an item does, not what it is; with those after it that belong to it.
fn signature<'a>(first: &'a str, rest: &mut impl Iterator<Item = &'a str>) -> String {
    let mut text = first.trim().to_owned();
    if text.starts_with("pub use") {
        while !text.ends_with(';') {
            let Some(line) = rest.next() else { break };
            let _ = write!(text, " {}", line.trim());
        }
        return text.trim_end_matches(';').to_owned();
    }
    let is_whole =
        |text: &str| text.ends_with(['{', ';', '}']) || (text.ends_with(',') && !text.contains("fn "));
    while !is_whole(&text) {
        let Some(line) = rest.next() else { break };
        let _ = write!(text, " {}", line.trim());
    }
    let cut = text.find(" { ").unwrap_or(text.len());
    text[..cut].trim_end_matches(['{', ';', ',', ' ']).to_owned()
}

/// The listing of a source file.
fn list(source: &str, listing: &mut Vec<String>) {
    let mut lines = source.lines();
    // What a deeper line belongs to, if it is shown: the first line of a block at the left margin.
    let (mut block, mut has_variants, mut in_tests) = (String::new(), false, false);
    while let Some(line) = lines.next() {
        let text = line.trim();
        if text.is_empty() || text.starts_with("//") {
            continue;
        }
        if text.starts_with("#[") {
            in_tests |= line == "#[cfg(test)]";
            // An attribute of several lines ends like one of one.
            let mut last = text;
            while !last.ends_with(']') {
                last = lines.next().map_or("]", str::trim);
            }
            continue;
        }
        if indent(line) == 0 {
            if in_tests && text.starts_with("mod ") && text.ends_with('{') {
                return;
            }
            in_tests = false;
            let is_block = text.starts_with("impl") || text.starts_with("pub ");
            if is_block {
                let whole = signature(line, &mut lines);
                has_variants = whole.starts_with("pub enum");
                // A trait's functions are as public as it is.
                has_variants |= whole.starts_with("pub trait");
                if whole.starts_with("pub ") {
                    listing.push(whole.clone());
                }
                block = whole.trim_start_matches("pub ").to_owned();
            } else if text != "}" && !text.starts_with(')') {
                block.clear();
                has_variants = false;
            }
            continue;
        }
        let is_variant = has_variants && indent(line) == 4 && !text.starts_with('}');
        if block.is_empty() || !(is_variant || text.starts_with("pub ")) {
            continue;
        }
        let mut whole = signature(line, &mut lines);
        if is_variant && text.ends_with('{') && !text.contains("fn ") {
            // Its fields.
            let fields = lines.by_ref().map(str::trim).take_while(|field| !field.starts_with('}'));
            let fields: Vec<&str> = fields.filter(|field| !field.starts_with("//")).collect();
            let _ = write!(whole, " {{ {} }}", fields.join(" "));
        }
        listing.push(format!("{block}: {}", whole.trim_start_matches("pub ")));
    }
}

#[test]
fn the_public_surfaces_are_those_that_are_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut changed = Vec::new();
    for name in CRATES {
        let mut files = Vec::new();
        sources(&root.join("crates").join(name).join("src"), &mut files);
        let mut listing = Vec::new();
        for file in files {
            list(&fs::read_to_string(file).unwrap(), &mut listing);
        }
        listing.sort();
        let text = listing.join("\n") + "\n";
        let path = root.join("crates").join(name).join("api.txt");
        if std::env::var_os("SLOWDB_WRITE_API").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        let gone = kept.lines().filter(|line| !text.lines().any(|other| other == *line));
        let new = text.lines().filter(|line| !kept.lines().any(|other| other == *line));
        changed.extend(
            gone.map(|line| format!("{name} - {line}")).chain(new.map(|line| format!("{name} + {line}"))),
        );
    }
    assert!(
        changed.is_empty(),
        "public surfaces have changed; if that is meant: SLOWDB_WRITE_API=1 cargo test -p xtask --test api\n{}",
        changed.join("\n")
    );
}
