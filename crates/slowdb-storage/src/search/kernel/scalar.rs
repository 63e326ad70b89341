//! Kernels without SIMD: for processors with none of the others, and the reference that they are tested
//! against.

use super::{DOT, Kernels, L1, L2, QUERIES, Query, ROWS, RowPtrs, Scores};

/// Independent sums, which a compiler can keep in small registers.
const LANES: usize = 4;

pub(super) static SCALAR: Kernels = Kernels {
    name: "scalar",
    l2_one: one::<L2>,
    l2_four: four::<L2>,
    l1_one: one::<L1>,
    l1_four: four::<L1>,
    dot_one: one::<DOT>,
    dot_four: four::<DOT>,
    norms,
    dot_one_with_norms: one_with_norms,
};

unsafe fn one<const SUM: u8>(query: Query, rows: &RowPtrs, len: usize, out: &mut Scores) {
    for (row, out) in rows.iter().zip(out) {
        // SAFETY: promised by the caller.
        let (query, row) =
            unsafe { (std::slice::from_raw_parts(query, len), std::slice::from_raw_parts(*row, len)) };
        *out = pair::<SUM>(query, row);
    }
}

unsafe fn four<const SUM: u8>(
    queries: &[Query; QUERIES],
    rows: &RowPtrs,
    len: usize,
    out: &mut [Scores; QUERIES],
) {
    for (query, out) in queries.iter().zip(out) {
        // SAFETY: promised by the caller.
        unsafe { one::<SUM>(*query, rows, len, out) };
    }
}

unsafe fn one_with_norms(query: Query, rows: &RowPtrs, len: usize, out: &mut Scores, squares: &mut Scores) {
    // SAFETY: promised by the caller.
    unsafe {
        one::<DOT>(query, rows, len, out);
        norms(rows, len, squares);
    }
}

unsafe fn norms(rows: &RowPtrs, len: usize, out: &mut [f32; ROWS]) {
    for (row, out) in rows.iter().zip(out) {
        // SAFETY: promised by the caller.
        let row = unsafe { std::slice::from_raw_parts(*row, len) };
        *out = pair::<DOT>(row, row);
    }
}

fn pair<const SUM: u8>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for n in 0..LANES {
            sums[n] += match SUM {
                L2 => (a[n] - b[n]) * (a[n] - b[n]),
                L1 => (a[n] - b[n]).abs(),
                _ => a[n] * b[n],
            };
        }
    }
    sums.iter().sum()
}
