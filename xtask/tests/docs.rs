//! What the documents name exists.

use clap::CommandFactory;
use std::fs;
use std::path::{Path, PathBuf};
use xtask::workspace;

/// Text that nothing executes rots; this much of it is executed.
fn documents() -> Vec<PathBuf> {
    let root = workspace::root();
    let is_markdown = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let docs = fs::read_dir(root.join("docs")).expect("there are docs");
    let mut found: Vec<PathBuf> =
        docs.map(|entry| entry.expect("an entry").path()).filter(is_markdown).collect();
    let crates = fs::read_dir(root.join("crates")).expect("there are crates");
    found.extend(
        crates.map(|entry| entry.expect("an entry").path().join("README.md")).filter(|path| path.exists()),
    );
    found.push(root.join("README.md"));
    found
}

/// The targets of `[text](target)` that are paths.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(|target| target.split('#').next().unwrap_or_default()).filter(|target| {
        !target.is_empty()
            && !target.contains("://")
            && !target.starts_with("mailto:")
            && !target.contains(' ')
    })
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        let dir = document.parent().unwrap_or(Path::new("."));
        for link in links(&text).filter(|link| !link.contains("::")) {
            assert!(dir.join(link).exists(), "{}: {link} leads nowhere", document.display());
        }
    }
}

#[test]
fn commands_of_xtask_exist() {
    let command = xtask::arguments::Arguments::command();
    let known: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    for document in documents() {
        let text = fs::read_to_string(&document).expect("readable");
        for rest in text.split("cargo xtask ").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            assert!(known.contains(&name.as_str()), "{}: cargo xtask {name}", document.display());
        }
    }
}
