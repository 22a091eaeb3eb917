//! Sums of a screened head's codes with NEON: codes widened to i16 meet the i16 input in `smlal`.

use std::arch::aarch64::{
    int16x8_t, int32x4_t, uint8x16_t, vaddq_s32, vaddvq_s32, vandq_u8, vdupq_n_s32, vdupq_n_u8,
    vget_low_s16, vget_low_u8, vld1q_s16, vld1q_u8, vmlal_high_s16, vmlal_s16, vmovl_high_u8,
    vmovl_u8, vorrq_u8, vreinterpretq_s16_u16, vshlq_n_u8, vshrq_n_u8,
};

use super::{codes::AHEAD, lanes::prefetch};
use crate::screen::{Bounds, High, Low, PADDING, Screen, ScreenInput};

/// 128 columns of an input.
type Input = [i16; PADDING];

/// Bounds the logits of the rows.
#[target_feature(enable = "neon")]
pub(super) fn of_rows(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let (input_blocks, _) = input.codes.as_chunks::<PADDING>();
    for (row, sum) in (bounds.first..).zip(&mut *bounds.sums) {
        let mut sums = Sums::new();
        for (block, u) in screen.high(row).iter().zip(input_blocks) {
            prefetch(block.as_ptr().wrapping_add(AHEAD));
            // Two lines hold less than a block and a half.
            prefetch(block.as_ptr().wrapping_add(AHEAD + 48));
            for half in 0..2 {
                sums.add(unpack_high(block, half), u, half);
            }
        }
        *sum = sums.total();
    }
    screen.bound(input, bounds);
}

/// Sums the lower bits of some rows.
#[target_feature(enable = "neon")]
pub(super) fn low_of_rows(screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
    let (input_blocks, _) = input.codes.as_chunks::<PADDING>();
    for (&row, sum) in rows.iter().zip(sums) {
        let mut sums = Sums::new();
        for (block, u) in screen.low(row as usize).iter().zip(input_blocks) {
            for half in 0..2 {
                sums.add(unpack_low(block, half), u, half);
            }
        }
        *sum = sums.total();
    }
}

/// Four sums of four lanes.
struct Sums([int32x4_t; 4]);

impl Sums {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new() -> Self {
        Self([vdupq_n_s32(0); 4])
    }

    /// Adds the products of one half of each quarter of a block's columns.
    #[inline]
    #[target_feature(enable = "neon")]
    fn add(&mut self, codes: [uint8x16_t; 4], input: &Input, half: usize) {
        let sums = &mut self.0;
        let (eights, _) = input.as_chunks::<8>();
        for i in 0..4 {
            let first = i * 4 + half * 2;
            let (low, high) = (load(&eights[first]), load(&eights[first + 1]));
            let c_low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(codes[i])));
            let c_high = vreinterpretq_s16_u16(vmovl_high_u8(codes[i]));
            sums[0] = vmlal_s16(sums[0], vget_low_s16(c_low), vget_low_s16(low));
            sums[1] = vmlal_high_s16(sums[1], c_low, low);
            sums[2] = vmlal_s16(sums[2], vget_low_s16(c_high), vget_low_s16(high));
            sums[3] = vmlal_high_s16(sums[3], c_high, high);
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn total(self) -> i32 {
        let [a, b, c, d] = self.0;
        vaddvq_s32(vaddq_s32(vaddq_s32(a, b), vaddq_s32(c, d)))
    }
}

/// Unpacks the upper bits of one half of each quarter of a block's codes.
#[inline]
#[target_feature(enable = "neon")]
fn unpack_high(block: &High, half: usize) -> [uint8x16_t; 4] {
    let six = vdupq_n_u8(0b11_1111);
    let (sixteens, _) = block.as_chunks::<16>();
    let [first, second, third] = [0, 2, 4].map(|i| load_u8(&sixteens[i + half]));
    let fourth = vorrq_u8(
        vshrq_n_u8::<6>(first),
        vorrq_u8(
            vshlq_n_u8::<2>(vshrq_n_u8::<6>(second)),
            vshlq_n_u8::<4>(vshrq_n_u8::<6>(third)),
        ),
    );
    [
        vandq_u8(first, six),
        vandq_u8(second, six),
        vandq_u8(third, six),
        fourth,
    ]
}

/// Unpacks the lower bits of one half of each quarter of a block's codes.
#[inline]
#[target_feature(enable = "neon")]
fn unpack_low(block: &Low, half: usize) -> [uint8x16_t; 4] {
    let two = vdupq_n_u8(0b11);
    let (sixteens, _) = block.as_chunks::<16>();
    let packed = load_u8(&sixteens[half]);
    [
        vandq_u8(packed, two),
        vandq_u8(vshrq_n_u8::<2>(packed), two),
        vandq_u8(vshrq_n_u8::<4>(packed), two),
        vshrq_n_u8::<6>(packed),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(values: &[i16; 8]) -> int16x8_t {
    // SAFETY: `values` is 8 readable i16.
    unsafe { vld1q_s16(values.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_u8(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `bytes` is 16 readable bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}
