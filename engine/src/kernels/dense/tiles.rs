//! Dense products with several tokens.
//!
//! A panel of rows is widened to f32 a stretch of columns at a time, and meets tiles of `R` rows and
//! `T` tokens. Each dot product has 16 lanes, of which an ISA's register holds a part; a tile adds
//! up one part of them after the other, so that registers hold the parts of as many dot products as
//! they can. The lanes are kept from one stretch to the next: a dot product is summed in the order
//! of a whole row.
//!
//! Rows and tokens lie as tiles read them: `(part, 16 columns, row or token, lanes of the part)`.

use std::{cell::Cell, ops::Range};

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

thread_local! {
    /// Kept from one product to the next: small ones would spend their time on fresh pages.
    static SCRATCH: Cell<Scratch> = const { Cell::new(Scratch::new()) };
}

/// What a thread lays out for its tiles.
#[derive(Debug)]
struct Scratch {
    /// Widened rows.
    panel: AlignedBytes,
    /// `(stretch, tile of tokens)`.
    packed: AlignedBytes,
    /// Lanes of dot products that go on in the next stretch, `(tile of tokens, tile of rows)`; where
    /// there is but one stretch, those of one tile.
    lanes: AlignedBytes,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    const fn new() -> Self {
        Self {
            panel: AlignedBytes::new(),
            packed: AlignedBytes::new(),
            lanes: AlignedBytes::new(),
        }
    }
}

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
    let kept_lanes = if cols > STRETCH {
        pass * panel_rows * LANES
    } else {
        R * T * LANES
    };

    // Not a borrow: code within a closure would not be compiled for the ISA.
    let mut scratch = SCRATCH.take();
    let panel = floats(&mut scratch.panel, panel_rows * STRETCH);
    let packed = floats(&mut scratch.packed, pass * cols.next_multiple_of(LANES));
    let lanes = floats(&mut scratch.lanes, kept_lanes);

    for start in (0..n_tokens).step_by(pass.max(1)) {
        let end = n_tokens.min(start + pass);
        pack::<I, T>(isa, &input[start * cols..end * cols], cols, pass, packed);
        for first in range.clone().step_by(panel_rows) {
            let rows = first..range.end.min(first + panel_rows);
            for col in (0..cols).step_by(STRETCH) {
                let n_cols = STRETCH.min(cols - col);
                let width = n_cols.next_multiple_of(LANES);
                for (nth, r) in rows.clone().enumerate() {
                    let tile = &mut panel[nth / R * R * width..][..R * width];
                    widen(isa, weights, r, col..col + n_cols, |i, x| {
                        scatter::<I, R>(isa, x, i, nth % R, tile);
                    });
                }
                let mut panel = Panel {
                    rows: &panel[..rows.len().next_multiple_of(R) * width],
                    width,
                    first: col == 0,
                    last: col + n_cols == cols,
                    ahead: Ahead::new(weights, &rows, col + n_cols),
                };
                let tokens = &packed[col * pass..][..(end - start).next_multiple_of(T) * width];
                let mut place = Place {
                    tokens: start..end,
                    rows: first - range.start..rows.end - range.start,
                    out: &mut *out,
                };
                panel.add::<I, R, T>(isa, tokens, lanes, &mut place);
            }
        }
    }
    SCRATCH.set(scratch);
}

/// Returns `len` floats, of any value.
fn floats(bytes: &mut AlignedBytes, len: usize) -> &mut [f32] {
    let n_bytes = len * size_of::<f32>();
    if bytes.len() < n_bytes {
        *bytes = AlignedBytes::zeroed(n_bytes);
    }
    &mut bytemuck::cast_slice_mut(bytes.as_mut_slice())[..len]
}

/// Where the dot products of a panel go.
struct Place<'a, 'b> {
    tokens: Range<usize>,
    /// Counted from the first row of `out`.
    rows: Range<usize>,
    out: &'a mut Columns<'b>,
}

impl Place<'_, '_> {
    /// Writes what a tile yields: that of the rows and tokens there are.
    #[inline(always)]
    fn put<const R: usize, const T: usize>(
        &mut self,
        tile_of_tokens: usize,
        tile_of_rows: usize,
        dots: &[[f32; R]; T],
    ) {
        let first = self.rows.start + tile_of_rows * R;
        let tokens = self.tokens.start + tile_of_tokens * T..self.tokens.end;
        for (token, dots) in tokens.zip(dots) {
            let out = &mut self.out.token(token)[first..self.rows.end];
            match out.first_chunk_mut::<R>() {
                Some(out) => *out = *dots,
                None => out.copy_from_slice(&dots[..out.len()]),
            }
        }
    }
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

/// Folds the lanes of a tile, `(part, R, T, lanes of the part)`, one by one; returns `(T, R)`.
#[inline(always)]
pub(in super::super) fn fold_tile<I: Isa, const R: usize, const T: usize>(
    isa: I,
    tile: &[f32],
) -> [[f32; R]; T] {
    let mut dots = [[0.0; R]; T];
    for (token, dots) in dots.iter_mut().enumerate() {
        for (row, dot) in dots.iter_mut().enumerate() {
            let mut values = [0.0; LANES];
            for (part, values) in values.chunks_exact_mut(I::PART).enumerate() {
                let at = ((part * R + row) * T + token) * I::PART;
                values.copy_from_slice(&tile[at..][..I::PART]);
            }
            *dot = isa.fold(isa.load(&values));
        }
    }
    dots
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

/// Some rows' stretch of columns.
struct Panel<'a> {
    /// Tiles of rows.
    rows: &'a [f32],
    width: usize,
    /// Whether dot products begin here, and whether they end here.
    first: bool,
    last: bool,
    ahead: Ahead<'a>,
}

impl Panel<'_> {
    /// Adds its products with all tokens to their lanes; of dot products that end, the lanes are
    /// folded while they are at hand.
    #[inline(always)]
    fn add<I: Isa, const R: usize, const T: usize>(
        &mut self,
        isa: I,
        tokens: &[f32],
        lanes: &mut [f32],
        place: &mut Place<'_, '_>,
    ) {
        let width = self.width;
        let share = self.ahead.lines().div_ceil(tokens.len() / (T * width));
        let is_whole = self.first && self.last;
        for (t, x) in tokens.chunks_exact(T * width).enumerate() {
            self.ahead.ask(isa, share);
            for (r, w) in self.rows.chunks_exact(R * width).enumerate() {
                let nth = if is_whole { 0 } else { t * PANEL_TILES + r };
                let lanes = &mut lanes[nth * R * T * LANES..][..R * T * LANES];
                isa.tile::<R, T>(w, x, self.first, lanes);
                if self.last {
                    place.put(t, r, &isa.fold_tile::<R, T>(lanes));
                }
            }
        }
    }
}

/// Adds the products of `R` rows with `T` tokens to their lanes, `(part, R, T, lanes of the part)`,
/// or to what they `begin` with: an [`Isa::tile`] over registers of `PART` lanes.
#[inline(always)]
pub(in super::super) fn tile<V: Copy, const PART: usize, const R: usize, const T: usize>(
    begin: Option<V>,
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
        let mut sums = [[begin.unwrap_or_else(|| load(&lanes[0])); T]; R];
        if begin.is_none() {
            for r in 0..R {
                for t in 0..T {
                    sums[r][t] = load(&lanes[r * T + t]);
                }
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
