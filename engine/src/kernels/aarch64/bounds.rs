//! Bounds of a screened head's logits with NEON: int8 rows widened to i16 meet the i16 input in
//! `smlal`.

use std::arch::aarch64::{
    int16x8_t, vcvtq_f32_s32, vdupq_n_s32, vget_low_s8, vget_low_s16, vld1q_s16, vmlal_high_s16,
    vmlal_s16, vmovl_high_s8, vmovl_s8,
};

use super::{
    codes::{AHEAD, load_i8},
    lanes::{prefetch, quad},
};
use crate::screen::{Bounds, Screen, ScreenInput};

/// Bounds the logits of the rows.
#[target_feature(enable = "neon")]
pub(super) fn of_rows(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let rows = bounds.first..;
    for ((lower, upper), row) in bounds.lower.iter_mut().zip(&mut *bounds.upper).zip(rows) {
        let sum = dot(screen.codes(row), &input.codes);
        (*lower, *upper) = screen.bounds(row, sum, input);
    }
}

/// The dot product of a row with an input, off by at most `2^-21` of the products' magnitudes:
/// each of 16 lanes is exact in i32, and only their sum is in f32.
#[inline]
#[target_feature(enable = "neon")]
fn dot(row: &[i8], input: &[i16]) -> f32 {
    let (row, _) = row.as_chunks::<32>();
    let (input, _) = input.as_chunks::<32>();
    let mut sums = [vdupq_n_s32(0); 4];
    for (q, u) in row.iter().zip(input) {
        prefetch(q.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        let (q, _) = q.as_chunks::<16>();
        let (u, _) = u.as_chunks::<8>();
        for half in 0..2 {
            let (low, high) = (load(&u[2 * half]), load(&u[2 * half + 1]));
            let q = load_i8(&q[half]);
            let (q_low, q_high) = (vmovl_s8(vget_low_s8(q)), vmovl_high_s8(q));
            sums[0] = vmlal_s16(sums[0], vget_low_s16(q_low), vget_low_s16(low));
            sums[1] = vmlal_high_s16(sums[1], q_low, low);
            sums[2] = vmlal_s16(sums[2], vget_low_s16(q_high), vget_low_s16(high));
            sums[3] = vmlal_high_s16(sums[3], q_high, high);
        }
    }
    quad::fold(sums.map(|sum| vcvtq_f32_s32(sum)))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(values: &[i16; 8]) -> int16x8_t {
    // SAFETY: `values` is 8 readable i16.
    unsafe { vld1q_s16(values.as_ptr()) }
}
