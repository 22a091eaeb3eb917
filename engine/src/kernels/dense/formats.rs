//! Dense element types, and how the plain ones widen.

use half::f16;

use super::super::isa::Isa;

/// Weights handled at a time.
pub(super) const UNIT: usize = 32;

/// A dense element type: how 32 weights become two times 16 lanes.
pub(super) trait Format {
    /// Units of 32 weights in a block.
    const UNITS: usize = 1;
    /// Type of a block as stored.
    type Block: Copy;
    /// What the units of a block have in common.
    type Shared: Copy + Default;

    /// Returns the bytes of some columns of a row; `first` is a multiple of a block's.
    #[inline(always)]
    fn cols(row: &[u8], first: usize, n: usize) -> &[u8] {
        let start = first / (UNIT * Self::UNITS) * size_of::<Self::Block>();
        // The last stretch ends with the row, whether or not it is a whole block.
        let len = n.div_ceil(UNIT * Self::UNITS) * size_of::<Self::Block>();
        &row[start..row.len().min(start + len)]
    }
    /// Splits a row into whole blocks and the bytes left over.
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]);
    /// Returns what the units of a block have in common.
    fn shared<I: Isa>(isa: I, block: &Self::Block) -> Self::Shared;
    /// Widens the `nth` 32 weights of a block.
    fn widen<I: Isa>(
        isa: I,
        block: &Self::Block,
        shared: &Self::Shared,
        nth: usize,
    ) -> [I::Lanes; 2];
    /// Widens fewer than 32 weights of a type that has no blocks.
    fn widen_rest(_: &[u8], _: &mut [f32]) {
        unreachable!("rows of block types are whole blocks");
    }
}

/// Returns the two halves of a unit.
#[inline(always)]
fn halves<const WHOLE: usize, const HALF: usize>(unit: &[u8; WHOLE]) -> [&[u8; HALF]; 2] {
    let (halves, rest) = unit.as_chunks::<HALF>();
    debug_assert!(halves.len() == 2 && rest.is_empty());
    [&halves[0], &halves[1]]
}

/// IEEE single.
pub(super) struct F32;

impl Format for F32 {
    type Block = [u8; 128];
    type Shared = ();

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(_: I, _: &Self::Block) -> Self::Shared {}

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Block, (): &(), _: usize) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_f32(low), isa.load_f32(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = f32::from_le_bytes(*bytes);
        }
    }
}

/// IEEE half.
pub(super) struct F16;

impl Format for F16 {
    type Block = [u8; 64];
    type Shared = ();

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(_: I, _: &Self::Block) -> Self::Shared {}

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Block, (): &(), _: usize) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_f16(low), isa.load_f16(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = f16::from_le_bytes(*bytes).to_f32();
        }
    }
}

/// bfloat16.
pub(super) struct Bf16;

impl Format for Bf16 {
    type Block = [u8; 64];
    type Shared = ();

    #[inline(always)]
    fn blocks(row: &[u8]) -> (&[Self::Block], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn shared<I: Isa>(_: I, _: &Self::Block) -> Self::Shared {}

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Block, (): &(), _: usize) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_bf16(low), isa.load_bf16(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = bf16_to_f32(*bytes);
        }
    }
}

/// Widens one bfloat16.
#[inline(always)]
pub(in super::super) fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}
