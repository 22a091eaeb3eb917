//! Dense products on any [`Isa`]: weights of every type widen to f32 exactly, then meet f32 inputs.

use super::{Columns, float, float::LANES, isa::Isa, screen};
use crate::{
    screen::{PADDING, ScreenRows},
    weights::{AlignedBytes, DenseMatrix, DenseType},
};

mod blocks;
mod formats;
mod k_blocks;

use formats::{Format, UNIT};

pub(super) use formats::bf16_to_f32;
#[cfg(target_arch = "x86_64")]
pub(super) use k_blocks::six_bits;

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
        tokens::<I, R, T>(isa, weights, input, out);
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
        let row = [row(weights, r as usize)];
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
    for nth in 0..out.scales.len() {
        let row = row(head, first + nth);
        let lanes = &mut values[..head.cols.next_multiple_of(LANES)];
        with_format!(head.dtype, F => widen::<I, F>(isa, row, 0, head.cols, lanes));
        screen::quantize_row(&values, nth, out);
    }
}

fn row(weights: &DenseMatrix, row: usize) -> &[u8] {
    let bytes = weights.dtype.row_bytes(weights.cols);
    &weights.data[row * bytes..][..bytes]
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
        let mut rows = [row(weights, first); ABREAST];
        for r in 1..ABREAST {
            rows[r] = row(weights, first + r);
        }
        *out = dots::<I, F, ABREAST>(isa, rows, input);
        first += ABREAST;
    }
    for out in rest {
        [*out] = dots::<I, F, 1>(isa, [row(weights, first)], input);
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

/// Columns that are widened at a time: a panel of 12 rows and the inputs of a tile fit in L1.
const PANEL_COLS: usize = 512;
/// Tiles of rows in a panel: what is read of the inputs from L2 serves all of them.
const PANEL_TILES: usize = 4;

/// Matrix times several vectors.
///
/// A panel of rows is widened to f32 a stretch of columns at a time, and meets tiles of `R` rows
/// and `T` tokens; their lanes are kept from one stretch to the next, so that each dot product is
/// summed in the order of a whole row.
#[inline(always)]
fn tokens<I: Isa, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    // Tokens whose lanes stay in L2 together with their inputs.
    const PASS: usize = 48;
    let cols = weights.cols;
    let range = out.range();
    let n_tokens = out.tokens();
    let panel_rows = R * PANEL_TILES;

    let mut panel = AlignedBytes::zeroed(panel_rows * PANEL_COLS * 4);
    let panel: &mut [f32] = bytemuck::cast_slice_mut(panel.as_mut_slice());
    let pass = PASS.min(n_tokens).next_multiple_of(T);
    // (stretch, token, columns of the stretch), the last columns padded with zeros to 16.
    let mut packed = AlignedBytes::zeroed(pass * cols.next_multiple_of(LANES) * 4);
    let packed: &mut [f32] = bytemuck::cast_slice_mut(packed.as_mut_slice());
    let mut lanes = AlignedBytes::zeroed(pass * panel_rows * LANES * 4);
    let (lanes, _) = bytemuck::cast_slice_mut::<u8, f32>(lanes.as_mut_slice()).as_chunks_mut();

    for start in (0..n_tokens).step_by(PASS) {
        let end = n_tokens.min(start + PASS);
        pack(&input[start * cols..end * cols], cols, pass, packed);
        for first in range.clone().step_by(panel_rows) {
            let n_rows = panel_rows.min(range.end - first);
            lanes.fill([0.0; LANES]);
            for col in (0..cols).step_by(PANEL_COLS) {
                let n_cols = PANEL_COLS.min(cols - col);
                let width = n_cols.next_multiple_of(LANES);
                for r in 0..n_rows {
                    let out = &mut panel[r * width..][..width];
                    let row = row(weights, first + r);
                    with_format!(weights.dtype, F => widen::<I, F>(isa, row, col, n_cols, out));
                }
                let rows = &panel[..n_rows.next_multiple_of(R) * width];
                let tokens = &packed[col * pass..][..(end - start).next_multiple_of(T) * width];
                add_panel::<I, R, T>(isa, rows, tokens, width, lanes);
            }
            fold_panel::<I, R, T>(isa, lanes, end - start, n_rows, |token, row, sum| {
                out.set(start + token, first + row, sum);
            });
        }
    }
}

/// Copies tokens, `(n, cols)`, stretch by stretch: `(stretch, pass, columns of the stretch)`.
#[inline(always)]
fn pack(input: &[f32], cols: usize, pass: usize, packed: &mut [f32]) {
    for col in (0..cols).step_by(PANEL_COLS) {
        let n_cols = PANEL_COLS.min(cols - col);
        let width = n_cols.next_multiple_of(LANES);
        for (packed, x) in packed[col * pass..]
            .chunks_exact_mut(width)
            .zip(input.chunks_exact(cols))
        {
            packed[..n_cols].copy_from_slice(&x[col..col + n_cols]);
        }
    }
}

/// Adds the products of a panel with all tokens to their lanes, `(tile of tokens, tile of rows, T, R)`.
#[inline(always)]
fn add_panel<I: Isa, const R: usize, const T: usize>(
    isa: I,
    rows: &[f32],
    tokens: &[f32],
    width: usize,
    lanes: &mut [[f32; LANES]],
) {
    let mut tiles = lanes.chunks_exact_mut(R * T);
    for x in tokens.chunks_exact(T * width) {
        let mut n_tiles = 0;
        for w in rows.chunks_exact(R * width) {
            let lanes = tiles.next().expect("lanes for each tile");
            tile::<I, R, T>(isa, w, x, width, lanes);
            n_tiles += 1;
        }
        // Panels at the end of the rows have fewer tiles.
        for _ in n_tiles..PANEL_TILES {
            tiles.next();
        }
    }
}

/// Folds the lanes of the tokens and rows that exist.
#[inline(always)]
fn fold_panel<I: Isa, const R: usize, const T: usize>(
    isa: I,
    lanes: &[[f32; LANES]],
    n_tokens: usize,
    n_rows: usize,
    mut each: impl FnMut(usize, usize, f32),
) {
    for token in 0..n_tokens {
        for row in 0..n_rows {
            let tile = token / T * PANEL_TILES + row / R;
            let sum = isa.load(&lanes[tile * R * T + token % T * R + row % R]);
            each(token, row, isa.fold(sum));
        }
    }
}

/// Widens the columns from `col` on of a row to f32, the tail padded with zeros to a multiple of 16.
#[inline(always)]
fn widen<I: Isa, F: Format>(isa: I, row: &[u8], col: usize, n_cols: usize, out: &mut [f32]) {
    let (blocks, rest) = F::blocks(F::cols(row, col, n_cols));
    let (chunks, tail) = out.as_chunks_mut::<UNIT>();
    for (block, units) in blocks.iter().zip(chunks.chunks_exact_mut(F::UNITS)) {
        let shared = F::shared(isa, block);
        for (u, out) in units.iter_mut().enumerate() {
            let (halves, _) = out.as_chunks_mut::<LANES>();
            for (lanes, out) in F::widen(isa, block, &shared, u).into_iter().zip(halves) {
                isa.store(lanes, out);
            }
        }
    }
    let cols_left = n_cols % UNIT;
    if cols_left > 0 {
        // `out` is a multiple of 16 long: the last unit may be a whole or a half one.
        let last = if tail.is_empty() {
            chunks.last_mut().expect("a row has columns").as_mut_slice()
        } else {
            tail
        };
        last.fill(0.0);
        F::widen_rest(rest, &mut last[..cols_left]);
    }
}

/// Adds the products of `R` rows with `T` tokens to their lanes, `(T, R)`.
#[inline(always)]
fn tile<I: Isa, const R: usize, const T: usize>(
    isa: I,
    w: &[f32],
    x: &[f32],
    width: usize,
    lanes: &mut [[f32; LANES]],
) {
    let n = width / LANES;
    let mut w_chunks = [&[][..]; R];
    for r in 0..R {
        w_chunks[r] = &w[r * width..].as_chunks::<LANES>().0[..n];
    }
    let mut x_chunks = [&[][..]; T];
    for t in 0..T {
        x_chunks[t] = &x[t * width..].as_chunks::<LANES>().0[..n];
    }
    let mut sums = [[isa.zero(); R]; T];
    for t in 0..T {
        for r in 0..R {
            sums[t][r] = isa.load(&lanes[t * R + r]);
        }
    }
    for i in 0..n {
        let mut x = [isa.zero(); T];
        for t in 0..T {
            x[t] = isa.load(&x_chunks[t][i]);
        }
        for r in 0..R {
            let w = isa.load(&w_chunks[r][i]);
            for t in 0..T {
                sums[t][r] = isa.mul_add(w, x[t], sums[t][r]);
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            isa.store(sums[t][r], &mut lanes[t * R + r]);
        }
    }
}
