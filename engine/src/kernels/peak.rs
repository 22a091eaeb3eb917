//! The bounds of a machine, in plain loops: reading memory, and multiplying.

use std::hint::black_box;

/// Adds up the 8-byte words of memory; bytes behind the last word are left out.
#[inline(always)]
pub(super) fn read(bytes: &[u8]) -> u64 {
    const WORDS: usize = 32;
    let mut sums = [0_u64; WORDS];
    let (chunks, rest) = bytes.as_chunks::<{ 8 * WORDS }>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    let rest = rest.as_chunks::<8>().0.iter();
    let rest = rest.map(|word| u64::from_ne_bytes(*word));
    sums.into_iter().chain(rest).fold(0, u64::wrapping_add)
}

/// Multiplies and adds int8 values; returns how often.
pub(super) fn int8(turns: u64) -> u64 {
    const PRODUCTS: usize = 64;
    let mut sums = [0_i32; PRODUCTS];
    let (codes, values) = (black_box([2_u8; PRODUCTS]), black_box([-3_i8; PRODUCTS]));
    for _ in 0..turns {
        let codes = black_box(&codes);
        for ((sum, &code), &value) in sums.iter_mut().zip(codes).zip(&values) {
            *sum = sum.wrapping_add(i32::from(code) * i32::from(value));
        }
    }
    black_box(sums);
    turns * PRODUCTS as u64
}
