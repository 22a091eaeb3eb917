//! Linear layers: BitLinear (ternary weights, int8 input) and dense ones, several at a time.

use super::{Compute, adapter};
use crate::{
    engine::Numerics,
    kernels::{Activations, Columns, Kernel, RoundedInput, Tables},
    lookup::{self, Lookup},
    sampler,
    screen::{Screen, Screening},
    threads::{self, ThreadPool},
    weights::{DenseMatrix, Linear, Matrix},
};

/// A thread's rows start at a multiple of this: a tile of looked-up rows, and whole cache lines of
/// outputs.
pub(super) const ROW_GRAIN: usize = lookup::TILE;

/// Most tokens that have tables at once: those of 32 tokens of 7000 activations take 3.5 MB.
const TABLE_TOKENS: usize = 32;

/// The input of linear layers in all forms.
///
/// Of int8 and rounded values those are there that layers read ([`Forms`]).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    /// `(n, cols)`, read by dense matrices.
    pub(crate) float: &'a [f32],
    /// `(n, cols)`, read by ternary matrices.
    pub(crate) int8: &'a Activations,
    /// `(n, cols)`, read by dense matrices in block formats with [`Numerics::Fast`].
    pub(crate) rounded: &'a RoundedInput,
}

/// The forms in which layers read their input, besides floats.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forms {
    /// As int8.
    pub(crate) int8: bool,
    /// Rounded in blocks.
    pub(crate) rounded: bool,
}

impl Forms {
    /// Returns what some layers read.
    pub(crate) fn of<const N: usize>(numerics: Numerics, layers: [&Linear; N]) -> Self {
        Self {
            int8: any_ternary(layers),
            rounded: layers.iter().any(|layer| rounds(numerics, layer)),
        }
    }

    /// Returns what a head reads.
    pub(crate) fn of_head(numerics: Numerics, matrix: &DenseMatrix) -> Self {
        Self {
            int8: false,
            rounded: numerics.rounds(matrix),
        }
    }
}

/// Returns whether a layer reads its input rounded in blocks.
pub(crate) fn rounds(numerics: Numerics, layer: &Linear) -> bool {
    matches!(&layer.matrix, Matrix::Dense(matrix) if numerics.rounds(matrix))
}

/// Returns whether any of the layers reads its input as int8.
fn any_ternary<const N: usize>(layers: [&Linear; N]) -> bool {
    layers
        .iter()
        .any(|layer| !matches!(layer.matrix, Matrix::Dense(_)))
}

/// Computes `out[i] = W[i] x + b[i]` for layers of one input, and adds their adapters' branches;
/// each thread takes a stretch of rows.
///
/// `out[i]` is `(n, rows of W[i])`.
pub(crate) fn linears<const N: usize>(
    compute: &mut Compute,
    layers: [&Linear; N],
    input: Input<'_>,
    mut out: [&mut [f32]; N],
) {
    products(compute, layers, input, out.each_mut().map(|out| &mut **out));
    adapter::add(compute, layers, input.float, out);
}

fn products<const N: usize>(
    compute: &mut Compute,
    layers: [&Linear; N],
    input: Input<'_>,
    out: [&mut [f32]; N],
) {
    let Compute {
        kernel,
        lookup,
        numerics,
        tables,
        branches: _,
        pool,
    } = compute;
    let (kernel, lookup, numerics) = (&**kernel, *lookup, *numerics);
    let threads = pool.threads();
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
    if layers.iter().any(|layer| !is_looked_up(layer)) {
        pool.run(&mut parts, |_, part| {
            for (layer, out) in layers.iter().zip(part) {
                match &layer.matrix {
                    Matrix::Ternary(matrix) => kernel.ternary(matrix, input.int8, out),
                    Matrix::Dense(matrix) => dense(kernel, numerics, matrix, input, out),
                    Matrix::Lookup(_) => continue,
                }
                add_bias(layer, out);
            }
        });
    }
    if layers.iter().any(|layer| is_looked_up(layer)) {
        let lookup = lookup.expect("weights are packed for tables only if the kernel has them");
        for first in (0..input.int8.tokens()).step_by(TABLE_TOKENS) {
            make_tables(kernel, pool, lookup, first, input.int8, tables);
            pool.run(&mut parts, |_, part| {
                for (layer, out) in layers.iter().zip(part) {
                    if let Matrix::Lookup(matrix) = &layer.matrix {
                        kernel.look_up(matrix, tables, out);
                    }
                }
            });
        }
        for part in &mut parts {
            for (layer, out) in layers
                .iter()
                .zip(part)
                .filter(|(layer, _)| is_looked_up(layer))
            {
                add_bias(layer, out);
            }
        }
    }
}

fn dense(
    kernel: &dyn Kernel,
    numerics: Numerics,
    matrix: &DenseMatrix,
    input: Input<'_>,
    out: &mut Columns<'_>,
) {
    if numerics.rounds(matrix) {
        kernel.dense_rounded(matrix, input.rounded, out);
    } else {
        kernel.dense(matrix, input.float, out);
    }
}

fn is_looked_up(layer: &Linear) -> bool {
    matches!(layer.matrix, Matrix::Lookup(_))
}

/// Makes the tables of tokens `first..` of the input.
fn make_tables(
    kernel: &dyn Kernel,
    pool: &mut ThreadPool,
    lookup: Lookup,
    first: usize,
    input: &Activations,
    tables: &mut Tables,
) {
    let tokens = TABLE_TOKENS.min(input.tokens() - first);
    tables.reshape(lookup, first, tokens, input.cols());
    if tokens == 1 {
        // Not worth a wake-up of the other threads.
        tables
            .rows_mut()
            .for_each(|row| kernel.make_tables(input, row));
        return;
    }
    let mut rows = tables.rows_mut();
    let threads = pool.threads();
    let mut parts: Vec<Vec<_>> = (0..threads)
        .map(|_| rows.by_ref().take(tokens.div_ceil(threads)).collect())
        .collect();
    pool.run(&mut parts, |_, rows| {
        rows.drain(..)
            .for_each(|row| kernel.make_tables(input, row));
    });
}

fn add_bias(layer: &Linear, out: &mut Columns<'_>) {
    if let Some(bias) = &layer.bias {
        let range = out.range();
        for token in 0..out.tokens() {
            for (y, b) in out.token(token).iter_mut().zip(&bias[range.clone()]) {
                *y += b;
            }
        }
    }
}

/// Computes the head's logits, `(n, vocab_size)`; its input is never quantized as a ternary layer's.
pub(crate) fn head(
    compute: &mut Compute,
    matrix: &DenseMatrix,
    input: Input<'_>,
    logits: &mut [f32],
) {
    let threads = compute.pool.threads();
    let (kernel, numerics) = (&*compute.kernel, compute.numerics);
    let ends = threads::ends(matrix.rows, threads, ROW_GRAIN);
    let mut parts: Vec<_> = Columns::split(logits, matrix.rows, ends).collect();
    compute.pool.run(&mut parts, |_, out| {
        dense(kernel, numerics, matrix, input, out);
    });
}

/// Fills `out` with the `k` greatest logits of one token, `input`, in the order of
/// [`sampler::greatest`].
///
/// With a screen only the rows that may be among them are evaluated, each to the same bits as by
/// [`head`]. `logits` is scratch.
pub(crate) fn top(
    compute: &mut Compute,
    matrix: &DenseMatrix,
    screen: Option<(&Screen, &mut Screening)>,
    input: Input<'_>,
    k: usize,
    logits: &mut Vec<f32>,
    out: &mut Vec<(u32, f32)>,
) {
    if let Some((screen, screening)) = screen
        && let Compute { kernel, pool, .. } = &mut *compute
        && screening.run(screen, &**kernel, pool, input.float, k).is_some()
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
            kernel.dense_rows(matrix, rows, input.float, logits);
        });
        out.clear();
        out.extend(rows.iter().copied().zip(logits.iter().copied()));
        sampler::keep_greatest(k, out);
        return;
    }
    logits.resize(matrix.rows, 0.0);
    head(compute, matrix, input, logits);
    sampler::greatest(logits, k, out);
}
