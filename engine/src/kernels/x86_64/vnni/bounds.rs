//! Sums of a screened head's codes by `vpdpbusd`: codes meet the two digits of the input, 32 at a
//! time.

use std::arch::x86_64::{__m256i, _mm256_add_epi32, _mm256_setzero_si256, _mm256_slli_epi32};

use super::{
    super::avx2::{
        bounds::{Digits, add_lanes, digits, unpack, unpack_low},
        load, prefetch,
    },
    Vnni,
};
use crate::screen::{Bounds, Screen, ScreenInput};

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Bounds the logits of the rows.
#[inline(always)]
pub(in super::super) fn of_rows(
    isa: impl Vnni,
    screen: &Screen,
    input: &ScreenInput,
    bounds: &mut Bounds<'_>,
) {
    let [a, b] = digits(input);
    for (row, sum) in (bounds.first..).zip(&mut *bounds.sums) {
        let mut sums = Sums::new(isa);
        for ((block, a), b) in screen.high(row).iter().zip(a).zip(b) {
            // Two lines hold less than a block and a half.
            for ahead in [AHEAD, AHEAD + 48] {
                // SAFETY: `isa` proves AVX2, and thus SSE.
                unsafe { prefetch(block.as_ptr().wrapping_add(ahead)) }
            }
            // SAFETY: `isa` proves AVX2.
            sums.add(unsafe { unpack(block) }, a, b);
        }
        *sum = sums.total();
    }
    screen.bound(input, bounds);
}

/// Sums the lower bits of some rows.
#[inline(always)]
pub(in super::super) fn low_of_rows(
    isa: impl Vnni,
    screen: &Screen,
    input: &ScreenInput,
    rows: &[u32],
    sums: &mut [i32],
) {
    let [a, b] = digits(input);
    for (&row, sum) in rows.iter().zip(sums) {
        let mut sums = Sums::new(isa);
        for ((block, a), b) in screen.low(row as usize).iter().zip(a).zip(b) {
            // SAFETY: `isa` proves AVX2.
            sums.add(unsafe { unpack_low(block) }, a, b);
        }
        *sum = sums.total();
    }
}

/// Sums of the products with either digit, for both halves of the columns.
struct Sums<V> {
    isa: V,
    sums: [[__m256i; 2]; 2],
}

impl<V: Vnni> Sums<V> {
    #[inline(always)]
    fn new(isa: V) -> Self {
        // SAFETY: `isa` proves AVX2.
        let zero = unsafe { _mm256_setzero_si256() };
        Self {
            isa,
            sums: [[zero; 2]; 2],
        }
    }

    #[inline(always)]
    fn add(&mut self, codes: [__m256i; 4], a: &Digits, b: &Digits) {
        for (sums, digits) in self.sums.iter_mut().zip([a, b]) {
            let (digits, _) = digits.as_chunks::<32>();
            for i in 0..4 {
                // SAFETY: `isa` proves AVX2.
                let digits = unsafe { load(bytemuck::cast_ref(&digits[i])) };
                sums[i % 2] = self.isa.add_products(sums[i % 2], codes[i], digits);
            }
        }
    }

    #[inline(always)]
    fn total(self) -> i32 {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn total([a, b]: [[__m256i; 2]; 2]) -> i32 {
            let a = _mm256_add_epi32(a[0], a[1]);
            let b = _mm256_add_epi32(b[0], b[1]);
            add_lanes(_mm256_add_epi32(_mm256_slli_epi32::<7>(a), b))
        }
        // SAFETY: `isa` proves AVX2.
        unsafe { total(self.sums) }
    }
}
