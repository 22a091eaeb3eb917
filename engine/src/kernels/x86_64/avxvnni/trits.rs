//! Ternary dot products with AVX-VNNI. Panels are those of AVX2, sums never narrow.

use std::arch::{
    asm,
    x86_64::{
        __m256i, _mm256_add_epi32, _mm256_dpbusd_avx_epi32, _mm256_set1_epi8, _mm256_setzero_si256,
        _mm256_srai_epi32,
    },
};

use super::{
    super::{
        super::ternary::{Dots, Group, Panel, TernaryIsa, Token},
        avx2::{add_lanes, load, load_i8},
    },
    AvxVnni,
};
use crate::weights::TERNARY_GROUP;

impl TernaryIsa for AvxVnni {
    const PAIRED: bool = false;

    #[inline(always)]
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots {
        // SAFETY: `self` can only come from `detect`.
        unsafe { packed_dots(group, token) }
    }

    #[inline(always)]
    fn unpack(self, group: Group<'_>, panels: &mut [Panel]) {
        self.avx2.unpack(group, panels);
    }

    #[inline(always)]
    fn tile<const T: usize>(self, panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile(panels, tokens) }
    }
}

/// How far ahead of a stream of weights memory is asked for, bytes.
const AHEAD: usize = 4096;

/// Dot products of packed rows.
///
/// Two planes of codes are left where they lie, as four times the code, and have sums of their own,
/// from which the factor comes out at the end. Without the shift there would be sums of four
/// planes: all 16 registers, and none for the rest. A lane of the larger sums is at most
/// 2 · 4 · 8 · 128 a block, in i32 up to 2^25 columns.
#[inline]
#[target_feature(enable = "avxvnni,avx2")]
fn packed_dots(group: Group<'_>, token: Token<'_>) -> Dots {
    let mut sums = [_mm256_setzero_si256(); TERNARY_GROUP];
    let mut fours = [_mm256_setzero_si256(); TERNARY_GROUP];
    add_blocks(group, token, &mut sums, &mut fours);
    for r in 0..TERNARY_GROUP {
        // Each lane is a multiple of four, so that the shift is exact.
        sums[r] = _mm256_add_epi32(sums[r], _mm256_srai_epi32::<2>(fours[r]));
    }
    add_lanes(&sums)
}

/// Adds the products of packed rows with a token, in assembly: eight sums, two masks, four registers
/// of values, a row and its codes are the 16 registers there are. Compiled code takes a row's plane
/// with all rows first, and spills what is left of them.
#[inline]
#[target_feature(enable = "avxvnni,avx2")]
fn add_blocks(
    group: Group<'_>,
    token: Token<'_>,
    sums: &mut [__m256i; TERNARY_GROUP],
    fours: &mut [__m256i; TERNARY_GROUP],
) {
    assert_eq!(group.len(), token.len(), "equally long");
    if group.is_empty() {
        return;
    }
    let low = _mm256_set1_epi8(0b0011);
    let high = _mm256_set1_epi8(0b1100);
    let [a, b, c, d] = sums;
    let [a4, b4, c4, d4] = fours;
    // SAFETY: reads `group.len()` blocks of 128 bytes, and as many of the token, all within their
    // slices; writes registers alone. What is prefetched need not be readable.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "prefetcht0 [{group} + {ahead}]",
            "prefetcht0 [{group} + {ahead} + 64]",
            "vmovdqu {x0}, [{token}]",
            "vmovdqu {x1}, [{token} + 32]",
            "vmovdqu {x2}, [{token} + 64]",
            "vmovdqu {x3}, [{token} + 96]",
            "vmovdqu {w}, [{group}]",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {a4}, {t}, {x2}",
            "vpand {t}, {w}, {low}",
            "{{vex}} vpdpbusd {a}, {t}, {x3}",
            "vpsrlw {w}, {w}, 4",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {a4}, {t}, {x0}",
            "vpand {w}, {w}, {low}",
            "{{vex}} vpdpbusd {a}, {w}, {x1}",
            "vmovdqu {w}, [{group} + 32]",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {b4}, {t}, {x2}",
            "vpand {t}, {w}, {low}",
            "{{vex}} vpdpbusd {b}, {t}, {x3}",
            "vpsrlw {w}, {w}, 4",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {b4}, {t}, {x0}",
            "vpand {w}, {w}, {low}",
            "{{vex}} vpdpbusd {b}, {w}, {x1}",
            "vmovdqu {w}, [{group} + 64]",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {c4}, {t}, {x2}",
            "vpand {t}, {w}, {low}",
            "{{vex}} vpdpbusd {c}, {t}, {x3}",
            "vpsrlw {w}, {w}, 4",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {c4}, {t}, {x0}",
            "vpand {w}, {w}, {low}",
            "{{vex}} vpdpbusd {c}, {w}, {x1}",
            "vmovdqu {w}, [{group} + 96]",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {d4}, {t}, {x2}",
            "vpand {t}, {w}, {low}",
            "{{vex}} vpdpbusd {d}, {t}, {x3}",
            "vpsrlw {w}, {w}, 4",
            "vpand {t}, {w}, {high}",
            "{{vex}} vpdpbusd {d4}, {t}, {x0}",
            "vpand {w}, {w}, {low}",
            "{{vex}} vpdpbusd {d}, {w}, {x1}",
            "add {group}, 128",
            "add {token}, 128",
            "dec {n}",
            "jnz 2b",
            group = inout(reg) group.as_ptr() => _,
            token = inout(reg) token.as_ptr() => _,
            n = inout(reg) group.len() => _,
            ahead = const AHEAD,
            low = in(ymm_reg) low,
            high = in(ymm_reg) high,
            x0 = out(ymm_reg) _,
            x1 = out(ymm_reg) _,
            x2 = out(ymm_reg) _,
            x3 = out(ymm_reg) _,
            w = out(ymm_reg) _,
            t = out(ymm_reg) _,
            a = inout(ymm_reg) *a,
            b = inout(ymm_reg) *b,
            c = inout(ymm_reg) *c,
            d = inout(ymm_reg) *d,
            a4 = inout(ymm_reg) *a4,
            b4 = inout(ymm_reg) *b4,
            c4 = inout(ymm_reg) *c4,
            d4 = inout(ymm_reg) *d4,
            options(nostack, readonly),
        );
    }
}

/// Dot products of unpacked rows with tokens: 32 products an instruction.
///
/// With three tokens there are 12 sums, three registers of values and one of codes: the 16 registers,
/// in which compiled code keeps them.
#[inline]
#[target_feature(enable = "avxvnni,avx2")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    let (steps, _) = panels.as_flattened().as_chunks::<{ 32 * TERNARY_GROUP }>();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t].as_flattened().as_chunks::<32>().0[..steps.len()];
    }
    let mut sums = [[_mm256_setzero_si256(); TERNARY_GROUP]; T];
    for (i, step) in steps.iter().enumerate() {
        let (step, _) = step.as_chunks::<32>();
        let mut values = [_mm256_setzero_si256(); T];
        for t in 0..T {
            values[t] = load_i8(&x[t][i]);
        }
        for r in 0..TERNARY_GROUP {
            let codes = load(&step[r]);
            for t in 0..T {
                sums[t][r] = _mm256_dpbusd_avx_epi32(sums[t][r], codes, values[t]);
            }
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for t in 0..T {
        dots[t] = add_lanes(&sums[t]);
    }
    dots
}
