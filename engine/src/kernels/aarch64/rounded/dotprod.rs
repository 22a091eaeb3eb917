//! Products with rounded inputs with `sdot`.
//!
//! For several tokens codes lie by fours: register `(part, i)` has the codes `4 i..4 i + 4` of four
//! blocks, so that lanes are blocks and none are added up.

use std::arch::aarch64::{int8x16_t, int32x4_t, uint8x16_t, vdupq_n_s32, vdupq_n_u8};

use super::{
    super::{
        super::rounded::{Format, LANES, RoundedGroup},
        codes::{load, load_i8, store},
        dotprod::{Dotprod, sdot, transposed},
    },
    Codes, Lanes, Multiply, Products, Unpacked, add, is_halved,
};

impl Multiply for Dotprod {
    #[inline(always)]
    fn half(self, weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: `self` can only come from `detect`.
        unsafe { half(weights, x) }
    }

    #[inline(always)]
    fn block<F: Format>(self, weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
        // SAFETY: `self` can only come from `detect`.
        unsafe { block(weights, x) }
    }

    #[inline(always)]
    fn lay_out(self, groups: &mut [RoundedGroup]) {
        for group in groups {
            // SAFETY: `self` can only come from `detect`.
            unsafe { lay_out(group) }
        }
    }

    #[inline(always)]
    fn tiled(self, codes: Codes) -> Codes {
        // SAFETY: `self` can only come from `detect`.
        unsafe { by_fours(codes) }
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
                // SAFETY: `self` can only come from `detect`.
                lanes[r] = unsafe { add_by_fours::<F>(lanes[r], &weights[r], x) };
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn half(weights: uint8x16_t, x: int8x16_t) -> int32x4_t {
    sdot(vdupq_n_s32(0), weights, x)
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn block(weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    sdot(half(weights[0], x[0]), weights[1], x[1])
}

/// Brings codes from halves to fours.
#[inline]
#[target_feature(enable = "neon")]
fn by_fours(codes: Codes) -> Codes {
    let mut fours = [[vdupq_n_u8(0); 2]; LANES];
    let fours_flat = fours.as_flattened_mut();
    for part in 0..2 {
        for half in 0..2 {
            let mut of_blocks = [codes[4 * part][half]; 4];
            for i in 1..4 {
                of_blocks[i] = codes[4 * part + i][half];
            }
            let of_blocks = transposed(of_blocks);
            for i in 0..4 {
                fours_flat[8 * part + 4 * half + i] = of_blocks[i];
            }
        }
    }
    fours
}

/// Brings a token's codes from halves to fours.
#[inline]
#[target_feature(enable = "neon")]
fn lay_out(group: &mut RoundedGroup) {
    let mut codes = [[vdupq_n_u8(0); 2]; LANES];
    for block in 0..LANES {
        for half in 0..2 {
            codes[block][half] = load(bytemuck::cast_ref(group.half(block, half)));
        }
    }
    let codes = by_fours(codes);
    let out = group.codes.as_flattened_mut().as_flattened_mut();
    for (out, codes) in out.iter_mut().zip(codes.as_flattened()) {
        store(bytemuck::cast_mut(out), *codes);
    }
}

/// Adds the products with a token's group to the lanes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_by_fours<F: Format>(mut lanes: Lanes, weights: &Unpacked, x: &RoundedGroup) -> Lanes {
    let codes = weights.codes.as_flattened();
    let x_codes = x.codes.as_flattened().as_flattened();
    for part in 0..2 {
        let mut products: Products = [vdupq_n_s32(0); 2];
        for i in 0..8 {
            let half = if is_halved::<F>() { i / 4 } else { 0 };
            let x = load_i8(&x_codes[8 * part + i]);
            products[half] = sdot(products[half], codes[8 * part + i], x);
        }
        lanes[part] = add::<F>(lanes[part], products, weights, x, part);
    }
    lanes
}
