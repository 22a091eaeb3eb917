//! AVX-512 with VNNI: Intel servers since Cascade Lake (2019), AMD since Zen 4 (2022).

use std::arch::x86_64::{
    __m256i, __m512, _mm_and_si128, _mm_set1_epi8, _mm_srli_epi16, _mm_sub_epi8, _mm256_add_ps,
    _mm256_castpd_ps, _mm256_dpbusd_epi32, _mm256_loadu_si256, _mm512_castps_pd,
    _mm512_castps512_ps256, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_extractf64x4_pd, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
    _mm512_storeu_ps,
};

use half::f16;

use super::{
    super::{
        Activations, AttentionHead, Columns, Kernel, RoundedInput, attention, dense, float::LANES,
        isa::Isa, peak, rounded, ternary,
    },
    avx2::{
        pair::{self, fold_eight, load_128},
        prefetch, prefetch_l2,
    },
    vnni::{Vnni, bounds},
};
use crate::{
    screen::{Bounds, Screen, ScreenInput, ScreenRows},
    weights::{DenseMatrix, TernaryMatrix},
};

mod trits;

/// The AVX-512 kernel; exists only where `detect` saw all of its features.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx512Vnni {
    _proof: (),
}

impl Avx512Vnni {
    /// Returns the kernel if this CPU can run it.
    pub(in super::super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self { _proof: () })
    }
}

impl Kernel for Avx512Vnni {
    fn name(&self) -> &'static str {
        "x86_64-avx512vnni"
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(
            isa: Avx512Vnni,
            weights: &TernaryMatrix,
            input: &Activations,
            out: &mut Columns<'_>,
        ) {
            // 16 sums hide the latency of vpdpbusd (5 cycles, two a cycle) in 32 registers.
            ternary::product::<_, 8>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, input, out) }
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(isa: Avx512Vnni, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
            // 24 of the 32 registers hold sums.
            dense::product::<_, 4, 6>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, input, out) }
    }

    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(
            isa: Avx512Vnni,
            weights: &DenseMatrix,
            rows: &[u32],
            input: &[f32],
            out: &mut [f32],
        ) {
            dense::some_rows(isa, weights, rows, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, rows, input, out) }
    }

    fn dense_rounded(&self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(
            isa: Avx512Vnni,
            weights: &DenseMatrix,
            input: &RoundedInput,
            out: &mut Columns<'_>,
        ) {
            rounded::product(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, input, out) }
    }

    fn screen_rows(&self, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(isa: Avx512Vnni, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
            dense::screen_rows(isa, head, first, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, head, first, out) }
    }

    fn screen(&self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(isa: Avx512Vnni, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
            bounds::of_rows(isa, screen, input, bounds);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, screen, input, bounds) }
    }

    fn screen_low(&self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(
            isa: Avx512Vnni,
            screen: &Screen,
            input: &ScreenInput,
            rows: &[u32],
            sums: &mut [i32],
        ) {
            bounds::low_of_rows(isa, screen, input, rows, sums);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, screen, input, rows, sums) }
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        fn run(isa: Avx512Vnni, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
            attention::attend(isa, head, scores, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, head, scores, out) }
    }

    float_steps!("avx512f,avx512bw,avx512vl,avx2,fma");

    fn read(&self, bytes: &[u8]) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
        fn run(bytes: &[u8]) -> u64 {
            peak::read(bytes)
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(bytes) }
    }

    fn int8_peak(&self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { super::peak::avx512vnni(turns) }
    }

    fn f32_peak(&self, turns: u64) -> u64 {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
        fn run(isa: Avx512Vnni, turns: u64) -> u64 {
            // 12 of the 32 registers: two units, four cycles each, take eight.
            peak::f32_by::<_, 12>(isa, turns)
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, turns) }
    }
}

impl Vnni for Avx512Vnni {
    #[inline(always)]
    fn add_products(self, sums: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm256_dpbusd_epi32(sums, codes, values) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_256(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

impl Isa for Avx512Vnni {
    type Lanes = __m512;
    const PART: usize = LANES;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` can only come from `detect`; `values` is 16 readable floats.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, lanes: __m512, values: &mut [f32; LANES]) {
        // SAFETY: `self` can only come from `detect`; `values` is 16 writable floats.
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), lanes) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fold(self, lanes: __m512) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { wide::fold(lanes) }
    }

    #[inline(always)]
    fn load_f32(self, bytes: &[u8; 64]) -> __m512 {
        // SAFETY: `self` can only come from `detect`; `bytes` is 64 readable bytes.
        unsafe { _mm512_loadu_ps(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_f16(self, bytes: &[u8; 32]) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { wide::load_f16(bytes) }
    }

    #[inline(always)]
    fn load_bf16(self, bytes: &[u8; 32]) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { wide::load_bf16(bytes) }
    }

    #[inline(always)]
    fn half(self, half: f16) -> f32 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { pair::half(half) }
    }

    #[inline(always)]
    fn load_i8(self, bytes: &[u8; 16]) -> __m512 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { wide::load_i8(bytes) }
    }

    #[inline(always)]
    fn load_nibbles(self, bytes: &[u8; 16]) -> [__m512; 2] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { wide::load_nibbles(bytes) }
    }

    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        rows: &[f32],
        tokens: &[f32],
        first: bool,
        lanes: &mut [f32],
    ) {
        dense::tile::<_, LANES, R, T>(
            first.then(|| self.zero()),
            |values| self.load(values),
            |sums, values| self.store(sums, values),
            |a, b, c| self.mul_add(a, b, c),
            rows,
            tokens,
            lanes,
        );
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

/// 16 float lanes in one register.
mod wide {
    use super::{
        __m512, _mm_and_si128, _mm_set1_epi8, _mm_srli_epi16, _mm_sub_epi8, _mm256_add_ps,
        _mm256_castpd_ps, _mm512_castps_pd, _mm512_castps512_ps256, _mm512_castsi512_ps,
        _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
        _mm512_extractf64x4_pd, _mm512_slli_epi32, fold_eight, load_128, load_256,
    };

    /// 16 → 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn fold(lanes: __m512) -> f32 {
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
        fold_eight(_mm256_add_ps(_mm512_castps512_ps256(lanes), high))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_f16(bytes: &[u8; 32]) -> __m512 {
        _mm512_cvtph_ps(load_256(bytes))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_bf16(bytes: &[u8; 32]) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(load_256(bytes));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_i8(bytes: &[u8; 16]) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(bytes)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load_nibbles(bytes: &[u8; 16]) -> [__m512; 2] {
        let packed = load_128(bytes);
        let mask = _mm_set1_epi8(15);
        let eight = _mm_set1_epi8(8);
        let low = _mm_sub_epi8(_mm_and_si128(packed, mask), eight);
        let high = _mm_sub_epi8(_mm_and_si128(_mm_srli_epi16::<4>(packed), mask), eight);
        [
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)),
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high)),
        ]
    }
}
