//! Q8_0 (ggml's `block_q8_0`): an f16 scale, then 32 int8, 34 bytes a block.

use half::f16;

use super::{Q_BLOCK, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 34;

/// Returns a block's values.
///
/// # Panics
/// If `block` is not 34 bytes long.
pub fn unpack_block(block: &[u8]) -> [f32; Q_BLOCK] {
    assert_eq!(block.len(), BLOCK_BYTES);
    let scale = f16_at(block, 0);
    std::array::from_fn(|i| scale * f32::from(block[2 + i].cast_signed()))
}

/// Quantises 32 finite values as ggml does: `d = max|x| / 127`, values rounded half away from zero.
///
/// # Panics
/// If `values` is not 32 or `block` not 34 long.
pub fn pack_block(values: &[f32], block: &mut [u8]) {
    assert_eq!((values.len(), block.len()), (Q_BLOCK, BLOCK_BYTES));
    let largest = values.iter().fold(0_f32, |max, x| max.max(x.abs()));
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
    for (byte, x) in block[2..].iter_mut().zip(values) {
        *byte = ((x * inverse).round() as i8).cast_unsigned();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes_are_ggmls() {
        let mut values = [0.0; 32];
        (values[0], values[1], values[31]) = (127.0, -63.5, 1.0);
        let mut block = [0; 34];
        pack_block(&values, &mut block);
        assert_eq!(block[..4], [0x00, 0x3c, 127, 192]); // scale 1; −63.5 rounds to −64
        assert_eq!(block[33], 1);
    }

    proptest! {
        #[test]
        fn values_come_back_within_half_a_step(values in proptest::collection::vec(-8_f32..8.0, 32)) {
            let mut block = [0; 34];
            pack_block(&values, &mut block);
            let step = f16_at(&block, 0);
            for (x, y) in values.iter().zip(unpack_block(&block)) {
                // The f16 scale is off by up to 2^-11 of itself, or of its smallest step.
                prop_assert!((x - y).abs() <= step * 0.57 + 1e-5, "{} <> {}", x, y);
            }
        }
    }
}
