//! AVX2 with FMA and F16C: every x86-64 server and desktop CPU since 2013 (Intel) and 2015 (AMD).

use std::arch::x86_64::{
    __m128i, __m256, _MM_HINT_T0, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_and_si128, _mm_cvtph_ps,
    _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_prefetch, _mm_set1_epi8,
    _mm_shuffle_ps, _mm_srli_epi16, _mm_srli_si128, _mm_sub_epi8, _mm256_add_ps,
    _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32,
    _mm256_storeu_ps,
};

use half::f16;

use super::{
    super::{Activations, Columns, RoundedInput, float::LANES, isa::Isa, rounded, ternary},
    Level,
};
use crate::{
    screen::{Bounds, Screen, ScreenInput},
    weights::{DenseMatrix, TernaryMatrix},
};

pub(super) mod bounds;
mod lookup;
pub(super) mod tile;
mod trits;

pub(super) use trits::{add_lanes, load, load_i8};

/// AVX2; exists only where `detect` saw avx2, fma and f16c.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx2 {
    _proof: (),
}

impl Avx2 {
    /// Returns the ISA if this CPU has it.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self { _proof: () })
    }
}

impl Level for Avx2 {
    const NAME: &'static str = "x86_64-avx2";

    fn detect() -> Option<Self> {
        Self::detect()
    }

    fn ternary(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
            // 12 sums, 2 of 3 tokens, a row and a product: the 16 registers.
            ternary::product::<_, 3>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
            rounded::product(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn screen(self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { bounds::of_rows(screen, input, bounds) }
    }

    fn screen_low(self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { bounds::low_of_rows(screen, input, rows, sums) }
    }

    fn int8_peak(self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { super::peak::avx2(turns) }
    }
}

/// Asks for a cache line; the address need not be readable.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

/// Asks for a cache line, into L2; the address need not be readable.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn prefetch_l2(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T1>(address.cast());
}

/// 16 lanes: 0..8 and 8..16.
type Pair = (__m256, __m256);

impl Isa for Avx2 {
    type Lanes = Pair;
    const PART: usize = 8;

    #[inline(always)]
    fn zero(self) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::zero() }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::splat(value) }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load(bytemuck::cast_ref(values)) }
    }

    #[inline(always)]
    fn store(self, lanes: Pair, values: &mut [f32; LANES]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::store(lanes, values) }
    }

    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::mul_add(a, b, c) }
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::mul(a, b) }
    }

    #[inline(always)]
    fn fold(self, lanes: Pair) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::fold(lanes) }
    }

    #[inline(always)]
    fn fold_four(self, lanes: [Pair; 4]) -> [f32; 4] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile::fold_four(lanes) }
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8; 64]) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load(bytes) }
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8; 32]) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load_f16(bytes) }
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8; 32]) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load_bf16(bytes) }
    }

    #[inline(always)]
    fn half(self, half: f16) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::half(half) }
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8; 16]) -> Pair {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load_i8(bytes) }
    }

    #[inline(always)]
    fn load_nibbles(self, bytes: &[u8; 16]) -> [Pair; 2] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::load_nibbles(bytes) }
    }

    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        rows: &[f32],
        tokens: &[f32],
        first: bool,
        lanes: &mut [f32],
    ) {
        const { assert!(R == tile::ROWS && T == tile::TOKENS) };
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile::add(rows, tokens, first, lanes) }
    }

    #[inline(always)]
    fn fold_tile<const R: usize, const T: usize>(self, lanes: &[f32]) -> [[f32; R]; T] {
        const { assert!(R == tile::ROWS && T == tile::TOKENS) };
        let mut dots = [[0.0; R]; T];
        for (token, dots) in dots.iter_mut().enumerate() {
            // SAFETY: `self` can only come from `detect`.
            let rows = unsafe { tile::fold(lanes, token) };
            dots.copy_from_slice(&rows);
        }
        dots
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8], offset: usize) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { prefetch(bytes.as_ptr().wrapping_add(offset)) }
    }

    #[inline(always)]
    fn prefetch_l2(self, bytes: &[u8], offset: usize) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { prefetch_l2(bytes.as_ptr().wrapping_add(offset)) }
    }
}

/// 16 float lanes in two registers.
pub(super) mod pair {
    use super::{
        __m128i, __m256, _mm_add_ps, _mm_add_ss, _mm_and_si128, _mm_cvtph_ps, _mm_cvtsi32_si128,
        _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_set1_epi8, _mm_shuffle_ps,
        _mm_srli_epi16, _mm_srli_si128, _mm_sub_epi8, _mm256_add_ps, _mm256_castps256_ps128,
        _mm256_castsi256_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32,
        _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps,
        _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps, LANES, Pair, f16,
    };

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn zero() -> Pair {
        (_mm256_setzero_ps(), _mm256_setzero_ps())
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn splat(value: f32) -> Pair {
        let lanes = _mm256_set1_ps(value);
        (lanes, lanes)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load(bytes: &[u8; 64]) -> Pair {
        let (low, high) = bytes.split_at(32);
        // SAFETY: `low` is 32 readable bytes, and loadu asks no alignment.
        let low = unsafe { _mm256_loadu_ps(low.as_ptr().cast()) };
        // SAFETY: `high` is 32 readable bytes, and loadu asks no alignment.
        let high = unsafe { _mm256_loadu_ps(high.as_ptr().cast()) };
        (low, high)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn store(lanes: Pair, values: &mut [f32; LANES]) {
        let (low, high) = values.split_at_mut(8);
        // SAFETY: `low` is 8 writable floats, and storeu asks no alignment.
        unsafe { _mm256_storeu_ps(low.as_mut_ptr(), lanes.0) };
        // SAFETY: `high` is 8 writable floats, and storeu asks no alignment.
        unsafe { _mm256_storeu_ps(high.as_mut_ptr(), lanes.1) };
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn mul_add(a: Pair, b: Pair, c: Pair) -> Pair {
        (
            _mm256_fmadd_ps(a.0, b.0, c.0),
            _mm256_fmadd_ps(a.1, b.1, c.1),
        )
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn mul(a: Pair, b: Pair) -> Pair {
        (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1))
    }

    /// 16 → 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn fold(lanes: Pair) -> f32 {
        fold_eight(_mm256_add_ps(lanes.0, lanes.1))
    }

    /// 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in super::super) fn fold_eight(lanes: __m256) -> f32 {
        let four = _mm_add_ps(
            _mm256_castps256_ps128(lanes),
            _mm256_extractf128_ps::<1>(lanes),
        );
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        let one = _mm_add_ss(two, _mm_shuffle_ps::<1>(two, two));
        _mm_cvtss_f32(one)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn load_f16(bytes: &[u8; 32]) -> Pair {
        let (low, high) = halves(bytes);
        (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    pub(in super::super) fn half(half: f16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(
            half.to_bits().cast_signed(),
        ))))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load_bf16(bytes: &[u8; 32]) -> Pair {
        let (low, high) = halves(bytes);
        let low = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(low));
        let high = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(high));
        (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load_i8(bytes: &[u8; 16]) -> Pair {
        widen_i8(load_128(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn load_nibbles(bytes: &[u8; 16]) -> [Pair; 2] {
        let packed = load_128(bytes);
        let mask = _mm_set1_epi8(15);
        let eight = _mm_set1_epi8(8);
        let low = _mm_and_si128(packed, mask);
        let high = _mm_and_si128(_mm_srli_epi16::<4>(packed), mask);
        [
            widen_i8(_mm_sub_epi8(low, eight)),
            widen_i8(_mm_sub_epi8(high, eight)),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen_i8(codes: __m128i) -> Pair {
        let low = _mm256_cvtepi8_epi32(codes);
        let high = _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(codes));
        (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(bytes: &[u8; 32]) -> (__m128i, __m128i) {
        let (halves, _) = bytes.as_chunks::<16>();
        (load_128(&halves[0]), load_128(&halves[1]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(in super::super) fn load_128(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: `bytes` is 16 readable bytes, and loadu asks no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }
}
