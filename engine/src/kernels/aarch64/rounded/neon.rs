//! Products with rounded inputs with NEON alone.
//!
//! `smlal` adds products in i16: those of a block's codes of five bits, four a lane, are at most
//! 4 · 31 · 127 = 15,748, of half a block's codes of six bits 2 · 63 · 127 = 16,002, and of signed
//! bytes 2 · 128 · 127 = 32,512. Several tokens read codes as one does.

use std::arch::aarch64::{
    int8x16_t, int16x8_t, int32x4_t, uint8x16_t, vget_low_s8, vmlal_high_s8, vmlal_s8, vmull_s8,
    vpadalq_s16, vpaddlq_s16, vreinterpretq_s8_u8,
};

use super::{
    super::{
        super::rounded::{Format, Kind, RoundedGroup, RoundedIsa},
        lanes::Neon,
    },
    Codes, Lanes, Multiply, Unpacked,
};

impl Multiply for Neon {
    #[inline(always)]
    fn half(self, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: `self` can only come from `detect`.
        unsafe { half(weights, x) }
    }

    #[inline(always)]
    fn block<F: Format>(self, weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: `self` can only come from `detect`.
        unsafe { block::<F>(weights, x) }
    }

    #[inline(always)]
    fn lay_out(self, _: &mut [RoundedGroup]) {}

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
        // Row by row, so that a row's codes stay in registers.
        for r in 0..R {
            for (lanes, x) in lanes.iter_mut().zip(x) {
                lanes[r] = self.add::<F>(lanes[r], &weights[r], x);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn half(weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
    vpaddlq_s16(narrow(weights, x))
}

#[inline]
#[target_feature(enable = "neon")]
fn block<F: Format>(weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    let first = narrow(weights[0], x[0]);
    if F::KIND == Kind::Signed {
        return vpadalq_s16(vpaddlq_s16(first), narrow(weights[1], x[1]));
    }
    vpaddlq_s16(mul_add(first, weights[1], x[1]))
}

/// Multiplies 16 codes and adds two products a lane.
#[inline]
#[target_feature(enable = "neon")]
fn narrow(weights: uint8x16_t, x: int8x16_t) -> int16x8_t {
    let weights = vreinterpretq_s8_u8(weights);
    let sums = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
    vmlal_high_s8(sums, weights, x)
}

/// Adds 16 products to 8 sums.
#[inline]
#[target_feature(enable = "neon")]
fn mul_add(sums: int16x8_t, weights: uint8x16_t, x: int8x16_t) -> int16x8_t {
    let weights = vreinterpretq_s8_u8(weights);
    let sums = vmlal_s8(sums, vget_low_s8(weights), vget_low_s8(x));
    vmlal_high_s8(sums, weights, x)
}
