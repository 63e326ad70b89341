//! Every kernel against the scalar one and against exact sums; searches against sorting everything.

use std::num::NonZeroUsize;
use std::sync::Arc;

use slowdb_disk::SimDisk;

use super::kernel::{Kernels, QUERIES, ROWS};
use super::{Metric, Queries, SearchQuery, exact};
use crate::{Options, ReadError, Store, Version};

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *state >> 33
}

/// `count` padded vectors, each starting at an odd place of the buffer.
fn vectors(state: &mut u64, count: usize, dimension: usize, scale: f32) -> (Vec<f32>, Vec<usize>, usize) {
    let len = dimension.next_multiple_of(16);
    let mut all = Vec::new();
    let mut starts = Vec::new();
    for n in 0..count {
        all.extend(std::iter::repeat_n(f32::NAN, n % 5 + 1));
        starts.push(all.len());
        all.extend((0..dimension).map(|_| (random(state) % 201) as f32 * scale - 100.0 * scale));
        all.extend(std::iter::repeat_n(0.0, len - dimension));
    }
    (all, starts, len)
}

#[test]
fn all_kernels_agree_in_all_dimensions() {
    let mut state = 1;
    for dimension in 1..=130 {
        // Small whole numbers are summed up without rounding in any order: no difference is allowed.
        for (scale, tolerance) in [(1.0, 0.0), (0.013, 1e-5)] {
            let (rows, starts, len) = vectors(&mut state, ROWS, dimension, scale);
            let (queries, query_starts, _) = vectors(&mut state, QUERIES, dimension, scale);
            for kernels in Kernels::available() {
                compare(kernels, (&rows, &starts), (&queries, &query_starts), len, tolerance);
            }
        }
    }
}

fn compare(
    kernels: &Kernels,
    (rows, starts): (&[f32], &[usize]),
    (queries, query_starts): (&[f32], &[usize]),
    len: usize,
    tolerance: f64,
) {
    let row = |r: usize| &rows[starts[r]..starts[r] + len];
    let query = |q: usize| &queries[query_starts[q]..query_starts[q] + len];
    let row_ptrs: [*const f32; ROWS] = std::array::from_fn(|r| row(r).as_ptr());
    let query_ptrs: [*const f32; QUERIES] = std::array::from_fn(|q| query(q).as_ptr());
    for metric in [Metric::L2, Metric::L1, Metric::InnerProduct] {
        let (one, four) = match metric {
            Metric::L2 => (kernels.l2_one, kernels.l2_four),
            Metric::L1 => (kernels.l1_one, kernels.l1_four),
            _ => (kernels.dot_one, kernels.dot_four),
        };
        let mut together = [[0.0; ROWS]; QUERIES];
        // SAFETY: all are `len` numbers, a multiple of 16, and the kernels are available here.
        unsafe { four(&query_ptrs, &row_ptrs, len, &mut together) };
        for q in 0..QUERIES {
            let mut alone = [0.0; ROWS];
            // SAFETY: as above.
            unsafe { one(query_ptrs[q], &row_ptrs, len, &mut alone) };
            assert_eq!(alone.map(f32::to_bits), together[q].map(f32::to_bits), "{}", kernels.name);
            for (r, score) in alone.iter().enumerate() {
                let right = exact(metric, query(q), row(r));
                let size = exact(metric, query(q), query(q)).abs() + exact(metric, row(r), row(r)).abs();
                let off = (f64::from(*score) - right).abs();
                assert!(off <= tolerance * (size + right.abs()), "{}: {score} for {right}", kernels.name);
            }
        }
    }
    let mut norms = [0.0; ROWS];
    // SAFETY: as above.
    unsafe { (kernels.norms)(&row_ptrs, len, &mut norms) };
    for query in query_ptrs {
        let (mut alone, mut raw, mut squares) = ([0.0; ROWS], [0.0; ROWS], [0.0; ROWS]);
        // SAFETY: as above.
        unsafe {
            (kernels.dot_one)(query, &row_ptrs, len, &mut alone);
            (kernels.dot_one_with_norms)(query, &row_ptrs, len, &mut raw, &mut squares);
        }
        assert_eq!(raw.map(f32::to_bits), alone.map(f32::to_bits), "{}", kernels.name);
        assert_eq!(squares.map(f32::to_bits), norms.map(f32::to_bits), "{}", kernels.name);
    }
    for (r, norm) in norms.iter().enumerate() {
        let right = exact(Metric::InnerProduct, row(r), row(r));
        assert!(
            (f64::from(*norm) - right).abs() <= tolerance * right,
            "{}: {norm} for {right}",
            kernels.name
        );
    }
}

/// Ids and vectors.
type Records = Vec<(Vec<u8>, Vec<f32>)>;

/// Components that are small whole numbers, so that many scores are equal and none is rounded.
fn store(dimension: usize, count: u64) -> (Store, Records) {
    let mut options = Options::new(dimension);
    options.extent_bytes = 4096;
    let mut store = Store::open(Arc::new(SimDisk::new()), "", options).unwrap();
    let mut state = 5;
    let mut all = Vec::new();
    for n in 0..count {
        let id = format!("{:03}", (n * 37) % 1000).into_bytes();
        let vector: Vec<f32> = (0..dimension).map(|_| (random(&mut state) % 5) as f32 - 2.0).collect();
        store.put(&id, (&vector).into(), &[n as u8], Version([n, 0, 0])).unwrap();
        all.push((id, vector));
    }
    for n in (0..count as usize).rev().step_by(7) {
        store.delete(&all[n].0).unwrap();
        all.remove(n);
    }
    (store, all)
}

#[test]
fn a_search_finds_what_sorting_finds_with_ties_in_order_of_ids() {
    for dimension in [1, 3, 16, 33] {
        let (store, all) = store(dimension, 700);
        let queries: Vec<f32> = (0..dimension * 7).map(|n| (n % 5) as f32 - 2.0).collect();
        for metric in [Metric::L2, Metric::L1, Metric::InnerProduct] {
            for k in [1, 10, 100, 5000] {
                let found = store.reader().search(&SearchQuery::new(&queries, k, metric)).unwrap();
                for (query, hits) in queries.chunks_exact(dimension).zip(found) {
                    let mut expected: Vec<_> =
                        all.iter().map(|(id, v)| (exact(metric, query, v) + 0.0, id.clone())).collect();
                    expected.sort_by(|a, b| {
                        let order = a.0.total_cmp(&b.0);
                        let order = if metric == Metric::InnerProduct { order.reverse() } else { order };
                        order.then_with(|| a.1.cmp(&b.1))
                    });
                    expected.truncate(k);
                    let hits: Vec<_> = hits.into_iter().map(|h| (f64::from(h.score), h.id)).collect();
                    assert_eq!(hits, expected, "dimension {dimension} {metric:?} k {k}");
                }
            }
        }
    }
}

#[test]
fn any_number_of_threads_finds_the_first_of_all() {
    let (store, all) = store(16, 900);
    let queries: Vec<f32> = (0..16 * 5).map(|n| (n % 7) as f32 - 3.0).collect();
    for metric in [Metric::L2, Metric::L1, Metric::InnerProduct, Metric::Cosine] {
        let search = |k: usize, threads: usize| {
            let threads = NonZeroUsize::new(threads).expect("at least one");
            let query = SearchQuery { threads, ..SearchQuery::new(&queries, k, metric) };
            store.reader().search(&query).expect("a search")
        };
        // With room for all of them none is passed over for being too far.
        let sorted = search(all.len(), 1);
        for k in [1, 2, 10, 100, 5000] {
            for threads in [1, 2, 3, 16, 1000] {
                let found = search(k, threads);
                let first = sorted.iter().map(|hits| hits[..k.min(all.len())].to_vec());
                assert!(first.eq(found), "{metric:?}, k {k}, {threads} threads");
            }
        }
    }
}

#[test]
fn what_one_thread_finds_damaged_fails_the_search_of_all() {
    let disk = SimDisk::new();
    let mut options = Options::new(16);
    options.extent_bytes = 4096;
    let mut store = Store::open(Arc::new(disk.clone()), "", options.clone()).expect("a store");
    for n in 0..2000_u64 {
        store.put(&n.to_le_bytes(), (&[n as f32; 16]).into(), &[], Version([n, 0, 0])).expect("a put");
    }
    store.checkpoint(&[]).expect("a checkpoint");
    let (geometry, slot) = (store.reader().shared.geometry, 1500);
    let (extent, at) = (slot / geometry.slots_per_extent(), slot % geometry.slots_per_extent());
    drop(store);
    let offset = extent * geometry.vector_extent() + at * geometry.stride;
    disk.flip_bit("vectors", offset as u64, 0).expect("a bit");
    let store = Store::open(Arc::new(disk), "", options).expect("a store");
    let threads = NonZeroUsize::new(4).expect("four");
    let query = SearchQuery { threads, ..SearchQuery::new(&[1.0; 16], 3, Metric::L2) };
    let found = store.reader().search(&query);
    assert!(matches!(found, Err(ReadError::Corrupt(_))), "{found:?}");
}

#[test]
fn cosines_are_cosines_also_of_zero_tiny_and_huge_vectors() {
    let mut store = Store::open(Arc::new(SimDisk::new()), "", Options::new(2)).unwrap();
    let mut put = |id: &str, v: [f32; 2]| {
        store.put(id.as_bytes(), (&v).into(), b"", Version::default()).unwrap();
    };
    put("zero", [0.0, 0.0]);
    put("tiny", [1e-44, 0.0]);
    put("huge", [0.0, 3e38]);
    put("minus", [-3.0, 0.0]);
    put("half", [5.0, 5.0]);
    let query = [2e38, 0.0];
    let hits = store.reader().search(&SearchQuery::new(&query, 9, Metric::Cosine)).unwrap();
    let hits: Vec<(&str, f32)> =
        hits[0].iter().map(|h| (std::str::from_utf8(&h.id).unwrap(), h.score)).collect();
    let half = std::f32::consts::FRAC_1_SQRT_2;
    assert_eq!(hits, [("tiny", 1.0), ("half", half), ("huge", 0.0), ("zero", 0.0), ("minus", -1.0)]);

    let all_finite = |metric| {
        let hits = store.reader().search(&SearchQuery::new(&[-3e38, 3e38], 9, metric)).unwrap();
        hits[0].iter().all(|h| h.score.is_finite()) && hits[0].len() == 5
    };
    assert!([Metric::L2, Metric::L1, Metric::InnerProduct].into_iter().all(all_finite));
}

fn power_of_ten(exponent: i32) -> f32 {
    format!("1e{exponent}").parse().unwrap()
}

#[test]
fn cosines_are_cosines_also_where_the_products_are_too_small() {
    for dimension in [2, 65_536] {
        let pair = |a: f32, b: f32| {
            let half = dimension / 2;
            [vec![a; half], vec![b; half]].concat()
        };
        let mut store = Store::open(Arc::new(SimDisk::new()), "", Options::new(dimension)).unwrap();
        for exponent in [-40, -25, -23, -22, -21, -20, -19, -18, -10, 0, 10] {
            let scale = power_of_ten(exponent);
            let row = pair(scale, scale * 5.0);
            store.put(&exponent.to_le_bytes(), (&row).into(), b"", Version::default()).unwrap();
        }
        for exponent in [-44, -40, -35, -30, -27, -25, -20, -19, -18, -17, -10, 0, 10] {
            let (query, across) = (pair(power_of_ten(exponent), 0.0), pair(-5.0, 1.0));
            let near = |query: &[f32]| {
                let hits = store.reader().search(&SearchQuery::new(query, 99, Metric::Cosine)).unwrap();
                assert_eq!(hits[0].len(), 11);
                hits.into_iter().flatten()
            };
            for hit in near(&query) {
                let row = store.reader().get(&hit.id).unwrap().unwrap().vector;
                let length = |v: &[f32]| exact(Metric::InnerProduct, v, v).sqrt();
                let cosine = exact(Metric::InnerProduct, &query, &row) / length(&query) / length(&row);
                let off = (f64::from(hit.score) - cosine).abs();
                assert!(off < 1e-5, "{hit:?} where {cosine} is right, query 1e{exponent} of {dimension}");
            }
            assert!(near(&across).all(|hit| hit.score.abs() < 1e-5));
        }
    }
}

#[test]
fn true_zeros_of_ordinary_vectors_are_not_computed_twice() {
    let queries = Queries::new(&[1.0, 0.0, 0.0, 0.0, 1e-27, 0.0], 2, 16);
    for (row, fit) in [(1.0, [true; 3]), (1e-20, [true, true, false]), (1e-37, [false; 3])] {
        assert_eq!([0, 1, 2].map(|n| queries.fit(n, row)), fit, "a row of squared length {row}");
    }
    assert!(!queries.fit(0, f32::INFINITY) && !queries.fit(0, 0.0));
}

#[test]
fn filters_are_asked_and_obeyed() {
    let (store, all) = store(3, 300);
    let even = |record: &crate::RecordRef<'_>| record.payload[0].is_multiple_of(2);
    let mut query = SearchQuery::new(&[1.0, 0.0, 2.0], 500, Metric::L2);
    query.filter = Some(&even);
    let hits = store.reader().search(&query).unwrap();
    let reader = store.reader();
    let is_even = |id: &[u8]| reader.get(id).unwrap().unwrap().payload[0].is_multiple_of(2);
    assert_eq!(hits[0].len(), all.iter().filter(|(id, _)| is_even(id)).count());
    assert!(hits[0].iter().all(|h| is_even(&h.id)));
    query.k = 5;
    let few = store.reader().search(&query).unwrap();
    assert_eq!(few[0], hits[0][..5]);
}
