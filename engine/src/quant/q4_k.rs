//! `Q4_K` (ggml's `block_q4_K`): 256 weights in 144 bytes; value = d · scale · q − dmin · min.
//!
//! An f16 `d` and an f16 `dmin`; 12 bytes of 6-bit scales and mins, one of each for 32 weights
//! ([`scale_and_min`]); 128 bytes of nibbles. Of each 64 weights the first 32 are the low nibbles of
//! 32 bytes, the others the high ones.

use super::{K_BLOCK, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 144;

/// Returns a block's values: both products are exact in f32, and their difference is rounded once.
///
/// # Panics
/// If `block` is not 144 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; K_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    std::array::from_fn(|i| {
        let (scale, min) = scale_and_min(&block[4..16], i / 32);
        let byte = block[16 + i / 64 * 32 + i % 32];
        let nibble = byte >> (i / 32 % 2 * 4) & 15;
        d * f32::from(scale) * f32::from(nibble) - dmin * f32::from(min)
    })
}

/// Returns the 6-bit scale and min of 32 weights, from the 12 bytes that `Q4_K` and `Q5_K` keep of them.
///
/// Bytes 0 to 3 hold scales 0 to 3 in their low six bits, bytes 4 to 7 mins 0 to 3; bytes 8 to 11
/// the low four bits of scales 4 to 7 and, above them, of mins 4 to 7, whose other two bits are the
/// high ones of bytes 0 to 3 and 4 to 7.
///
/// # Panics
/// If there are not 12 bytes, or `nth` is not below 8.
#[inline]
pub fn scale_and_min(bytes: &[u8], nth: usize) -> (u8, u8) {
    assert!(bytes.len() == 12 && nth < 8);
    if nth < 4 {
        return (bytes[nth] & 63, bytes[nth + 4] & 63);
    }
    let low = bytes[nth + 4];
    (
        low & 15 | bytes[nth - 4] >> 6 << 4,
        low >> 4 | bytes[nth] >> 6 << 4,
    )
}
