//! The vector store by itself: put, get, commit, and exact search beside a loop that only reads.
//!
//! `cargo bench -p slowdb-benches --bench storage`, on a directory of the disk that `TMPDIR` is on.
#![expect(unsafe_code, reason = "the read loop goes over a mapping, with the registers that searches use")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use slowdb_disk::{Disk, Mapping, RealDisk};
use slowdb_storage::{Metric, Options, SearchQuery, Store, Version, simd_in_use};

/// Well over four times the last-level cache of most machines' cores.
const BYTES: usize = 256 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn vector(&mut self, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|_| self.next() as f32 / (1u64 << 30) as f32 - 1.0).collect()
    }
}

struct Filled {
    _root: tempfile::TempDir,
    disk: Arc<RealDisk>,
    store: Store,
    count: u64,
}

fn id(n: u64) -> [u8; 12] {
    let mut id = *b"vector-00000";
    id[7..].copy_from_slice(&n.to_le_bytes()[..5]);
    id
}

fn empty(dimension: usize) -> Filled {
    let root = tempfile::tempdir().expect("a temporary directory");
    let disk = Arc::new(RealDisk::open(root.path()).expect("a disk"));
    let store = Store::open(disk.clone(), "s", Options::new(dimension)).expect("a store");
    Filled { _root: root, disk, store, count: 0 }
}

fn filled(dimension: usize, bytes: usize) -> Filled {
    let mut filled = empty(dimension);
    let mut random = Random(1);
    filled.count = (bytes / (dimension * 4)) as u64;
    for n in 0..filled.count {
        let vector = random.vector(dimension);
        filled.store.put(&id(n), (&vector).into(), b"", Version([n, 0, 0])).expect("a put");
    }
    filled.store.checkpoint(b"").expect("a checkpoint");
    filled
}

/// Adds up all words of a mapping: the least that a walk over it can cost.
fn read_loop(map: &Mapping, len: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn wide(words: &[u64]) -> u64 {
        narrow(words)
    }
    #[inline]
    fn narrow(words: &[u64]) -> u64 {
        let mut sums = [0u64; 32];
        for chunk in words.chunks_exact(32) {
            for (sum, word) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sums.iter().fold(0, |a, b| a.wrapping_add(*b))
    }
    // SAFETY: inside the mapping; the store's writer is at rest.
    let words = unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<u64>(), len / 8) };
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has it.
        return unsafe { wide(words) };
    }
    narrow(words)
}

fn searches(c: &mut Criterion) {
    for dimension in [128, 768] {
        let filled = filled(dimension, BYTES);
        let bytes = filled.count as usize * dimension * 4;
        let file = filled.disk.open("s/vectors", false).expect("the vectors");
        let map = file.map(0, file.len().expect("a length") as usize).expect("a mapping");
        let reader = filled.store.reader();
        let queries = Random(2).vector(64 * dimension);
        let one = &queries[..dimension];
        // The first search after a put by this process finds everything checked already.
        reader.search(&SearchQuery::new(one, 10, Metric::L2)).expect("a search");

        let mut group = c.benchmark_group(format!("walk over {} MiB, {dimension}-d", bytes >> 20));
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("read loop", |b| b.iter(|| black_box(read_loop(&map, bytes))));
        for (name, metric) in
            [("L2", Metric::L2), ("inner product", Metric::InnerProduct), ("cosine", Metric::Cosine)]
        {
            group.bench_function(BenchmarkId::new(format!("search {}", simd_in_use()), name), |b| {
                b.iter(|| black_box(reader.search(&SearchQuery::new(one, 10, metric)).expect("a search")));
            });
        }
        group.throughput(Throughput::Elements(64));
        group.bench_function("search of 64 queries, L2", |b| {
            b.iter(|| {
                black_box(reader.search(&SearchQuery::new(&queries, 10, Metric::L2)).expect("a search"))
            });
        });
        group.finish();
    }
}

fn gets(c: &mut Criterion) {
    let mut group = c.benchmark_group("get, 128-d");
    for count in [1_000u64, 100_000] {
        let filled = filled(128, count as usize * 512);
        let reader = filled.store.reader();
        let mut random = Random(3);
        group.bench_function(BenchmarkId::new("in place", count), |b| {
            b.iter(|| {
                reader.get_with(&id(random.next() % count), |r| black_box(r.vector[0])).expect("a get")
            });
        });
        group.bench_function(BenchmarkId::new("a copy", count), |b| {
            b.iter(|| black_box(reader.get(&id(random.next() % count)).expect("a get")));
        });
    }
    group.finish();
}

fn puts(c: &mut Criterion) {
    for dimension in [128, 768] {
        let mut group = c.benchmark_group(format!("put, {dimension}-d"));
        group.throughput(Throughput::Bytes(dimension as u64 * 4));
        let vector = Random(4).vector(dimension);
        group.bench_function("replacing", |b| {
            let mut filled = filled(dimension, 8 << 20);
            let mut n = 0;
            b.iter(|| {
                n += 1;
                filled
                    .store
                    .put(&id(n % filled.count), (&vector).into(), b"", Version([n, 0, 0]))
                    .expect("a put")
            });
        });
        group.bench_function("new", |b| {
            b.iter_custom(|count| {
                let mut filled = empty(dimension);
                let start = Instant::now();
                for n in 0..count {
                    filled.store.put(&id(n), (&vector).into(), b"", Version([n, 0, 0])).expect("a put");
                }
                start.elapsed()
            });
        });
        group.finish();
    }
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch and checkpoint, 128-d, 10,000 records");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let mut filled = filled(128, 10_000 * 512);
    let vector = Random(5).vector(128);
    let mut n = 0;
    for batch in [1u64, 100, 10_000] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |b| {
            b.iter(|| {
                for _ in 0..batch {
                    n += 1;
                    let id = id(n % filled.count);
                    filled.store.put(&id, (&vector).into(), b"", Version([n, 0, 0])).expect("a put");
                }
                filled.store.checkpoint(b"").expect("a checkpoint");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, searches, gets, puts, commits);
criterion_main!(benches);
