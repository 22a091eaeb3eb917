//! Ternary dot products with AVX2.
//!
//! `vpmaddubsw` multiplies unsigned codes with signed activations and adds two products to an i16;
//! a bounded number of them is added there before the sum is widened to i32.

use std::arch::{
    asm,
    x86_64::{
        __m256i, _mm_add_epi32, _mm_storeu_si128, _mm256_add_epi16, _mm256_add_epi32,
        _mm256_and_si256, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_hadd_epi32,
        _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm256_srai_epi32, _mm256_srli_epi16,
        _mm256_storeu_si256,
    },
};

use super::{
    super::super::ternary::{Dots, Group, Panel, TernaryIsa, Token},
    Avx2, prefetch,
};
use crate::weights::{TERNARY_BLOCK, TERNARY_GROUP};

impl TernaryIsa for Avx2 {
    const PAIRED: bool = false;

    #[inline(always)]
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots {
        // SAFETY: `self` can only come from `detect`.
        unsafe { packed_dots(group, token) }
    }

    #[inline(always)]
    fn unpack(self, group: Group<'_>, panels: &mut [Panel]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { unpack(group, panels) }
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
/// Two planes of codes are left where they lie, as four times the code: one shift for two masks
/// saves two of three shifts. They have sums of their own, from which the factor comes out at the
/// end. Of 8 blocks a lane sums 32 products, each at least −8 · 128 and at most 8 · 127.
#[inline]
#[target_feature(enable = "avx2")]
fn packed_dots(group: Group<'_>, token: Token<'_>) -> Dots {
    const BLOCKS: usize = 8;
    let low = _mm256_set1_epi8(0b0011);
    let high = _mm256_set1_epi8(0b1100);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); TERNARY_GROUP];
    let mut fours = [_mm256_setzero_si256(); TERNARY_GROUP];
    for (blocks, x) in group.chunks(BLOCKS).zip(token.chunks(BLOCKS)) {
        let mut narrow = [_mm256_setzero_si256(); TERNARY_GROUP];
        let mut narrow_fours = [_mm256_setzero_si256(); TERNARY_GROUP];
        for (block, x) in blocks.iter().zip(x) {
            let (x, _) = x.as_chunks::<32>();
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
            prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + 64));
            for r in 0..TERNARY_GROUP {
                let packed = load(&block[r]);
                let upper = _mm256_srli_epi16::<4>(packed);
                let first = _mm256_maddubs_epi16(_mm256_and_si256(upper, high), load_i8(&x[0]));
                let second = _mm256_maddubs_epi16(_mm256_and_si256(upper, low), load_i8(&x[1]));
                let third = _mm256_maddubs_epi16(_mm256_and_si256(packed, high), load_i8(&x[2]));
                let fourth = _mm256_maddubs_epi16(_mm256_and_si256(packed, low), load_i8(&x[3]));
                let of_fours = _mm256_add_epi16(first, third);
                narrow_fours[r] = _mm256_add_epi16(narrow_fours[r], of_fours);
                narrow[r] = _mm256_add_epi16(narrow[r], _mm256_add_epi16(second, fourth));
            }
        }
        for r in 0..TERNARY_GROUP {
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(narrow[r], ones));
            fours[r] = _mm256_add_epi32(fours[r], _mm256_madd_epi16(narrow_fours[r], ones));
        }
    }
    for r in 0..TERNARY_GROUP {
        // Each lane is a multiple of four, so that the shift is exact.
        sums[r] = _mm256_add_epi32(sums[r], _mm256_srai_epi32::<2>(fours[r]));
    }
    add_lanes(&sums)
}

/// Unpacks to panels of `(plane, row, 32)`: the order in which a tile reads them.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack(group: Group<'_>, panels: &mut [Panel]) {
    let three = _mm256_set1_epi8(3);
    for (block, panel) in group.iter().zip(panels) {
        let (steps, _) = panel.as_chunks_mut::<32>();
        for r in 0..TERNARY_GROUP {
            let packed = load(&block[r]);
            let planes = [
                _mm256_srli_epi16::<6>(packed),
                _mm256_srli_epi16::<4>(packed),
                _mm256_srli_epi16::<2>(packed),
                packed,
            ];
            for k in 0..4 {
                let codes = _mm256_and_si256(planes[k], three);
                store(&mut steps[k * TERNARY_GROUP + r], codes);
            }
        }
    }
}

/// 32 columns of four unpacked rows.
type Step = [u8; 32 * TERNARY_GROUP];

/// Dot products of unpacked rows with tokens.
///
/// Two multiplications and two additions of 32 bytes start in a cycle (Zen 3: four vector pipes),
/// so that 64 products a cycle are the bound. Of 16 blocks a lane sums 128 products, each at least
/// −2 · 128 and at most 2 · 127.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    // Steps of 32 columns in 16 blocks.
    const STEPS: usize = 16 * TERNARY_BLOCK / 32;
    let (steps, _) = panels.as_flattened().as_chunks::<{ 32 * TERNARY_GROUP }>();
    let n = steps.len();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t].as_flattened().as_chunks::<32>().0[..n];
    }
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); TERNARY_GROUP]; T];
    for start in (0..n).step_by(STEPS) {
        let end = n.min(start + STEPS);
        let mut narrow = [[_mm256_setzero_si256(); TERNARY_GROUP]; T];
        let mut stretch = x;
        for t in 0..T {
            stretch[t] = &x[t][start..end];
        }
        if let (Some(narrow), Some(&stretch)) = (
            narrow.as_mut_slice().as_mut_array(),
            stretch.as_slice().as_array(),
        ) {
            three_tokens(&steps[start..end], stretch, narrow);
        } else {
            some_tokens(&steps[start..end], stretch, &mut narrow);
        }
        for t in 0..T {
            for r in 0..TERNARY_GROUP {
                let wide = _mm256_madd_epi16(narrow[t][r], ones);
                sums[t][r] = if start == 0 {
                    wide
                } else {
                    _mm256_add_epi32(sums[t][r], wide)
                };
            }
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for t in 0..T {
        dots[t] = add_lanes(&sums[t]);
    }
    dots
}

/// Adds products of steps of four rows with tokens to sums in i16.
#[inline]
#[target_feature(enable = "avx2")]
fn some_tokens<const T: usize>(
    steps: &[Step],
    x: [&[[i8; 32]]; T],
    sums: &mut [[__m256i; TERNARY_GROUP]; T],
) {
    for (i, step) in steps.iter().enumerate() {
        let (step, _) = step.as_chunks::<32>();
        let mut values = [_mm256_setzero_si256(); T];
        for t in 0..T {
            values[t] = load_i8(&x[t][i]);
        }
        for r in 0..TERNARY_GROUP {
            let codes = load(&step[r]);
            for t in 0..T {
                let products = _mm256_maddubs_epi16(codes, values[t]);
                sums[t][r] = _mm256_add_epi16(sums[t][r], products);
            }
        }
    }
}

/// [`some_tokens`] of three in assembly: 12 sums, two tokens, a row and a product are the 16
/// registers there are, and the third token is an operand in memory. Compiled code spills sums
/// instead. A step is 30 instructions for 12 multiplications, where two tokens make 22 for 8, and
/// how many start in a cycle is what bounds the loop.
#[inline]
#[target_feature(enable = "avx2")]
fn three_tokens(steps: &[Step], x: [&[[i8; 32]]; 3], sums: &mut [[__m256i; TERNARY_GROUP]; 3]) {
    assert!(x.iter().all(|x| x.len() == steps.len()), "equally long");
    if steps.is_empty() {
        return;
    }
    let [a, b, c] = sums;
    // SAFETY: reads `steps.len()` steps of 128 bytes, and as many chunks of 32 bytes of each token,
    // all within their slices; writes registers alone.
    unsafe {
        asm!(
            ".p2align 5",
            "2:",
            "vmovdqu {x0}, [{p0} + {at}]",
            "vmovdqu {x1}, [{p1} + {at}]",
            "vmovdqu {w}, [{step}]",
            "vpmaddubsw {t}, {w}, {x0}",
            "vpaddw {a0}, {a0}, {t}",
            "vpmaddubsw {t}, {w}, {x1}",
            "vpaddw {b0}, {b0}, {t}",
            "vpmaddubsw {w}, {w}, [{p2} + {at}]",
            "vpaddw {c0}, {c0}, {w}",
            "vmovdqu {w}, [{step} + 32]",
            "vpmaddubsw {t}, {w}, {x0}",
            "vpaddw {a1}, {a1}, {t}",
            "vpmaddubsw {t}, {w}, {x1}",
            "vpaddw {b1}, {b1}, {t}",
            "vpmaddubsw {w}, {w}, [{p2} + {at}]",
            "vpaddw {c1}, {c1}, {w}",
            "vmovdqu {w}, [{step} + 64]",
            "vpmaddubsw {t}, {w}, {x0}",
            "vpaddw {a2}, {a2}, {t}",
            "vpmaddubsw {t}, {w}, {x1}",
            "vpaddw {b2}, {b2}, {t}",
            "vpmaddubsw {w}, {w}, [{p2} + {at}]",
            "vpaddw {c2}, {c2}, {w}",
            "vmovdqu {w}, [{step} + 96]",
            "vpmaddubsw {t}, {w}, {x0}",
            "vpaddw {a3}, {a3}, {t}",
            "vpmaddubsw {t}, {w}, {x1}",
            "vpaddw {b3}, {b3}, {t}",
            "vpmaddubsw {w}, {w}, [{p2} + {at}]",
            "vpaddw {c3}, {c3}, {w}",
            "add {step}, 128",
            "add {at}, 32",
            "cmp {at}, {end}",
            "jne 2b",
            step = inout(reg) steps.as_ptr() => _,
            at = inout(reg) 0_usize => _,
            end = in(reg) 32 * steps.len(),
            p0 = in(reg) x[0].as_ptr(),
            p1 = in(reg) x[1].as_ptr(),
            p2 = in(reg) x[2].as_ptr(),
            x0 = out(ymm_reg) _,
            x1 = out(ymm_reg) _,
            w = out(ymm_reg) _,
            t = out(ymm_reg) _,
            a0 = inout(ymm_reg) a[0],
            a1 = inout(ymm_reg) a[1],
            a2 = inout(ymm_reg) a[2],
            a3 = inout(ymm_reg) a[3],
            b0 = inout(ymm_reg) b[0],
            b1 = inout(ymm_reg) b[1],
            b2 = inout(ymm_reg) b[2],
            b3 = inout(ymm_reg) b[3],
            c0 = inout(ymm_reg) c[0],
            c1 = inout(ymm_reg) c[1],
            c2 = inout(ymm_reg) c[2],
            c3 = inout(ymm_reg) c[3],
            options(nostack, readonly),
        );
    }
}

/// Adds up the 8 lanes of each of four sums.
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn add_lanes(sums: &[__m256i; TERNARY_GROUP]) -> Dots {
    let pairs = _mm256_hadd_epi32(sums[0], sums[1]);
    let others = _mm256_hadd_epi32(sums[2], sums[3]);
    let halves = _mm256_hadd_epi32(pairs, others);
    let four = _mm_add_epi32(
        _mm256_castsi256_si128(halves),
        _mm256_extracti128_si256::<1>(halves),
    );
    let mut dots = [0; TERNARY_GROUP];
    // SAFETY: `dots` is 16 writable bytes, and storeu asks no alignment.
    unsafe { _mm_storeu_si128(dots.as_mut_ptr().cast(), four) }
    dots
}

#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; 32], lanes: __m256i) {
    // SAFETY: `bytes` is 32 writable bytes, and storeu asks no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), lanes) }
}
