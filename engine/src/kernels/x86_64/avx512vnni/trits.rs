//! Ternary dot products with AVX-512 VNNI.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes and adds four products to an i32, so that no sum
//! is ever narrow. A register holds 32 codes of each of two rows, and meets 32 activations twice.
//! One token meets the packed planes where they lie: `byte & 3 << 2k` is the code times 4^k, each
//! plane has its own sum, and the factors come out of the four sums at the end.

use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_broadcast_i64x4,
    _mm512_castsi512_si256, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
    _mm512_set1_epi8, _mm512_setzero_si512, _mm512_srai_epi32, _mm512_srli_epi16,
    _mm512_storeu_si512,
};

use super::{
    super::{
        super::ternary::{Dots, Group, Panel, TernaryIsa, Token},
        avx2::{add_lanes, prefetch},
    },
    Avx512Vnni,
};
use crate::weights::{TERNARY_BLOCK, TERNARY_GROUP, TernaryGroup};

/// Pairs of rows in a group: a register holds one.
const PAIRS: usize = TERNARY_GROUP / 2;

impl TernaryIsa for Avx512Vnni {
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
/// The largest plane's sum is at most 128 · 128 · cols / 8 a lane, in i32 up to 2^20 columns.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn packed_dots(group: Group<'_>, token: Token<'_>) -> Dots {
    let masks = [
        _mm512_set1_epi8(0xc0_u8.cast_signed()),
        _mm512_set1_epi8(0x30_u8.cast_signed()),
        _mm512_set1_epi8(0x0c_u8.cast_signed()),
        _mm512_set1_epi8(0x03_u8.cast_signed()),
    ];
    // (pairs, planes), plane k times 4^(3 − k)
    let mut sums = [[_mm512_setzero_si512(); 4]; PAIRS];
    for (block, x) in group.iter().zip(token) {
        let (x, _) = x.as_chunks::<32>();
        prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD));
        prefetch(block.as_ptr().cast::<u8>().wrapping_add(AHEAD + 64));
        let packed = pairs(block);
        for k in 0..4 {
            let x = twice(&x[k]);
            for p in 0..PAIRS {
                let codes = _mm512_and_si512(packed[p], masks[k]);
                sums[p][k] = _mm512_dpbusd_epi32(sums[p][k], codes, x);
            }
        }
    }
    let mut of_pairs = [_mm512_setzero_si512(); PAIRS];
    for p in 0..PAIRS {
        // Each lane is a whole multiple of its plane's factor, so that the shifts are exact.
        let [sixty_four, sixteen, four, one] = sums[p];
        let low = _mm512_add_epi32(one, _mm512_srai_epi32::<2>(four));
        let high = _mm512_add_epi32(
            _mm512_srai_epi32::<4>(sixteen),
            _mm512_srai_epi32::<6>(sixty_four),
        );
        of_pairs[p] = _mm512_add_epi32(low, high);
    }
    split(&of_pairs)
}

/// Unpacks to panels of `(plane, pair of rows, 64)`: the order in which a tile reads them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn unpack(group: Group<'_>, panels: &mut [Panel]) {
    let three = _mm512_set1_epi8(3);
    for (block, panel) in group.iter().zip(panels) {
        let (steps, _) = panel.as_chunks_mut::<64>();
        let packed = pairs(block);
        for p in 0..PAIRS {
            let planes = [
                _mm512_srli_epi16::<6>(packed[p]),
                _mm512_srli_epi16::<4>(packed[p]),
                _mm512_srli_epi16::<2>(packed[p]),
                packed[p],
            ];
            for k in 0..4 {
                let codes = _mm512_and_si512(planes[k], three);
                store(&mut steps[k * PAIRS + p], codes);
            }
        }
    }
}

/// Dot products of unpacked rows with tokens: 64 products an instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const T: usize>(panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T] {
    let n = panels.len();
    let mut x = [&[][..]; T];
    for t in 0..T {
        x[t] = &tokens[t][..n];
    }
    let mut sums = [[_mm512_setzero_si512(); PAIRS]; T];
    for b in 0..n {
        let (steps, _) = panels[b].as_chunks::<64>();
        for k in 0..TERNARY_BLOCK / 32 {
            let mut codes = [_mm512_setzero_si512(); PAIRS];
            for p in 0..PAIRS {
                codes[p] = load(&steps[k * PAIRS + p]);
            }
            for t in 0..T {
                let values = twice(&x[t][b].as_chunks::<32>().0[k]);
                for p in 0..PAIRS {
                    sums[t][p] = _mm512_dpbusd_epi32(sums[t][p], codes[p], values);
                }
            }
        }
    }
    let mut dots = [[0; TERNARY_GROUP]; T];
    for t in 0..T {
        dots[t] = split(&sums[t]);
    }
    dots
}

/// Adds up the lanes of two pairs of rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn split(pairs: &[__m512i; PAIRS]) -> Dots {
    add_lanes(&[
        _mm512_castsi512_si256(pairs[0]),
        _mm512_extracti64x4_epi64::<1>(pairs[0]),
        _mm512_castsi512_si256(pairs[1]),
        _mm512_extracti64x4_epi64::<1>(pairs[1]),
    ])
}

/// Reads a block of four rows as two pairs.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs(block: &TernaryGroup) -> [__m512i; PAIRS] {
    let (halves, _) = block.as_flattened().as_chunks::<64>();
    [load(&halves[0]), load(&halves[1])]
}

/// Reads 32 activations into both halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(values: &[i8; 32]) -> __m512i {
    // SAFETY: `values` is 32 readable bytes, and loadu asks no alignment.
    let values = unsafe { _mm256_loadu_si256(values.as_ptr().cast()) };
    _mm512_broadcast_i64x4(values)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: `bytes` is 64 readable bytes, and loadu asks no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(bytes: &mut [u8; 64], lanes: __m512i) {
    // SAFETY: `bytes` is 64 writable bytes, and storeu asks no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), lanes) }
}
