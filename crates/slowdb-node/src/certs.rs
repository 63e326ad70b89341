//! Certificates: where they are by default, and the command that makes them.

use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The directory of this user that the first start makes.
pub(crate) fn default_dir() -> Result<PathBuf, Failure> {
    directories::ProjectDirs::from("", "", "slowdb")
        .map(|dirs| dirs.data_dir().join("certs"))
        .ok_or_else(|| Failure::usage("this user has no home directory for certificates; give --certs DIR"))
}

#[derive(Serialize)]
struct Created<'a> {
    created: &'a Path,
}

/// `certs create DIR`
pub(crate) fn create(dir: &Path, output: Output) -> Result<(), Failure> {
    slowdb_net::create(dir)?;
    output.print(&Created { created: dir }, |_| {
        format!(
            "made an authority, and certificates for nodes and clients, in {}\n\
             Start nodes and use clients with --certs {0}. Keep ca.key safe: who has it can join the cluster.",
            dir.display()
        )
    })
}
