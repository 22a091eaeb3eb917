//! I2_S, bitnet.cpp's 2-bit layout (`ggml-bitnet-mad.cpp`, `quantize_i2_s`), which is also the
//! run-time layout.
//!
//! Code of a trit: trit + 1; code 3 has no meaning. Canonical blocks hold 128 weights in 32 bytes:
//! byte `p` is `w[p] << 6 | w[32 + p] << 4 | w[64 + p] << 2 | w[96 + p]`. A file packs the whole
//! matrix as one run; at run time each row begins a block and is padded with code 1 (zero).
//! ARM builds of bitnet.cpp since 112f853 write blocks of 64 under the same type number
//! ([`narrow_block_to_rows`]), and x86 builds without `ACT_PARALLEL` four rows in a byte
//! ([`fours_to_rows`]); nothing in a file tells which.

use super::{code, trit};
use crate::weights::{TERNARY_BLOCK, TERNARY_BLOCK_BYTES, TernaryMatrix};

/// Four codes of zero.
const ZEROS: u8 = 0b01_01_01_01;

/// Packs one row; the end of the last block becomes zeros.
///
/// # Panics
/// If `codes` is not [`TernaryMatrix::row_bytes`] long.
pub fn pack_row(trits: &[i8], codes: &mut [u8]) {
    assert_eq!(codes.len(), TernaryMatrix::row_bytes(trits.len()));
    let blocks = codes.chunks_exact_mut(TERNARY_BLOCK_BYTES);
    for (trits, bytes) in trits.chunks(TERNARY_BLOCK).zip(blocks) {
        if let Some(trits) = trits.first_chunk::<TERNARY_BLOCK>() {
            pack_block(trits, bytes);
        } else {
            let mut padded = [0; TERNARY_BLOCK];
            padded[..trits.len()].copy_from_slice(trits);
            pack_block(&padded, bytes);
        }
    }
}

fn pack_block(trits: &[i8; TERNARY_BLOCK], bytes: &mut [u8]) {
    for (p, byte) in bytes.iter_mut().enumerate() {
        let quarter = |nth: usize| code(trits[nth * 32 + p]);
        *byte = quarter(0) << 6 | quarter(1) << 4 | quarter(2) << 2 | quarter(3);
    }
}

/// Unpacks one row, which begins with a block.
///
/// # Panics
/// If `codes` is not [`TernaryMatrix::row_bytes`] long.
pub fn unpack_row(codes: &[u8], trits: &mut [i8]) {
    assert_eq!(codes.len(), TernaryMatrix::row_bytes(trits.len()));
    let blocks = codes.chunks_exact(TERNARY_BLOCK_BYTES);
    for (bytes, trits) in blocks.zip(trits.chunks_mut(TERNARY_BLOCK)) {
        for (quarter, trits) in trits.chunks_mut(32).enumerate() {
            for (value, byte) in trits.iter_mut().zip(bytes) {
                *value = trit((byte >> (6 - 2 * quarter)) & 3);
            }
        }
    }
}

/// Returns a matrix's rows, each beginning with a block, from a file's single run of canonical
/// blocks.
///
/// # Panics
/// If `run` is not a whole number of blocks holding `rows * cols` weights.
pub fn run_to_rows(run: &[u8], rows: usize, cols: usize, codes: &mut [u8]) {
    repack_run(run, rows, cols, codes, 32);
}

/// Does the same as [`run_to_rows`] for blocks of 64 weights in 16 bytes.
///
/// # Panics
/// As [`run_to_rows`].
pub fn narrow_block_to_rows(run: &[u8], rows: usize, cols: usize, codes: &mut [u8]) {
    repack_run(run, rows, cols, codes, 16);
}

/// Does the same for bytes that hold one column of four rows: byte `c` of the rows `4g..4g + 4` is
/// `w[4g][c] << 6 | w[4g + 1][c] << 4 | w[4g + 2][c] << 2 | w[4g + 3][c]`.
///
/// # Panics
/// If `rows` is not a multiple of four, or `run` does not hold `rows * cols` weights.
pub fn fours_to_rows(run: &[u8], rows: usize, cols: usize, codes: &mut [u8]) {
    assert_eq!(rows % 4, 0);
    assert_eq!(run.len() * 4, rows * cols);
    let mut trits = vec![0; cols];
    let row_bytes = TernaryMatrix::row_bytes(cols);
    for (row, codes) in codes.chunks_exact_mut(row_bytes).enumerate() {
        let shift = 6 - 2 * (row % 4);
        let bytes = &run[row / 4 * cols..][..cols];
        for (value, byte) in trits.iter_mut().zip(bytes) {
            *value = trit((byte >> shift) & 3);
        }
        pack_row(&trits, codes);
    }
}

/// Blocks of `4 * width` weights in `width` bytes.
fn repack_run(run: &[u8], rows: usize, cols: usize, codes: &mut [u8], width: usize) {
    assert_eq!(run.len() * 4, rows * cols);
    assert_eq!(run.len() % width, 0);
    let mut trits = vec![0; cols];
    let row_bytes = TernaryMatrix::row_bytes(cols);
    for (row, codes) in codes.chunks_exact_mut(row_bytes).enumerate() {
        for (col, value) in trits.iter_mut().enumerate() {
            let at = row * cols + col;
            let (block, within) = (at / (4 * width), at % (4 * width));
            let byte = run[block * width + within % width];
            *value = trit((byte >> (6 - 2 * (within / width))) & 3);
        }
        pack_row(&trits, codes);
    }
}

/// Returns where the first byte with a code 3 is.
pub fn find_invalid(codes: &[u8]) -> Option<usize> {
    // A code is 3 where both its bits are set. Pages of bytes, so that the inner loop has no exit.
    codes.chunks(4096).enumerate().find_map(|(page, bytes)| {
        let any = bytes.iter().fold(0, |any, byte| any | (byte & byte >> 1));
        if any & ZEROS == 0 {
            return None;
        }
        let at = bytes
            .iter()
            .position(|byte| byte & byte >> 1 & ZEROS != 0)?;
        Some(page * 4096 + at)
    })
}

/// Returns whether every weight is zero.
pub fn is_all_zero(codes: &[u8]) -> bool {
    codes.iter().all(|&byte| byte == ZEROS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_is_packed_as_bitnet_cpp_packs_it() {
        let mut trits = [0; 128];
        trits[0] = 1; // byte 0, bits 6 and 7
        trits[33] = -1; // byte 1, bits 4 and 5
        trits[66] = 1; // byte 2, bits 2 and 3
        trits[99] = -1; // byte 3, bits 0 and 1
        let mut codes = [0; 32];
        pack_row(&trits, &mut codes);
        assert_eq!(
            codes[..5],
            [
                0b10_01_01_01,
                0b01_00_01_01,
                0b01_01_10_01,
                0b01_01_01_00,
                ZEROS
            ]
        );
    }

    #[test]
    fn the_end_of_a_row_is_padded_with_zeros() {
        let mut codes = [0; 64];
        pack_row(&[1; 130], &mut codes);
        assert_eq!(codes[..32], [0b10_10_10_10; 32]);
        assert_eq!(codes[32..35], [0b10_01_01_01, 0b10_01_01_01, ZEROS]);
    }

    #[test]
    fn a_code_of_three_is_found() {
        let mut codes = vec![0b10_01_00_10; 10_000];
        assert_eq!(find_invalid(&codes), None);
        codes[9_000] = 0b10_11_00_00;
        assert_eq!(find_invalid(&codes), Some(9_000));
    }

    #[test]
    fn narrow_blocks_follow_their_own_order() {
        // Block of 64: byte p is w[p] << 6 | w[16 + p] << 4 | w[32 + p] << 2 | w[48 + p].
        let mut run = [ZEROS; 32];
        run[1] = 0b10_00_01_10;
        let mut codes = [0; 32];
        narrow_block_to_rows(&run, 1, 128, &mut codes);
        let mut trits = [0; 128];
        unpack_row(&codes, &mut trits);
        let mut expected = [0; 128];
        (expected[1], expected[17], expected[49]) = (1, -1, 1);
        assert_eq!(trits, expected);
    }

    #[test]
    fn rows_in_fours_share_a_byte() {
        // Column 1 of rows 4 to 7 is 1, −1, 0, 1.
        let mut run = [ZEROS; 2 * 64];
        run[64 + 1] = 0b10_00_01_10;
        let mut codes = [0; 8 * 32];
        fours_to_rows(&run, 8, 64, &mut codes);
        for (row, expected) in [0, 0, 0, 0, 1, -1, 0, 1].into_iter().enumerate() {
            let mut trits = [0; 64];
            unpack_row(&codes[row * 32..][..32], &mut trits);
            assert_eq!(
                (trits[0], trits[1], trits[2]),
                (0, expected, 0),
                "row {row}"
            );
        }
    }

    proptest! {
        #[test]
        fn rows_unpack_to_what_was_packed(trits in proptest::collection::vec(-1_i8..=1, 0..600)) {
            let mut codes = vec![0; TernaryMatrix::row_bytes(trits.len())];
            pack_row(&trits, &mut codes);
            let mut read = vec![0; trits.len()];
            unpack_row(&codes, &mut read);
            prop_assert_eq!(read, trits);
        }

        #[test]
        fn a_run_over_rows_becomes_rows(cols in 1_usize..200, seed in any::<u64>()) {
            let rows = 128;
            let trits: Vec<i8> = (0..rows * cols)
                .map(|i| ((i as u64 + 1).wrapping_mul(seed | 1) >> 40) as i8 % 2)
                .collect();
            let mut run = vec![0; rows * cols / 4];
            pack_row(&trits, &mut run);
            let mut codes = vec![0; rows * TernaryMatrix::row_bytes(cols)];
            run_to_rows(&run, rows, cols, &mut codes);
            let mut row = vec![0; cols];
            for (codes, expected) in codes
                .chunks(TernaryMatrix::row_bytes(cols))
                .zip(trits.chunks(cols))
            {
                unpack_row(codes, &mut row);
                prop_assert_eq!(&row[..], expected);
            }
        }
    }
}
