//! What the disk alone does.

use super::report::{Figure, Report, Row, Target};
use crate::chain::node::preallocated;
use crate::stats;
use anyhow::Result;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const FILE_BYTES: u64 = 64 << 20;

/// Writes and syncs into a preallocated file, 4 KiB and one batch at a time.
pub(super) fn measure(dir: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let file = preallocated(&dir.join("sync"), FILE_BYTES)?;
    let rounds = if quick { 200 } else { 1_000 };
    for (name, bytes) in [("4 KiB", 4 << 10), ("512 KiB", 512 << 10)] {
        let block = vec![7; bytes];
        let mut micros = Vec::new();
        for round in 0..rounds {
            let offset = (round * bytes) as u64 % FILE_BYTES;
            let start = Instant::now();
            file.write_all_at(&block, offset)?;
            file.sync_data()?;
            micros.push(start.elapsed().as_secs_f64() * 1e6);
        }
        let p99 = Some(stats::percentile(&micros, 99.0));
        report.add(Row {
            what: format!("write and fdatasync, {name}"),
            unit: "µs".into(),
            measured: Figure { value: stats::median(&micros), p99 },
            baseline: None,
            target: Target::None,
        });
    }
    std::fs::remove_file(dir.join("sync"))?;
    Ok(())
}
