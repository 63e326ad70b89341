//! How fast the write-ahead log makes batches durable, beside a bare loop of writes and syncs to a file of the same kind.
//!
//! One record holds 1,000 vectors of 512 bytes; one sync follows each record. Both sides alternate in rounds, so
//! that a disk that is slower at some times is so for both. Small records show the cost of a sync.
//!
//! ```text
//! cargo run --release -p slowdb-repl --example wal_throughput [DIR]
//! ```

use std::error::Error;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use slowdb_disk::{Disk, DiskFile, RealDisk};
use slowdb_repl::wal::{HardState, Record, Wal, WalOptions};

const SEGMENT_BYTES: u64 = 64 << 20;
const ROUNDS: usize = 7;

/// A loop of writes and syncs over a file that is written again from the start when it is full.
struct Bare {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Bare {
    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        if self.at + data.len() as u64 > SEGMENT_BYTES {
            self.at = 0;
        }
        self.file.write_at(&[IoSlice::new(data)], self.at)?;
        self.at += data.len() as u64;
        self.file.sync()
    }
}

/// The log, compacted and released as it goes.
struct Logged {
    wal: Wal,
    index: u64,
}

impl Logged {
    fn write(&mut self, data: &Bytes) -> Result<(), Box<dyn Error>> {
        self.index += 1;
        let index = self.index;
        let entry = Record::Entry { group: 1, leader_term: 1, term: 1, index, kind: 0, data: data.clone() };
        self.wal.append(&[entry], &mut Vec::new())?;
        self.wal.sync()?;
        Ok(())
    }

    /// Lets go of everything but the last entries, as a checkpoint would.
    fn compact(&mut self) -> Result<(), Box<dyn Error>> {
        let state = HardState { term: 1, vote: 1, commit: self.index };
        let compacted = Record::Compacted { group: 1, index: self.index, term: 1 };
        self.wal.append(&[Record::HardState { group: 1, state }, compacted], &mut Vec::new())?;
        self.wal.release()?;
        Ok(())
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn compare(
    name: &str,
    data: &Bytes,
    count: usize,
    bare: &mut Bare,
    logged: &mut Logged,
) -> Result<(), Box<dyn Error>> {
    let (mut bare_times, mut logged_times, mut append_times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..count {
            bare.write(data)?;
        }
        bare_times.push(start.elapsed());
        let start = Instant::now();
        for _ in 0..count {
            logged.write(data)?;
        }
        logged_times.push(start.elapsed());
        logged.compact()?;

        let start = Instant::now();
        for _ in 0..count {
            logged.index += 1;
            let index = logged.index;
            let entry =
                Record::Entry { group: 1, leader_term: 1, term: 1, index, kind: 0, data: data.clone() };
            logged.wal.append(&[entry], &mut Vec::new())?;
        }
        append_times.push(start.elapsed());
        logged.compact()?;
    }
    let (bare, logged, append) = (median(bare_times), median(logged_times), median(append_times));
    let rate = |seconds: f64| count as f64 / seconds;
    let megabytes = |seconds: f64| rate(seconds) * data.len() as f64 / 1e6;
    println!(
        "{name}: bare {:.0}/s ({:.0} MB/s), log {:.0}/s ({:.0} MB/s): {:.0} %; append alone {:.1} us ({:.0} MB/s)",
        rate(bare),
        megabytes(bare),
        rate(logged),
        megabytes(logged),
        100.0 * bare / logged,
        1e6 * append / count as f64,
        megabytes(append),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary;
    let root = match std::env::args().nth(1) {
        Some(directory) => directory.into(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_path_buf()
        }
    };
    let disk = Arc::new(RealDisk::open(root)?);
    let bare_file = disk.open("bare", true)?;
    bare_file.allocate(0, SEGMENT_BYTES)?;
    let mut bare = Bare { file: bare_file, at: 0 };
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, log_id: 1, ..WalOptions::default() };
    let (wal, recovered) = Wal::open(Arc::<RealDisk>::clone(&disk), "wal", options)?;
    let index = recovered.groups.get(&1).map_or(0, |group| group.compacted.0 + group.entries.len() as u64);
    let mut logged = Logged { wal, index };

    // Both write all their space once before anything is measured: from then on it is used again.
    let batch = Bytes::from(vec![0x5a; 1000 * 512]);
    for round in 0..6 * SEGMENT_BYTES as usize / batch.len() {
        logged.write(&batch)?;
        bare.write(&batch)?;
        if round % 100 == 99 {
            logged.compact()?;
        }
    }
    compare("1,000 x 512 B", &batch, 60, &mut bare, &mut logged)?;
    compare("1 x 4 KiB", &Bytes::from(vec![0x5a; 4096]), 200, &mut bare, &mut logged)?;
    compare("1 x 512 B", &Bytes::from(vec![0x5a; 512]), 200, &mut bare, &mut logged)?;
    logged.wal.close()?;
    disk.remove("bare")?;
    Ok(())
}
