//! ggml's blocks of 256 weights with scales of scales (the layouts are told in
//! [`quant`](crate::quant)).
//!
//! Codes are put together in plain steps on 16 bytes, which the compiler makes a few instructions of
//! each ISA; then they widen as int8 do. The products are exact, and the difference of two, where
//! there is one, is rounded once: with or without a fused multiply-add.

use half::f16;

use super::{super::isa::Isa, LANES, formats::Format};

/// Units of 32 weights in a block.
const UNITS: usize = 8;

/// Scales and mins of 6 bits, codes of 4.
pub(super) struct Q4K;

impl Format for Q4K {
    const UNITS: usize = UNITS;
    type Block = [u8; 144];
    type Shared = [f32; LANES];

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> Self::Shared {
        scales_and_mins(isa, block)
    }

    #[inline(always)]
    fn widen<I: Isa>(
        isa: I,
        block: &Self::Block,
        shared: &Self::Shared,
        nth: usize,
    ) -> [I::Lanes; 2] {
        let (nibbles, _) = block[16 + nth / 2 * 32..].as_chunks::<16>();
        let mut codes = [[0; 16]; 2];
        for half in 0..2 {
            for j in 0..16 {
                codes[half][j] = nibbles[half][j] >> (nth % 2 * 4) & 15;
            }
        }
        scale_less_min(isa, &codes, [shared[nth], shared[UNITS + nth]])
    }
}

/// Scales and mins of 6 bits, codes of 5.
pub(super) struct Q5K;

impl Format for Q5K {
    const UNITS: usize = UNITS;
    type Block = [u8; 176];
    type Shared = [f32; LANES];

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> Self::Shared {
        scales_and_mins(isa, block)
    }

    #[inline(always)]
    fn widen<I: Isa>(
        isa: I,
        block: &Self::Block,
        shared: &Self::Shared,
        nth: usize,
    ) -> [I::Lanes; 2] {
        let (fifths, _) = block[16..48].as_chunks::<16>();
        let (nibbles, _) = block[48 + nth / 2 * 32..].as_chunks::<16>();
        let mut codes = [[0; 16]; 2];
        for half in 0..2 {
            for j in 0..16 {
                let nibble = nibbles[half][j] >> (nth % 2 * 4) & 15;
                codes[half][j] = nibble | (fifths[half][j] >> nth & 1) << 4;
            }
        }
        scale_less_min(isa, &codes, [shared[nth], shared[UNITS + nth]])
    }
}

/// Scales of 8 bits for 16 weights, codes of 6.
pub(super) struct Q6K;

impl Format for Q6K {
    const UNITS: usize = UNITS;
    type Block = [u8; 210];
    type Shared = [f32; LANES];

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    /// Returns the scales of the first and the second 16 weights of each unit.
    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> Self::Shared {
        let d = isa.half(f16::from_le_bytes([block[208], block[209]]));
        let (scales, _) = block[192..].as_chunks();
        scaled(isa, &scales[0], isa.splat(d))
    }

    #[inline(always)]
    fn widen<I: Isa>(
        isa: I,
        block: &Self::Block,
        shared: &Self::Shared,
        nth: usize,
    ) -> [I::Lanes; 2] {
        let (part, k) = (nth / 4, nth % 4);
        let (nibbles, _) = block[part * 64 + k % 2 * 32..].as_chunks::<16>();
        let (pairs, _) = block[128 + part * 32..].as_chunks::<16>();
        let mut codes = [[0; 16]; 2];
        for half in 0..2 {
            for j in 0..16 {
                let nibble = nibbles[half][j] >> (k / 2 * 4) & 15;
                let pair = pairs[half][j] >> (2 * k) & 3;
                codes[half][j] = (nibble | pair << 4).wrapping_sub(32);
            }
        }
        [
            isa.mul(isa.splat(shared[2 * nth]), isa.load_i8(&codes[0])),
            isa.mul(isa.splat(shared[2 * nth + 1]), isa.load_i8(&codes[1])),
        ]
    }
}

/// Returns `d · scale` of each unit, then `−dmin · min` of each.
#[inline(always)]
fn scales_and_mins<I: Isa>(isa: I, block: &[u8]) -> [f32; LANES] {
    let mut factors = [isa.half(f16::from_le_bytes([block[0], block[1]])); LANES];
    factors[UNITS..].fill(-isa.half(f16::from_le_bytes([block[2], block[3]])));
    let codes = six_bits(&block[4..].as_chunks().0[0]);
    scaled(isa, &codes, isa.load(&factors))
}

/// Returns codes times factors.
///
/// On lanes by name: left to the compiler, several rows' codes become lanes of one register, whose
/// products it then scatters.
#[inline(always)]
fn scaled<I: Isa>(isa: I, codes: &[u8; LANES], factors: I::Lanes) -> [f32; LANES] {
    let mut products = [0.0; LANES];
    isa.store(isa.mul(isa.load_i8(codes), factors), &mut products);
    products
}

/// Unpacks eight scales and eight mins at once, as [`scale_and_min`] does one.
///
/// [`scale_and_min`]: crate::quant::q4_k::scale_and_min
#[inline(always)]
pub(in super::super) fn six_bits(bytes: &[u8; 12]) -> [u8; LANES] {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const NEXT_TWO: u32 = 0x3030_3030;
    let word = |i: usize| u32::from_le_bytes(bytes.as_chunks().0[i]);
    let (scales, mins, both) = (word(0), word(1), word(2));
    let words = [
        scales & SIX,
        both & FOUR | scales >> 2 & NEXT_TWO,
        mins & SIX,
        both >> 4 & FOUR | mins >> 2 & NEXT_TWO,
    ];
    let mut codes = [0; LANES];
    for (codes, word) in codes.as_chunks_mut().0.iter_mut().zip(words) {
        *codes = word.to_le_bytes();
    }
    codes
}

/// Returns `scale · code − min` of 32 codes.
#[inline(always)]
fn scale_less_min<I: Isa>(
    isa: I,
    codes: &[[u8; 16]; 2],
    [scale, less_min]: [f32; 2],
) -> [I::Lanes; 2] {
    let (scale, less_min) = (isa.splat(scale), isa.splat(less_min));
    [
        isa.mul_add(isa.load_i8(&codes[0]), scale, less_min),
        isa.mul_add(isa.load_i8(&codes[1]), scale, less_min),
    ]
}
