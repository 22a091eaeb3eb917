//! The packed ternary weights of Hugging Face folders (transformers, `integrations/bitnet.py`).
//!
//! A matrix of `4n` rows is stored as `(n, cols)` bytes: bits `2i` and `2i + 1` of stored row `r`
//! hold row `i * n + r` as trit + 1.

use super::code;
use crate::weights::{TERNARY_BLOCK_BYTES, TernaryMatrix};

/// Writes the I2_S rows of a packed matrix of `packed.len() / cols` stored rows.
///
/// # Panics
/// If `packed` is not whole rows, or `codes` not four times as many I2_S rows.
pub fn to_i2_s(packed: &[u8], cols: usize, codes: &mut [u8]) {
    let n = packed.len() / cols;
    let row_bytes = TernaryMatrix::row_bytes(cols);
    assert_eq!(packed.len(), n * cols);
    assert_eq!(codes.len(), 4 * n * row_bytes);
    for (row, codes) in codes.chunks_exact_mut(row_bytes).enumerate() {
        let stored = &packed[row % n * cols..][..cols];
        let shift = 2 * (row / n);
        let blocks = codes.chunks_exact_mut(TERNARY_BLOCK_BYTES);
        for (stored, block) in stored.chunks(128).zip(blocks) {
            // Codes of zero behind the row's end.
            let mut padded = [0b01_01_01_01; 128];
            padded[..stored.len()].copy_from_slice(stored);
            for (p, byte) in block.iter_mut().enumerate() {
                let quarter = |nth: usize| padded[nth * 32 + p] >> shift & 3;
                *byte = quarter(0) << 6 | quarter(1) << 4 | quarter(2) << 2 | quarter(3);
            }
        }
    }
}

/// Packs a matrix of trits; the number of rows is a multiple of four.
///
/// # Panics
/// If `trits` is not a multiple of four whole rows.
pub fn pack(trits: &[i8], cols: usize) -> Vec<u8> {
    assert_eq!(trits.len() % (4 * cols), 0);
    let n = trits.len() / 4;
    (0..n)
        .map(|at| (0..4).fold(0, |byte, i| byte | code(trits[i * n + at]) << (2 * i)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quant::i2_s;

    #[test]
    fn rows_a_quarter_apart_share_a_byte() {
        // 8 rows of one column; n = 2: byte 0 holds rows 0, 2, 4, 6.
        assert_eq!(
            pack(&[1, 0, -1, 0, 0, 1, 1, -1], 1),
            [0b10_01_00_10, 0b00_10_01_01]
        );
    }

    proptest! {
        #[test]
        fn packed_rows_read_back(cols in 1_usize..300, n in 1_usize..4, seed in any::<u64>()) {
            let trits: Vec<i8> = (0..4 * n * cols)
                .map(|i| ((i as u64 + 1).wrapping_mul(seed | 1) >> 40) as i8 % 2)
                .collect();
            let row_bytes = TernaryMatrix::row_bytes(cols);
            let mut codes = vec![0; 4 * n * row_bytes];
            to_i2_s(&pack(&trits, cols), cols, &mut codes);
            let mut read = vec![0; cols];
            for (codes, trits) in codes.chunks(row_bytes).zip(trits.chunks(cols)) {
                i2_s::unpack_row(codes, &mut read);
                prop_assert_eq!(&read[..], trits);
            }
        }
    }
}
