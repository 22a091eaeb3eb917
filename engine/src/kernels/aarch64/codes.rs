//! What the three levels share: reading packed codes and activations, and unpacking.

use std::arch::{
    aarch64::{
        int8x16_t, int32x4_t, uint8x16_t, vandq_u8, vdupq_n_u8, vld1q_s8, vld1q_u8, vpaddq_s32,
        vshrq_n_u8, vst1q_s32, vst1q_u8,
    },
    asm,
};

use super::super::ternary::{Block, Dots, Group, Panel};
use crate::weights::{TERNARY_GROUP, TernaryGroup};

/// Sixteen bytes of each of a group's rows.
pub(super) type Rows = [uint8x16_t; TERNARY_GROUP];

/// How far ahead of a stream of weights memory is asked for, bytes.
pub(super) const AHEAD: usize = 1024;

/// Unpacks to panels of `(16 columns, 4, 16)`, the columns ascending.
///
/// `order` puts the bytes of 16 columns of four rows in the order in which the level reads them;
/// it acts on packed bytes, and thus on four planes at once.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn unpack(group: Group<'_>, panels: &mut [Panel], order: impl Fn(Rows) -> Rows) {
    let three = vdupq_n_u8(3);
    for (block, panel) in group.iter().zip(panels) {
        let (steps, _) = panel.as_chunks_mut::<64>();
        for half in 0..2 {
            let packed = order(rows(block, half));
            for r in 0..TERNARY_GROUP {
                let planes = [
                    vshrq_n_u8::<6>(packed[r]),
                    vandq_u8(vshrq_n_u8::<4>(packed[r]), three),
                    vandq_u8(vshrq_n_u8::<2>(packed[r]), three),
                    vandq_u8(packed[r], three),
                ];
                for k in 0..4 {
                    let (chunks, _) = steps[2 * k + half].as_chunks_mut::<16>();
                    store(&mut chunks[r], planes[k]);
                }
            }
        }
    }
}

/// Reads the first or the second half of a block of four rows.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn rows(block: &TernaryGroup, half: usize) -> Rows {
    [
        load(&block[0].as_chunks().0[half]),
        load(&block[1].as_chunks().0[half]),
        load(&block[2].as_chunks().0[half]),
        load(&block[3].as_chunks().0[half]),
    ]
}

/// Reads the 16 values of each plane that meet the first or the second half of a block.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn of_planes(values: &Block, half: usize) -> [int8x16_t; 4] {
    let (values, _) = values.as_chunks::<16>();
    [
        load_i8(&values[half]),
        load_i8(&values[2 + half]),
        load_i8(&values[4 + half]),
        load_i8(&values[6 + half]),
    ]
}

/// Returns a mask as a value that the compiler keeps in a register: it would rather make a known
/// constant anew for each use, at the cost of an instruction each.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn kept(mut mask: uint8x16_t) -> uint8x16_t {
    // SAFETY: there is no instruction in it.
    unsafe {
        asm!(
            "/* {mask:v} */",
            mask = inout(vreg) mask,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    mask
}

/// Adds up the 4 lanes of each of four sums.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_lanes(sums: &[int32x4_t; TERNARY_GROUP]) -> Dots {
    dots(of_lanes(sums))
}

/// Adds up the 4 lanes of each of four sums, to lanes in their order.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn of_lanes(sums: &[int32x4_t; 4]) -> int32x4_t {
    let low = vpaddq_s32(sums[0], sums[1]);
    let high = vpaddq_s32(sums[2], sums[3]);
    vpaddq_s32(low, high)
}

/// Returns the dot products in four lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn dots(lanes: int32x4_t) -> Dots {
    let mut dots = [0; TERNARY_GROUP];
    // SAFETY: `dots` is four writable i32.
    unsafe { vst1q_s32(dots.as_mut_ptr(), lanes) }
    dots
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: `bytes` is 16 readable bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_i8(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: `bytes` is 16 readable bytes.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn store(bytes: &mut [u8; 16], lanes: uint8x16_t) {
    // SAFETY: `bytes` is 16 writable bytes.
    unsafe { vst1q_u8(bytes.as_mut_ptr(), lanes) }
}
