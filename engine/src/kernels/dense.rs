//! Dense products on any [`Isa`]: weights of every type widen to f32 exactly, then meet f32 inputs.

use half::f16;

use super::{Columns, float, float::LANES, isa::Isa};
use crate::weights::{AlignedBytes, DenseMatrix, DenseType};

/// Weights handled at a time.
pub(super) const UNIT: usize = 32;

/// A dense element type: how 32 weights become two times 16 lanes.
trait Format {
    /// Type of 32 weights as stored.
    type Unit: Copy;

    /// Splits a row into whole units and the bytes left over.
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]);
    /// Widens 32 weights.
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2];
    /// Widens fewer than 32 weights.
    fn widen_rest(bytes: &[u8], out: &mut [f32]);
}

struct F32;
struct F16;
struct Bf16;
struct Q8_0;
struct Q4_0;

/// Returns the two halves of a unit.
#[inline(always)]
fn halves<const WHOLE: usize, const HALF: usize>(unit: &[u8; WHOLE]) -> [&[u8; HALF]; 2] {
    let (halves, rest) = unit.as_chunks::<HALF>();
    debug_assert!(halves.len() == 2 && rest.is_empty());
    [&halves[0], &halves[1]]
}

impl Format for F32 {
    type Unit = [u8; 128];

    #[inline(always)]
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_f32(low), isa.load_f32(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = f32::from_le_bytes(*bytes);
        }
    }
}

impl Format for F16 {
    type Unit = [u8; 64];

    #[inline(always)]
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_f16(low), isa.load_f16(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = f16::from_le_bytes(*bytes).to_f32();
        }
    }
}

impl Format for Bf16 {
    type Unit = [u8; 64];

    #[inline(always)]
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2] {
        let [low, high] = halves(unit);
        [isa.load_bf16(low), isa.load_bf16(high)]
    }

    fn widen_rest(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.as_chunks().0.iter().zip(out) {
            *out = bf16_to_f32(*bytes);
        }
    }
}

impl Format for Q8_0 {
    type Unit = [u8; 34];

    #[inline(always)]
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]) {
        row.as_chunks()
    }

    // 11 bits of the f16 scale times 8 bits of the code: the product is exact.
    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2] {
        let (scale, codes) = block_scale(unit);
        let (codes, _) = codes.as_chunks::<16>();
        let scale = isa.splat(scale);
        [
            isa.mul(scale, isa.load_i8(&codes[0])),
            isa.mul(scale, isa.load_i8(&codes[1])),
        ]
    }

    fn widen_rest(_: &[u8], _: &mut [f32]) {
        unreachable!("rows of block types are whole blocks");
    }
}

impl Format for Q4_0 {
    type Unit = [u8; 18];

    #[inline(always)]
    fn units(row: &[u8]) -> (&[Self::Unit], &[u8]) {
        row.as_chunks()
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, unit: &Self::Unit) -> [I::Lanes; 2] {
        let (scale, codes) = block_scale(unit);
        let (codes, _) = codes.as_chunks::<16>();
        let scale = isa.splat(scale);
        isa.load_nibbles(&codes[0])
            .map(|lanes| isa.mul(scale, lanes))
    }

    fn widen_rest(_: &[u8], _: &mut [f32]) {
        unreachable!("rows of block types are whole blocks");
    }
}

/// Splits a ggml block into its f16 scale, widened, and its codes.
#[inline(always)]
fn block_scale(block: &[u8]) -> (f32, &[u8]) {
    let (scale, codes) = block.split_at(2);
    (f16::from_le_bytes([scale[0], scale[1]]).to_f32(), codes)
}

/// Widens one bfloat16.
#[inline(always)]
pub(super) fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
}

/// Computes the rows of `out.range()` for every token.
#[inline(always)]
pub(super) fn product<I: Isa, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    match weights.dtype {
        DenseType::F32 => product_of::<I, F32, R, T>(isa, weights, input, out),
        DenseType::F16 => product_of::<I, F16, R, T>(isa, weights, input, out),
        DenseType::Bf16 => product_of::<I, Bf16, R, T>(isa, weights, input, out),
        DenseType::Q8_0 => product_of::<I, Q8_0, R, T>(isa, weights, input, out),
        DenseType::Q4_0 => product_of::<I, Q4_0, R, T>(isa, weights, input, out),
    }
}

#[inline(always)]
fn product_of<I: Isa, F: Format, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    if out.tokens() == 1 {
        one_token::<I, F>(isa, weights, input, out);
    } else {
        tokens::<I, F, R, T>(isa, weights, input, out);
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
    for (i, out) in fours.iter_mut().enumerate() {
        let first = range.start + i * ABREAST;
        let rows = std::array::from_fn(|r| row(weights, first + r));
        *out = dots::<I, F, ABREAST>(isa, rows, input);
    }
    let first = range.end - rest.len();
    for (i, out) in rest.iter_mut().enumerate() {
        [*out] = dots::<I, F, 1>(isa, [row(weights, first + i)], input);
    }
}

/// Dot products of some rows with one vector.
#[inline(always)]
fn dots<I: Isa, F: Format, const R: usize>(isa: I, rows: [&[u8]; R], x: &[f32]) -> [f32; R] {
    // Far enough ahead that memory's latency is covered, near enough to stay in L1.
    const AHEAD: usize = 512;
    let (x_units, x_rest) = x.as_chunks::<UNIT>();
    let n = x_units.len();
    let units: [&[F::Unit]; R] = rows.map(|row| &F::units(row).0[..n]);
    let mut sums = [isa.zero(); R];
    for (u, x) in x_units.iter().enumerate() {
        let [x0, x1] = x.as_chunks::<LANES>().0 else {
            unreachable!("a unit is twice the lanes")
        };
        let x0 = isa.load(x0);
        let x1 = isa.load(x1);
        for r in 0..R {
            isa.prefetch(rows[r], u * size_of::<F::Unit>() + AHEAD);
            let [w0, w1] = F::widen(isa, &units[r][u]);
            sums[r] = isa.mul_add(w0, x0, sums[r]);
            sums[r] = isa.mul_add(w1, x1, sums[r]);
        }
    }
    if !x_rest.is_empty() {
        for r in 0..R {
            let mut w = [0.0; UNIT];
            F::widen_rest(F::units(rows[r]).1, &mut w[..x_rest.len()]);
            let (w, _) = w.as_chunks::<LANES>();
            for (x, w) in x_rest.chunks(LANES).zip(w) {
                let x = isa.load(&float::padded(x));
                sums[r] = isa.mul_add(isa.load(w), x, sums[r]);
            }
        }
    }
    sums.map(|lanes| isa.fold(lanes))
}

/// Widens one row to f32, the tail padded with zeros.
#[inline(always)]
fn widen_row<I: Isa, F: Format>(isa: I, row: &[u8], cols: usize, out: &mut [f32]) {
    let (units, rest) = F::units(row);
    let (chunks, tail) = out.as_chunks_mut::<UNIT>();
    for (unit, out) in units.iter().zip(&mut *chunks) {
        let (halves, _) = out.as_chunks_mut::<LANES>();
        for (lanes, out) in F::widen(isa, unit).into_iter().zip(halves) {
            isa.store(lanes, out);
        }
    }
    let cols_left = cols % UNIT;
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

/// Matrix times several vectors: `R` rows are widened once and meet the tokens `T` abreast.
#[inline(always)]
fn tokens<I: Isa, F: Format, const R: usize, const T: usize>(
    isa: I,
    weights: &DenseMatrix,
    input: &[f32],
    out: &mut Columns<'_>,
) {
    // The inputs of one pass over the rows shall stay in L2.
    const PASS_BYTES: usize = 256 << 10;
    let cols = weights.cols;
    let padded_cols = cols.next_multiple_of(LANES);
    let range = out.range();
    let n_tokens = out.tokens();

    let mut panel = AlignedBytes::zeroed(R * padded_cols * 4);
    let panel: &mut [f32] = bytemuck::cast_slice_mut(panel.as_mut_slice());
    let mut padded_input = Vec::new();
    let input = if padded_cols == cols {
        input
    } else {
        padded_input.resize(n_tokens * padded_cols, 0.0);
        for (padded, x) in padded_input
            .chunks_exact_mut(padded_cols)
            .zip(input.chunks_exact(cols))
        {
            padded[..cols].copy_from_slice(x);
        }
        &padded_input
    };

    let pass = (PASS_BYTES / (padded_cols * 4) / T * T).max(T);
    for start in (0..n_tokens).step_by(pass) {
        let end = n_tokens.min(start + pass);
        for first in range.clone().step_by(R) {
            let n_rows = R.min(range.end - first);
            for (r, panel) in panel.chunks_exact_mut(padded_cols).take(n_rows).enumerate() {
                widen_row::<I, F>(isa, row(weights, first + r), cols, panel);
            }
            let w: [&[f32]; R] = std::array::from_fn(|r| &panel[r * padded_cols..][..padded_cols]);
            let mut token = start;
            while token < end {
                if end - token >= T {
                    let x =
                        std::array::from_fn(|t| &input[(token + t) * padded_cols..][..padded_cols]);
                    let tile = tile::<I, R, T>(isa, w, x);
                    for (t, sums) in tile.into_iter().enumerate() {
                        for (r, sum) in sums.into_iter().take(n_rows).enumerate() {
                            out.set(token + t, first + r, sum);
                        }
                    }
                    token += T;
                } else {
                    let x = [&input[token * padded_cols..][..padded_cols]];
                    let [sums] = tile::<I, R, 1>(isa, w, x);
                    for (r, sum) in sums.into_iter().take(n_rows).enumerate() {
                        out.set(token, first + r, sum);
                    }
                    token += 1;
                }
            }
        }
    }
}

/// Dot products of `R` rows with `T` vectors, all of the same padded length.
#[inline(always)]
fn tile<I: Isa, const R: usize, const T: usize>(
    isa: I,
    w: [&[f32]; R],
    x: [&[f32]; T],
) -> [[f32; R]; T] {
    let n = w[0].len() / LANES;
    let w = w.map(|row| &row.as_chunks::<LANES>().0[..n]);
    let x = x.map(|row| &row.as_chunks::<LANES>().0[..n]);
    let mut sums = [[isa.zero(); R]; T];
    for i in 0..n {
        let x: [I::Lanes; T] = std::array::from_fn(|t| isa.load(&x[t][i]));
        for r in 0..R {
            let w = isa.load(&w[r][i]);
            for t in 0..T {
                sums[t][r] = isa.mul_add(w, x[t], sums[t][r]);
            }
        }
    }
    sums.map(|sums| sums.map(|lanes| isa.fold(lanes)))
}
