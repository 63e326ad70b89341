//! Kernels for x86-64 processors with AVX2 with FMA.

use std::arch::x86_64::{
    __m256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Kernels, QUERIES, Query, ROWS, RowPtrs, Scores, simd_kernels};

simd_kernels!(
    AVX2, "avx2", "avx2,fma", __m256, 8,
    zero: _mm256_setzero_ps(), load: _mm256_loadu_ps, fma: _mm256_fmadd_ps,
    sub: _mm256_sub_ps, store: _mm256_storeu_ps
);
