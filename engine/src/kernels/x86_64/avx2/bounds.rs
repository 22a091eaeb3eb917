//! Sums of a screened head's codes with AVX2.
//!
//! Codes meet the two digits of the input in `vpmaddubsw`: six bits and |a|, |b| ≤ 127 make at most
//! 63 · 127 · 2 = 16,002 in an i16, so that two of them may be added there. `vpmaddwd` then gives the
//! upper digit its worth. Sums of one digit may wrap, their total does not. Rows are read one after the other, a single stream.

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_shuffle_epi32, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_or_si256, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srli_epi16,
};

use super::{load, prefetch};
use crate::screen::{Bounds, High, Low, PADDING, Screen, ScreenInput};

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// 128 columns of an input's digit.
pub(in super::super) type Digits = [i8; PADDING];

/// Bounds the logits of the rows.
#[target_feature(enable = "avx2")]
pub(super) fn of_rows(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let [a, b] = digits(input);
    for (row, sum) in (bounds.first..).zip(&mut *bounds.sums) {
        *sum = high(screen.high(row), a, b);
    }
    screen.bound(input, bounds);
}

/// Sums the lower bits of some rows.
#[target_feature(enable = "avx2")]
pub(super) fn low_of_rows(screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
    let [a, b] = digits(input);
    for (&row, sum) in rows.iter().zip(sums) {
        *sum = low(screen.low(row as usize), a, b);
    }
}

/// Returns the digits of an input in blocks.
pub(in super::super) fn digits(input: &ScreenInput) -> [&[Digits]; 2] {
    let [a, b] = &input.digits;
    [a.as_chunks().0, b.as_chunks().0]
}

#[inline]
#[target_feature(enable = "avx2")]
fn high(row: &[High], a: &[Digits], b: &[Digits]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for ((block, a), b) in row.iter().zip(a).zip(b) {
        prefetch(block.as_ptr().wrapping_add(AHEAD));
        // Two lines hold less than a block and a half.
        prefetch(block.as_ptr().wrapping_add(AHEAD + 48));
        let codes = unpack(block);
        sum = _mm256_add_epi32(sum, products(codes, a, _mm256_set1_epi16(128)));
        sum = _mm256_add_epi32(sum, products(codes, b, _mm256_set1_epi16(1)));
    }
    add_lanes(sum)
}

#[inline]
#[target_feature(enable = "avx2")]
fn low(row: &[Low], a: &[Digits], b: &[Digits]) -> i32 {
    let mut sum = _mm256_setzero_si256();
    for ((block, a), b) in row.iter().zip(a).zip(b) {
        let codes = unpack_low(block);
        sum = _mm256_add_epi32(sum, products(codes, a, _mm256_set1_epi16(128)));
        sum = _mm256_add_epi32(sum, products(codes, b, _mm256_set1_epi16(1)));
    }
    add_lanes(sum)
}

/// Sums the products of 128 codes with a digit that is worth `worth`.
#[inline]
#[target_feature(enable = "avx2")]
fn products(codes: [__m256i; 4], digits: &Digits, worth: __m256i) -> __m256i {
    let (digits, _) = digits.as_chunks();
    let product = |i: usize| {
        _mm256_maddubs_epi16(
            codes[i],
            load(bytemuck::cast_ref::<[i8; 32], _>(&digits[i])),
        )
    };
    let first = _mm256_add_epi16(product(0), product(1));
    let second = _mm256_add_epi16(product(2), product(3));
    _mm256_add_epi32(
        _mm256_madd_epi16(first, worth),
        _mm256_madd_epi16(second, worth),
    )
}

/// Unpacks the upper bits of 128 codes, each 32 in a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn unpack(block: &High) -> [__m256i; 4] {
    let six = _mm256_set1_epi8(0b11_1111);
    let two = _mm256_set1_epi8(0b11);
    let (thirds, _) = block.as_chunks();
    let [first, second, third] = [load(&thirds[0]), load(&thirds[1]), load(&thirds[2])];
    let fourth = _mm256_or_si256(
        _mm256_and_si256(_mm256_srli_epi16::<6>(first), two),
        _mm256_or_si256(
            _mm256_and_si256(_mm256_srli_epi16::<4>(second), _mm256_slli_epi16::<2>(two)),
            _mm256_and_si256(_mm256_srli_epi16::<2>(third), _mm256_slli_epi16::<4>(two)),
        ),
    );
    [
        _mm256_and_si256(first, six),
        _mm256_and_si256(second, six),
        _mm256_and_si256(third, six),
        fourth,
    ]
}

/// Unpacks the lower bits of 128 codes, each 32 in a register.
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn unpack_low(block: &Low) -> [__m256i; 4] {
    let two = _mm256_set1_epi8(0b11);
    let packed = load(block);
    [
        _mm256_and_si256(packed, two),
        _mm256_and_si256(_mm256_srli_epi16::<2>(packed), two),
        _mm256_and_si256(_mm256_srli_epi16::<4>(packed), two),
        _mm256_and_si256(_mm256_srli_epi16::<6>(packed), two),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn add_lanes(lanes: __m256i) -> i32 {
    let four = _mm_add_epi32(
        _mm256_castsi256_si128(lanes),
        _mm256_extracti128_si256::<1>(lanes),
    );
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}
