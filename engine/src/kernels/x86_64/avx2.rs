//! AVX2 with FMA and F16C: every x86-64 server and desktop CPU since 2013 (Intel) and 2015 (AMD).

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _MM_HINT_T0, _mm_add_epi32, _mm_add_ps, _mm_add_ss, _mm_and_si128,
    _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_prefetch,
    _mm_set1_epi8, _mm_shuffle_ps, _mm_srli_epi16, _mm_srli_si128, _mm_storeu_si128, _mm_sub_epi8,
    _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_extracti128_si256,
    _mm256_fmadd_ps, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_storeu_si256,
};

use half::f16;

use super::{
    super::{
        Activations, AttentionHead, Columns, Kernel, QuantizedRow, attention, dense,
        float::{self, LANES},
        isa::Isa,
    },
    ternary::{self, Row, TernaryIsa, Token},
};
use crate::weights::{DenseMatrix, TERNARY_BLOCK, TERNARY_BLOCK_BYTES, TernaryMatrix};

/// The AVX2 kernel; exists only where `detect` saw avx2, fma and f16c.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Avx2 {
    _proof: (),
}

impl Avx2 {
    /// Returns the kernel if this CPU can run it.
    pub(in super::super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self { _proof: () })
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "x86_64-avx2"
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
            // 8 sums, 2 tokens, a row and a product: 12 of the 16 registers.
            ternary::product::<_, 4, 2>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, input, out) }
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
            // 16 lanes are two registers: 12 of sums, the rest for two tokens' inputs.
            dense::product::<_, 3, 2>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, weights, input, out) }
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
            attention::attend(isa, head, scores, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(*self, head, scores, out) }
    }

    fn quantize(&self, input: &[f32], out: QuantizedRow<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(input: &[f32], out: QuantizedRow<'_>) {
            float::quantize(input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(input, out) }
    }

    fn rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
            float::rms_norm(input, gain, eps, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(input, gain, eps, out) }
    }

    fn relu_squared_mul(&self, gate: &mut [f32], up: &[f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(gate: &mut [f32], up: &[f32]) {
            float::relu_squared_mul(gate, up);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(gate, up) }
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(gate: &mut [f32], up: &[f32]) {
            float::silu_mul(gate, up);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(gate, up) }
    }
}

/// Blocks of 128 whose products fit in i16: of the 4 · 16 products a lane sums, each is at least
/// −512 and at most 508, so that the sum is at least −32768 and at most 32512.
const BLOCKS_PER_WIDENING: usize = 16;

impl TernaryIsa for Avx2 {
    #[inline(always)]
    fn dots<const R: usize>(self, rows: [Row<'_>; R], token: Token<'_>) -> [i32; R] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { packed_dots(rows, token) }
    }

    #[inline(always)]
    fn unpack(self, row: Row<'_>, codes: &mut [[u8; TERNARY_BLOCK]]) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { unpack(row, codes) }
    }

    #[inline(always)]
    fn tile<const R: usize, const T: usize>(
        self,
        rows: [&[[u8; TERNARY_BLOCK]]; R],
        tokens: [Token<'_>; T],
    ) -> [[i32; R]; T] {
        // SAFETY: `self` can only come from `detect`.
        unsafe { tile(rows, tokens) }
    }
}

/// Dot products of packed rows: four shifted planes of codes meet their activations.
#[inline]
#[target_feature(enable = "avx2")]
fn packed_dots<const R: usize>(rows: [Row<'_>; R], token: Token<'_>) -> [i32; R] {
    let n = token.len();
    // The rows lie behind each other: what follows them is the next group.
    let ahead = (R * n * TERNARY_BLOCK_BYTES).max(2048);
    let mut w = [&[][..]; R];
    for r in 0..R {
        w[r] = &rows[r][..n];
    }
    let three = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); R];
    for start in (0..n).step_by(BLOCKS_PER_WIDENING) {
        let end = n.min(start + BLOCKS_PER_WIDENING);
        let mut narrow = [_mm256_setzero_si256(); R];
        for b in start..end {
            let (x, _) = token[b].as_chunks::<32>();
            for r in 0..R {
                let packed = load(&w[r][b]);
                if b % 2 == 0 {
                    prefetch(w[r][b].as_ptr().wrapping_add(ahead));
                }
                let planes = [
                    _mm256_and_si256(_mm256_srli_epi16::<6>(packed), three),
                    _mm256_and_si256(_mm256_srli_epi16::<4>(packed), three),
                    _mm256_and_si256(_mm256_srli_epi16::<2>(packed), three),
                    _mm256_and_si256(packed, three),
                ];
                let low = _mm256_add_epi16(
                    _mm256_maddubs_epi16(planes[0], load_i8(&x[0])),
                    _mm256_maddubs_epi16(planes[1], load_i8(&x[1])),
                );
                let high = _mm256_add_epi16(
                    _mm256_maddubs_epi16(planes[2], load_i8(&x[2])),
                    _mm256_maddubs_epi16(planes[3], load_i8(&x[3])),
                );
                narrow[r] = _mm256_add_epi16(narrow[r], _mm256_add_epi16(low, high));
            }
        }
        for r in 0..R {
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(narrow[r], ones));
        }
    }
    let mut dots = [0; R];
    add_lanes(&sums, &mut dots);
    dots
}

#[inline]
#[target_feature(enable = "avx2")]
fn unpack(row: Row<'_>, codes: &mut [[u8; TERNARY_BLOCK]]) {
    let three = _mm256_set1_epi8(3);
    for (block, codes) in row.iter().zip(codes) {
        let packed = load(block);
        let (planes, _) = codes.as_chunks_mut::<32>();
        store(
            &mut planes[0],
            _mm256_and_si256(_mm256_srli_epi16::<6>(packed), three),
        );
        store(
            &mut planes[1],
            _mm256_and_si256(_mm256_srli_epi16::<4>(packed), three),
        );
        store(
            &mut planes[2],
            _mm256_and_si256(_mm256_srli_epi16::<2>(packed), three),
        );
        store(&mut planes[3], _mm256_and_si256(packed, three));
    }
}

/// Dot products of unpacked rows with tokens.
///
/// Two multiplications and four additions of 32 bytes start in a cycle (Zen 3), so that a tile of
/// 8 takes 4 cycles for 256 products: 64 a cycle is the bound.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const R: usize, const T: usize>(
    rows: [&[[u8; TERNARY_BLOCK]]; R],
    tokens: [Token<'_>; T],
) -> [[i32; R]; T] {
    // Steps of 32 bytes in a stretch of `BLOCKS_PER_WIDENING` blocks.
    const STEPS: usize = BLOCKS_PER_WIDENING * TERNARY_BLOCK / 32;
    let n = rows[0].len() * TERNARY_BLOCK / 32;
    let mut w = [&[][..]; R];
    for r in 0..R {
        w[r] = &rows[r].as_flattened().as_chunks::<32>().0[..n];
    }
    let mut q = [&[][..]; T];
    for t in 0..T {
        q[t] = &tokens[t].as_flattened().as_chunks::<32>().0[..n];
    }
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); R]; T];
    for start in (0..n).step_by(STEPS) {
        let end = n.min(start + STEPS);
        let mut narrow = [[_mm256_setzero_si256(); R]; T];
        for i in start..end {
            let mut x = [_mm256_setzero_si256(); T];
            for t in 0..T {
                x[t] = load_i8(&q[t][i]);
            }
            for r in 0..R {
                let w = load(&w[r][i]);
                for t in 0..T {
                    let products = _mm256_maddubs_epi16(w, x[t]);
                    narrow[t][r] = _mm256_add_epi16(narrow[t][r], products);
                }
            }
        }
        for t in 0..T {
            for r in 0..R {
                let wide = _mm256_madd_epi16(narrow[t][r], ones);
                sums[t][r] = _mm256_add_epi32(sums[t][r], wide);
            }
        }
    }
    let mut dots = [[0; R]; T];
    for t in 0..T {
        add_lanes(&sums[t], &mut dots[t]);
    }
    dots
}

/// Adds up the 8 lanes of each sum, four sums at a time.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes<const N: usize>(sums: &[__m256i; N], out: &mut [i32; N]) {
    let zero = _mm256_setzero_si256();
    let mut i = 0;
    while i < N {
        let at = |j: usize| if i + j < N { sums[i + j] } else { zero };
        let pairs = _mm256_hadd_epi32(at(0), at(1));
        let others = _mm256_hadd_epi32(at(2), at(3));
        let halves = _mm256_hadd_epi32(pairs, others);
        let four = _mm_add_epi32(
            _mm256_castsi256_si128(halves),
            _mm256_extracti128_si256::<1>(halves),
        );
        let mut lanes = [0; 4];
        store_128(&mut lanes, four);
        for j in 0..4 {
            if i + j < N {
                out[i + j] = lanes[j];
            }
        }
        i += 4;
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_128(values: &mut [i32; 4], lanes: __m128i) {
    // SAFETY: `values` is 16 writable bytes, and storeu asks no alignment.
    unsafe { _mm_storeu_si128(values.as_mut_ptr().cast(), lanes) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i8(bytes: &[i8; 32]) -> __m256i {
    // SAFETY: `bytes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; 32], lanes: __m256i) {
    // SAFETY: `bytes` is 32 writable bytes, and storeu asks no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), lanes) }
}

/// Asks for a cache line; the address need not be readable.
#[inline]
#[target_feature(enable = "sse")]
pub(super) fn prefetch(address: *const u8) {
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

/// 16 lanes: 0..8 and 8..16.
type Pair = (__m256, __m256);

impl Isa for Avx2 {
    type Lanes = Pair;

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
    fn prefetch(self, bytes: &[u8], offset: usize) {
        // SAFETY: `self` can only come from `detect`.
        unsafe { prefetch(bytes.as_ptr().wrapping_add(offset)) }
    }
}

/// 16 float lanes in two registers.
pub(super) mod pair {
    use super::{
        __m128i, _mm_add_ps, _mm_add_ss, _mm_and_si128, _mm_cvtph_ps, _mm_cvtsi32_si128,
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
        let eight = _mm256_add_ps(lanes.0, lanes.1);
        let four = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
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
    fn load_128(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: `bytes` is 16 readable bytes, and loadu asks no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }
}
