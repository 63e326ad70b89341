//! Single puts and gets, one at a time, beside the chain doing the least that the same answer takes.

use super::report::{Figure, Report, Row, Target};
use super::vectors;
use crate::chain::driver::{Chain, Echo};
use crate::stats;
use anyhow::{Result, ensure};
use bytes::Bytes;
use slowdb_client::{Client, Collection, Put, ReadLevel, ReadOptions, WriteOptions};
use slowdb_proto::OpsBuilder;
use std::time::{Duration, Instant};

const DIMENSION: usize = 128;
/// Records that are read.
const RECORDS: usize = 1_000;
/// Requests to one side before it is the other's turn.
const TURN: usize = 50;

/// Times of both sides, in microseconds.
#[derive(Default)]
struct Times {
    bare: Vec<Duration>,
    stored: Vec<Duration>,
}

fn figure(times: &[Duration]) -> Figure {
    let micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    Figure { value: stats::percentile(&micros, 50.0), p99: Some(stats::percentile(&micros, 99.0)) }
}

impl Times {
    fn row(&self, what: &str, ratio_max: f64) -> Row {
        Row {
            what: what.into(),
            unit: "µs".into(),
            measured: figure(&self.stored),
            baseline: Some(figure(&self.bare)),
            target: Target::RatioAtMost(ratio_max),
        }
    }
}

/// One client, one put after the other.
pub(super) async fn put(chain: &Chain, client: &Client, quick: bool, report: &mut Report) -> Result<()> {
    let turns = if quick { 6 } else { 30 };
    let vector = vectors(1, DIMENSION);
    let collection = client.collection("default");
    let mut ops = OpsBuilder::new();
    ops.put("single-00000000", &vector, &[])?;
    let body = Bytes::from(ops.finish());
    let mut times = Times::default();
    for turn in 0..=turns {
        let mut this = Times::default();
        for _ in 0..TURN {
            this.bare.push(chain.write(&body).await?);
        }
        for n in 0..TURN {
            let id = format!("single-{:08}", turn * TURN + n);
            let start = Instant::now();
            collection.put(&id, &vector, &WriteOptions::default()).await?;
            this.stored.push(start.elapsed());
        }
        if turn > 0 {
            times.bare.extend(this.bare);
            times.stored.extend(this.stored);
        }
    }
    report.add(times.row("single put at quorum", 1.5));
    Ok(())
}

/// One client, one get after the other, at both levels.
pub(super) async fn get(chain: &Chain, client: &Client, quick: bool, report: &mut Report) -> Result<()> {
    let turns = if quick { 6 } else { 30 };
    let collection = client.collection("default");
    let ids = write_records(&collection).await?;
    for (level, echo, what) in [
        (ReadLevel::One, Echo::Leader, "get at one, beside an echo"),
        (ReadLevel::Quorum, Echo::LeaderAndPeer, "get at quorum, beside two echoes"),
    ] {
        let options = ReadOptions { level: Some(level), timeout: None };
        let mut times = Times::default();
        for turn in 0..=turns {
            let mut this = Times::default();
            for _ in 0..TURN {
                this.bare.push(chain.echo(echo).await?);
            }
            for n in 0..TURN {
                let id = &ids[(turn * TURN + n) * 7 % ids.len()];
                let start = Instant::now();
                let record = collection.get(id, &options).await?;
                this.stored.push(start.elapsed());
                ensure!(record.is_some(), "{id} is not there");
            }
            if turn > 0 {
                times.bare.extend(this.bare);
                times.stored.extend(this.stored);
            }
        }
        report.add(times.row(what, 2.0));
    }
    Ok(())
}

/// Writes records to be read, and gives their ids.
pub(super) async fn write_records(collection: &Collection) -> Result<Vec<String>> {
    let components = vectors(RECORDS, DIMENSION);
    let ids: Vec<String> = (0..RECORDS).map(|n| format!("get-{n}")).collect();
    let records = ids.iter().zip(components.chunks(DIMENSION));
    let puts: Vec<Put<'_>> = records.map(|(id, vector)| Put { id, vector, payload: &[] }).collect();
    collection.put_batch(&puts, &WriteOptions::default()).await?;
    Ok(ids)
}
