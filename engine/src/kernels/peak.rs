//! The bounds of a machine, in plain loops: reading memory, and multiplying.

use std::hint::black_box;

use super::{float::LANES, isa::Isa};

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

/// Multiplies and adds f32 values; returns how often.
pub(super) fn f32(turns: u64) -> u64 {
    let mut sums = [0.0_f32; LANES];
    let (w, x) = black_box((1.0_f32, 0.5_f32));
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = w.mul_add(x, *sum);
        }
    }
    black_box(sums);
    turns * LANES as u64
}

/// Multiplies and adds f32 values by the instruction of an ISA's dense product, `N` times 16 of them
/// in a turn; returns how often. So many sums hide the latency and fit the registers.
#[inline(always)]
pub(super) fn f32_by<I: Isa, const N: usize>(isa: I, turns: u64) -> u64 {
    let mut sums = [isa.zero(); N];
    // Unknown to the compiler, which may not reorder float sums and so leaves every one of them.
    let (w, x) = black_box((1.0, 0.5));
    let (w, x) = (isa.splat(w), isa.splat(x));
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = isa.mul_add(w, x, *sum);
        }
    }
    for sum in sums {
        black_box(isa.fold(sum));
    }
    turns * (N * LANES) as u64
}
