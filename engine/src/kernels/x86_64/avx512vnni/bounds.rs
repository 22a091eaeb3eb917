//! Sums of a screened head's codes with AVX-512 VNNI: codes meet the two digits of the input in
//! `vpdpbusd`, 32 at a time.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_dpbusd_epi32, _mm256_setzero_si256, _mm256_slli_epi32,
};

use super::super::avx2::{
    bounds::{Digits, add_lanes, digits, unpack, unpack_low},
    load, prefetch,
};
use crate::screen::{Bounds, Screen, ScreenInput};

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Bounds the logits of the rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn of_rows(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let [a, b] = digits(input);
    for (row, sum) in (bounds.first..).zip(&mut *bounds.sums) {
        let mut sums = Sums::new();
        for ((block, a), b) in screen.high(row).iter().zip(a).zip(b) {
            prefetch(block.as_ptr().wrapping_add(AHEAD));
            // Two lines hold less than a block and a half.
            prefetch(block.as_ptr().wrapping_add(AHEAD + 48));
            sums.add(unpack(block), a, b);
        }
        *sum = sums.total();
    }
    screen.bound(input, bounds);
}

/// Sums the lower bits of some rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
pub(super) fn low_of_rows(screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
    let [a, b] = digits(input);
    for (&row, sum) in rows.iter().zip(sums) {
        let mut sums = Sums::new();
        for ((block, a), b) in screen.low(row as usize).iter().zip(a).zip(b) {
            sums.add(unpack_low(block), a, b);
        }
        *sum = sums.total();
    }
}

/// Sums of the products with either digit, for both halves of the columns.
struct Sums([[__m256i; 2]; 2]);

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Self {
        Self([[_mm256_setzero_si256(); 2]; 2])
    }

    #[inline]
    #[target_feature(enable = "avx512vl,avx512vnni,avx2")]
    fn add(&mut self, codes: [__m256i; 4], a: &Digits, b: &Digits) {
        for (sums, digits) in self.0.iter_mut().zip([a, b]) {
            let (digits, _) = digits.as_chunks::<32>();
            for i in 0..4 {
                let digits = load(bytemuck::cast_ref(&digits[i]));
                sums[i % 2] = _mm256_dpbusd_epi32(sums[i % 2], codes[i], digits);
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total(self) -> i32 {
        let [a, b] = self.0.map(|[even, odd]| _mm256_add_epi32(even, odd));
        add_lanes(_mm256_add_epi32(_mm256_slli_epi32::<7>(a), b))
    }
}
