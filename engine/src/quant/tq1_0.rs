//! TQ1_0 (ggml's `block_tq1_0`): 256 trits in 52 bytes, then an f16 scale, 54 bytes a block.
//!
//! A byte holds five trits `t0…t4` (as 0, 1, 2) as the fraction `0.t0t1t2t3t4` in base 3, scaled to
//! 256 and rounded up, so that the highest trit comes out by multiplying with 3 and keeping bits
//! 8 and 9. Bytes 0..32 hold weights `n * 32 + m`, bytes 32..48 weights `160 + n * 16 + m`, and the
//! four bytes after them four trits each, weights `240 + n * 4 + m`.

use super::{TQ_BLOCK, code, f16_at, i2_s};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 54;

/// First weight, first byte, bytes and trits a byte of each of a block's parts.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 0, 32, 5), (160, 32, 16, 5), (240, 48, 4, 4)];

/// Writes a block's trits as two I2_S blocks (64 bytes) and returns its scale.
///
/// # Panics
/// If `block` is not 54 or `codes` not 64 bytes long.
pub fn block_to_i2_s(block: &[u8], codes: &mut [u8]) -> f32 {
    assert_eq!((block.len(), codes.len()), (BLOCK_BYTES, 64));
    let mut trits = [0_i8; TQ_BLOCK];
    for (first, byte, width, n_trits) in PARTS {
        let mut rests: [u8; 32] = [0; 32];
        rests[..width].copy_from_slice(&block[byte..byte + width]);
        for n in 0..n_trits {
            let trits = &mut trits[first + n * width..][..width];
            for (trit, rest) in trits.iter_mut().zip(&mut rests) {
                *trit = ((u16::from(*rest) * 3) >> 8) as i8 - 1;
                *rest = rest.wrapping_mul(3);
            }
        }
    }
    i2_s::pack_row(&trits, codes);
    f16_at(block, 52)
}

/// Packs 256 trits and a scale.
///
/// # Panics
/// If `trits` is not 256 or `block` not 54 long.
pub fn pack_block(trits: &[i8], scale: half::f16, block: &mut [u8]) {
    assert_eq!((trits.len(), block.len()), (TQ_BLOCK, BLOCK_BYTES));
    for (first, byte, width, n_trits) in PARTS {
        for m in 0..width {
            // Four trits take the upper four of five places.
            let digits = (0..5).fold(0_u16, |digits, n| {
                let trit = if n < n_trits {
                    code(trits[first + n * width + m])
                } else {
                    0
                };
                digits * 3 + u16::from(trit)
            });
            block[byte + m] = (digits * 256).div_ceil(243) as u8;
        }
    }
    block[52..].copy_from_slice(&scale.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_bytes_are_ggmls() {
        let mut block = [0; 54];
        // Five trits of 1 are 242 of 243: 242 * 256 / 243 rounded up is 255; four and a zero digit
        // 240: 253. Five zeros are 121: 128; four 120: 127.
        pack_block(&[1; 256], f16::ONE, &mut block);
        assert_eq!((block[0], block[47], block[48]), (255, 255, 253));
        pack_block(&[0; 256], f16::ONE, &mut block);
        assert_eq!((block[0], block[47], block[51]), (128, 128, 127));
        pack_block(&[-1; 256], f16::ONE, &mut block);
        assert_eq!(block[..52], [0; 52]);
        let mut trits = [-1; 256];
        trits[1] = 0; // highest digit of byte 1: 81
        trits[161] = 1; // highest digit of byte 33: 162
        trits[252] = 0; // fourth digit of byte 48: 3
        pack_block(&trits, f16::ONE, &mut block);
        assert_eq!((block[1], block[33], block[48]), (86, 171, 4));
    }

    proptest! {
        #[test]
        fn blocks_read_back(trits in proptest::collection::vec(-1_i8..=1, 256), d in 0_u16..0x7c00) {
            let mut block = [0; 54];
            pack_block(&trits, f16::from_bits(d), &mut block);
            let mut codes = [0; 64];
            let scale = block_to_i2_s(&block, &mut codes);
            prop_assert_eq!(scale.to_bits(), f16::from_bits(d).to_f32().to_bits());
            let mut read = vec![0; 256];
            i2_s::unpack_row(&codes, &mut read);
            prop_assert_eq!(read, trits);
        }

        #[test]
        fn arbitrary_bytes_never_make_a_code_of_three(block in proptest::collection::vec(any::<u8>(), 54)) {
            let mut codes = [0; 64];
            block_to_i2_s(&block, &mut codes);
            prop_assert_eq!(i2_s::find_invalid(&codes), None);
        }
    }
}
