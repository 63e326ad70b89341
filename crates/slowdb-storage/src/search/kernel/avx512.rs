//! Kernels for x86-64 processors with AVX-512.

use std::arch::x86_64::{
    __m512, _mm256_add_ps, _mm256_castpd_ps, _mm512_abs_ps, _mm512_add_ps, _mm512_castps_pd,
    _mm512_castps512_ps256, _mm512_extractf64x4_pd, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps,
    _mm512_sub_ps,
};

use super::{
    AHEAD, DOT, Kernels, L1, L2, QUERIES, Query, ROWS, RowPtrs, Scores, avx2, prefetch, simd_kernels,
};

/// The sums of eight registers' components: both halves of each, and then as for AVX2, which every processor with
/// AVX-512 has.
#[target_feature(enable = "avx512f")]
#[inline]
fn totals(sums: [__m512; ROWS]) -> Scores {
    let halves = sums.map(|sum| {
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(sum)));
        _mm256_add_ps(_mm512_castps512_ps256(sum), high)
    });
    avx2::totals(halves)
}

simd_kernels!(
    AVX512, "avx512", "avx512f", __m512, 16,
    zero: _mm512_setzero_ps(), load: _mm512_loadu_ps, fma: _mm512_fmadd_ps,
    sub: _mm512_sub_ps, add: _mm512_add_ps, abs: _mm512_abs_ps, totals: totals
);
