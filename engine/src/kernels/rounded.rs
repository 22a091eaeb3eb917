//! Products of block formats with inputs rounded to int8 (`--numerics fast`).
//!
//! Every 32 inputs are rounded on their own, as ggml's `Q8_0` has it but for a scale in f32: with
//! `s = max|x| / 127` a code is `x · (127 / max|x|)`, rounded half to even. A block of nothing above
//! `1e-30` becomes zeros; one with a value that is not finite makes its products not finite.
//!
//! # The order
//! Lane `j` of 8 takes the blocks of 32 columns `j, j + 8, …` in turn. For each block `I`, the sum of
//! the products of its 32 codes, is exact in `i32`, as is `X`, the sum of its inputs' codes, and
//! - `Q8_0`, `Q4_0`, `Q5_0`: `lane = fma(I, d · s, lane)`;
//! - `Q4_K`, `Q5_K`: `lane = fma(I, (d · scale) · s, lane)`, then `fma(X, (−dmin · min) · s, lane)`;
//! - `Q6_K`, whose scales serve 16 weights: such a step for the first 16, then for the last 16.
//!
//! A code is the signed one, all offsets taken away (`q − 8` of `Q4_0`). `d · scale` and `dmin · min`
//! are exact in f32; their product with `s` is rounded once. The lanes are folded by the tree
//! 8 → 4 → 2 → 1 (lane `j` with lane `j + half`).

use super::Columns;
use crate::{
    quant::q4_k::scale_and_min,
    weights::{DenseMatrix, DenseType},
};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod formats;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod walk;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use formats::{Format, Kind};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use walk::{RoundedIsa, product};

/// Inputs that share a scale.
pub(super) const BLOCK: usize = 32;
/// Lanes, and blocks that are handled at a time.
pub(super) const LANES: usize = 8;
/// Inputs of a group.
const GROUP: usize = LANES * BLOCK;

/// Returns whether matrices of a type meet rounded inputs.
pub(crate) fn takes(dtype: DenseType) -> bool {
    !dtype.is_float()
}

/// Eight blocks of a token's rounded inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(32))]
pub struct RoundedGroup {
    /// `(4, half, 2, 16)`: the halves of block `i` stand beside those of block `i + 4`, so that the
    /// sums of 32 bytes' products become lanes in the order of blocks.
    pub(super) codes: [[[[i8; 16]; 2]; 2]; LANES / 2],
    /// `s` of each block.
    pub(super) scales: [f32; LANES],
    /// The sums of the first and of the last 16 codes of each block.
    pub(super) sums: [[i32; LANES]; 2],
}

impl RoundedGroup {
    /// Returns the 16 codes of half a block.
    #[inline(always)]
    pub(super) fn half(&self, block: usize, half: usize) -> &[i8; 16] {
        &self.codes[block % 4][half][block / 4]
    }
}

/// `(tokens, cols)` inputs in int8, each 32 with a scale of their own.
#[derive(Debug, Default)]
pub struct RoundedInput {
    tokens: usize,
    cols: usize,
    // (tokens, ceil(cols / 256)), what is behind the columns zero
    groups: Vec<RoundedGroup>,
}

impl RoundedInput {
    /// Makes room for `(tokens, cols)`; what was held is forgotten.
    pub fn reshape(&mut self, tokens: usize, cols: usize) {
        self.tokens = tokens;
        self.cols = cols;
        self.groups
            .resize(tokens * cols.div_ceil(GROUP), RoundedGroup::default());
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the tokens' places in order, for [`round`](super::Kernel::round).
    pub fn rows_mut(&mut self) -> impl Iterator<Item = &mut [RoundedGroup]> {
        self.groups
            .chunks_exact_mut(self.cols.div_ceil(GROUP).max(1))
    }

    /// Returns a token's groups, `(ceil(cols / 256))`.
    #[inline(always)]
    pub(super) fn token(&self, token: usize) -> &[RoundedGroup] {
        let n = self.cols.div_ceil(GROUP);
        &self.groups[token * n..][..n]
    }
}

/// Rounds one token.
#[inline(always)]
pub(super) fn round(input: &[f32], out: &mut [RoundedGroup]) {
    let (groups, rest) = input.as_chunks::<GROUP>();
    let mut out = out.iter_mut();
    for (group, out) in groups.iter().zip(&mut out) {
        round_group(group, out);
    }
    if let Some(out) = out.next() {
        let mut group = [0.0; GROUP];
        group[..rest.len()].copy_from_slice(rest);
        round_group(&group, out);
    }
}

#[inline(always)]
fn round_group(input: &[f32; GROUP], out: &mut RoundedGroup) {
    const SMALLEST: f32 = 1e-30;
    let (blocks, _) = input.as_chunks::<BLOCK>();
    for b in 0..LANES {
        // Magnitudes order as their bits do, and what is not a number is above all.
        let mut largest = [0_u32; LANES];
        for chunk in blocks[b].as_chunks::<LANES>().0 {
            for j in 0..LANES {
                largest[j] = largest[j].max(chunk[j].to_bits() & (u32::MAX >> 1));
            }
        }
        let absmax = f32::from_bits(largest.iter().fold(0, |max, &bits| max.max(bits)));
        let (scale, inverse) = if absmax < SMALLEST {
            (0.0, 0.0)
        } else {
            (absmax / 127.0, 127.0 / absmax)
        };
        out.scales[b] = scale;
        let (halves, _) = blocks[b].as_chunks::<16>();
        for half in 0..2 {
            let mut codes = [0; 16];
            let mut sum = 0;
            for j in 0..16 {
                let code = code(halves[half][j] * inverse);
                codes[j] = code as i8;
                sum += code;
            }
            out.codes[b % 4][half][b / 4] = codes;
            out.sums[half][b] = sum;
        }
    }
}

/// Rounds half to even and clamps to ±127; what is not a number becomes −127.
#[inline(always)]
fn code(x: f32) -> i32 {
    // Adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    let x = if x > 127.0 { 127.0 } else { x };
    let x = if x >= -127.0 { x } else { -127.0 };
    (x + MAGIC)
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .cast_signed()
}

/// The specification: block after block, row by row.
pub(super) fn product_in_order(weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
    let mut blocks = Vec::with_capacity(weights.cols / BLOCK);
    for r in out.range() {
        let row = weights.row(r);
        blocks.clear();
        blocks.extend((0..weights.cols / BLOCK).map(|nth| Block::of(weights.dtype, row, nth)));
        for token in 0..out.tokens() {
            let groups = input.token(token);
            let mut lanes = [0.0; LANES];
            for (nth, block) in blocks.iter().enumerate() {
                let lane = nth % LANES;
                lanes[lane] = block.add_to(lanes[lane], &groups[nth / LANES], lane);
            }
            out.set(token, r, fold(lanes));
        }
    }
}

/// Folds the 8 lanes: lane `j` with lane `j + half`, until one is left.
fn fold(mut lanes: [f32; LANES]) -> f32 {
    for half in [4, 2, 1] {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
    }
    lanes[0]
}

/// 32 weights of a row.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Offsets taken away.
    codes: [i8; BLOCK],
    scale: Scale,
}

/// What codes are worth.
#[derive(Clone, Copy, Debug)]
enum Scale {
    Whole(f32),
    /// Of the first and of the last 16.
    Halves([f32; 2]),
    LessMin {
        scale: f32,
        /// `−dmin · min`.
        less: f32,
    },
}

impl Block {
    /// Returns the `nth` 32 weights of a row.
    fn of(dtype: DenseType, row: &[u8], nth: usize) -> Self {
        let (weights, bytes) = dtype.block();
        let block = &row[nth * BLOCK / weights * bytes..][..bytes];
        let nth = nth % (weights / BLOCK);
        let half = |at: usize| half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        let nibble = |first: usize, i: usize| {
            let byte = block[first + i % 16];
            if i < 16 { byte & 15 } else { byte >> 4 }
        };
        let k_nibble =
            |first: usize, i: usize| block[first + nth / 2 * 32 + i] >> (nth % 2 * 4) & 15;
        let less_min = || {
            let (scale, min) = scale_and_min(&block[4..16], nth);
            Scale::LessMin {
                scale: half(0) * f32::from(scale),
                less: -half(2) * f32::from(min),
            }
        };
        let (codes, scale): ([u8; BLOCK], _) = match dtype {
            DenseType::Q8_0 => (std::array::from_fn(|i| block[2 + i]), Scale::Whole(half(0))),
            DenseType::Q4_0 => (
                std::array::from_fn(|i| nibble(2, i).wrapping_sub(8)),
                Scale::Whole(half(0)),
            ),
            DenseType::Q5_0 => (
                std::array::from_fn(|i| {
                    let fifth = block[2 + i / 8] >> (i % 8) & 1;
                    (nibble(6, i) | fifth << 4).wrapping_sub(16)
                }),
                Scale::Whole(half(0)),
            ),
            DenseType::Q4K => (std::array::from_fn(|i| k_nibble(16, i)), less_min()),
            DenseType::Q5K => (
                std::array::from_fn(|i| k_nibble(48, i) | (block[16 + i] >> nth & 1) << 4),
                less_min(),
            ),
            DenseType::Q6K => {
                let (part, k) = (nth / 4, nth % 4);
                let codes = std::array::from_fn(|i| {
                    let nibble = block[part * 64 + k % 2 * 32 + i] >> (k / 2 * 4) & 15;
                    let pair = block[128 + part * 32 + i] >> (2 * k) & 3;
                    (nibble | pair << 4).wrapping_sub(32)
                });
                let scale = |at: usize| half(208) * f32::from(block[192 + at].cast_signed());
                (codes, Scale::Halves([scale(2 * nth), scale(2 * nth + 1)]))
            }
            DenseType::F32 | DenseType::F16 | DenseType::Bf16 => {
                unreachable!("plain floats meet inputs that are not rounded")
            }
        };
        Self {
            codes: codes.map(u8::cast_signed),
            scale,
        }
    }

    /// Adds the product with a block of inputs to a lane.
    fn add_to(&self, lane: f32, group: &RoundedGroup, nth: usize) -> f32 {
        let x_scale = group.scales[nth];
        let dots: [i32; 2] = std::array::from_fn(|half| {
            let pairs = self.codes[16 * half..][..16]
                .iter()
                .zip(group.half(nth, half));
            pairs.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum()
        });
        let dot = (dots[0] + dots[1]) as f32;
        match self.scale {
            Scale::Whole(scale) => dot.mul_add(scale * x_scale, lane),
            Scale::Halves([first, last]) => {
                let lane = (dots[0] as f32).mul_add(first * x_scale, lane);
                (dots[1] as f32).mul_add(last * x_scale, lane)
            }
            Scale::LessMin { scale, less } => {
                let sum = group.sums[0][nth] + group.sums[1][nth];
                let lane = dot.mul_add(scale * x_scale, lane);
                (sum as f32).mul_add(less * x_scale, lane)
            }
        }
    }
}

#[cfg(test)]
mod tests;
