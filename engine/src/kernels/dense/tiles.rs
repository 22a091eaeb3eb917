//! Dense products with several tokens.
//!
//! A panel of rows is widened to f32 a stretch of columns at a time, and meets tiles of `R` rows and
//! `T` tokens. Each dot product has 16 lanes, of which an ISA's register holds a part; a tile adds
//! up one part of them after the other, so that registers hold the parts of as many dot products as
//! they can. The lanes are kept from one stretch to the next: a dot product is summed in the order
//! of a whole row.
//!
//! Rows and tokens lie as tiles read them: `(part, 16 columns, row or token, lanes of the part)`.

use std::ops::Range;

use super::{
    super::{
        Columns,
        float::{self, LANES},
        isa::Isa,
    },
    widen,
};
use crate::weights::{AlignedBytes, DenseMatrix};

/// Columns that are widened at a time: a panel of 8 rows and the inputs of a tile fit in L1.
const STRETCH: usize = 512;
/// Tiles of rows in a panel: what is read of the inputs from L2 serves both.
const PANEL_TILES: usize = 2;
/// Tokens that meet a panel before the next one is widened.
const PASS: usize = 96;

/// Matrix times several vectors.
#[inline(always)]
pub(super) fn product<I: Isa, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    let cols = weights.cols;
    let range = out.range();
    let n_tokens = out.tokens();
    let panel_rows = R * PANEL_TILES;
    // Passes of about equal length, of whole tiles.
    let n_passes = n_tokens.div_ceil(PASS).max(1);
    let pass = n_tokens.div_ceil(n_passes).next_multiple_of(T);

    let mut panel = floats(panel_rows * STRETCH);
    let panel = as_floats(&mut panel);
    // (stretch, tile of tokens)
    let mut packed = floats(pass * cols.next_multiple_of(LANES));
    let packed = as_floats(&mut packed);
    // (tile of tokens, tile of rows)
    let mut lanes = floats(pass * panel_rows * LANES);
    let lanes = as_floats(&mut lanes);

    for start in (0..n_tokens).step_by(pass.max(1)) {
        let end = n_tokens.min(start + pass);
        pack::<I, T>(isa, &input[start * cols..end * cols], cols, pass, packed);
        for first in range.clone().step_by(panel_rows) {
            let rows = first..range.end.min(first + panel_rows);
            lanes.fill(0.0);
            for col in (0..cols).step_by(STRETCH) {
                let n_cols = STRETCH.min(cols - col);
                let width = n_cols.next_multiple_of(LANES);
                for (nth, r) in rows.clone().enumerate() {
                    let tile = &mut panel[nth / R * R * width..][..R * width];
                    widen(isa, weights, r, col..col + n_cols, |i, x| {
                        scatter::<I, R>(isa, x, i, nth % R, tile);
                    });
                }
                let ahead = Ahead::new(weights, &rows, col + n_cols);
                let rows = &panel[..rows.len().next_multiple_of(R) * width];
                let tokens = &packed[col * pass..][..(end - start).next_multiple_of(T) * width];
                add_panel::<I, R, T>(isa, rows, tokens, width, ahead, lanes);
            }
            for (token, t) in (start..end).zip(0..) {
                let of_tile = &lanes[t / T * PANEL_TILES * R * T * LANES..];
                let out = &mut out.token(token)[first - range.start..][..rows.len()];
                let tiles = of_tile.chunks_exact(R * T * LANES);
                for (tile, out) in tiles.zip(out.chunks_mut(R)) {
                    for (r, out) in out.iter_mut().enumerate() {
                        *out = fold::<I, R, T>(isa, tile, r, t % T);
                    }
                }
            }
        }
    }
}

fn floats(len: usize) -> AlignedBytes {
    AlignedBytes::zeroed(len * size_of::<f32>())
}

fn as_floats(bytes: &mut AlignedBytes) -> &mut [f32] {
    bytemuck::cast_slice_mut(bytes.as_mut_slice())
}

/// Writes 16 columns of one of a tile's `N` rows, or tokens.
#[inline(always)]
fn scatter<I: Isa, const N: usize>(
    isa: I,
    lanes: I::Lanes,
    nth: usize,
    row: usize,
    tile: &mut [f32],
) {
    let mut values = [0.0; LANES];
    isa.store(lanes, &mut values);
    let part_len = tile.len() / (LANES / I::PART);
    for (part, values) in values.chunks_exact(I::PART).enumerate() {
        let at = part * part_len + (nth * N + row) * I::PART;
        tile[at..][..I::PART].copy_from_slice(values);
    }
}

/// Folds the lanes of one dot product.
#[inline(always)]
fn fold<I: Isa, const R: usize, const T: usize>(
    isa: I,
    tile: &[f32],
    row: usize,
    token: usize,
) -> f32 {
    let mut values = [0.0; LANES];
    for (part, values) in values.chunks_exact_mut(I::PART).enumerate() {
        let at = ((part * R + row) * T + token) * I::PART;
        values.copy_from_slice(&tile[at..][..I::PART]);
    }
    isa.fold(isa.load(&values))
}

/// Lays tokens, `(n, cols)`, as tiles read them, stretch by stretch; each stretch has room for
/// `pass` of them. Behind the last column and the last token comes what is dropped or adds nothing.
#[inline(always)]
fn pack<I: Isa, const T: usize>(
    isa: I,
    input: &[f32],
    cols: usize,
    pass: usize,
    packed: &mut [f32],
) {
    for col in (0..cols).step_by(STRETCH) {
        let n_cols = STRETCH.min(cols - col);
        let width = n_cols.next_multiple_of(LANES);
        let tiles = packed[col * pass..].chunks_exact_mut(T * width);
        for (tokens, tile) in input.chunks(T * cols).zip(tiles) {
            for (t, x) in tokens.chunks_exact(cols).enumerate() {
                let (lanes, rest) = x[col..col + n_cols].as_chunks();
                for (nth, lanes) in lanes.iter().enumerate() {
                    scatter::<I, T>(isa, isa.load(lanes), nth, t, tile);
                }
                if !rest.is_empty() {
                    let last = isa.load(&float::padded(rest));
                    scatter::<I, T>(isa, last, lanes.len(), t, tile);
                }
            }
        }
    }
}

/// What is widened after what is at hand, the rows' next columns or the next rows: it is asked for
/// while tiles are computed.
struct Ahead<'a> {
    data: &'a [u8],
    /// Bytes of a row, and those of them that will be widened.
    row_bytes: usize,
    bytes: usize,
    /// Where the next row's bytes start, how many of them were asked for, and how many rows are left.
    first: usize,
    asked: usize,
    rows: usize,
}

impl<'a> Ahead<'a> {
    const LINE: usize = 64;

    fn new(weights: &'a DenseMatrix, rows: &Range<usize>, col: usize) -> Self {
        let row_bytes = weights.dtype.row_bytes(weights.cols);
        let (row, start) = if col < weights.cols {
            (rows.start, weights.dtype.row_bytes(col))
        } else {
            (rows.end, 0)
        };
        Self {
            data: &weights.data,
            row_bytes,
            bytes: weights.dtype.row_bytes(STRETCH).min(row_bytes - start),
            first: row * row_bytes + start,
            asked: 0,
            rows: rows.len(),
        }
    }

    /// Returns how many lines there are.
    fn lines(&self) -> usize {
        self.rows * self.bytes.div_ceil(Self::LINE)
    }

    /// Asks for the next `n` lines.
    #[inline(always)]
    fn ask<I: Isa>(&mut self, isa: I, n: usize) {
        for _ in 0..n {
            if self.rows == 0 {
                return;
            }
            isa.prefetch_l2(self.data, self.first + self.asked);
            self.asked += Self::LINE;
            if self.asked >= self.bytes {
                self.asked = 0;
                self.first += self.row_bytes;
                self.rows -= 1;
            }
        }
    }
}

/// Adds the products of a panel with all tokens to their lanes.
#[inline(always)]
fn add_panel<I: Isa, const R: usize, const T: usize>(
    isa: I,
    rows: &[f32],
    tokens: &[f32],
    width: usize,
    mut ahead: Ahead<'_>,
    lanes: &mut [f32],
) {
    let share = ahead.lines().div_ceil(tokens.len() / (T * width));
    let of_tokens = lanes.chunks_exact_mut(PANEL_TILES * R * T * LANES);
    for (x, lanes) in tokens.chunks_exact(T * width).zip(of_tokens) {
        ahead.ask(isa, share);
        let tiles = lanes.chunks_exact_mut(R * T * LANES);
        for (w, lanes) in rows.chunks_exact(R * width).zip(tiles) {
            isa.tile::<R, T>(w, x, lanes);
        }
    }
}

/// Adds the products of `R` rows with `T` tokens to their lanes, `(part, R, T, lanes of the part)`:
/// an [`Isa::tile`] over registers of `PART` lanes.
#[inline(always)]
pub(in super::super) fn tile<V: Copy, const PART: usize, const R: usize, const T: usize>(
    load: impl Fn(&[f32; PART]) -> V,
    store: impl Fn(V, &mut [f32; PART]),
    mul_add: impl Fn(V, V, V) -> V,
    w: &[f32],
    x: &[f32],
    lanes: &mut [f32],
) {
    let parts = LANES / PART;
    let (w, _) = w.as_chunks::<PART>();
    let (x, _) = x.as_chunks::<PART>();
    let (lanes, _) = lanes.as_chunks_mut::<PART>();
    let w_parts = w.chunks_exact(w.len() / parts);
    let x_parts = x.chunks_exact(x.len() / parts);
    for ((w, x), lanes) in w_parts.zip(x_parts).zip(lanes.chunks_exact_mut(R * T)) {
        let mut sums = [[load(&lanes[0]); T]; R];
        for r in 0..R {
            for t in 0..T {
                sums[r][t] = load(&lanes[r * T + t]);
            }
        }
        for (w, x) in w.chunks_exact(R).zip(x.chunks_exact(T)) {
            let mut tokens = [sums[0][0]; T];
            for t in 0..T {
                tokens[t] = load(&x[t]);
            }
            for r in 0..R {
                let w = load(&w[r]);
                for t in 0..T {
                    sums[r][t] = mul_add(w, tokens[t], sums[r][t]);
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                store(sums[r][t], &mut lanes[r * T + t]);
            }
        }
    }
}
