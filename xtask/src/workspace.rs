//! The checkout: where things are, and cargo.

use anyhow::{Context, Result, bail};
use clap::Args;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The root of the checkout.
pub fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = manifest.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}

/// Where clusters keep their state; git ignores it.
pub fn state_dir() -> PathBuf {
    root().join(".slowdb")
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Which node to run.
#[derive(Clone, Debug, Args)]
pub struct NodeProgram {
    /// Runs this slowdb-node instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

impl NodeProgram {
    /// The program, built if it was not given.
    pub fn get(&self) -> Result<PathBuf> {
        match &self.program {
            Some(given) => given.canonicalize().with_context(|| format!("{}", given.display())),
            None => build_node(&[]),
        }
    }
}

/// Builds the node as users run it, but for these flags, and returns the path of the program, where the next build puts
/// its own. Cargo shows the progress.
pub fn build_node(flags: &[&str]) -> Result<PathBuf> {
    let output = cargo()
        .args(["build", "--release", "--package", "slowdb-node", "--message-format=json-render-diagnostics"])
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("slowdb-node does not build ({})", output.status);
    }
    executable(&output.stdout).context("cargo built slowdb-node but did not say where")
}

/// The program that cargo's messages name.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    messages.split(|byte| *byte == b'\n').rev().find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let is_node = message["target"]["name"] == "slowdb-node";
        message["executable"].as_str().filter(|_| is_node).map(PathBuf::from)
    })
}

/// The commit that is checked out, and whether files differ from it.
pub fn commit() -> (String, bool) {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(root()).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    (hash, changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.toml").is_file());
        assert!(root().join("xtask").is_dir());
    }

    #[test]
    fn the_program_is_found_in_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"slowdb-proto"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"slowdb-node"},"executable":"/t/slowdb-node"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/slowdb-node")));
        assert_eq!(executable(b"not json"), None);
    }
}
