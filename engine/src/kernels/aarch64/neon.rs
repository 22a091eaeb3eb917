//! Ternary dot products with NEON alone.
//!
//! `smlal` multiplies 8 signed bytes and adds the products to eight i16; a bounded number of them
//! is added there before `sadalp` widens the sums to i32.

use std::arch::aarch64::{
    int8x16_t, int16x8_t, uint8x16_t, vandq_u8, vdupq_n_s8, vdupq_n_s16, vdupq_n_s32, vdupq_n_u8,
    vget_low_s8, vmlal_high_s8, vmlal_s8, vpadalq_s16, vreinterpretq_s8_u8, vshrq_n_s16,
    vshrq_n_u8,
};

use super::{
    super::{
        Activations, Columns, RoundedInput, rounded,
        ternary::{self, Block, Dots, Group, Panel, TernaryIsa, Token},
    },
    Level,
    codes::{AHEAD, add_lanes, kept, load, load_i8, of_planes, rows, unpack},
    lanes::{Neon, prefetch},
    peak,
};
use crate::weights::{DenseMatrix, TERNARY_GROUP, TernaryGroup, TernaryMatrix};

impl Level for Neon {
    const NAME: &'static str = "aarch64-neon";

    fn detect() -> Option<Self> {
        Self::detect()
    }

    fn product(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        // 16 narrow sums, 4 rows and 4 tokens of the 32 registers.
        ternary::product::<_, 4>(self, weights, input, out);
    }

    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        rounded::product(self, weights, input, out);
    }

    fn int8_peak(self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { peak::neon(turns) }
    }
}

impl TernaryIsa for Neon {
    const PAIRED: bool = false;

    #[inline(always)]
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots {
        // SAFETY: `self` can only come from `detect`.
        unsafe { packed_dots(group, token) }
    }

    #[inline(always)]
    fn unpack(self, group: Group<'_>, panels: &mut [Panel]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { unpack(group, panels, |rows| rows) }
    }

    #[inline(always)]
    fn tile<const T: usize>(self, panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile(panels, tokens) }
    }
}

/// Blocks whose products are added in i16.
///
/// A lane of a tile then sums 128 products, each at least −2 · 128 and at most 2 · 127: the sum is
/// at least −32768 and at most 32512.
const BLOCKS: usize = 8;

/// Dot products of packed rows.
///
/// One plane of codes is left where it lies, as four times the code, with a sum of its own from
/// which the factor comes out before it is widened. Of 8 blocks a lane of it sums 32 products, each
/// at least −8 · 128 and at most 8 · 127, a lane of the others 96 that are four times smaller.
#[inline]
#[target_feature(enable = "neon")]
fn packed_dots(group: Group<'_>, token: Token<'_>) -> Dots {
    let masks = [0b0011, 0b1100].map(|mask| kept(vdupq_n_u8(mask)));
    let mut sums = [vdupq_n_s32(0); TERNARY_GROUP];
    for (blocks, x) in group.chunks(BLOCKS).zip(token.chunks(BLOCKS)) {
        let mut narrow = [[vdupq_n_s16(0); 2]; TERNARY_GROUP];
        for (block, x) in blocks.iter().zip(x) {
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + 64));
            narrow = half_block::<0>(narrow, masks, block, x);
            narrow = half_block::<1>(narrow, masks, block, x);
        }
        for r in 0..TERNARY_GROUP {
            // Each lane is a multiple of four, so that the shift is exact.
            let [one, four] = narrow[r];
            sums[r] = vpadalq_s16(sums[r], vshrq_n_s16::<2>(four));
            sums[r] = vpadalq_s16(sums[r], one);
        }
    }
    add_lanes(&sums)
}

/// Narrow sums of `(rows, planes)`, of the codes times 1 and 4.
type Planes = [[int16x8_t; 2]; TERNARY_GROUP];

/// Adds the products of one half of a block's bytes.
#[inline]
#[target_feature(enable = "neon")]
fn half_block<const HALF: usize>(
    mut sums: Planes,
    masks: [uint8x16_t; 2],
    block: &TernaryGroup,
    x: &Block,
) -> Planes {
    let packed = rows(block, HALF);
    let x = of_planes(x, HALF);
    for r in 0..TERNARY_GROUP {
        let [one, four] = sums[r];
        let upper = vandq_u8(vshrq_n_u8::<4>(packed[r]), masks[0]);
        let one = mul_add(one, vshrq_n_u8::<6>(packed[r]), x[0]);
        let four = mul_add(four, vandq_u8(packed[r], masks[1]), x[2]);
        let one = mul_add(one, upper, x[1]);
        let one = mul_add(one, vandq_u8(packed[r], masks[0]), x[3]);
        sums[r] = [one, four];
    }
    sums
}

/// Dot products of unpacked rows with tokens.
#[inline]
#[target_feature(enable = "neon")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    // Steps of 16 columns in a stretch of narrow sums.
    const STEPS: usize = BLOCKS * 8;
    let (steps, _) = panels.as_flattened().as_chunks::<{ 16 * TERNARY_GROUP }>();
    let n = steps.len();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t].as_flattened().as_chunks::<16>().0[..n];
    }
    let mut sums = [[vdupq_n_s32(0); TERNARY_GROUP]; T];
    for start in (0..n).step_by(STEPS) {
        let end = n.min(start + STEPS);
        let mut narrow = [[vdupq_n_s16(0); TERNARY_GROUP]; T];
        for i in start..end {
            let (step, _) = steps[i].as_chunks::<16>();
            let mut values = [vdupq_n_s8(0); T];
            for t in 0..T {
                values[t] = load_i8(&x[t][i]);
            }
            for r in 0..TERNARY_GROUP {
                let codes = load(&step[r]);
                for t in 0..T {
                    narrow[t][r] = mul_add(narrow[t][r], codes, values[t]);
                }
            }
        }
        for t in 0..T {
            for r in 0..TERNARY_GROUP {
                sums[t][r] = vpadalq_s16(sums[t][r], narrow[t][r]);
            }
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for t in 0..T {
        dots[t] = add_lanes(&sums[t]);
    }
    dots
}

/// Adds 16 products to 8 sums.
#[inline]
#[target_feature(enable = "neon")]
fn mul_add(sums: int16x8_t, codes: uint8x16_t, values: int8x16_t) -> int16x8_t {
    let codes = vreinterpretq_s8_u8(codes);
    let sums = vmlal_s8(sums, vget_low_s8(codes), vget_low_s8(values));
    vmlal_high_s8(sums, codes, values)
}
