//! SlowDB's store beside other embedded stores, with the same records and the same durability, and its exact search
//! beside another one's. In turns, in one process. Prints each figure as a line of JSON; `cargo xtask bench --only beside`
//! builds it, runs it and reads that.
//!
//! Every commit is on the disk when it returns: one fdatasync of SlowDB's and redb's files and fjall's journal at least.
//! Beyond that all have the settings that they come with. What they do differs: redb and fjall keep keys in order and log
//! or copy what changes, SlowDB writes its index anew with each checkpoint.

#[cfg(feature = "usearch")]
mod exact;
mod stores;

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use stores::{Fjall, Redb, SlowDb, StoreBeside};

/// Components of a stored vector.
const DIMENSION: usize = 128;
/// Records that each store holds before commits are measured.
const HELD: u64 = 100_000;
/// Records of the commits that fill it.
const FILL_BATCH: u64 = 10_000;
/// Commits of one store before it is another's turn.
const TURN: usize = 5;

/// A figure of one store.
#[derive(Serialize)]
struct Measured<'a> {
    /// Whose.
    store: &'a str,
    what: String,
    unit: &'a str,
    /// Records of a commit; 0 where there is none.
    batch: u64,
    /// The median.
    value: f64,
    p99: Option<f64>,
}

impl Measured<'_> {
    fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().context("usage: beside DIRECTORY [--quick]")?;
    let quick = arguments.next().as_deref() == Some("--quick");
    let dir = Path::new(&dir);
    stores(dir, quick)?;
    #[cfg(feature = "usearch")]
    exact::measure(dir, quick)?;
    Ok(())
}

/// Commits and gets.
fn stores(dir: &Path, quick: bool) -> Result<()> {
    let components = vectors(HELD as usize, DIMENSION);
    let record = |n: u64| {
        let at = (n % HELD) as usize * DIMENSION;
        (format!("id-{n:08}"), &components[at..at + DIMENSION])
    };
    let mut all: [Box<dyn StoreBeside>; 3] = [
        Box::new(SlowDb::open(&dir.join("slowdb"))?),
        Box::new(Redb::open(&dir.join("redb"))?),
        Box::new(Fjall::open(&dir.join("fjall"))?),
    ];
    for store in &mut all {
        for first in (0..HELD).step_by(FILL_BATCH as usize) {
            store.commit(&mut (first..first + FILL_BATCH).map(record))?;
        }
    }
    let ids: Vec<String> = (0..HELD).map(|n| format!("id-{:08}", n * 7_919 % HELD)).collect();
    gets(&all, &ids, quick)?;
    let mut next = HELD;
    for (batch, rounds) in [(1, 60), (100, 40), (10_000, 10)] {
        let rounds = if quick { rounds / 2 } else { rounds };
        let mut micros = all.each_ref().map(|_| Vec::new());
        for turn in 0..rounds / TURN {
            let first = next + (turn * TURN) as u64 * batch;
            for (store, micros) in all.iter_mut().zip(&mut micros) {
                for commit in 0..TURN as u64 {
                    let first = first + commit * batch;
                    let start = Instant::now();
                    store.commit(&mut (first..first + batch).map(record))?;
                    micros.push(start.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
        next += rounds as u64 * batch;
        for (store, micros) in all.iter().zip(&mut micros) {
            micros.sort_by(f64::total_cmp);
            let what = format!("commit of {batch}");
            let p99 = Some(micros[micros.len() * 99 / 100]);
            Measured { store: store.name(), what, unit: "µs", batch, value: median(micros), p99 }.print()?;
        }
    }
    Ok(())
}

/// Gets by id, warm, of all records in an order that is none of theirs.
fn gets(all: &[Box<dyn StoreBeside>], ids: &[String], quick: bool) -> Result<()> {
    let mut nanos = vec![Vec::new(); all.len()];
    for round in 0..=(if quick { 3 } else { 9 }) {
        for (store, nanos) in all.iter().zip(&mut nanos) {
            let start = Instant::now();
            store.get_all(ids)?;
            // The first pass warms up.
            if round > 0 {
                nanos.push(start.elapsed().as_secs_f64() * 1e9 / ids.len() as f64);
            }
        }
    }
    for (store, nanos) in all.iter().zip(&mut nanos) {
        let what = format!("get, {HELD} records");
        Measured { store: store.name(), what, unit: "ns", batch: 0, value: median(nanos), p99: None }
            .print()?;
    }
    Ok(())
}

/// The middle value.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Vectors to write: the same in every run, and no two alike.
fn vectors(count: usize, dimension: usize) -> Vec<f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let component = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32) / ((1 << 23) as f32) - 1.0
    };
    (0..count * dimension).map(component).collect()
}
