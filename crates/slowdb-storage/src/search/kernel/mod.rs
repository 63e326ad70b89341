//! Distances between queries and rows, in the widest registers that the processor has.
//!
//! Every pair of query and row is summed up in one register, in the order of the components, whatever the
//! number of queries and rows that are worked on together; so a score does not depend on the batch it is
//! computed in.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use std::sync::OnceLock;

/// How many rows are compared at once.
pub(super) const ROWS: usize = 8;
/// How many queries of a batch are compared at once.
pub(super) const QUERIES: usize = 4;

/// What is summed up of a pair of components. A parameter of kernels, as numbers since enums cannot be one.
const DOT: u8 = 0;
const L2: u8 = 1;
const L1: u8 = 2;

type Query = *const f32;
type RowPtrs = [*const f32; ROWS];
type Scores = [f32; ROWS];

/// One query with all rows.
type One = unsafe fn(Query, &RowPtrs, usize, &mut Scores);
/// Several queries with all rows.
type Four = unsafe fn(&[Query; QUERIES], &RowPtrs, usize, &mut [Scores; QUERIES]);
/// Each row with itself.
type Norms = unsafe fn(&RowPtrs, usize, &mut Scores);

/// One query with all rows, and each row with itself.
type OneWithNorms = unsafe fn(Query, &RowPtrs, usize, &mut Scores, &mut Scores);

/// The kernels for one kind of processor.
///
/// # Safety of all of them
/// Queries and rows are readable for the given number of components, which is a multiple of 16; nobody
/// writes them meanwhile; the processor has the instructions.
pub(super) struct Kernels {
    /// What they are made for.
    pub(super) name: &'static str,
    /// Squared distances.
    pub(super) l2_one: One,
    pub(super) l2_four: Four,
    /// Sums of the differences' absolute values.
    pub(super) l1_one: One,
    pub(super) l1_four: Four,
    /// Inner products.
    pub(super) dot_one: One,
    pub(super) dot_four: Four,
    /// Squared lengths.
    pub(super) norms: Norms,
    /// Inner products and squared lengths.
    pub(super) dot_one_with_norms: OneWithNorms,
}

impl Kernels {
    /// The best kernels for this processor.
    pub(super) fn detected() -> &'static Self {
        static DETECTED: OnceLock<&'static Kernels> = OnceLock::new();
        DETECTED.get_or_init(|| Self::available()[0])
    }

    /// All kernels that this processor can run, the best first; the scalar reference is the last.
    pub(super) fn available() -> Vec<&'static Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                all.push(&avx512::AVX512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(&avx2::AVX2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            all.push(&neon::NEON);
        }
        all.push(&scalar::SCALAR);
        all
    }
}

/// Asks for the memory from `start` on, which need not be there. Does nothing where it cannot be asked for.
#[inline(always)]
pub(super) fn prefetch(start: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has this instruction, and it does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, bytes);
}

/// How far ahead a walk with one query asks for memory, in components: 12 KiB.
const AHEAD: usize = 3072;

/// Writes the kernels for one kind of register. What differs between processors is how to load, multiply,
/// subtract and add up.
macro_rules! simd_kernels {
    (
        $kernels:ident, $name:literal, $features:literal, $register:ty, $lanes:literal,
        zero: $zero:expr, load: $load:expr, fma: $fma:expr, sub: $sub:expr, add: $add:expr, abs: $abs:expr,
        totals: $totals:expr
    ) => {
        /// A sum and what some components of a query and a row add to it.
        #[target_feature(enable = $features)]
        #[inline]
        fn plus<const SUM: u8>(sum: $register, query: $register, row: $register) -> $register {
            match SUM {
                L2 => {
                    let difference = $sub(query, row);
                    $fma(difference, difference, sum)
                }
                L1 => $add(sum, $abs($sub(query, row))),
                _ => $fma(query, row, sum),
            }
        }

        /// One query with all rows, and if wanted each row with itself. Row after row, and asking for what comes next, so
        /// that memory is read in one stream from beginning to end.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn stream<const SUM: u8, const NORMS: bool>(
            query: Query,
            rows: &RowPtrs,
            len: usize,
        ) -> ([$register; ROWS], [$register; ROWS]) {
            let (mut sums, mut squares) = ([$zero; ROWS], [$zero; ROWS]);
            for (row, (sum, square)) in rows.iter().zip(sums.iter_mut().zip(&mut squares)) {
                let mut at = 0;
                while at < len {
                    // Mostly the slots that come next are behind these.
                    prefetch(row.wrapping_add(at + AHEAD).cast(), 1);
                    // SAFETY: `at` is a multiple of the register's components below `len`, which is one too.
                    let query: $register = unsafe { $load(query.add(at)) };
                    // SAFETY: as above.
                    let row: $register = unsafe { $load(row.add(at)) };
                    *sum = plus::<SUM>(*sum, query, row);
                    if NORMS {
                        *square = $fma(row, row, *square);
                    }
                    at += $lanes;
                }
            }
            (sums, squares)
        }

        /// `Q` queries with `R` rows, `Q * R` being [`ROWS`].
        /// Query by query, the scores of the rows.
        #[target_feature(enable = $features)]
        #[inline]
        unsafe fn tile<const Q: usize, const R: usize, const SUM: u8>(
            queries: [*const f32; Q],
            rows: [*const f32; R],
            len: usize,
        ) -> Scores {
            const { assert!(Q * R == ROWS) };
            let mut sums: [$register; ROWS] = [$zero; ROWS];
            let mut at = 0;
            while at < len {
                // SAFETY: `at` is a multiple of the register's components below `len`, which is one too.
                let row: [$register; R] = std::array::from_fn(|r| unsafe { $load(rows[r].add(at)) });
                for q in 0..Q {
                    // SAFETY: as above.
                    let query: $register = unsafe { $load(queries[q].add(at)) };
                    for r in 0..R {
                        let sum = &mut sums[q * R + r];
                        *sum = plus::<SUM>(*sum, query, row[r]);
                    }
                }
                at += $lanes;
            }
            $totals(sums)
        }

        #[target_feature(enable = $features)]
        unsafe fn one<const SUM: u8>(query: Query, rows: &RowPtrs, len: usize, out: &mut Scores) {
            // SAFETY: promised by the caller.
            *out = $totals(unsafe { stream::<SUM, false>(query, rows, len) }.0);
        }

        #[target_feature(enable = $features)]
        unsafe fn one_with_norms(
            query: Query,
            rows: &RowPtrs,
            len: usize,
            out: &mut Scores,
            norms: &mut Scores,
        ) {
            // SAFETY: promised by the caller.
            let (sums, squares) = unsafe { stream::<DOT, true>(query, rows, len) };
            (*out, *norms) = ($totals(sums), $totals(squares));
        }

        #[target_feature(enable = $features)]
        unsafe fn four<const SUM: u8>(
            queries: &[Query; QUERIES],
            rows: &RowPtrs,
            len: usize,
            out: &mut [Scores; QUERIES],
        ) {
            const TOGETHER: usize = ROWS / QUERIES;
            for first in (0..ROWS).step_by(TOGETHER) {
                let some: [*const f32; TOGETHER] = std::array::from_fn(|n| rows[first + n]);
                // SAFETY: promised by the caller.
                let scores = unsafe { tile::<QUERIES, TOGETHER, SUM>(*queries, some, len) };
                for (out, scores) in out.iter_mut().zip(scores.chunks_exact(TOGETHER)) {
                    out[first..first + TOGETHER].copy_from_slice(scores);
                }
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn norms(rows: &RowPtrs, len: usize, out: &mut Scores) {
            let mut sums: [$register; ROWS] = [$zero; ROWS];
            let mut at = 0;
            while at < len {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: as in `tile`.
                    let row: $register = unsafe { $load(row.add(at)) };
                    *sum = $fma(row, row, *sum);
                }
                at += $lanes;
            }
            *out = $totals(sums);
        }

        pub(super) static $kernels: Kernels = Kernels {
            name: $name,
            l2_one: one::<L2>,
            l2_four: four::<L2>,
            l1_one: one::<L1>,
            l1_four: four::<L1>,
            dot_one: one::<DOT>,
            dot_four: four::<DOT>,
            norms,
            dot_one_with_norms: one_with_norms,
        };
    };
}
use simd_kernels;

/// The sum of a register's components, neighbours first.
#[cfg(target_arch = "aarch64")]
fn total<const LANES: usize>(mut parts: [f32; LANES]) -> f32 {
    let mut count = LANES;
    while count > 1 {
        count /= 2;
        for n in 0..count {
            parts[n] = parts[2 * n] + parts[2 * n + 1];
        }
    }
    parts[0]
}
