//! `Q5_K` (ggml's `block_q5_K`): 256 weights in 176 bytes; value = d · scale · q − dmin · min.
//!
//! As [`Q4_K`](super::q4_k), with 32 bytes of fifth bits between scales and nibbles: bit `n` of byte
//! `j` belongs to weight `32 n + j`.

use super::{K_BLOCK, f16_at, q4_k::scale_and_min};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 176;

/// Returns a block's values: both products are exact in f32, and their difference is rounded once.
///
/// # Panics
/// If `block` is not 176 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; K_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    std::array::from_fn(|i| {
        let (scale, min) = scale_and_min(&block[4..16], i / 32);
        let fifth = block[16 + i % 32] >> (i / 32) & 1;
        let byte = block[48 + i / 64 * 32 + i % 32];
        let nibble = byte >> (i / 32 % 2 * 4) & 15;
        d * f32::from(scale) * f32::from(nibble | fifth << 4) - dmin * f32::from(min)
    })
}
