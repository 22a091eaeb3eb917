//! Linear layers: BitLinear (ternary weights, int8 input) and dense ones, several at a time.

use super::Compute;
use crate::{
    kernels::{Activations, Columns},
    sampler,
    screen::{Screen, Screening},
    threads,
    weights::{DenseMatrix, Linear, Matrix},
};

/// A thread's rows start at a multiple of this: one cache line of outputs.
const ROW_GRAIN: usize = 16;

/// The input of linear layers in both forms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// `(n, cols)`, read by dense matrices.
    pub(crate) float: &'a [f32],
    /// `(n, cols)`, read by ternary matrices.
    pub(crate) int8: &'a Activations,
}

impl Matrix {
    /// Returns the outputs.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Ternary(matrix) => matrix.rows,
            Self::Dense(matrix) => matrix.rows,
        }
    }
}

/// Returns whether any of the layers reads its input as int8.
pub(crate) fn any_ternary<const N: usize>(layers: [&Linear; N]) -> bool {
    layers
        .iter()
        .any(|layer| matches!(layer.matrix, Matrix::Ternary(_)))
}

/// Computes `out[i] = W[i] x + b[i]` for layers of one input; each thread takes a stretch of rows.
///
/// `out[i]` is `(n, rows of W[i])`.
pub(crate) fn linears<const N: usize>(
    compute: &mut Compute,
    layers: [&Linear; N],
    input: Input<'_>,
    out: [&mut [f32]; N],
) {
    let threads = compute.pool.threads();
    let kernel = &*compute.kernel;
    let mut columns = std::array::from_fn::<_, N, _>(|_| None);
    for ((columns, layer), out) in columns.iter_mut().zip(layers).zip(out) {
        let rows = layer.matrix.rows();
        let ends = threads::ends(rows, threads, ROW_GRAIN);
        *columns = Some(Columns::split(out, rows, ends));
    }
    let mut columns = columns.map(|columns| columns.expect("one for each layer"));
    let mut parts: Vec<[Columns<'_>; N]> = (0..threads)
        .map(|_| {
            columns
                .each_mut()
                .map(|columns| columns.next().expect("one for each thread"))
        })
        .collect();
    compute.pool.run(&mut parts, |_, part| {
        for (layer, out) in layers.iter().zip(part) {
            match &layer.matrix {
                Matrix::Ternary(matrix) => kernel.ternary(matrix, input.int8, out),
                Matrix::Dense(matrix) => kernel.dense(matrix, input.float, out),
            }
            if let Some(bias) = &layer.bias {
                let range = out.range();
                for token in 0..out.tokens() {
                    for (y, b) in out.token(token).iter_mut().zip(&bias[range.clone()]) {
                        *y += b;
                    }
                }
            }
        }
    });
}

/// Computes the head's logits, `(n, vocab_size)`; its input is never quantized.
pub(crate) fn head(compute: &mut Compute, matrix: &DenseMatrix, input: &[f32], logits: &mut [f32]) {
    let threads = compute.pool.threads();
    let kernel = &*compute.kernel;
    let ends = threads::ends(matrix.rows, threads, ROW_GRAIN);
    let mut parts: Vec<_> = Columns::split(logits, matrix.rows, ends).collect();
    compute
        .pool
        .run(&mut parts, |_, out| kernel.dense(matrix, input, out));
}

/// Fills `out` with the `k` greatest logits of one token, `x` `(hidden_size)`, in the order of
/// [`sampler::greatest`].
///
/// With a screen only the rows that may be among them are evaluated, each to the same bits as by
/// [`head`]. `logits` is scratch.
pub(crate) fn top(
    compute: &mut Compute,
    matrix: &DenseMatrix,
    screen: Option<(&Screen, &mut Screening)>,
    x: &[f32],
    k: usize,
    logits: &mut Vec<f32>,
    out: &mut Vec<(u32, f32)>,
) {
    if let Some((screen, screening)) = screen
        && let Compute { kernel, pool } = &mut *compute
        && screening.run(screen, &**kernel, pool, x, k).is_some()
        // Rows here and there are read more slowly than all of them in a stream.
        && screening.rows.len() <= matrix.rows / 4
    {
        let rows = &screening.rows[..];
        logits.resize(rows.len(), 0.0);
        let per_part = rows.len().div_ceil(pool.threads()).max(1);
        let mut parts: Vec<_> = rows
            .chunks(per_part)
            .zip(logits.chunks_mut(per_part))
            .collect();
        pool.run(&mut parts, |_, (rows, logits)| {
            kernel.dense_rows(matrix, rows, x, logits);
        });
        out.clear();
        out.extend(rows.iter().copied().zip(logits.iter().copied()));
        sampler::keep_greatest(k, out);
        return;
    }
    logits.resize(matrix.rows, 0.0);
    head(compute, matrix, x, logits);
    sampler::greatest(logits, k, out);
}
