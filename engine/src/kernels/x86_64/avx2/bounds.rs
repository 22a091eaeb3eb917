//! Bounds of a screened head's logits with AVX2.
//!
//! A row of int8 is widened to i16 as it is read and meets the i16 input in `vpmaddwd`: three
//! instructions for 16 columns, faster than memory delivers them. Rows are read one after the
//! other, a single stream.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps,
    _mm_shuffle_ps, _mm256_add_epi32, _mm256_castps256_ps128, _mm256_cvtepi8_epi16,
    _mm256_cvtepi32_ps, _mm256_extractf128_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_setzero_si256,
};

use super::prefetch;
use crate::screen::{Bounds, Screen, ScreenInput};

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Bounds the logits of the rows.
#[target_feature(enable = "avx2")]
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
#[target_feature(enable = "avx2")]
fn dot(row: &[i8], input: &[i16]) -> f32 {
    let (row, _) = row.as_chunks::<32>();
    let (input, _) = input.as_chunks::<32>();
    let mut sums = [_mm256_setzero_si256(); 2];
    for (nth, (q, u)) in row.iter().zip(input).enumerate() {
        if nth % 2 == 0 {
            prefetch(q.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        }
        let (q, _) = q.as_chunks::<16>();
        let (u, _) = u.as_chunks::<16>();
        for half in 0..2 {
            let wide = _mm256_cvtepi8_epi16(load_128(&q[half]));
            let products = _mm256_madd_epi16(wide, load(&u[half]));
            sums[half] = _mm256_add_epi32(sums[half], products);
        }
    }
    // Two lanes may not fit in i32 together.
    let low = sum_lanes(sums[0]);
    low + sum_lanes(sums[1])
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes(lanes: __m256i) -> f32 {
    let lanes = _mm256_cvtepi32_ps(lanes);
    let four = _mm_add_ps(
        _mm256_castps256_ps128(lanes),
        _mm256_extractf128_ps::<1>(lanes),
    );
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(values: &[i16; 16]) -> __m256i {
    // SAFETY: `values` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_128(values: &[i8; 16]) -> __m128i {
    // SAFETY: `values` is 16 readable bytes, and loadu asks no alignment.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}
