//! Kernels for 64-bit ARM.

use std::arch::aarch64::{float32x4_t, vdupq_n_f32, vfmaq_f32, vld1q_f32, vst1q_f32, vsubq_f32};

use super::{Kernels, QUERIES, Query, ROWS, RowPtrs, Scores, simd_kernels};

/// With the sum as the last argument, as the others have it.
#[target_feature(enable = "neon")]
#[inline]
fn fma(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
    vfmaq_f32(sum, a, b)
}

simd_kernels!(
    NEON, "neon", "neon", float32x4_t, 4,
    zero: vdupq_n_f32(0.0), load: vld1q_f32, fma: fma, sub: vsubq_f32, store: vst1q_f32
);
