//! The vector files by themselves, in this process: gets, and exact search on one core beside a loop that
//! does nothing but read the same mapped bytes.
#![expect(
    unsafe_code,
    reason = "the loop to compare with is compiled for AVX2, which only some processors have"
)]

use super::report::{Figure, Report, Row, Target, last_level_cache_bytes};
use super::vectors;
use crate::stats;
use anyhow::{Result, ensure};
use slowdb_disk::RealDisk;
use slowdb_storage::{Metric, Options, Reader, SearchQuery, Store, VectorRef, Version};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const GET_DIMENSION: usize = 128;
const GET_RECORDS: usize = 100_000;
const SEARCH_DIMENSION: usize = 384;
/// The data is this many times the last-level cache, so that memory is what is measured.
const TIMES_CACHE: u64 = 4;
const CACHE_IF_UNKNOWN: u64 = 32 << 20;
const K: usize = 10;

fn fill(dir: &Path, records: usize, dimension: usize) -> Result<Store> {
    let disk = Arc::new(RealDisk::open(dir)?);
    let mut store = Store::open(disk, &format!("d{dimension}"), Options::new(dimension))?;
    for (n, vector) in vectors(records, dimension).chunks(dimension).enumerate() {
        let version = Version([1, n as u64, 0]);
        store.put(format!("id-{n:08}").as_bytes(), VectorRef::Floats(vector), &[], version)?;
    }
    store.checkpoint(&[])?;
    Ok(store)
}

/// Gets by id, warm: each reads the vector where it lies.
pub(super) fn get(dir: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let store = fill(dir, GET_RECORDS, GET_DIMENSION)?;
    let reader = store.reader();
    let ids: Vec<String> = (0..GET_RECORDS).map(|n| format!("id-{:08}", n * 7_919 % GET_RECORDS)).collect();
    // Warm: few enough records that index and vectors are in the caches.
    for (name, ids) in [("1,000 records, warm", &ids[..1_000]), ("100,000 records", &ids[..])] {
        let mut nanos = Vec::new();
        let passes = 200_000 / ids.len() + 1;
        for _ in 0..=(if quick { 5 } else { 21 }) {
            let start = Instant::now();
            for _ in 0..passes {
                read_all(&reader, ids)?;
            }
            nanos.push(start.elapsed().as_secs_f64() * 1e9 / (passes * ids.len()) as f64);
        }
        let is_warm = ids.len() < GET_RECORDS;
        report.add(Row {
            what: format!("get in process, {name}"),
            unit: "ns".into(),
            measured: stats::median(&nanos[1..]).into(),
            baseline: None,
            target: if is_warm { Target::ValueBelow(200.0) } else { Target::None },
        });
    }
    Ok(())
}

fn read_all(reader: &Reader, ids: &[String]) -> Result<()> {
    let mut found = 0;
    for id in ids {
        found += u64::from(reader.get_with(id.as_bytes(), |record| black_box(record.vector[0]))?.is_some());
    }
    ensure!(found == ids.len() as u64, "{found} of {} were found", ids.len());
    Ok(())
}

/// One query at a time on one core, in turns with the bare loop.
pub(super) fn search(dir: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let wanted = last_level_cache_bytes().unwrap_or(CACHE_IF_UNKNOWN) * TIMES_CACHE;
    let records = wanted.div_ceil(SEARCH_DIMENSION as u64 * 4) as usize;
    let store = fill(dir, records, SEARCH_DIMENSION)?;
    let reader = store.reader();
    let snapshot = reader.snapshot();
    let mut mapped = Vec::with_capacity(records);
    for record in snapshot.iter() {
        mapped.push(record?.vector);
    }
    // In the order in which they lie in the mapping: one linear walk.
    mapped.sort_by_key(|vector| vector.as_ptr());
    let queries = vectors(64, SEARCH_DIMENSION);
    let bytes = (records * SEARCH_DIMENSION * 4) as f64;
    for (metric, name) in
        [(Metric::InnerProduct, "inner product"), (Metric::Cosine, "cosine"), (Metric::L2, "L2")]
    {
        let (mut bare, mut searched) = (Vec::new(), Vec::new());
        for round in 0..=(if quick { 7 } else { 31 }) {
            let start = Instant::now();
            black_box(read_loop(&mapped));
            bare.push(bytes / start.elapsed().as_secs_f64() / 1e9);
            let query = &queries[round % 64 * SEARCH_DIMENSION..][..SEARCH_DIMENSION];
            let start = Instant::now();
            let hits = reader.search(&SearchQuery::new(query, K, metric))?;
            searched.push(bytes / start.elapsed().as_secs_f64() / 1e9);
            ensure!(hits[0].len() == K, "{} hits", hits[0].len());
        }
        report.add(Row {
            what: format!("exact search, {name}, {records} × {SEARCH_DIMENSION}"),
            unit: "GB/s".into(),
            measured: stats::median(&searched[1..]).into(),
            baseline: Some(stats::median(&bare[1..]).into()),
            target: Target::RatioAtLeast(0.9),
        });
        if metric == Metric::Cosine {
            report.add(queries_a_second(
                &reader,
                &queries,
                metric,
                stats::median(&searched[1..]) * 1e9 / bytes,
            )?);
        }
        if metric == Metric::InnerProduct {
            let singles = stats::median(&searched[1..]);
            report.add(with_all_threads(&reader, &queries[..SEARCH_DIMENSION], metric, bytes, singles)?);
        }
    }
    Ok(())
}

/// A batch of queries beside the rate of single ones.
fn queries_a_second(reader: &Reader, queries: &[f32], metric: Metric, singles: f64) -> Result<Row> {
    let mut rates = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let hits = reader.search(&SearchQuery::new(queries, K, metric))?;
        rates.push(hits.len() as f64 / start.elapsed().as_secs_f64());
    }
    Ok(Row {
        what: "64 queries at once, beside one by one".into(),
        unit: "queries/s".into(),
        measured: Figure { value: stats::median(&rates), p99: None },
        baseline: Some(singles.into()),
        target: Target::None,
    })
}

/// One query by as many threads as there are processors, beside one thread.
fn with_all_threads(reader: &Reader, query: &[f32], metric: Metric, bytes: f64, alone: f64) -> Result<Row> {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut rates = Vec::new();
    for _ in 0..15 {
        let start = Instant::now();
        let hits = reader.search(&SearchQuery { threads, ..SearchQuery::new(query, K, metric) })?;
        rates.push(bytes / start.elapsed().as_secs_f64() / 1e9);
        ensure!(hits[0].len() == K, "{} hits", hits[0].len());
    }
    Ok(Row {
        what: format!("exact search, inner product, {threads} threads beside one"),
        unit: "GB/s".into(),
        measured: stats::median(&rates).into(),
        baseline: Some(alone.into()),
        target: Target::None,
    })
}

/// Reads every component, and does as little with it as keeps the compiler from leaving it out.
fn read_loop(vectors: &[&[f32]]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { read_loop_avx2(vectors) };
    }
    read_loop_plain(vectors)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn read_loop_avx2(vectors: &[&[f32]]) -> f32 {
    read_loop_plain(vectors)
}

#[inline(always)]
fn read_loop_plain(vectors: &[&[f32]]) -> f32 {
    let mut sums = [0.0_f32; 64];
    for vector in vectors {
        let (blocks, rest) = vector.as_chunks::<64>();
        for block in blocks {
            for (sum, component) in sums.iter_mut().zip(block) {
                *sum += component;
            }
        }
        for (sum, component) in sums.iter_mut().zip(rest) {
            *sum += component;
        }
    }
    sums.iter().sum()
}
