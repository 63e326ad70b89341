//! Kernels for x86-64 processors with AVX-512.

use std::arch::x86_64::{
    __m512, _mm512_abs_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps,
    _mm512_storeu_ps, _mm512_sub_ps,
};

use super::{DOT, Kernels, L1, L2, QUERIES, Query, ROWS, RowPtrs, Scores, simd_kernels, total};

#[target_feature(enable = "avx512f")]
#[inline]
fn totals(sums: [__m512; ROWS]) -> Scores {
    sums.map(|sum| {
        let mut parts = [0.0; 16];
        // SAFETY: the array has room for the register.
        unsafe { _mm512_storeu_ps(parts.as_mut_ptr(), sum) };
        total(parts)
    })
}

simd_kernels!(
    AVX512, "avx512", "avx512f", __m512, 16,
    zero: _mm512_setzero_ps(), load: _mm512_loadu_ps, fma: _mm512_fmadd_ps,
    sub: _mm512_sub_ps, add: _mm512_add_ps, abs: _mm512_abs_ps, totals: totals
);
