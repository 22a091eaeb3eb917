//! Softmax attention of one token over one key/value head, on any [`Isa`].

use super::{float, float::LANES, isa::Isa};

/// The query heads of one token that share a key/value head, and the keys they see.
#[derive(Clone, Copy, Debug)]
pub struct AttentionHead<'a> {
    /// Values per head.
    pub head_dim: usize,
    /// `(group, head_dim)`, already rotated.
    pub queries: &'a [f32],
    /// `(n_keys, head_dim)`, in order of position; at least one.
    pub keys: &'a [f32],
    /// `(n_keys, head_dim)`.
    pub values: &'a [f32],
    /// Factor of the scores, `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionHead<'_> {
    /// Returns the number of positions attended to.
    pub fn n_keys(&self) -> usize {
        self.keys.len() / self.head_dim
    }
}

/// Values are read in stretches of keys that stay in L1.
const KEYS_ABREAST: usize = 32;

/// Computes `softmax(q K^T * scale) V` for each query head of the group.
#[inline(always)]
pub(super) fn attend<I: Isa>(
    isa: I,
    head: &AttentionHead<'_>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    const HEADS: usize = 4;
    let (dim, n_keys) = (head.head_dim, head.n_keys());
    out.fill(0.0);
    for ((queries, scores), out) in head
        .queries
        .chunks(HEADS * dim)
        .zip(scores.chunks_mut(HEADS * n_keys))
        .zip(out.chunks_mut(HEADS * dim))
    {
        match queries.len() / dim {
            1 => some_heads::<I, 1>(isa, head, queries, scores, out),
            2 => some_heads::<I, 2>(isa, head, queries, scores, out),
            3 => some_heads::<I, 3>(isa, head, queries, scores, out),
            _ => some_heads::<I, HEADS>(isa, head, queries, scores, out),
        }
    }
}

#[inline(always)]
fn some_heads<I: Isa, const H: usize>(
    isa: I,
    head: &AttentionHead<'_>,
    queries: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (dim, n_keys) = (head.head_dim, head.n_keys());
    let mut heads = [&queries[..dim]; H];
    for h in 1..H {
        heads[h] = &queries[h * dim..][..dim];
    }
    for (k, key) in head.keys.chunks_exact(dim).enumerate() {
        let dots = dots(isa, heads, key);
        for h in 0..H {
            scores[h * n_keys + k] = dots[h] * head.scale;
        }
    }
    let mut sums = [0.0; H];
    for (sum, scores) in sums.iter_mut().zip(scores.chunks_exact_mut(n_keys)) {
        *sum = float::exp_scores(scores);
    }
    for first in (0..n_keys).step_by(KEYS_ABREAST) {
        let keys = first..n_keys.min(first + KEYS_ABREAST);
        let mut weights = [&scores[keys.clone()]; H];
        for h in 1..H {
            weights[h] = &scores[h * n_keys..][keys.clone()];
        }
        let values = &head.values[keys.start * dim..keys.end * dim];
        add_weighted(isa, weights, values, dim, out);
    }
    for (out, sum) in out.chunks_exact_mut(dim).zip(sums) {
        for x in out {
            *x /= sum;
        }
    }
}

/// Dot products of some queries with one key.
#[inline(always)]
fn dots<I: Isa, const H: usize>(isa: I, queries: [&[f32]; H], key: &[f32]) -> [f32; H] {
    let (key_chunks, key_tail) = key.as_chunks::<LANES>();
    let n = key_chunks.len();
    let mut chunks = [&[][..]; H];
    for h in 0..H {
        chunks[h] = &queries[h].as_chunks::<LANES>().0[..n];
    }
    let mut sums = [isa.zero(); H];
    for (i, key) in key_chunks.iter().enumerate() {
        let key = isa.load(key);
        for h in 0..H {
            sums[h] = isa.mul_add(isa.load(&chunks[h][i]), key, sums[h]);
        }
    }
    if !key_tail.is_empty() {
        let key = isa.load(&float::padded(key_tail));
        for h in 0..H {
            let query = isa.load(&float::padded(&queries[h][n * LANES..]));
            sums[h] = isa.mul_add(query, key, sums[h]);
        }
    }
    let mut dots = [0.0; H];
    for h in 0..H {
        dots[h] = isa.fold(sums[h]);
    }
    dots
}

/// Adds the values, weighted, to `out`, `(H, dim)`: key after key.
#[inline(always)]
fn add_weighted<I: Isa, const H: usize>(
    isa: I,
    weights: [&[f32]; H],
    values: &[f32],
    dim: usize,
    out: &mut [f32],
) {
    let whole = dim / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let mut sums = [isa.zero(); H];
        for h in 0..H {
            sums[h] = isa.load(lanes_at(&out[h * dim + first..]));
        }
        for (k, value) in values.chunks_exact(dim).enumerate() {
            let value = isa.load(lanes_at(&value[first..]));
            for h in 0..H {
                sums[h] = isa.mul_add(isa.splat(weights[h][k]), value, sums[h]);
            }
        }
        for h in 0..H {
            let out = &mut out[h * dim + first..][..LANES];
            isa.store(sums[h], out.try_into().expect("16 values"));
        }
    }
    for h in 0..H {
        for d in whole..dim {
            let mut sum = out[h * dim + d];
            for (k, value) in values.chunks_exact(dim).enumerate() {
                sum = weights[h][k].mul_add(value[d], sum);
            }
            out[h * dim + d] = sum;
        }
    }
}

#[inline(always)]
fn lanes_at(values: &[f32]) -> &[f32; LANES] {
    values.first_chunk().expect("16 values")
}
