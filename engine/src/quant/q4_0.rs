//! Q4_0 (ggml's `block_q4_0`): an f16 scale, then 16 bytes, 18 bytes a block; value = d · (q − 8).
//! Byte `j` holds weight `j` in its low nibble and weight `j + 16` in its high one.

use half::f16;

use super::{Q_BLOCK, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 18;

/// Returns a block's values.
///
/// # Panics
/// If `block` is not 18 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; Q_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let scale = f16_at(block, 0);
    std::array::from_fn(|i| {
        let byte = block[2 + i % 16];
        let nibble = if i < 16 { byte & 15 } else { byte >> 4 };
        scale * (f32::from(nibble) - 8.0)
    })
}

/// Quantises 32 finite values as ggml does: the value of the largest magnitude becomes −8.
///
/// # Panics
/// If `values` is not 32 or `block` not 18 long.
pub fn pack_block(values: &[f32], block: &mut [u8]) {
    assert_eq!((values.len(), block.len()), (Q_BLOCK, BLOCK_BYTES));
    let largest = values
        .iter()
        .fold(0_f32, |max, &x| if x.abs() > max.abs() { x } else { max });
    let scale = largest / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    #[expect(clippy::cast_sign_loss, reason = "clamped just before")]
    let nibble = |x: f32| (x * inverse + 8.5).clamp(0.0, 15.0) as u8;
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (j, byte) in block[2..].iter_mut().enumerate() {
        *byte = nibble(values[j]) | nibble(values[j + 16]) << 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes_are_ggmls() {
        let mut values = [0.0; 32];
        (values[0], values[1], values[16]) = (-8.0, 7.0, 3.0);
        let mut block = [0; 18];
        pack_block(&values, &mut block);
        assert_eq!(block[..4], [0x00, 0x3c, 0xb0, 0x8f]); // scale 1; 0 low, 3 + 8 high; 15 low
        assert_eq!(block[4], 0x88);
    }

    proptest! {
        #[test]
        fn values_come_back_within_a_step(values in proptest::collection::vec(-8_f32..8.0, 32)) {
            let mut block = [0; 18];
            pack_block(&values, &mut block);
            let step = f16_at(&block, 0).abs();
            for (x, y) in values.iter().zip(unpack_block(&block)) {
                // A whole step where the value opposite the largest would be +8.
                prop_assert!((x - y).abs() <= step * 1.01 + 1e-5, "{} <> {}", x, y);
            }
        }
    }
}
