//! Kernels for x86-64 processors with AVX2 with FMA.

use std::arch::x86_64::{
    __m256, _mm256_add_ps, _mm256_andnot_ps, _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps,
    _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{AHEAD, DOT, Kernels, L1, L2, QUERIES, Query, ROWS, RowPtrs, Scores, prefetch, simd_kernels};

#[target_feature(enable = "avx2")]
#[inline]
fn abs(x: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

/// The sums of eight registers' components, neighbours first, all at once.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn totals(sums: [__m256; ROWS]) -> Scores {
    let [a, b, c, d, e, f, g, h] = sums;
    let abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    let efgh = _mm256_hadd_ps(_mm256_hadd_ps(e, f), _mm256_hadd_ps(g, h));
    // Each has the sums of the low halves in its low half, those of the high ones in its high half.
    let low = _mm256_permute2f128_ps::<0x20>(abcd, efgh);
    let high = _mm256_permute2f128_ps::<0x31>(abcd, efgh);
    let mut out = [0.0; ROWS];
    // SAFETY: the array has room for the register.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(low, high)) };
    out
}

simd_kernels!(
    AVX2, "avx2", "avx2,fma", __m256, 8,
    zero: _mm256_setzero_ps(), load: _mm256_loadu_ps, fma: _mm256_fmadd_ps,
    sub: _mm256_sub_ps, add: _mm256_add_ps, abs: abs, totals: totals
);
