//! TQ2_0 (ggml's `block_tq2_0`): 256 trits in 64 bytes, then an f16 scale, 66 bytes a block.
//!
//! Each half of a block has 128 weights in 32 bytes; byte `j` holds weights `j`, `32 + j`, `64 + j`
//! and `96 + j` of the half from its lowest two bits up, each as trit + 1. I2_S has the same four
//! in the opposite order within the byte.

use super::{TQ_BLOCK, code, f16_at};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 66;

/// Writes a block's trits as two I2_S blocks (64 bytes) and returns its scale. A code of 3 stays 3.
///
/// # Panics
/// If `block` is not 66 or `codes` not 64 bytes long.
pub fn block_to_i2_s(block: &[u8], codes: &mut [u8]) -> f32 {
    assert_eq!((block.len(), codes.len()), (BLOCK_BYTES, 64));
    codes.copy_from_slice(&block[..64]);
    codes.iter_mut().for_each(reverse_codes);
    f16_at(block, 64)
}

/// Reverses the four codes of a byte: TQ2_0's order becomes I2_S's and the other way round.
pub fn reverse_codes(byte: &mut u8) {
    let swapped = byte.rotate_left(4);
    *byte = ((swapped & 0x33) << 2) | ((swapped >> 2) & 0x33);
}

/// Packs 256 trits and a scale.
///
/// # Panics
/// If `trits` is not 256 or `block` not 66 long.
pub fn pack_block(trits: &[i8], scale: half::f16, block: &mut [u8]) {
    assert_eq!((trits.len(), block.len()), (TQ_BLOCK, BLOCK_BYTES));
    let (halves, d) = block.split_at_mut(64);
    for (trits, bytes) in trits.chunks_exact(128).zip(halves.chunks_exact_mut(32)) {
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, l| byte | code(trits[32 * l + j]) << (2 * l));
        }
    }
    d.copy_from_slice(&scale.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::quant::i2_s;

    #[test]
    fn a_block_is_packed_as_ggml_packs_it() {
        let mut trits = [0; 256];
        (trits[0], trits[33], trits[66], trits[99]) = (1, -1, 1, -1);
        trits[255] = 1;
        let mut block = [0; 66];
        pack_block(&trits, f16::from_f32(0.5), &mut block);
        assert_eq!(
            block[..4],
            [0b01_01_01_10, 0b01_01_00_01, 0b01_10_01_01, 0b00_01_01_01]
        );
        assert_eq!(block[63], 0b10_01_01_01);
        assert_eq!(block[64..], [0x00, 0x38]);
    }

    proptest! {
        #[test]
        fn blocks_read_back(trits in proptest::collection::vec(-1_i8..=1, 256), d in 0_u16..0x7c00) {
            let mut block = [0; 66];
            pack_block(&trits, f16::from_bits(d), &mut block);
            let mut codes = [0; 64];
            let scale = block_to_i2_s(&block, &mut codes);
            prop_assert_eq!(scale.to_bits(), f16::from_bits(d).to_f32().to_bits());
            let mut read = vec![0; 256];
            i2_s::unpack_row(&codes, &mut read);
            prop_assert_eq!(read, trits);
        }
    }
}
