//! Bounds of a screened head's logits with AVX-512 VNNI: int8 rows widened to i16 meet the i16
//! input in `vpdpwssd`.

use std::arch::x86_64::{
    __m512i, _mm512_cvtepi8_epi16, _mm512_cvtepi32_ps, _mm512_dpwssd_epi32, _mm512_loadu_si512,
    _mm512_reduce_add_ps, _mm512_setzero_si512,
};

use super::{super::avx2::prefetch, load_256};
use crate::screen::{Bounds, Screen, ScreenInput};

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Bounds the logits of the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn of_rows(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let rows = bounds.first..;
    for ((lower, upper), row) in bounds.lower.iter_mut().zip(&mut *bounds.upper).zip(rows) {
        let sum = dot(screen.codes(row), &input.codes);
        (*lower, *upper) = screen.bounds(row, sum, input);
    }
}

/// The dot product of a row with an input, off by at most `2^-21` of the products' magnitudes:
/// each lane is exact in i32, and only their sum is in f32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn dot(row: &[i8], input: &[i16]) -> f32 {
    let (row, _) = row.as_chunks::<32>();
    let (input, _) = input.as_chunks::<32>();
    let mut sum = _mm512_setzero_si512();
    for (nth, (q, u)) in row.iter().zip(input).enumerate() {
        let q: &[u8; 32] = bytemuck::cast_ref(q);
        if nth % 2 == 0 {
            prefetch(q.as_ptr().wrapping_add(AHEAD));
        }
        sum = _mm512_dpwssd_epi32(sum, _mm512_cvtepi8_epi16(load_256(q)), load(u));
    }
    _mm512_reduce_add_ps(_mm512_cvtepi32_ps(sum))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[i16; 32]) -> __m512i {
    // SAFETY: `values` is 64 readable bytes, and loadu asks no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
