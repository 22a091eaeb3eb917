//! Ternary dot products with `sdot`.
//!
//! `sdot` multiplies signed bytes and adds four products to an i32, so that no sum is ever narrow.
//! One token meets three packed planes where they lie: `byte & 3 << 2k` is the code times 4^k, which
//! is a positive signed byte except for the uppermost plane, and that one needs a shift alone. In a
//! tile the four lanes of a register are the four rows of a group, so that no lanes are added up.

use std::arch::{
    aarch64::{
        int8x16_t, int32x4_t, uint8x16_t, vaddq_s32, vandq_u8, vdupq_n_s8, vdupq_n_s32, vdupq_n_u8,
        vreinterpretq_u8_u32, vreinterpretq_u32_u8, vreinterpretq_u32_u64, vreinterpretq_u64_u32,
        vshrq_n_s32, vshrq_n_u8, vtrn1q_u32, vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
    },
    asm, is_aarch64_feature_detected,
};

use super::{
    super::{
        Activations, Columns, RoundedInput, rounded,
        ternary::{self, Block, Dots, Group, Panel, TernaryIsa, Token},
    },
    Level,
    codes::{self, AHEAD, Rows, add_lanes, kept, load, load_i8, of_planes, rows},
    lanes::prefetch,
    peak,
};
use crate::weights::{DenseMatrix, TERNARY_BLOCK, TERNARY_GROUP, TernaryGroup, TernaryMatrix};

/// The level `dotprod`; exists only where `detect` saw it and NEON.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Dotprod {
    _proof: (),
}

impl Level for Dotprod {
    const NAME: &'static str = "aarch64-dotprod";

    fn detect() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod"))
            .then_some(Self { _proof: () })
    }

    fn product(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        // 8 sums hide the latency of sdot (4 cycles, two a cycle); 8 tokens and 4 registers of rows.
        ternary::product::<_, 8>(self, weights, input, out);
    }

    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        #[target_feature(enable = "neon,dotprod")]
        fn run(isa: Dotprod, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
            rounded::product(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn int8_peak(self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { peak::dotprod(turns) }
    }
}

impl TernaryIsa for Dotprod {
    const PAIRED: bool = false;

    #[inline(always)]
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots {
        // SAFETY: `self` can only come from `detect`.
        unsafe { packed_dots(group, token) }
    }

    #[inline(always)]
    fn unpack(self, group: Group<'_>, panels: &mut [Panel]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { unpack(group, panels) }
    }

    #[inline(always)]
    fn tile<const T: usize>(self, panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile(panels, tokens) }
    }
}

/// Dot products of packed rows.
///
/// The largest plane's sum is at most 32 · 128 · cols / 16 a lane, in i32 up to 2^23 columns.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn packed_dots(group: Group<'_>, token: Token<'_>) -> Dots {
    let masks = [0x03, 0x0c, 0x30].map(|mask| kept(vdupq_n_u8(mask)));
    let mut sums = [[vdupq_n_s32(0); 3]; TERNARY_GROUP];
    for (block, x) in group.iter().zip(token) {
        prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + 64));
        sums = half_block::<0>(sums, masks, block, x);
        sums = half_block::<1>(sums, masks, block, x);
    }
    let mut of_rows = [vdupq_n_s32(0); TERNARY_GROUP];
    for r in 0..TERNARY_GROUP {
        // Each lane is a whole multiple of its plane's factor, so that the shifts are exact.
        let [one, four, sixteen] = sums[r];
        let high = vaddq_s32(vshrq_n_s32::<2>(four), vshrq_n_s32::<4>(sixteen));
        of_rows[r] = vaddq_s32(one, high);
    }
    add_lanes(&of_rows)
}

/// Sums of `(rows, planes)`, of the codes times 1, 4 and 16.
type Planes = [[int32x4_t; 3]; TERNARY_GROUP];

/// Adds the products of one half of a block's bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn half_block<const HALF: usize>(
    mut sums: Planes,
    masks: [uint8x16_t; 3],
    block: &TernaryGroup,
    x: &Block,
) -> Planes {
    let packed = rows(block, HALF);
    let x = of_planes(x, HALF);
    for r in 0..TERNARY_GROUP {
        let [one, four, sixteen] = sums[r];
        let one = sdot(one, vshrq_n_u8::<6>(packed[r]), x[0]);
        let sixteen = sdot(sixteen, vandq_u8(packed[r], masks[2]), x[1]);
        let four = sdot(four, vandq_u8(packed[r], masks[1]), x[2]);
        let one = sdot(one, vandq_u8(packed[r], masks[0]), x[3]);
        sums[r] = [one, four, sixteen];
    }
    sums
}

/// Unpacks to panels of `(4 columns, row, 4)`: each register holds four columns of four rows.
#[inline]
#[target_feature(enable = "neon")]
fn unpack(group: Group<'_>, panels: &mut [Panel]) {
    codes::unpack(group, panels, |rows| transposed(rows));
}

/// Transposes the 4 × 4 words of four rows.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn transposed(rows: Rows) -> Rows {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u32_u8(row));
    let [even_ab, odd_ab] = [vtrn1q_u32(a, b), vtrn2q_u32(a, b)].map(|x| vreinterpretq_u64_u32(x));
    let [even_cd, odd_cd] = [vtrn1q_u32(c, d), vtrn2q_u32(c, d)].map(|x| vreinterpretq_u64_u32(x));
    [
        vtrn1q_u64(even_ab, even_cd),
        vtrn1q_u64(odd_ab, odd_cd),
        vtrn2q_u64(even_ab, even_cd),
        vtrn2q_u64(odd_ab, odd_cd),
    ]
    .map(|x| vreinterpretq_u8_u32(vreinterpretq_u32_u64(x)))
}

/// Dot products of unpacked rows with tokens: 16 products an instruction.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    let n = panels.len();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t][..n];
    }
    // (rows) in lanes
    let mut sums = [vdupq_n_s32(0); T];
    for b in 0..n {
        let (steps, _) = panels[b].as_chunks::<64>();
        for i in 0..TERNARY_BLOCK / 16 {
            let (codes, _) = steps[i].as_chunks::<16>();
            let mut values = [vdupq_n_s8(0); T];
            for t in 0..T {
                values[t] = load_i8(&x[t][b].as_chunks::<16>().0[i]);
            }
            sums = four_columns::<0, T>(sums, load(&codes[0]), values);
            sums = four_columns::<1, T>(sums, load(&codes[1]), values);
            sums = four_columns::<2, T>(sums, load(&codes[2]), values);
            sums = four_columns::<3, T>(sums, load(&codes[3]), values);
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for t in 0..T {
        dots[t] = codes::dots(sums[t]);
    }
    dots
}

/// Adds to the four rows' sums of each token the products with columns `4 N..4 N + 4`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn four_columns<const N: i32, const T: usize>(
    mut sums: [int32x4_t; T],
    codes: uint8x16_t,
    values: [int8x16_t; T],
) -> [int32x4_t; T] {
    for t in 0..T {
        sums[t] = sdot_by_word::<N>(sums[t], codes, values[t]);
    }
    sums
}

/// Adds four products to each lane. The intrinsic is unstable (rust-lang/rust#117224).
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sums: int32x4_t, codes: uint8x16_t, values: int8x16_t) -> int32x4_t {
    // SAFETY: `sdot` reads and writes these registers only, and the function has the feature.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {values:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            values = in(vreg) values,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}

/// Adds to each lane four products with word `N` of the values; unstable as above.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot_by_word<const N: i32>(
    mut sums: int32x4_t,
    codes: uint8x16_t,
    values: int8x16_t,
) -> int32x4_t {
    // SAFETY: `sdot` reads and writes these registers only, and the function has the feature.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {codes:v}.16b, {values:v}.4b[{n}]",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            values = in(vreg) values,
            n = const N,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
