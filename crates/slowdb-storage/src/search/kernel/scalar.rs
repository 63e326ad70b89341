//! Kernels without SIMD: for processors with none of the others, and the reference that they are tested
//! against.

use super::{Kernels, QUERIES, Query, ROWS, RowPtrs, Scores};

/// Independent sums, which a compiler can keep in small registers.
const LANES: usize = 4;

pub(super) static SCALAR: Kernels = Kernels {
    name: "scalar",
    l2_one: one::<true>,
    l2_four: four::<true>,
    dot_one: one::<false>,
    dot_four: four::<false>,
    norms,
};

unsafe fn one<const L2: bool>(query: Query, rows: &RowPtrs, len: usize, out: &mut Scores) {
    for (row, out) in rows.iter().zip(out) {
        // SAFETY: promised by the caller.
        let (query, row) =
            unsafe { (std::slice::from_raw_parts(query, len), std::slice::from_raw_parts(*row, len)) };
        *out = pair::<L2>(query, row);
    }
}

unsafe fn four<const L2: bool>(
    queries: &[Query; QUERIES],
    rows: &RowPtrs,
    len: usize,
    out: &mut [Scores; QUERIES],
) {
    for (query, out) in queries.iter().zip(out) {
        // SAFETY: promised by the caller.
        unsafe { one::<L2>(*query, rows, len, out) };
    }
}

unsafe fn norms(rows: &RowPtrs, len: usize, out: &mut [f32; ROWS]) {
    for (row, out) in rows.iter().zip(out) {
        // SAFETY: promised by the caller.
        let row = unsafe { std::slice::from_raw_parts(*row, len) };
        *out = pair::<false>(row, row);
    }
}

fn pair<const L2: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for n in 0..LANES {
            sums[n] += if L2 { (a[n] - b[n]) * (a[n] - b[n]) } else { a[n] * b[n] };
        }
    }
    sums.iter().sum()
}
