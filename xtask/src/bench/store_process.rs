//! A store in a process of its own, so that its memory is told from the bench's, and so that it can be killed.

use super::store::{self, Records};
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Opens a store, puts records, says what that took, and stays until standard input ends.
#[derive(Debug, Args)]
pub struct StoreProcessArgs {
    /// Where the store is.
    #[arg(long)]
    dir: PathBuf,
    /// So many new records are put.
    #[arg(long)]
    put: u64,
    /// With checkpoints, the last after the last record.
    #[arg(long)]
    checkpoint: bool,
}

/// What such a process says, as a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Said {
    /// Records that were there when it was opened.
    pub(super) records: u64,
    pub(super) open_seconds: f64,
    /// Of the puts, and the checkpoints if any.
    pub(super) put_seconds: f64,
    /// Memory that opening took, without pages of files.
    pub(super) opened_bytes: u64,
    /// Memory that opening and putting took, without pages of files.
    pub(super) written_bytes: u64,
}

/// The process itself.
pub fn run(args: &StoreProcessArgs) -> Result<()> {
    let records = Records::new();
    let before = anonymous_bytes()?;
    let start = Instant::now();
    let mut store = store::open(&args.dir)?;
    let open_seconds = start.elapsed().as_secs_f64();
    let opened_bytes = anonymous_bytes()?.saturating_sub(before);
    let held = store.len();
    let start = Instant::now();
    if args.checkpoint {
        records.fill(&mut store, args.put)?;
    } else {
        records.put(&mut store, held..held + args.put)?;
    }
    let put_seconds = start.elapsed().as_secs_f64();
    let written_bytes = anonymous_bytes()?.saturating_sub(before);
    let said = Said { records: held, open_seconds, put_seconds, opened_bytes, written_bytes };
    println!("{}", serde_json::to_string(&said)?);
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Resident memory of this process that no file is behind.
fn anonymous_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    anonymous(&status).context("/proc/self/status has no RssAnon")
}

fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// Such a process, seen by its parent. It ends with it.
pub(super) struct StoreProcess {
    child: Child,
    said: Said,
}

impl StoreProcess {
    /// Starts one and waits until it has said what it took.
    pub(super) fn start(dir: &Path, put: u64, checkpoint: bool) -> Result<StoreProcess> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("store-process").arg("--dir").arg(dir).arg("--put").arg(put.to_string());
        if checkpoint {
            command.arg("--checkpoint");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        match serde_json::from_str(&line) {
            Ok(said) => Ok(StoreProcess { child, said }),
            Err(_) => {
                let status = child.wait()?;
                anyhow::bail!("the process with the store said '{line}' and ended ({status})")
            }
        }
    }

    /// Lets it come to its end.
    pub(super) fn exit(mut self) -> Result<Said> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the process with the store ended with {status}");
        Ok(self.said)
    }

    /// Kills it, as a crash of the process would.
    pub(super) fn kill(mut self) -> Result<Said> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_files_are_not_memory_of_the_store() {
        let status = "VmRSS:\t  300 kB\nRssAnon:\t     100 kB\nRssFile:\t  200 kB\n";
        assert_eq!(anonymous(status), Some(100 << 10));
        assert_eq!(anonymous("VmRSS:\t  300 kB\n"), None);
    }
}
