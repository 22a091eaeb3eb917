//! Products with rounded inputs (see [`rounded`](super::super::rounded)) in AVX2.
//!
//! `vpmaddubsw` multiplies unsigned codes of weights by signed ones of inputs and adds pairs in i16,
//! which cannot saturate: 2 · 31 · 127 = 7874 for codes of up to five bits, of which up to four are
//! added yet in i16 (31 496), 2 · 63 · 127 = 16 002 for six bits, and 2 · 128 · 127 = 32 512 for `Q8_0`,
//! whose signs go to the inputs (never −128, so that they have an opposite). Offsets of codes are
//! taken away from the sums: offset · X.
//!
//! For several tokens codes lie by fours, so that no lanes are added up.

use std::arch::x86_64::{
    __m256, __m256i, _mm_set_epi64x, _mm_set1_epi8, _mm_set1_epi32, _mm_setr_epi8, _mm_setr_epi16,
    _mm_shuffle_epi8, _mm_unpackhi_epi64, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32,
    _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_cvtepi8_epi32,
    _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_hadd_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi32,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
    _mm256_xor_si256,
};

use half::f16;

use super::{
    super::{
        dense::six_bits,
        rounded::{Format, Kind, LANES, RoundedGroup, RoundedIsa},
    },
    avx2::{
        Avx2,
        pair::{fold_eight, half, load_128},
        prefetch,
    },
};
use crate::weights::DenseType;

/// How far ahead memory is asked for, bytes.
const AHEAD: usize = 4096;

/// How an ISA multiplies codes. A value of the type proves that the CPU has it, and AVX2, FMA and F16C.
pub(super) trait Multiply: Copy {
    /// What becomes of signed codes.
    const SIGNED: Kind;

    /// Sums of the products of codes in halves.
    fn products<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products;
    /// Sums of the products of codes by fours.
    fn products_by_fours<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products;
}

/// Returns what is done with the sums of a format's blocks.
pub(super) const fn kind<M: Multiply, F: Format>() -> Kind {
    match F::KIND {
        Kind::Signed => M::SIGNED,
        kind => kind,
    }
}

impl Multiply for Avx2 {
    const SIGNED: Kind = Kind::Signed;

    #[inline(always)]
    fn products<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products {
        // SAFETY: `self` can only come from `detect`.
        unsafe { products::<F>(weights, x) }
    }

    #[inline(always)]
    fn products_by_fours<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products {
        // SAFETY: `self` can only come from `detect`.
        unsafe { products_by_fours::<F>(weights, x) }
    }
}

impl<M: Multiply> RoundedIsa for M {
    type Lanes = __m256;
    type Unpacked = Unpacked;
    type Tiled = Unpacked;

    #[inline(always)]
    fn zero(self) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    fn fold(self, lanes: __m256) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe { fold_eight(lanes) }
    }

    #[inline(always)]
    fn prefetch(self, group: &[u8]) {
        for line in (0..group.len()).step_by(64) {
            // SAFETY: `self` proves AVX2, and thus SSE.
            unsafe { prefetch(group.as_ptr().wrapping_add(AHEAD + line)) }
        }
    }

    #[inline(always)]
    fn unpack<F: Format>(self, group: &F::Group) -> Unpacked {
        // SAFETY: `self` proves AVX2 and F16C.
        unsafe { unpack::<M, F>(group) }
    }

    #[inline(always)]
    fn add<F: Format>(self, lanes: __m256, weights: &Unpacked, x: &RoundedGroup) -> __m256 {
        let products = self.products::<F>(weights, x);
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { add(kind::<M, F>(), lanes, products, weights, x) }
    }

    #[inline(always)]
    fn lay_out(self, groups: &mut [RoundedGroup]) {
        for group in groups {
            // SAFETY: `self` proves AVX2.
            unsafe { group_by_fours(group) }
        }
    }

    #[inline(always)]
    fn unpack_tiled<F: Format>(self, group: &F::Group) -> Unpacked {
        let unpacked = self.unpack::<F>(group);
        // SAFETY: `self` proves AVX2.
        let codes = unsafe { by_fours(unpacked.codes) };
        Unpacked { codes, ..unpacked }
    }

    #[inline(always)]
    fn add_tiled<F: Format, const R: usize>(
        self,
        lanes: &mut [[__m256; R]],
        weights: &[Unpacked; R],
        x: &[RoundedGroup],
    ) {
        for (lanes, x) in lanes.iter_mut().zip(x) {
            for r in 0..R {
                let products = self.products_by_fours::<F>(&weights[r], x);
                // SAFETY: `self` proves AVX2, FMA and F16C.
                lanes[r] = unsafe { add(kind::<M, F>(), lanes[r], products, &weights[r], x) };
            }
        }
    }
}

/// Eight blocks of a row.
#[derive(Clone, Copy)]
pub(in super::super) struct Unpacked {
    /// `(4, half)`: codes of the blocks `i` and `i + 4`.
    pub(super) codes: [[__m256i; 2]; LANES / 2],
    /// Scales of the blocks, or of their first halves.
    scales: __m256,
    /// `−dmin · min`, or scales of the last halves.
    more: __m256,
}

impl Unpacked {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn zero() -> Self {
        Self {
            codes: [[_mm256_setzero_si256(); 2]; LANES / 2],
            scales: _mm256_setzero_ps(),
            more: _mm256_setzero_ps(),
        }
    }
}

/// Sums of products of the blocks' first and last halves; the first has all of it but for
/// [`Kind::Halves`].
pub(super) type Products = [__m256i; 2];

/// Sums of the products of codes in halves.
#[inline]
#[target_feature(enable = "avx2")]
fn products<F: Format>(weights: &Unpacked, x: &RoundedGroup) -> Products {
    let mut products = [[_mm256_setzero_si256(); LANES / 2]; 2];
    for i in 0..LANES / 2 {
        let first = multiply::<F>(weights.codes[i][0], load_codes(&x.codes[i][0]));
        let last = multiply::<F>(weights.codes[i][1], load_codes(&x.codes[i][1]));
        match F::KIND {
            Kind::Halves => {
                products[0][i] = pairs(first);
                products[1][i] = pairs(last);
            }
            Kind::Signed => products[0][i] = _mm256_add_epi32(pairs(first), pairs(last)),
            Kind::Offset(_) | Kind::LessMin => {
                products[0][i] = pairs(_mm256_add_epi16(first, last));
            }
        }
    }
    if F::KIND == Kind::Halves {
        [of_blocks(products[0]), of_blocks(products[1])]
    } else {
        [of_blocks(products[0]), _mm256_setzero_si256()]
    }
}

/// Sums of the products of codes by fours.
#[inline]
#[target_feature(enable = "avx2")]
fn products_by_fours<F: Format>(weights: &Unpacked, x: &RoundedGroup) -> Products {
    let (w, x) = (weights.codes.as_flattened(), x.codes.as_flattened());
    let mut halves = [_mm256_setzero_si256(); 2];
    for half in 0..2 {
        let mut sum = _mm256_setzero_si256();
        for i in 4 * half..4 * half + 4 {
            let products = multiply::<F>(w[i], load_codes(&x[i]));
            sum = match F::KIND {
                Kind::Halves | Kind::Signed => _mm256_add_epi32(sum, pairs(products)),
                Kind::Offset(_) | Kind::LessMin => _mm256_add_epi16(sum, products),
            };
        }
        halves[half] = match F::KIND {
            Kind::Halves | Kind::Signed => sum,
            Kind::Offset(_) | Kind::LessMin => pairs(sum),
        };
    }
    if F::KIND == Kind::Halves {
        halves
    } else {
        [_mm256_add_epi32(halves[0], halves[1]), halves[1]]
    }
}

/// Multiplies codes and adds neighbours in i16.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply<F: Format>(w: __m256i, x: __m256i) -> __m256i {
    if F::KIND == Kind::Signed {
        return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    }
    _mm256_maddubs_epi16(w, x)
}

/// Adds the products with a token's group to the lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add(
    kind: Kind,
    lanes: __m256,
    products: Products,
    weights: &Unpacked,
    x: &RoundedGroup,
) -> __m256 {
    let x_scales = load_ps(&x.scales);
    let scales = _mm256_mul_ps(weights.scales, x_scales);
    let [first, last] = [load_i32(&x.sums[0]), load_i32(&x.sums[1])];
    let sums = _mm256_add_epi32(first, last);
    let dots = match kind {
        Kind::Signed | Kind::LessMin => products[0],
        Kind::Offset(3) => _mm256_sub_epi32(products[0], _mm256_slli_epi32::<3>(sums)),
        Kind::Offset(4) => _mm256_sub_epi32(products[0], _mm256_slli_epi32::<4>(sums)),
        Kind::Offset(_) => _mm256_sub_epi32(products[0], _mm256_slli_epi32::<7>(sums)),
        Kind::Halves => _mm256_sub_epi32(products[0], _mm256_slli_epi32::<5>(first)),
    };
    let lanes = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scales, lanes);
    let dots = match kind {
        Kind::Signed | Kind::Offset(_) => return lanes,
        Kind::LessMin => sums,
        Kind::Halves => _mm256_sub_epi32(products[1], _mm256_slli_epi32::<5>(last)),
    };
    let more = _mm256_mul_ps(weights.more, x_scales);
    _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), more, lanes)
}

/// Brings codes from halves to fours: register `i` then holds codes `4 i..4 i + 4` of all blocks, so
/// that sums over the registers are those of the blocks.
#[inline]
#[target_feature(enable = "avx2")]
fn by_fours(codes: [[__m256i; 2]; LANES / 2]) -> [[__m256i; 2]; LANES / 2] {
    let mut fours = [[_mm256_setzero_si256(); 2]; LANES / 2];
    for half in 0..2 {
        let [a, b] = [codes[0][half], codes[1][half]];
        let [c, d] = [codes[2][half], codes[3][half]];
        let [ab, cd] = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
        fours[2 * half] = [_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)];
        let [ab, cd] = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
        fours[2 * half + 1] = [_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)];
    }
    fours
}

/// Brings a token's codes from halves to fours.
#[inline]
#[target_feature(enable = "avx2")]
fn group_by_fours(group: &mut RoundedGroup) {
    let mut codes = [[_mm256_setzero_si256(); 2]; LANES / 2];
    for i in 0..LANES / 2 {
        for half in 0..2 {
            codes[i][half] = load_codes(&group.codes[i][half]);
        }
    }
    for (out, codes) in group
        .codes
        .as_flattened_mut()
        .iter_mut()
        .zip(by_fours(codes).as_flattened())
    {
        store_codes(*codes, out);
    }
}

/// Adds neighbours in i32.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs(products: __m256i) -> __m256i {
    _mm256_madd_epi16(products, _mm256_set1_epi16(1))
}

/// Adds up four lanes each: those of blocks `i` and `i + 4` in register `i` to lanes `i` and `i + 4`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn of_blocks([a, b, c, d]: [__m256i; LANES / 2]) -> __m256i {
    _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d))
}

/// Unpacks a group; codes that have become unsigned have an offset of 128.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn unpack<M: Multiply, F: Format>(group: &F::Group) -> Unpacked {
    let bytes = group.as_ref();
    match F::DTYPE {
        DenseType::Q8_0 => q8_0(whole(bytes), M::SIGNED == Kind::Signed),
        DenseType::Q4_0 => q4_0(whole(bytes)),
        DenseType::Q5_0 => q5_0(whole(bytes)),
        DenseType::Q4K => q4_k(whole(bytes)),
        DenseType::Q5K => q5_k(whole(bytes)),
        DenseType::Q6K => q6_k(whole(bytes)),
        DenseType::F32 | DenseType::F16 | DenseType::Bf16 => {
            unreachable!("plain floats have no groups")
        }
    }
}

/// Returns the bytes of a group as those of its format.
#[inline(always)]
fn whole<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    &bytes.as_chunks().0[0]
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q8_0(group: &[u8; LANES * 34], signed: bool) -> Unpacked {
    let (blocks, _) = group.as_chunks::<34>();
    let mut unpacked = Unpacked::zero();
    let offset = _mm256_set1_epi8(if signed { 0 } else { i8::MIN });
    for i in 0..LANES / 2 {
        let (low, _) = blocks[i][2..].as_chunks::<16>();
        let (high, _) = blocks[i + 4][2..].as_chunks::<16>();
        for half in 0..2 {
            let codes = two(&low[half], &high[half]);
            unpacked.codes[i][half] = _mm256_xor_si256(codes, offset);
        }
    }
    unpacked.scales = scales(blocks);
    unpacked
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q4_0(group: &[u8; LANES * 18]) -> Unpacked {
    let (blocks, _) = group.as_chunks::<18>();
    let mut unpacked = Unpacked::zero();
    for i in 0..LANES / 2 {
        let (low, _) = blocks[i][2..].as_chunks::<16>();
        let (high, _) = blocks[i + 4][2..].as_chunks::<16>();
        unpacked.codes[i] = nibbles(two(&low[0], &high[0]));
    }
    unpacked.scales = scales(blocks);
    unpacked
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q5_0(group: &[u8; LANES * 22]) -> Unpacked {
    let (blocks, _) = group.as_chunks::<22>();
    let mut unpacked = Unpacked::zero();
    // Of the halves' bits, the byte of each weight, and its bit there.
    let bytes = [
        _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
        _mm_setr_epi8(2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3),
    ];
    let bits = 0x8040_2010_0804_0201_u64.cast_signed();
    let bits = _mm256_broadcastsi128_si256(_mm_set_epi64x(bits, bits));
    for i in 0..LANES / 2 {
        let fifths =
            |block: &[u8; 22]| i32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let both = _mm256_set_m128i(
            _mm_set1_epi32(fifths(&blocks[i + 4])),
            _mm_set1_epi32(fifths(&blocks[i])),
        );
        let (low, _) = blocks[i][6..].as_chunks::<16>();
        let (high, _) = blocks[i + 4][6..].as_chunks::<16>();
        let nibbles = nibbles(two(&low[0], &high[0]));
        for half in 0..2 {
            let fifths = _mm256_shuffle_epi8(both, _mm256_broadcastsi128_si256(bytes[half]));
            unpacked.codes[i][half] = with_fifth(nibbles[half], fifths, bits);
        }
    }
    unpacked.scales = scales(blocks);
    unpacked
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q4_k(block: &[u8; 144]) -> Unpacked {
    let mut unpacked = Unpacked::zero();
    unpacked.codes = k_nibbles(&block[16..].as_chunks().0[0]);
    scales_and_mins(&block[..16].as_chunks().0[0], &mut unpacked);
    unpacked
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q5_k(block: &[u8; 176]) -> Unpacked {
    let mut unpacked = Unpacked::zero();
    let (fifths, _) = block[16..48].as_chunks::<16>();
    let nibbles = k_nibbles(&block[48..].as_chunks().0[0]);
    for half in 0..2 {
        let fifths = _mm256_broadcastsi128_si256(load_128(&fifths[half]));
        for i in 0..LANES / 2 {
            let bits = _mm256_set_m128i(_mm_set1_epi8(16 << i), _mm_set1_epi8(1 << i));
            unpacked.codes[i][half] = with_fifth(nibbles[i][half], fifths, bits);
        }
    }
    scales_and_mins(&block[..16].as_chunks().0[0], &mut unpacked);
    unpacked
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn q6_k(block: &[u8; 210]) -> Unpacked {
    let mut unpacked = Unpacked::zero();
    let (pieces, _) = block.as_chunks::<16>();
    let three = _mm256_set1_epi8(3);
    for half in 0..2 {
        let mut pairs = two(&pieces[8 + half], &pieces[10 + half]);
        let even = nibbles(two(&pieces[half], &pieces[4 + half]));
        let odd = nibbles(two(&pieces[2 + half], &pieces[6 + half]));
        for i in 0..LANES / 2 {
            let low = [even, odd][i % 2][i / 2];
            let high = _mm256_slli_epi16::<4>(_mm256_and_si256(pairs, three));
            unpacked.codes[i][half] = _mm256_or_si256(low, high);
            pairs = _mm256_srli_epi16::<2>(pairs);
        }
    }
    // Scales of first halves, then those of last ones.
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    let scales = _mm_shuffle_epi8(load_128(&pieces[12]), order);
    let d = _mm256_set1_ps(half(f16::from_le_bytes([block[208], block[209]])));
    let first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales));
    let last = _mm_unpackhi_epi64(scales, scales);
    let last = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(last));
    unpacked.scales = _mm256_mul_ps(d, first);
    unpacked.more = _mm256_mul_ps(d, last);
    unpacked
}

/// Codes of two halves of 64 weights' bytes: the low nibbles, and the high ones.
#[inline]
#[target_feature(enable = "avx2")]
fn nibbles(packed: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [
        _mm256_and_si256(packed, mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask),
    ]
}

/// The nibbles of a k-quant: of each 32 bytes the low ones belong to one block, the high ones to the
/// next.
#[inline]
#[target_feature(enable = "avx2")]
fn k_nibbles(bytes: &[u8; 128]) -> [[__m256i; 2]; LANES / 2] {
    let mut codes = [[_mm256_setzero_si256(); 2]; LANES / 2];
    let (pieces, _) = bytes.as_chunks::<16>();
    for i in 0..2 {
        for half in 0..2 {
            let [low, high] = nibbles(two(&pieces[2 * i + half], &pieces[2 * i + 4 + half]));
            codes[2 * i][half] = low;
            codes[2 * i + 1][half] = high;
        }
    }
    codes
}

/// Adds 16 to the nibbles whose bit is set.
#[inline]
#[target_feature(enable = "avx2")]
fn with_fifth(nibbles: __m256i, fifths: __m256i, bits: __m256i) -> __m256i {
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(fifths, bits), bits);
    _mm256_or_si256(nibbles, _mm256_and_si256(set, _mm256_set1_epi8(16)))
}

/// Widens the f16 scales at the start of eight blocks.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales<const N: usize>(blocks: &[[u8; N]]) -> __m256 {
    let scale = |i: usize| i16::from_le_bytes([blocks[i][0], blocks[i][1]]);
    _mm256_cvtph_ps(_mm_setr_epi16(
        scale(0),
        scale(1),
        scale(2),
        scale(3),
        scale(4),
        scale(5),
        scale(6),
        scale(7),
    ))
}

/// Unpacks what a `Q4_K` or `Q5_K` block begins with.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scales_and_mins(bytes: &[u8; 16], unpacked: &mut Unpacked) {
    let codes = load_128(&six_bits(&bytes[4..].as_chunks().0[0]));
    let d = _mm256_set1_ps(half(f16::from_le_bytes([bytes[0], bytes[1]])));
    let less = _mm256_set1_ps(-half(f16::from_le_bytes([bytes[2], bytes[3]])));
    let scales = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes));
    let mins = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(codes, codes)));
    unpacked.scales = _mm256_mul_ps(d, scales);
    unpacked.more = _mm256_mul_ps(less, mins);
}

#[inline]
#[target_feature(enable = "avx2")]
fn two(low: &[u8; 16], high: &[u8; 16]) -> __m256i {
    _mm256_set_m128i(load_128(high), load_128(low))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_codes(codes: &[[i8; 16]; 2]) -> __m256i {
    // SAFETY: `codes` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_codes(register: __m256i, codes: &mut [[i8; 16]; 2]) {
    // SAFETY: `codes` is 32 writable bytes, and storeu asks no alignment.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), register) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_i32(values: &[i32; LANES]) -> __m256i {
    // SAFETY: `values` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_ps(values: &[f32; LANES]) -> __m256 {
    // SAFETY: `values` is 32 readable bytes, and loadu asks no alignment.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}
