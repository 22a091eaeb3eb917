//! `Q5_0` (ggml's `block_q5_0`): an f16 scale, 4 bytes of fifth bits, 16 of nibbles, 22 bytes a block;
//! value = d · (q − 16). Byte `j` holds the low bits of weight `j` in its low nibble and of weight
//! `j + 16` in its high one; bit `i` of the 4 bytes is the fifth of weight `i`.

use super::{Q_BLOCK, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 22;

/// Returns a block's values.
///
/// # Panics
/// If `block` is not 22 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; Q_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let scale = f16_at(block, 0);
    let fifths = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    std::array::from_fn(|i| {
        let byte = block[6 + i % 16];
        let nibble = if i < 16 { byte & 15 } else { byte >> 4 };
        let fifth = (fifths >> i & 1) as u8;
        scale * (f32::from(nibble | fifth << 4) - 16.0)
    })
}
