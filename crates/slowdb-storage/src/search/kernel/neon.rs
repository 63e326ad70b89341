//! Kernels for 64-bit ARM.

use std::arch::aarch64::{
    float32x4_t, vabsq_f32, vaddq_f32, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32, vsubq_f32,
};

use super::{
    AHEAD, DOT, Kernels, L1, L2, QUERIES, Query, ROWS, RowPtrs, Scores, prefetch, simd_kernels, total,
};

/// With the sum as the last argument, as the others have it.
#[target_feature(enable = "neon")]
#[inline]
fn fma(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
    vfmaq_f32(sum, a, b)
}

#[target_feature(enable = "neon")]
#[inline]
fn totals(sums: [float32x4_t; ROWS]) -> Scores {
    sums.map(|sum| {
        let mut parts = [0.0; 4];
        // SAFETY: the array has room for the register.
        unsafe { vst1q_f32(parts.as_mut_ptr(), sum) };
        total(parts)
    })
}

simd_kernels!(
    NEON, "neon", "neon", float32x4_t, 4,
    zero: vdupq_n_f32(0.0), load: vld1q_f32, fma: fma, sub: vsubq_f32, add: vaddq_f32, abs: vabsq_f32, totals: totals
);
