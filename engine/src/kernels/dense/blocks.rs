//! ggml's blocks of 32 weights with one f16 scale (the layouts are told in [`quant`](crate::quant)).
//!
//! 11 significant bits of the scale times at most 8 of a code: the products are exact.

use half::f16;

use super::{super::isa::Isa, formats::Format};

/// An f16 scale, 32 int8.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    type Block = [u8; 34];
    type Shared = f32;

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> f32 {
        scale(isa, block)
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, block: &Self::Block, scale: &f32, _: usize) -> [I::Lanes; 2] {
        let (codes, _) = block[2..].as_chunks::<16>();
        let scale = isa.splat(*scale);
        [
            isa.mul(scale, isa.load_i8(&codes[0])),
            isa.mul(scale, isa.load_i8(&codes[1])),
        ]
    }
}

/// An f16 scale, 16 bytes of two nibbles.
pub(super) struct Q4_0;

impl Format for Q4_0 {
    type Block = [u8; 18];
    type Shared = f32;

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> f32 {
        scale(isa, block)
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, block: &Self::Block, scale: &f32, _: usize) -> [I::Lanes; 2] {
        let (codes, _) = block[2..].as_chunks::<16>();
        let scale = isa.splat(*scale);
        let [low, high] = isa.load_nibbles(&codes[0]);
        [isa.mul(scale, low), isa.mul(scale, high)]
    }
}

/// An f16 scale, 4 bytes of fifth bits, 16 bytes of two nibbles.
pub(super) struct Q5_0;

impl Format for Q5_0 {
    type Block = [u8; 22];
    type Shared = f32;

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> f32 {
        scale(isa, block)
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, block: &Self::Block, scale: &f32, _: usize) -> [I::Lanes; 2] {
        let fifths = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        let nibbles = &block[6..].as_chunks::<16>().0[0];
        let mut low = [0; 16];
        let mut high = [0; 16];
        for j in 0..16 {
            let low_fifth = (fifths >> j) as u8 & 1;
            let high_fifth = (fifths >> (j + 16)) as u8 & 1;
            low[j] = (nibbles[j] & 15 | low_fifth << 4).wrapping_sub(16);
            high[j] = (nibbles[j] >> 4 | high_fifth << 4).wrapping_sub(16);
        }
        let scale = isa.splat(*scale);
        [
            isa.mul(scale, isa.load_i8(&low)),
            isa.mul(scale, isa.load_i8(&high)),
        ]
    }
}

/// Returns a block's scale, widened.
#[inline(always)]
fn scale<I: Isa>(isa: I, block: &[u8]) -> f32 {
    isa.half(f16::from_le_bytes([block[0], block[1]]))
}
