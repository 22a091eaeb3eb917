//! Ternary dot products with `smmla`.
//!
//! `smmla` multiplies 8 columns of two rows with 8 columns of two tokens and adds the 32 products
//! to four i32: twice as many as `sdot`, where there are two tokens. One token alone is left to
//! `sdot`.

use std::arch::{
    aarch64::{
        int8x16_t, int32x4_t, uint8x16_t, vdupq_n_s32, vreinterpretq_u8_u64, vreinterpretq_u64_u8,
        vuzp1q_s32, vuzp2q_s32, vzip1q_u64, vzip2q_u64,
    },
    asm, is_aarch64_feature_detected,
};

use super::{
    super::{
        Activations, Columns, RoundedInput, rounded,
        ternary::{self, Dots, Group, Panel, TernaryIsa, Token},
    },
    Level,
    codes::{self, Rows, load, load_i8},
    dotprod::Dotprod,
    peak,
};
use crate::weights::{DenseMatrix, TERNARY_BLOCK, TERNARY_GROUP, TernaryMatrix};

/// The level `i8mm`; exists only where `detect` saw it, `dotprod` and NEON.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct I8mm {
    pub(super) dotprod: Dotprod,
}

impl Level for I8mm {
    const NAME: &'static str = "aarch64-i8mm";

    fn detect() -> Option<Self> {
        let dotprod = Dotprod::detect()?;
        is_aarch64_feature_detected!("i8mm").then_some(Self { dotprod })
    }

    fn product(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        // 8 sums hide the latency of smmla (3 or 4 cycles, two a cycle).
        ternary::product::<_, 8>(self, weights, input, out);
    }

    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn run(isa: I8mm, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
            rounded::product(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn int8_peak(self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { peak::i8mm(turns) }
    }
}

impl TernaryIsa for I8mm {
    const PAIRED: bool = true;

    #[inline(always)]
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots {
        self.dotprod.dots(group, token)
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

/// Unpacks to panels of `(8 columns, row, 8)`: a register holds eight columns of two rows.
#[inline]
#[target_feature(enable = "neon")]
fn unpack(group: Group<'_>, panels: &mut [Panel]) {
    codes::unpack(group, panels, |rows| in_pairs(rows));
}

/// Puts the first halves of rows 0, 1, 2 and 3 before the second ones.
#[inline]
#[target_feature(enable = "neon")]
fn in_pairs(rows: Rows) -> Rows {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u64_u8(row));
    [
        vzip1q_u64(a, b),
        vzip1q_u64(c, d),
        vzip2q_u64(a, b),
        vzip2q_u64(c, d),
    ]
    .map(|x| vreinterpretq_u8_u64(x))
}

/// Dot products of unpacked rows with pairs of tokens: 32 products an instruction.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    // Steps of 8 columns in a half of a block: each token of a pair holds one half of both.
    const STEPS: usize = TERNARY_BLOCK / 16;
    let n = panels.len();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t][..n];
    }
    // (pairs of tokens, pairs of rows), each `(row, token)` in lanes.
    let mut sums = [vdupq_n_s32(0); T];
    for b in 0..n {
        let (steps, _) = panels[b].as_chunks::<32>();
        for i in 0..STEPS {
            for half in 0..2 {
                let (codes, _) = steps[half * STEPS + i].as_chunks::<16>();
                let upper = load(&codes[0]);
                let lower = load(&codes[1]);
                for pair in (0..T).step_by(2) {
                    let (values, _) = x[pair + half][b].as_chunks::<16>();
                    let values = load_i8(&values[i]);
                    sums[pair] = smmla(sums[pair], upper, values);
                    sums[pair + 1] = smmla(sums[pair + 1], lower, values);
                }
            }
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for pair in (0..T).step_by(2) {
        let (upper, lower) = (sums[pair], sums[pair + 1]);
        dots[pair] = codes::dots(vuzp1q_s32(upper, lower));
        dots[pair + 1] = codes::dots(vuzp2q_s32(upper, lower));
    }
    dots
}

/// Adds eight products of two rows and two tokens to each lane. The intrinsic is unstable
/// (rust-lang/rust#117223).
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sums: int32x4_t, codes: uint8x16_t, values: int8x16_t) -> int32x4_t {
    // SAFETY: `smmla` reads and writes these registers only, and the function has the feature.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {codes:v}.16b, {values:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            values = in(vreg) values,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sums
}
