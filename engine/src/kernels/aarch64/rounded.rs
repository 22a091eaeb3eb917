//! Products with rounded inputs (see [`rounded`](super::super::rounded)) on ARM: what the three
//! levels share.
//!
//! Codes of up to six bits stay unsigned, which as signed bytes are the same; their offsets are taken
//! away from the sums: offset · X.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, vadd_f32, vaddq_f32, vaddq_s32, vandq_u8,
    vbslq_u8, vcvt_f32_f16, vcvt_high_f32_f16, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s8, vdupq_n_s32,
    vdupq_n_u8, vdupq_n_u32, vfmaq_f32, vget_high_f32, vget_low_f16, vget_low_f32, vget_low_s8,
    vget_low_s16, vld1q_f32, vld1q_s32, vld1q_u16, vmlsq_n_s32, vmovl_high_s8, vmovl_high_s16,
    vmovl_s8, vmovl_s16, vmulq_f32, vpadds_f32, vqtbl1q_u8, vreinterpretq_f16_u16,
    vreinterpretq_s8_u8, vreinterpretq_u8_u32, vshlq_u8, vshrq_n_u8, vuzp1q_u8, vuzp2q_u8,
};

use half::f16;

use super::{
    super::{
        dense::six_bits,
        rounded::{Format, Kind, LANES, RoundedGroup, RoundedIsa},
    },
    codes::{AHEAD, load, load_i8, of_lanes},
    lanes::{prefetch, quad},
};
use crate::weights::DenseType;

mod dotprod;
mod i8mm;
mod neon;

/// How a level multiplies codes. A value of the type proves that the CPU has it, and NEON.
pub(in super::super) trait Multiply: Copy {
    /// Multiplies the codes of a half of a block; what lanes hold is yet to be added up.
    fn half(self, weights: uint8x16_t, x: int8x16_t) -> int32x4_t;
    /// Multiplies the codes of a block; what lanes hold is yet to be added up.
    fn block<F: Format>(self, weights: [uint8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t;

    /// See [`RoundedIsa::lay_out`].
    fn lay_out(self, groups: &mut [RoundedGroup]);
    /// Brings codes into the order in which tiles read them.
    fn tiled(self, codes: Codes) -> Codes;
    /// See [`RoundedIsa::add_tiled`].
    fn add_tiled<F: Format, const R: usize>(
        self,
        lanes: &mut [[Lanes; R]],
        weights: &[Unpacked; R],
        x: &[RoundedGroup],
    );
}

/// Eight lanes: 0..4 and 4..8.
pub(in super::super) type Lanes = [float32x4_t; 2];

/// Codes of a group: of the halves of each block where they are not tiled.
pub(in super::super) type Codes = [[uint8x16_t; 2]; LANES];

/// Sums of products of four blocks' first and last halves; the first has all of it but for
/// [`Kind::Halves`].
type Products = [int32x4_t; 2];

/// Eight blocks of a row.
#[derive(Clone, Copy)]
pub(in super::super) struct Unpacked {
    codes: Codes,
    /// Scales of the blocks, or of their first halves.
    scales: Lanes,
    /// `−dmin · min`, or scales of the last halves.
    more: Lanes,
}

impl<M: Multiply> RoundedIsa for M {
    type Lanes = Lanes;
    type Unpacked = Unpacked;
    type Tiled = Unpacked;

    #[inline(always)]
    fn zero(self) -> Lanes {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_f32(0.0); 2] }
    }

    #[inline(always)]
    fn fold(self, lanes: Lanes) -> f32 {
        // SAFETY: `self` proves NEON.
        unsafe { fold(lanes) }
    }

    #[inline(always)]
    fn prefetch(self, group: &[u8]) {
        for line in (0..group.len()).step_by(64) {
            prefetch(group.as_ptr().wrapping_add(AHEAD + line));
        }
    }

    #[inline(always)]
    fn unpack<F: Format>(self, group: &F::Group) -> Unpacked {
        // SAFETY: `self` proves NEON.
        unsafe { unpack::<F>(group) }
    }

    #[inline(always)]
    fn add<F: Format>(self, mut lanes: Lanes, weights: &Unpacked, x: &RoundedGroup) -> Lanes {
        for part in 0..2 {
            let products = products::<M, F>(self, &weights.codes, x, part);
            // SAFETY: `self` proves NEON.
            lanes[part] = unsafe { add::<F>(lanes[part], products, weights, x, part) };
        }
        lanes
    }

    #[inline(always)]
    fn lay_out(self, groups: &mut [RoundedGroup]) {
        Multiply::lay_out(self, groups);
    }

    #[inline(always)]
    fn unpack_tiled<F: Format>(self, group: &F::Group) -> Unpacked {
        let unpacked = self.unpack::<F>(group);
        Unpacked {
            codes: self.tiled(unpacked.codes),
            ..unpacked
        }
    }

    #[inline(always)]
    fn add_tiled<F: Format, const R: usize>(
        self,
        lanes: &mut [[Lanes; R]],
        weights: &[Unpacked; R],
        x: &[RoundedGroup],
    ) {
        Multiply::add_tiled::<F, R>(self, lanes, weights, x);
    }
}

/// Sums of the products of four blocks, `4 part..4 part + 4`.
#[inline(always)]
fn products<M: Multiply, F: Format>(
    isa: M,
    codes: &Codes,
    x: &RoundedGroup,
    part: usize,
) -> Products {
    // SAFETY: `isa` proves NEON.
    let zero = unsafe { vdupq_n_s32(0) };
    let mut sums = [[zero; LANES / 2]; 2];
    for i in 0..LANES / 2 {
        let [first, last] = codes[LANES / 2 * part + i];
        // SAFETY: `isa` proves NEON.
        let x_first = unsafe { load_i8(&x.codes[i][0][part]) };
        // SAFETY: as above.
        let x_last = unsafe { load_i8(&x.codes[i][1][part]) };
        if is_halved::<F>() {
            sums[0][i] = isa.half(first, x_first);
            sums[1][i] = isa.half(last, x_last);
        } else {
            sums[0][i] = isa.block::<F>([first, last], [x_first, x_last]);
        }
    }
    // SAFETY: `isa` proves NEON.
    let first = unsafe { of_lanes(&sums[0]) };
    if !is_halved::<F>() {
        return [first, zero];
    }
    // SAFETY: as above.
    [first, unsafe { of_lanes(&sums[1]) }]
}

/// Returns whether the halves of blocks have scales of their own.
const fn is_halved<F: Format>() -> bool {
    matches!(F::KIND, Kind::Halves)
}

/// Adds the products of four blocks to their lanes.
#[inline]
#[target_feature(enable = "neon")]
fn add<F: Format>(
    lanes: float32x4_t,
    products: Products,
    weights: &Unpacked,
    x: &RoundedGroup,
    part: usize,
) -> float32x4_t {
    let x_scales = load_floats(&x.scales, part);
    let scales = vmulq_f32(weights.scales[part], x_scales);
    let sums = [load_sums(&x.sums[0], part), load_sums(&x.sums[1], part)];
    let sum = vaddq_s32(sums[0], sums[1]);
    let dots = match F::KIND {
        Kind::Signed | Kind::LessMin => products[0],
        Kind::Offset(bits) => vmlsq_n_s32(products[0], sum, 1 << bits),
        Kind::Halves => vmlsq_n_s32(products[0], sums[0], 32),
    };
    let lanes = vfmaq_f32(lanes, vcvtq_f32_s32(dots), scales);
    let dots = match F::KIND {
        Kind::Signed | Kind::Offset(_) => return lanes,
        Kind::LessMin => sum,
        Kind::Halves => vmlsq_n_s32(products[1], sums[1], 32),
    };
    let more = vmulq_f32(weights.more[part], x_scales);
    vfmaq_f32(lanes, vcvtq_f32_s32(dots), more)
}

/// 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
#[inline]
#[target_feature(enable = "neon")]
fn fold([low, high]: Lanes) -> f32 {
    let four = vaddq_f32(low, high);
    vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
}

/// Unpacks a group.
#[inline]
#[target_feature(enable = "neon")]
fn unpack<F: Format>(group: &F::Group) -> Unpacked {
    let bytes = group.as_ref();
    match F::DTYPE {
        DenseType::Q8_0 => q8_0(whole(bytes)),
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
#[target_feature(enable = "neon")]
fn q8_0(group: &[u8; LANES * 34]) -> Unpacked {
    let (blocks, _) = group.as_chunks::<34>();
    let mut unpacked = of_scales(blocks);
    for b in 0..LANES {
        let (halves, _) = blocks[b][2..].as_chunks();
        unpacked.codes[b] = [load(&halves[0]), load(&halves[1])];
    }
    unpacked
}

#[inline]
#[target_feature(enable = "neon")]
fn q4_0(group: &[u8; LANES * 18]) -> Unpacked {
    let (blocks, _) = group.as_chunks::<18>();
    let mut unpacked = of_scales(blocks);
    for b in 0..LANES {
        unpacked.codes[b] = nibbles(&blocks[b][2..].as_chunks().0[0]);
    }
    unpacked
}

#[inline]
#[target_feature(enable = "neon")]
fn q5_0(group: &[u8; LANES * 22]) -> Unpacked {
    let (blocks, _) = group.as_chunks::<22>();
    let mut unpacked = of_scales(blocks);
    // Of the halves' bits, the byte of each weight, and by how much its bit is short of the fifth.
    let bytes = [
        load(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
        load(&[2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]),
    ];
    let up = load_i8(&[4, 3, 2, 1, 0, -1, -2, -3, 4, 3, 2, 1, 0, -1, -2, -3]);
    let fifth = vdupq_n_u8(16);
    for b in 0..LANES {
        let bits = u32::from_le_bytes(*whole(&blocks[b][2..6]));
        let bits = vreinterpretq_u8_u32(vdupq_n_u32(bits));
        let nibbles = nibbles(&blocks[b][6..].as_chunks().0[0]);
        for half in 0..2 {
            let bits = vshlq_u8(vqtbl1q_u8(bits, bytes[half]), up);
            unpacked.codes[b][half] = vbslq_u8(fifth, bits, nibbles[half]);
        }
    }
    unpacked
}

#[inline]
#[target_feature(enable = "neon")]
fn q4_k(block: &[u8; 144]) -> Unpacked {
    Unpacked {
        codes: k_nibbles(whole(&block[16..])),
        ..of_scales_and_mins(whole(block))
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn q5_k(block: &[u8; 176]) -> Unpacked {
    let mut codes = k_nibbles(whole(&block[48..]));
    let (fifths, _) = block[16..48].as_chunks();
    let fifths = [load(&fifths[0]), load(&fifths[1])];
    let fifth = vdupq_n_u8(16);
    for b in 0..LANES {
        // Bit `b` becomes the fifth.
        let up = vdupq_n_s8(4 - b as i8);
        for half in 0..2 {
            let bits = vshlq_u8(fifths[half], up);
            codes[b][half] = vbslq_u8(fifth, bits, codes[b][half]);
        }
    }
    Unpacked {
        codes,
        ..of_scales_and_mins(whole(block))
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn q6_k(block: &[u8; 210]) -> Unpacked {
    let mut codes = [[vdupq_n_u8(0); 2]; LANES];
    let (pieces, _) = block.as_chunks::<16>();
    let upper = vdupq_n_u8(0b11_0000);
    for part in 0..2 {
        for half in 0..2 {
            let even = nibbles(&pieces[4 * part + half]);
            let odd = nibbles(&pieces[4 * part + 2 + half]);
            let pairs = load(&pieces[8 + 2 * part + half]);
            for k in 0..4 {
                let pairs = vshlq_u8(pairs, vdupq_n_s8(4 - 2 * k as i8));
                let low = [even, odd][k % 2][k / 2];
                codes[4 * part + k][half] = vbslq_u8(upper, pairs, low);
            }
        }
    }
    // Scales of first halves and of last ones, in turn.
    let scales = load(&pieces[12]);
    let d = half(&block[208..]);
    let first = signed(vuzp1q_u8(scales, scales));
    let last = signed(vuzp2q_u8(scales, scales));
    Unpacked {
        codes,
        scales: times(first, d),
        more: times(last, d),
    }
}

/// Codes of a block's nibbles: the low ones, and the high ones.
#[inline]
#[target_feature(enable = "neon")]
fn nibbles(bytes: &[u8; 16]) -> [uint8x16_t; 2] {
    let packed = load(bytes);
    [vandq_u8(packed, vdupq_n_u8(15)), vshrq_n_u8::<4>(packed)]
}

/// The nibbles of a k-quant: of each 32 bytes the low ones belong to one block, the high ones to the
/// next.
#[inline]
#[target_feature(enable = "neon")]
fn k_nibbles(bytes: &[u8; 128]) -> Codes {
    let mut codes = [[vdupq_n_u8(0); 2]; LANES];
    let (pieces, _) = bytes.as_chunks::<16>();
    for pair in 0..LANES / 2 {
        for half in 0..2 {
            let [low, high] = nibbles(&pieces[2 * pair + half]);
            codes[2 * pair][half] = low;
            codes[2 * pair + 1][half] = high;
        }
    }
    codes
}

/// Widens the f16 scales at the start of eight blocks.
#[inline]
#[target_feature(enable = "neon")]
fn of_scales<const N: usize>(blocks: &[[u8; N]]) -> Unpacked {
    let mut scales = [0; LANES];
    for b in 0..LANES {
        scales[b] = u16::from_le_bytes([blocks[b][0], blocks[b][1]]);
    }
    // SAFETY: `scales` is 8 readable u16.
    let scales = vreinterpretq_f16_u16(unsafe { vld1q_u16(scales.as_ptr()) });
    Unpacked {
        codes: [[vdupq_n_u8(0); 2]; LANES],
        scales: [
            vcvt_f32_f16(vget_low_f16(scales)),
            vcvt_high_f32_f16(scales),
        ],
        more: [vdupq_n_f32(0.0); 2],
    }
}

/// Unpacks what a `Q4_K` or `Q5_K` block begins with.
#[inline]
#[target_feature(enable = "neon")]
fn of_scales_and_mins(bytes: &[u8; 16]) -> Unpacked {
    let codes = load(&six_bits(whole(&bytes[4..])));
    let [scales, mins] = widened(codes);
    Unpacked {
        codes: [[vdupq_n_u8(0); 2]; LANES],
        scales: times(scales, half(&bytes[0..])),
        more: times(mins, -half(&bytes[2..])),
    }
}

/// Widens eight signed bytes, the lower ones of a register.
#[inline]
#[target_feature(enable = "neon")]
fn signed(codes: uint8x16_t) -> Lanes {
    widened(codes)[0]
}

/// Widens 16 signed bytes.
#[inline]
#[target_feature(enable = "neon")]
fn widened(codes: uint8x16_t) -> [Lanes; 2] {
    let codes = vreinterpretq_s8_u8(codes);
    let [low, high] = [vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes)];
    [low, high].map(|eight| {
        [
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(eight))),
            vcvtq_f32_s32(vmovl_high_s16(eight)),
        ]
    })
}

#[inline]
#[target_feature(enable = "neon")]
fn times([low, high]: Lanes, factor: f32) -> Lanes {
    let factor = vdupq_n_f32(factor);
    [vmulq_f32(low, factor), vmulq_f32(high, factor)]
}

/// Widens the f16 that bytes begin with.
#[inline]
#[target_feature(enable = "neon")]
fn half(bytes: &[u8]) -> f32 {
    quad::half(f16::from_le_bytes(*whole(bytes)))
}

/// Reads the `part`-th four of eight values.
#[inline]
#[target_feature(enable = "neon")]
fn load_floats(values: &[f32; LANES], part: usize) -> float32x4_t {
    let (fours, _) = values.as_chunks::<4>();
    // SAFETY: a chunk is four readable floats.
    unsafe { vld1q_f32(fours[part].as_ptr()) }
}

/// Reads the `part`-th four of eight sums.
#[inline]
#[target_feature(enable = "neon")]
fn load_sums(values: &[i32; LANES], part: usize) -> int32x4_t {
    let (fours, _) = values.as_chunks::<4>();
    // SAFETY: a chunk is four readable integers.
    unsafe { vld1q_s32(fours[part].as_ptr()) }
}
