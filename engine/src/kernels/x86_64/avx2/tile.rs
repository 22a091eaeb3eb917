//! A tile of dense products with AVX2, in assembly: of 16 registers compiled code spills some.

use std::arch::asm;

use super::LANES;

/// Rows of a tile.
pub(super) const ROWS: usize = 4;
/// Tokens of a tile.
pub(super) const TOKENS: usize = 3;
/// Lanes of a register.
const PART: usize = 8;

/// Adds the products of rows, `(part, 16 columns, row, 8)`, with tokens, `(part, 16 columns, token,
/// 8)`, to their lanes, `(part, row, token, 8)`.
///
/// # Panics
/// If these are not as many columns of both, or the lanes not those of a tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add(rows: &[f32], tokens: &[f32], lanes: &mut [f32]) {
    let width = rows.len() / ROWS;
    assert!(width > 0 && width.is_multiple_of(LANES));
    assert!(rows.len() == ROWS * width && tokens.len() == TOKENS * width);
    assert!(lanes.len() == ROWS * TOKENS * LANES);
    let rows = rows.chunks_exact(ROWS * width / 2);
    let tokens = tokens.chunks_exact(TOKENS * width / 2);
    let lanes = lanes.chunks_exact_mut(ROWS * TOKENS * PART);
    for ((rows, tokens), lanes) in rows.zip(tokens).zip(lanes) {
        // SAFETY: the loop reads `width / 16` times 4 registers of `rows` and 3 of `tokens`, which
        // hold half of 4 and of 3 times `width` floats; `lanes` holds 12 registers. Nothing is asked
        // to be aligned.
        unsafe {
            asm!(
                "vmovups ymm0, [{lanes}]",
                "vmovups ymm1, [{lanes} + 32]",
                "vmovups ymm2, [{lanes} + 64]",
                "vmovups ymm3, [{lanes} + 96]",
                "vmovups ymm4, [{lanes} + 128]",
                "vmovups ymm5, [{lanes} + 160]",
                "vmovups ymm6, [{lanes} + 192]",
                "vmovups ymm7, [{lanes} + 224]",
                "vmovups ymm8, [{lanes} + 256]",
                "vmovups ymm9, [{lanes} + 288]",
                "vmovups ymm10, [{lanes} + 320]",
                "vmovups ymm11, [{lanes} + 352]",
                ".p2align 5",
                "2:",
                "vmovups ymm12, [{tokens}]",
                "vmovups ymm13, [{tokens} + 32]",
                "vmovups ymm14, [{tokens} + 64]",
                "vmovups ymm15, [{rows}]",
                "vfmadd231ps ymm0, ymm15, ymm12",
                "vfmadd231ps ymm1, ymm15, ymm13",
                "vfmadd231ps ymm2, ymm15, ymm14",
                "vmovups ymm15, [{rows} + 32]",
                "vfmadd231ps ymm3, ymm15, ymm12",
                "vfmadd231ps ymm4, ymm15, ymm13",
                "vfmadd231ps ymm5, ymm15, ymm14",
                "vmovups ymm15, [{rows} + 64]",
                "vfmadd231ps ymm6, ymm15, ymm12",
                "vfmadd231ps ymm7, ymm15, ymm13",
                "vfmadd231ps ymm8, ymm15, ymm14",
                "vmovups ymm15, [{rows} + 96]",
                "vfmadd231ps ymm9, ymm15, ymm12",
                "vfmadd231ps ymm10, ymm15, ymm13",
                "vfmadd231ps ymm11, ymm15, ymm14",
                "add {rows}, 128",
                "add {tokens}, 96",
                "dec {n}",
                "jnz 2b",
                "vmovups [{lanes}], ymm0",
                "vmovups [{lanes} + 32], ymm1",
                "vmovups [{lanes} + 64], ymm2",
                "vmovups [{lanes} + 96], ymm3",
                "vmovups [{lanes} + 128], ymm4",
                "vmovups [{lanes} + 160], ymm5",
                "vmovups [{lanes} + 192], ymm6",
                "vmovups [{lanes} + 224], ymm7",
                "vmovups [{lanes} + 256], ymm8",
                "vmovups [{lanes} + 288], ymm9",
                "vmovups [{lanes} + 320], ymm10",
                "vmovups [{lanes} + 352], ymm11",
                lanes = in(reg) lanes.as_mut_ptr(),
                rows = inout(reg) rows.as_ptr() => _,
                tokens = inout(reg) tokens.as_ptr() => _,
                n = inout(reg) width / LANES => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack)
            );
        }
    }
}
