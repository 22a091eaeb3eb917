//! A tile of dense products with AVX2, in assembly: of 16 registers compiled code spills some.

use std::arch::{
    asm,
    x86_64::{
        _mm_storeu_ps, _mm_unpacklo_ps, _mm256_add_ps, _mm256_castpd_ps, _mm256_castps_pd,
        _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_loadu_ps, _mm256_permute2f128_ps,
        _mm256_shuffle_ps, _mm256_unpackhi_pd, _mm256_unpacklo_pd,
    },
};

use super::{LANES, Pair};

/// Rows of a tile.
pub(in super::super) const ROWS: usize = 4;
/// Tokens of a tile.
pub(in super::super) const TOKENS: usize = 3;
/// Lanes of a register.
const PART: usize = 8;

/// Adds the products of rows, `(part, 16 columns, row, 8)`, with tokens, `(part, 16 columns, token,
/// 8)`, to their lanes, `(part, row, token, 8)`, or the `first` time to zeros.
///
/// # Panics
/// If these are not as many columns of both, or the lanes not those of a tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add(rows: &[f32], tokens: &[f32], first: bool, lanes: &mut [f32]) {
    static ZEROS: [f32; ROWS * TOKENS * PART] = [0.0; ROWS * TOKENS * PART];
    let width = rows.len() / ROWS;
    assert!(width > 0 && width.is_multiple_of(LANES));
    assert!(rows.len() == ROWS * width && tokens.len() == TOKENS * width);
    assert!(lanes.len() == ROWS * TOKENS * LANES);
    let rows = rows.chunks_exact(ROWS * width / 2);
    let tokens = tokens.chunks_exact(TOKENS * width / 2);
    let lanes = lanes.chunks_exact_mut(ROWS * TOKENS * PART);
    for ((rows, tokens), lanes) in rows.zip(tokens).zip(lanes) {
        let from = if first {
            ZEROS.as_ptr()
        } else {
            lanes.as_ptr()
        };
        // SAFETY: the loop reads `width / 16` times 4 registers of `rows` and 3 of `tokens`, which
        // hold half of 4 and of 3 times `width` floats; `lanes` and `from` hold 12 registers. Nothing
        // is asked to be aligned.
        unsafe {
            asm!(
                "vmovups ymm0, [{from}]",
                "vmovups ymm1, [{from} + 32]",
                "vmovups ymm2, [{from} + 64]",
                "vmovups ymm3, [{from} + 96]",
                "vmovups ymm4, [{from} + 128]",
                "vmovups ymm5, [{from} + 160]",
                "vmovups ymm6, [{from} + 192]",
                "vmovups ymm7, [{from} + 224]",
                "vmovups ymm8, [{from} + 256]",
                "vmovups ymm9, [{from} + 288]",
                "vmovups ymm10, [{from} + 320]",
                "vmovups ymm11, [{from} + 352]",
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
                from = in(reg) from,
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

/// Folds the lanes of one token's dot products with all rows.
///
/// # Panics
/// If the lanes are not those of a tile, or the token none of it.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fold(lanes: &[f32], token: usize) -> [f32; ROWS] {
    assert!(lanes.len() == ROWS * TOKENS * LANES && token < TOKENS);
    let (low, high) = lanes.split_at(ROWS * TOKENS * PART);
    let row = |row: usize| {
        let at = (row * TOKENS + token) * PART;
        let (low, high) = (&low[at..][..PART], &high[at..][..PART]);
        // SAFETY: `low` is 8 readable floats, and loadu asks no alignment.
        let low = unsafe { _mm256_loadu_ps(low.as_ptr()) };
        // SAFETY: `high` is 8 readable floats, and loadu asks no alignment.
        let high = unsafe { _mm256_loadu_ps(high.as_ptr()) };
        (low, high)
    };
    fold_four([row(0), row(1), row(2), row(3)])
}

/// Four trees of [`float::fold`](super::super::super::float::fold) abreast.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fold_four(lanes: [Pair; 4]) -> [f32; 4] {
    // 16 → 8, lane `j` with lane `j + half`, as in all steps.
    let eight = |(low, high): Pair| _mm256_add_ps(low, high);
    // 8 → 4, of two: (0 | 1) and (2 | 3).
    let four = |a, b| {
        _mm256_add_ps(
            _mm256_permute2f128_ps::<0x20>(a, b),
            _mm256_permute2f128_ps::<0x31>(a, b),
        )
    };
    let [a, b, c, d] = lanes;
    let ab = _mm256_castps_pd(four(eight(a), eight(b)));
    let cd = _mm256_castps_pd(four(eight(c), eight(d)));
    // 4 → 2: (0, 2 | 1, 3), two lanes each.
    let two = _mm256_add_ps(
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)),
    );
    // 2 → 1: (0, 2 | 1, 3), one lane each.
    let one = _mm256_add_ps(
        _mm256_shuffle_ps::<0b10_00_10_00>(two, two),
        _mm256_shuffle_ps::<0b11_01_11_01>(two, two),
    );
    let dots = _mm_unpacklo_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
    let mut out = [0.0; 4];
    // SAFETY: 4 writable floats, and storeu asks no alignment.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), dots) };
    out
}
