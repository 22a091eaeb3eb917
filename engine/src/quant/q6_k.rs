//! `Q6_K` (ggml's `block_q6_K`): 256 weights in 210 bytes; value = d · scale · (q − 32).
//!
//! 128 bytes of nibbles, 64 bytes of high bit pairs, 16 int8 scales, one for 16 weights, and an f16
//! `d` at the end. Of each 128 weights, which have 64 bytes of nibbles and 32 of pairs, weight
//! `32 k + l` has its pair at bits `2 k` of byte `l`, and its nibble in byte `32 (k mod 2) + l`: low
//! for k of 0 and 1, high for 2 and 3.

use super::{K_BLOCK, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 210;

/// Returns a block's values, which are exact in f32: 11, 7 and 5 significant bits are multiplied.
///
/// # Panics
/// If `block` is not 210 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; K_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let d = f16_at(block, 208);
    std::array::from_fn(|i| {
        let (half, k, l) = (i / 128, i / 32 % 4, i % 32);
        let nibble = block[half * 64 + k % 2 * 32 + l] >> (k / 2 * 4) & 15;
        let pair = block[128 + half * 32 + l] >> (2 * k) & 3;
        let scale = block[192 + i / 16].cast_signed();
        d * f32::from(scale) * (f32::from(nibble | pair << 4) - 32.0)
    })
}
