//! The low-rank branches beside linear layers: `y += B (s (A x))`.
//!
//! Both products are the dense kernels', in their order of summation, and `s` multiplies `A x` value
//! by value; so the results are the same to the bit for every kernel, number of threads and batch.

use super::{Compute, linear::ROW_GRAIN};
use crate::{
    kernels::Columns,
    threads,
    weights::{Adapter, Linear},
};

/// Rows of `A` that a thread takes at least: as many as the kernels multiply abreast.
const INNER_GRAIN: usize = 4;

/// Tokens whose `B (s A x)` is held at once: that of 64 tokens and 7000 outputs takes 1.8 MB.
const TOKENS: usize = 64;

/// What lies between the two products.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    // (n, rank), of one branch behind the other
    inner: Vec<f32>,
    // (up to TOKENS, outputs)
    outer: Vec<f32>,
}

/// Adds the branches of layers of one input, `(n, inputs)`, to their outputs; `out[i]` is
/// `(n, outputs)`.
pub(super) fn add<const N: usize>(
    compute: &mut Compute,
    layers: [&Linear; N],
    input: &[f32],
    out: [&mut [f32]; N],
) {
    let branches: Vec<(&Adapter, &mut [f32])> = layers
        .into_iter()
        .zip(out)
        .filter_map(|(layer, out)| Some((layer.adapter.as_ref()?, out)))
        .collect();
    let Some((first, _)) = branches.first() else {
        return;
    };
    let n = input.len() / first.a.cols;
    let ranks = branches.iter().map(|(adapter, _)| adapter.rank());
    let len = n * ranks.sum::<usize>();
    compute.branches.inner.resize(len, 0.0);
    multiply_inner(compute, n, &branches, input);
    let mut start = 0;
    for (adapter, out) in branches {
        let end = start + n * adapter.rank();
        add_outer(compute, adapter, start..end, out);
        start = end;
    }
}

/// Computes `s (A x)` of all branches.
///
/// The threads share the tokens of a batch, since a branch has too few rows for them; one token's
/// rows are worth it, as they are read from memory.
fn multiply_inner(
    compute: &mut Compute,
    n: usize,
    branches: &[(&Adapter, &mut [f32])],
    input: &[f32],
) {
    struct Job<'a> {
        adapter: &'a Adapter,
        input: &'a [f32],
        out: Columns<'a>,
    }
    let Compute {
        kernel,
        branches: Scratch { inner, .. },
        pool,
        ..
    } = compute;
    let kernel = &**kernel;
    let threads = pool.threads();
    let mut parts: Vec<Vec<Job<'_>>> = (0..threads).map(|_| Vec::new()).collect();
    let mut rest = &mut inner[..];
    for (adapter, _) in branches {
        let rank = adapter.rank();
        let (inner, others) = rest.split_at_mut(n * rank);
        rest = others;
        if n == 1 {
            let ends = threads::ends(rank, threads, INNER_GRAIN);
            for (part, out) in parts.iter_mut().zip(Columns::split(inner, rank, ends)) {
                part.push(Job {
                    adapter,
                    input,
                    out,
                });
            }
            continue;
        }
        let tokens = n.div_ceil(threads);
        let inputs = input.chunks(tokens * adapter.a.cols);
        let outs = inner.chunks_mut(tokens * rank);
        for ((part, input), out) in parts.iter_mut().zip(inputs).zip(outs) {
            part.push(Job {
                adapter,
                input,
                out: Columns::whole(out, rank),
            });
        }
    }
    pool.run(&mut parts, |_, jobs| {
        for Job {
            adapter,
            input,
            out,
        } in jobs
        {
            kernel.dense(&adapter.a, input, out);
            for token in 0..out.tokens() {
                out.token(token)
                    .iter_mut()
                    .for_each(|x| *x *= adapter.scale);
            }
        }
    });
}

/// Adds `B` times what [`multiply_inner`] left to a layer's output.
fn add_outer(
    compute: &mut Compute,
    adapter: &Adapter,
    inner: std::ops::Range<usize>,
    out: &mut [f32],
) {
    let Compute {
        kernel,
        branches,
        pool,
        ..
    } = compute;
    let kernel = &**kernel;
    let rows = adapter.b.rows;
    let inner = branches.inner[inner].chunks(TOKENS * adapter.rank());
    for (inner, out) in inner.zip(out.chunks_mut(TOKENS * rows)) {
        branches.outer.resize(out.len(), 0.0);
        let ends = threads::ends(rows, pool.threads(), ROW_GRAIN);
        let mut parts: Vec<_> = Columns::split(&mut branches.outer, rows, ends.clone())
            .zip(Columns::split(out, rows, ends))
            .collect();
        pool.run(&mut parts, |_, (delta, out)| {
            kernel.dense(&adapter.b, inner, delta);
            for token in 0..out.tokens() {
                let delta = delta.token(token).iter();
                for (y, delta) in out.token(token).iter_mut().zip(delta) {
                    *y += delta;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{
        engine::Numerics,
        kernels::{self, Activations, RoundedInput},
        ops::linear::{Input, linears},
        testing::{TestRng, random_dense, random_ternary},
        threads::ThreadPool,
        weights::{DenseType, Matrix},
    };

    #[test]
    fn a_branch_adds_b_times_s_times_a_x_to_a_ternary_product() {
        let (n, rows, cols, rank) = (70, 96, 200, 5);
        let mut rng = TestRng::new(3);
        let [a, b] = [(rank, cols), (rows, rank)]
            .map(|(rows, cols)| random_dense(&mut rng, rows, cols, DenseType::Bf16));
        let mut linear = Linear {
            matrix: Matrix::Ternary(random_ternary(&mut rng, rows, cols, false)),
            bias: Some(rng.floats(rows)),
            adapter: None,
        };
        let input = rng.floats(n * cols);
        let widened = |matrix: &crate::weights::DenseMatrix, row| {
            let mut values = vec![0.0; matrix.cols];
            kernels::widen(matrix, row, &mut values);
            values
        };
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for kernel in kernels::tested() {
            let pool = ThreadPool::new(NonZeroUsize::new(3).unwrap(), false).unwrap();
            let mut compute = Compute::new(kernel, None, Numerics::Exact, pool);
            let mut int8 = Activations::default();
            int8.reshape(n, cols);
            for (row, x) in int8.rows_mut().zip(input.chunks_exact(cols)) {
                compute.kernel.quantize(x, row);
            }
            let mut run = |linear: &Linear| {
                let mut out = vec![0.0; n * rows];
                let input = Input {
                    float: &input,
                    int8: &int8,
                    rounded: &RoundedInput::default(),
                };
                linears(&mut compute, [linear], input, [&mut out]);
                out
            };
            linear.adapter = None;
            let base = run(&linear);
            linear.adapter = Some(Adapter {
                a: a.clone(),
                b: b.clone(),
                scale: 0.75,
            });
            let adapted = run(&linear);
            for (token, x) in input.chunks_exact(cols).enumerate() {
                let inner: Vec<f32> = (0..rank).map(|r| 0.75 * dot(&widened(&a, r), x)).collect();
                for row in 0..rows {
                    let at = token * rows + row;
                    let expected = base[at] + dot(&widened(&b, row), &inner);
                    let difference = (adapted[at] - expected).abs();
                    assert!(difference < 1e-5, "{}, {expected}", adapted[at]);
                }
            }
        }
    }
}
