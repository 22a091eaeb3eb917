//! Products with rounded inputs with `smmla`: two rows meet two tokens, eight columns at a time. One
//! token is left to `sdot`.
//!
//! Tokens lie in pairs: of the codes of eight columns first those of one, then those of the other;
//! the first token's place has the blocks `0..4` of both, the second's the others. The last of an odd
//! number stays as it is and is read twice.

use std::arch::aarch64::{
    int8x16_t, int32x4_t, uint8x16_t, vdupq_n_s32, vdupq_n_u8, vreinterpretq_s8_u8,
    vreinterpretq_s32_s64, vreinterpretq_s64_s32, vreinterpretq_u8_u64, vreinterpretq_u64_u8,
    vtrn1q_s32, vtrn2q_s32, vzip1q_s64, vzip1q_u64, vzip2q_s64, vzip2q_u64,
};

use super::{
    super::{
        super::rounded::{Format, LANES, RoundedGroup},
        codes::{load, store},
        i8mm::{I8mm, smmla},
    },
    Codes, Lanes, Multiply, Products, Unpacked, add, is_halved,
};

impl Multiply for I8mm {
    #[inline(always)]
    fn half(self, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
        self.dotprod.half(weights, x)
    }

    #[inline(always)]
    fn block<F: Format>(self, weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        self.dotprod.block::<F>(weights, x)
    }

    #[inline(always)]
    fn lay_out(self, groups: &mut [RoundedGroup]) {
        let (pairs, _) = groups.as_chunks_mut();
        for pair in pairs {
            // SAFETY: `self` can only come from `detect`.
            unsafe { lay_out(pair) }
        }
    }

    #[inline(always)]
    fn tiled(self, codes: Codes) -> Codes {
        codes
    }

    #[inline(always)]
    fn add_tiled<F: Format, const R: usize>(
        self,
        lanes: &mut [[Lanes; R]],
        weights: &[Unpacked; R],
        x: &[RoundedGroup],
    ) {
        for first in (0..R).step_by(2) {
            for part in 0..2 {
                // SAFETY: `self` can only come from `detect`.
                unsafe { add_part::<F, R>(lanes, weights, first, x, part) }
            }
        }
    }
}

/// The codes of four blocks of a row or token, by halves.
type Blocks = [[uint8x16_t; 2]; LANES / 2];
/// The codes of four blocks of two rows or tokens, by steps of eight columns.
type Pairs = [[uint8x16_t; 4]; LANES / 2];

/// Pairs two rows or tokens.
#[inline]
#[target_feature(enable = "neon")]
fn paired(first: &Blocks, second: &Blocks) -> Pairs {
    let mut pairs = [[vdupq_n_u8(0); 4]; LANES / 2];
    for i in 0..LANES / 2 {
        for half in 0..2 {
            let a = vreinterpretq_u64_u8(first[i][half]);
            let b = vreinterpretq_u64_u8(second[i][half]);
            pairs[i][2 * half] = vreinterpretq_u8_u64(vzip1q_u64(a, b));
            pairs[i][2 * half + 1] = vreinterpretq_u8_u64(vzip2q_u64(a, b));
        }
    }
    pairs
}

/// Reads four blocks of a token, `4 part..4 part + 4`.
#[inline]
#[target_feature(enable = "neon")]
fn blocks(token: &RoundedGroup, part: usize) -> Blocks {
    let mut blocks = [[vdupq_n_u8(0); 2]; LANES / 2];
    for i in 0..LANES / 2 {
        for half in 0..2 {
            blocks[i][half] = load(bytemuck::cast_ref(token.half(4 * part + i, half)));
        }
    }
    blocks
}

/// Lays two tokens as a pair.
#[inline]
#[target_feature(enable = "neon")]
fn lay_out(pair: &mut [RoundedGroup; 2]) {
    let mut parts = [[[vdupq_n_u8(0); 4]; LANES / 2]; 2];
    for part in 0..2 {
        parts[part] = paired(&blocks(&pair[0], part), &blocks(&pair[1], part));
    }
    for part in 0..2 {
        let out = pair[part].codes.as_flattened_mut().as_flattened_mut();
        for (out, codes) in out.iter_mut().zip(parts[part].as_flattened()) {
            store(bytemuck::cast_mut(out), *codes);
        }
    }
}

/// Reads a part of two tokens that lie as a pair.
#[inline]
#[target_feature(enable = "neon")]
fn laid_out(token: &RoundedGroup) -> Pairs {
    let mut pairs = [[vdupq_n_u8(0); 4]; LANES / 2];
    let codes = token.codes.as_flattened().as_flattened();
    for (pair, codes) in pairs.as_flattened_mut().iter_mut().zip(codes) {
        *pair = load(bytemuck::cast_ref(codes));
    }
    pairs
}

/// Adds to their lanes the products of four blocks, `4 part..4 part + 4`, of the row `first` and the
/// next one, if there is one.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn add_part<F: Format, const R: usize>(
    lanes: &mut [[Lanes; R]],
    weights: &[Unpacked; R],
    first: usize,
    x: &[RoundedGroup],
    part: usize,
) {
    let rows = first..R.min(first + 2);
    let [upper, lower] = [&weights[rows.start], &weights[rows.end - 1]];
    let [upper, lower] = [&upper.codes, &lower.codes].map(|codes| codes.as_chunks().0);
    let codes = paired(&upper[part], &lower[part]);
    let (pairs, last) = x.as_chunks::<2>();
    let (lanes, last_lanes) = lanes.split_at_mut(2 * pairs.len());
    for (lanes, x) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
        let products = products::<F>(&codes, &laid_out(&x[part]));
        for t in 0..2 {
            for row in rows.clone() {
                let lanes = &mut lanes[t][row][part];
                let products = products[t][row - first];
                *lanes = add::<F>(*lanes, products, &weights[row], &x[t], part);
            }
        }
    }
    if let ([lanes], [x]) = (last_lanes, last) {
        let blocks = blocks(x, part);
        let products = products::<F>(&codes, &paired(&blocks, &blocks));
        for row in rows.clone() {
            let lanes = &mut lanes[row][part];
            *lanes = add::<F>(*lanes, products[0][row - first], &weights[row], x, part);
        }
    }
}

/// Sums of the products of four blocks of two rows with two tokens, `(token, row)`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn products<F: Format>(weights: &Pairs, x: &Pairs) -> [[Products; 2]; 2] {
    // (half, block), each `(row, token)` in lanes
    let mut sums = [[vdupq_n_s32(0); LANES / 2]; 2];
    for i in 0..LANES / 2 {
        for step in 0..4 {
            let half = if is_halved::<F>() { step / 2 } else { 0 };
            let x = vreinterpretq_s8_u8(x[i][step]);
            sums[half][i] = smmla(sums[half][i], weights[i][step], x);
        }
    }
    let first = transposed(sums[0]);
    let last = if is_halved::<F>() {
        transposed(sums[1])
    } else {
        first
    };
    [
        [[first[0], last[0]], [first[2], last[2]]],
        [[first[1], last[1]], [first[3], last[3]]],
    ]
}

/// Transposes 4 × 4 words.
#[inline]
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let even = [vtrn1q_s32(a, b), vtrn1q_s32(c, d)];
    let odd = [vtrn2q_s32(a, b), vtrn2q_s32(c, d)];
    let [even_low, even_high] = even.map(|x| vreinterpretq_s64_s32(x));
    let [odd_low, odd_high] = odd.map(|x| vreinterpretq_s64_s32(x));
    [
        vzip1q_s64(even_low, even_high),
        vzip1q_s64(odd_low, odd_high),
        vzip2q_s64(even_low, even_high),
        vzip2q_s64(odd_low, odd_high),
    ]
    .map(|x| vreinterpretq_s32_s64(x))
}
