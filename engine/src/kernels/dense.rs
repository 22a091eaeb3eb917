//! Dense products on any [`Isa`]: weights of every type widen to f32 exactly, then meet f32 inputs.

use std::ops::Range;

use super::{Columns, float, float::LANES, isa::Isa, screen};
use crate::{
    screen::{PADDING, ScreenRows},
    weights::{DenseMatrix, DenseType},
};

#[cfg(test)]
mod bench;
mod blocks;
mod formats;
mod k_blocks;
mod tiles;

use formats::{Format, UNIT};

pub(super) use formats::bf16_to_f32;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use k_blocks::six_bits;
pub(super) use tiles::{fold_tile, tile};

/// Evaluates an expression with `$format` standing for the [`Format`] of a type.
macro_rules! with_format {
    ($dtype:expr, $format:ident => $value:expr) => {
        match $dtype {
            DenseType::F32 => {
                type $format = formats::F32;
                $value
            }
            DenseType::F16 => {
                type $format = formats::F16;
                $value
            }
            DenseType::Bf16 => {
                type $format = formats::Bf16;
                $value
            }
            DenseType::Q8_0 => {
                type $format = blocks::Q8_0;
                $value
            }
            DenseType::Q4_0 => {
                type $format = blocks::Q4_0;
                $value
            }
            DenseType::Q5_0 => {
                type $format = blocks::Q5_0;
                $value
            }
            DenseType::Q4K => {
                type $format = k_blocks::Q4K;
                $value
            }
            DenseType::Q5K => {
                type $format = k_blocks::Q5K;
                $value
            }
            DenseType::Q6K => {
                type $format = k_blocks::Q6K;
                $value
            }
        }
    };
}

/// Computes the rows of `out.range()` for every token.
#[inline(always)]
pub(super) fn product<I: Isa, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    if out.tokens() != 1 {
        tiles::product::<I, R, T>(isa, weights, input, out);
        return;
    }
    with_format!(weights.dtype, F => one_token::<I, F>(isa, weights, input, out));
}

/// Computes some rows for one token, each as [`product`] does.
#[inline(always)]
pub(super) fn some_rows<I: Isa>(
    isa: I,
    weights: &DenseMatrix,
    rows: &[u32],
    input: &[f32],
    out: &mut [f32],
) {
    for (&r, out) in rows.iter().zip(out) {
        let row = [weights.row(r as usize)];
        [*out] = with_format!(weights.dtype, F => dots::<I, F, 1>(isa, row, input));
    }
}

/// Makes rows of a screened head's copy.
#[inline(always)]
pub(super) fn screen_rows<I: Isa>(
    isa: I,
    head: &DenseMatrix,
    first: usize,
    out: &mut ScreenRows<'_>,
) {
    let mut values = vec![0.0; head.cols.next_multiple_of(PADDING)];
    let mut codes = vec![0; values.len()];
    for nth in 0..out.scales.len() {
        let (lanes, _) = values.as_chunks_mut();
        widen(isa, head, first + nth, 0..head.cols, |nth, values| {
            isa.store(values, &mut lanes[nth]);
        });
        screen::quantize_row(&values, nth, &mut codes, out);
    }
}

/// Matrix times vector: the weights are streamed once, four rows abreast.
#[inline(always)]
fn one_token<I: Isa, F: Format>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    const ABREAST: usize = 4;
    let range = out.range();
    let out = out.token(0);
    let (fours, rest) = out.as_chunks_mut::<ABREAST>();
    let mut first = range.start;
    for out in fours {
        let mut rows = [weights.row(first); ABREAST];
        for r in 1..ABREAST {
            rows[r] = weights.row(first + r);
        }
        *out = dots::<I, F, ABREAST>(isa, rows, input);
        first += ABREAST;
    }
    for out in rest {
        [*out] = dots::<I, F, 1>(isa, [weights.row(first)], input);
        first += 1;
    }
}

/// Dot products of some rows with one vector.
#[inline(always)]
fn dots<I: Isa, F: Format, const R: usize>(isa: I, rows: [&[u8]; R], x: &[f32]) -> [f32; R] {
    // Far enough ahead that memory's latency is covered, near enough to stay in L1.
    const AHEAD: usize = 512;
    // Behind the end of a row comes the row of the next group.
    let row_len = rows[0].len();
    let next_group = (R - 1) * row_len;
    let (x_units, x_rest) = x.as_chunks::<UNIT>();
    let n = x_units.len() / F::UNITS;
    let mut blocks = [&[][..]; R];
    for r in 0..R {
        blocks[r] = &F::blocks(rows[r]).0[..n];
    }
    let mut sums = [isa.zero(); R];
    for (b, x_units) in x_units.chunks_exact(F::UNITS).enumerate() {
        let mut shared = [F::Shared::default(); R];
        for r in 0..R {
            // SAFETY: all of `blocks` are `n` long, and `b` counts `n` blocks of the input.
            let block = unsafe { blocks[r].get_unchecked(b) };
            shared[r] = F::shared(isa, block);
        }
        for (u, x) in x_units.iter().enumerate() {
            let [x0, x1] = x.as_chunks::<LANES>().0 else {
                unreachable!("a unit is twice the lanes")
            };
            let x0 = isa.load(x0);
            let x1 = isa.load(x1);
            let ahead = (b * F::UNITS + u) * size_of::<F::Block>() / F::UNITS + AHEAD;
            let ahead = ahead + if ahead < row_len { 0 } else { next_group };
            for r in 0..R {
                isa.prefetch(rows[r], ahead);
                // SAFETY: as above.
                let block = unsafe { blocks[r].get_unchecked(b) };
                let [w0, w1] = F::widen(isa, block, &shared[r], u);
                sums[r] = isa.mul_add(w0, x0, sums[r]);
                sums[r] = isa.mul_add(w1, x1, sums[r]);
            }
        }
    }
    if !x_rest.is_empty() {
        for r in 0..R {
            let mut w = [0.0; UNIT];
            F::widen_rest(F::blocks(rows[r]).1, &mut w[..x_rest.len()]);
            let (w, _) = w.as_chunks::<LANES>();
            for (x, w) in x_rest.chunks(LANES).zip(w) {
                let x = isa.load(&float::padded(x));
                sums[r] = isa.mul_add(isa.load(w), x, sums[r]);
            }
        }
    }
    let mut dots = [0.0; R];
    for r in 0..R {
        dots[r] = isa.fold(sums[r]);
    }
    dots
}

/// Widens columns of a row, the first a block's, and hands on 16 at a time with their number; behind
/// the last column come zeros.
#[inline(always)]
fn widen<I: Isa>(
    isa: I,
    weights: &DenseMatrix,
    nth: usize,
    cols: Range<usize>,
    each: impl FnMut(usize, I::Lanes),
) {
    let (row, n_cols) = (weights.row(nth), cols.len());
    with_format!(weights.dtype, F => {
        widen_as::<I, F>(isa, F::cols(row, cols.start, n_cols), n_cols, each);
    });
}

#[inline(always)]
fn widen_as<I: Isa, F: Format>(
    isa: I,
    bytes: &[u8],
    n_cols: usize,
    mut each: impl FnMut(usize, I::Lanes),
) {
    let (blocks, rest) = F::blocks(bytes);
    let mut nth = 0;
    for block in blocks {
        let shared = F::shared(isa, block);
        for u in 0..F::UNITS {
            for lanes in F::widen(isa, block, &shared, u) {
                each(nth, lanes);
                nth += 1;
            }
        }
    }
    let cols_left = n_cols % UNIT;
    if cols_left > 0 {
        let mut last = [0.0; UNIT];
        F::widen_rest(rest, &mut last[..cols_left]);
        for lanes in &last.as_chunks().0[..cols_left.div_ceil(LANES)] {
            each(nth, isa.load(lanes));
            nth += 1;
        }
    }
}
