//! What the ternary products of both x86 kernels share: walking over rows and tokens.
//!
//! One token streams the packed rows several abreast. Several tokens have a few rows unpacked to
//! a byte per weight once, which then meet tiles of tokens; the tokens of one pass stay in L2.

use std::ops::Range;

use super::super::{Activations, Columns, activations::SCALE_BLOCK, reference, rescale};
use crate::weights::{
    AlignedBytes, TERNARY_BLOCK, TERNARY_BLOCK_BYTES, TernaryMatrix, TernaryScale,
};

/// A packed row: blocks of 128 codes.
pub(super) type Row<'a> = &'a [[u8; TERNARY_BLOCK_BYTES]];
/// A token's int8 values in blocks of 128.
pub(super) type Token<'a> = &'a [[i8; TERNARY_BLOCK]];

/// The integer work of one ISA. A value of the type proves that the CPU has it.
pub(super) trait TernaryIsa: Copy {
    /// Dot products of codes and activations of `R` rows; all slices are equally long.
    fn dots<const R: usize>(self, rows: [Row<'_>; R], token: Token<'_>) -> [i32; R];
    /// Unpacks a row to one code a byte, in order.
    fn unpack(self, row: Row<'_>, codes: &mut [[u8; TERNARY_BLOCK]]);
    /// Dot products of `R` unpacked rows with `T` tokens; all slices are equally long.
    fn tile<const R: usize, const T: usize>(
        self,
        rows: [&[[u8; TERNARY_BLOCK]]; R],
        tokens: [Token<'_>; T],
    ) -> [[i32; R]; T];
}

/// Returns the packed blocks of one row.
#[inline(always)]
fn row(weights: &TernaryMatrix, row: usize) -> Row<'_> {
    let bytes = TernaryMatrix::row_bytes(weights.cols);
    weights.codes[row * bytes..][..bytes].as_chunks().0
}

#[inline(always)]
fn token(input: &Activations, token: usize) -> Token<'_> {
    input.codes(token).as_chunks().0
}

/// Computes the rows of `out.range()` for every token, in tiles of `R` rows and `T` tokens.
#[inline(always)]
pub(super) fn product<I: TernaryIsa, const R: usize, const T: usize>(
    isa: I,
    weights: &TernaryMatrix,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    match &weights.scale {
        TernaryScale::Tensor(scale) if out.tokens() == 1 => {
            one_token(isa, weights, *scale, input, out);
        }
        TernaryScale::Tensor(scale) => tokens::<I, R, T>(isa, weights, *scale, input, out),
        TernaryScale::Blocks(scales) => block_scales(isa, weights, scales, input, out),
    }
}

#[inline(always)]
fn one_token<I: TernaryIsa>(
    isa: I,
    weights: &TernaryMatrix,
    weight_scale: f32,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    const ABREAST: usize = 4;
    let range = out.range();
    let x = token(input, 0);
    let (scale, sum) = (input.scale(0), input.sum(0));
    let (fours, rest) = out.token(0).as_chunks_mut::<ABREAST>();
    let mut first = range.start;
    for out in fours {
        let mut rows = [row(weights, first); ABREAST];
        for r in 1..ABREAST {
            rows[r] = row(weights, first + r);
        }
        let dots = isa.dots(rows, x);
        for r in 0..ABREAST {
            out[r] = rescale(dots[r], sum, scale, weight_scale);
        }
        first += ABREAST;
    }
    for out in rest {
        let [dot] = isa.dots([row(weights, first)], x);
        *out = rescale(dot, sum, scale, weight_scale);
        first += 1;
    }
}

#[inline(always)]
fn tokens<I: TernaryIsa, const R: usize, const T: usize>(
    isa: I,
    weights: &TernaryMatrix,
    weight_scale: f32,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    // Half of the smallest L2 in use, so that the tokens of a pass stay there.
    const PASS_BYTES: usize = 256 << 10;
    let range = out.range();
    let n_tokens = out.tokens();
    let stride = input.stride();
    let n_blocks = stride / TERNARY_BLOCK;
    let mut panel = AlignedBytes::zeroed(R * stride);
    let (panel, _) = panel.as_mut_slice().as_chunks_mut::<TERNARY_BLOCK>();

    let pass = (PASS_BYTES / stride / T * T).max(T);
    for start in (0..n_tokens).step_by(pass) {
        let end = n_tokens.min(start + pass);
        for first in range.clone().step_by(R) {
            let n_rows = R.min(range.end - first);
            for (r, codes) in panel.chunks_exact_mut(n_blocks).take(n_rows).enumerate() {
                isa.unpack(row(weights, first + r), codes);
            }
            let mut rows = [&panel[..n_blocks]; R];
            for r in 1..R {
                rows[r] = &panel[r * n_blocks..][..n_blocks];
            }
            let place = first - range.start..first - range.start + n_rows;
            let mut t = start;
            while t + T <= end {
                let mut x = [token(input, t); T];
                for i in 1..T {
                    x[i] = token(input, t + i);
                }
                let dots = isa.tile::<R, T>(rows, x);
                for i in 0..T {
                    let (scale, sum) = (input.scale(t + i), input.sum(t + i));
                    let mut y = [0.0; R];
                    for r in 0..R {
                        y[r] = rescale(dots[i][r], sum, scale, weight_scale);
                    }
                    write(out, t + i, place.clone(), &y);
                }
                t += T;
            }
            for t in t..end {
                let [dots] = isa.tile::<R, 1>(rows, [token(input, t)]);
                let (scale, sum) = (input.scale(t), input.sum(t));
                let mut y = [0.0; R];
                for r in 0..R {
                    y[r] = rescale(dots[r], sum, scale, weight_scale);
                }
                write(out, t, place.clone(), &y);
            }
        }
    }
}

/// Writes the results of one token that lie within the output; the last rows may lie behind it.
#[inline(always)]
fn write<const R: usize>(out: &mut Columns<'_>, token: usize, place: Range<usize>, y: &[f32; R]) {
    let out = &mut out.token(token)[place];
    match <&mut [f32; R]>::try_from(&mut *out) {
        Ok(out) => *out = *y,
        Err(_) => out.copy_from_slice(&y[..out.len()]),
    }
}

/// Blocks with scales of their own: an exact sum each, combined in f32 as the reference does.
#[inline(always)]
fn block_scales<I: TernaryIsa>(
    isa: I,
    weights: &TernaryMatrix,
    scales: &[f32],
    input: &Activations,
    out: &mut Columns<'_>,
) {
    const PACKED: usize = SCALE_BLOCK / TERNARY_BLOCK;
    let n_blocks = weights.cols.div_ceil(SCALE_BLOCK);
    for r in out.range() {
        let blocks = row(weights, r);
        let scales = &scales[r * n_blocks..][..n_blocks];
        for t in 0..out.tokens() {
            let dots = blocks
                .chunks(PACKED)
                .zip(token(input, t).chunks(PACKED))
                .map(|(w, x)| isa.dots([w], x)[0]);
            let value = reference::blocks(dots, input.block_sums(t), scales, input.scale(t));
            out.set(t, r, value);
        }
    }
}
