//! Exact search by one thread, beside usearch's. That walks over all vectors of an index, whose graph it does not look
//! at; the graph is made as small as it can be.

use crate::{Measured, median, vectors};
use anyhow::{Result, ensure};
use slowdb_disk::RealDisk;
use slowdb_storage::{Metric, Options, SearchQuery, Store, VectorRef, Version};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

const DIMENSION: usize = 384;
/// 128 MiB of vectors.
const RECORDS: usize = 87_382;
const K: usize = 10;
const QUERIES: usize = 16;

pub(crate) fn measure(dir: &Path, quick: bool) -> Result<()> {
    let components = vectors(RECORDS, DIMENSION);
    let queries = vectors(RECORDS + QUERIES, DIMENSION).split_off(RECORDS * DIMENSION);
    let dir = dir.join("search");
    std::fs::create_dir_all(&dir)?;
    let mut store = Store::open(Arc::new(RealDisk::open(&dir)?), "store", Options::new(DIMENSION))?;
    let options = IndexOptions {
        dimensions: DIMENSION,
        metric: MetricKind::IP,
        quantization: ScalarKind::F32,
        connectivity: 2,
        expansion_add: 1,
        expansion_search: 1,
        ..IndexOptions::default()
    };
    let index = Index::new(&options)?;
    index.reserve(RECORDS)?;
    for (n, vector) in (0..).zip(components.chunks(DIMENSION)) {
        store.put(&u64::to_le_bytes(n), VectorRef::Floats(vector), &[], Version([1, n, 0]))?;
        index.add(n, vector)?;
    }
    drop(components);
    store.checkpoint(&[])?;
    let reader = store.reader();
    let metrics = [
        (Metric::InnerProduct, MetricKind::IP, "inner product"),
        (Metric::Cosine, MetricKind::Cos, "cosine"),
        (Metric::L2, MetricKind::L2sq, "L2"),
    ];
    let gigabytes = (RECORDS * DIMENSION * 4) as f64 / 1e9;
    for (metric, other, name) in metrics {
        index.change_metric_kind(other)?;
        let (mut searched, mut beside) = (Vec::new(), Vec::new());
        for round in 0..=(if quick { 5 } else { 15 }) {
            let query = &queries[round % QUERIES * DIMENSION..][..DIMENSION];
            let start = Instant::now();
            let hits = reader.search(&SearchQuery::new(query, K, metric))?;
            let took = start.elapsed();
            let start = Instant::now();
            let matches = index.exact_search(query, K)?;
            let took_beside = start.elapsed();
            let found = |key: &u64| hits[0].iter().any(|hit| hit.id == key.to_le_bytes());
            // All but one: sums in another order may swap the last.
            let same = matches.keys.iter().filter(|key| found(key)).count();
            ensure!(same + 1 >= K, "{name}: {same} of {K} are the same");
            // The first round warms up.
            if round > 0 {
                searched.push(gigabytes / took.as_secs_f64());
                beside.push(gigabytes / took_beside.as_secs_f64());
            }
        }
        for (store, values) in [("SlowDB", &mut searched), ("usearch", &mut beside)] {
            let what = format!("exact search, {name}, {RECORDS} × {DIMENSION}");
            Measured { store, what, unit: "GB/s", batch: 0, value: median(values), p99: None }.print()?;
        }
    }
    Ok(())
}
