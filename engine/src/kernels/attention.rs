//! Softmax attention of one token over one key/value head, on any [`Isa`].

use bytemuck::Pod;
use half::f16;

use super::{float, float::LANES, isa::Isa};
use crate::kv_cache::KvSlice;

#[cfg(test)]
mod bench;

/// The query heads of one token that share a key/value head, and the keys they see.
#[derive(Clone, Copy, Debug)]
pub struct AttentionHead<'a> {
    /// Values per head.
    pub head_dim: usize,
    /// `(group, head_dim)`, already rotated.
    pub queries: &'a [f32],
    /// `(n_keys, head_dim)`, in order of position; at least one.
    pub keys: KvSlice<'a>,
    /// `(n_keys, head_dim)`, of the keys' type.
    pub values: KvSlice<'a>,
    /// Factor of the scores, `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl AttentionHead<'_> {
    /// Returns the number of positions attended to.
    pub fn n_keys(&self) -> usize {
        self.keys.len() / self.head_dim
    }
}

/// A type of keys and values: how 16 of them become lanes. Widening is exact.
trait Element: Pod {
    fn load<I: Isa>(isa: I, values: &[Self; LANES]) -> I::Lanes;
    fn widen<I: Isa>(self, isa: I) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, values: &[Self; LANES]) -> I::Lanes {
        isa.load(values)
    }

    #[inline(always)]
    fn widen<I: Isa>(self, _: I) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, values: &[Self; LANES]) -> I::Lanes {
        isa.load_f16(bytemuck::cast_ref(values))
    }

    #[inline(always)]
    fn widen<I: Isa>(self, isa: I) -> f32 {
        isa.half(self)
    }
}

/// Values are read in stretches of keys that stay in L1.
const KEYS_ABREAST: usize = 32;
/// How far ahead keys are asked for, bytes.
const AHEAD: usize = 2048;

/// Computes `softmax(q K^T * scale) V` for each query head of the group.
#[inline(always)]
pub(super) fn attend<I: Isa>(
    isa: I,
    head: &AttentionHead<'_>,
    scores: &mut [f32],
    out: &mut [f32],
) {
    match (head.keys, head.values) {
        (KvSlice::F32(keys), KvSlice::F32(values)) => {
            attend_to(isa, head, keys, values, scores, out);
        }
        (KvSlice::F16(keys), KvSlice::F16(values)) => {
            attend_to(isa, head, keys, values, scores, out);
        }
        _ => unreachable!("keys and values of a cache have one type"),
    }
}

#[inline(always)]
fn attend_to<I: Isa, E: Element>(
    isa: I,
    head: &AttentionHead<'_>,
    keys: &[E],
    values: &[E],
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
            1 => some_heads::<I, E, 1>(isa, head, keys, values, queries, scores, out),
            2 => some_heads::<I, E, 2>(isa, head, keys, values, queries, scores, out),
            3 => some_heads::<I, E, 3>(isa, head, keys, values, queries, scores, out),
            _ => some_heads::<I, E, HEADS>(isa, head, keys, values, queries, scores, out),
        }
    }
}

#[inline(always)]
fn some_heads<I: Isa, E: Element, const H: usize>(
    isa: I,
    head: &AttentionHead<'_>,
    keys: &[E],
    values: &[E],
    queries: &[f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let (dim, n_keys) = (head.head_dim, head.n_keys());
    let mut heads = [&queries[..dim]; H];
    for h in 1..H {
        heads[h] = &queries[h * dim..][..dim];
    }
    // Sums enough that one addition need not wait for the one before.
    match H {
        1 => scores_of::<I, E, H, 4>(isa, heads, keys, head.scale, scores),
        2 => scores_of::<I, E, H, 2>(isa, heads, keys, head.scale, scores),
        _ => scores_of::<I, E, H, 1>(isa, heads, keys, head.scale, scores),
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
        add_weighted(isa, weights, &values[keys.start * dim..], dim, out);
    }
    for (out, sum) in out.chunks_exact_mut(dim).zip(sums) {
        for x in out {
            *x /= sum;
        }
    }
}

/// Scores of some queries with all keys, `K` of them abreast; each key is read once.
#[inline(always)]
fn scores_of<I: Isa, E: Element, const H: usize, const K: usize>(
    isa: I,
    queries: [&[f32]; H],
    keys: &[E],
    scale: f32,
    scores: &mut [f32],
) {
    let dim = queries[0].len();
    let n_keys = keys.len() / dim;
    let whole = n_keys / K * K;
    for first in (0..whole).step_by(K) {
        let dots = dots::<I, E, H, K>(isa, queries, &keys[first * dim..]);
        for (h, dots) in dots.into_iter().enumerate() {
            for (score, dot) in scores[h * n_keys + first..].iter_mut().zip(dots) {
                *score = dot * scale;
            }
        }
    }
    for k in whole..n_keys {
        let dots = dots::<I, E, H, 1>(isa, queries, &keys[k * dim..]);
        for (h, [dot]) in dots.into_iter().enumerate() {
            scores[h * n_keys + k] = dot * scale;
        }
    }
}

/// Dot products of some queries with the first `K` of some keys; asks for later ones.
#[inline(always)]
fn dots<I: Isa, E: Element, const H: usize, const K: usize>(
    isa: I,
    queries: [&[f32]; H],
    keys: &[E],
) -> [[f32; K]; H] {
    let dim = queries[0].len();
    let bytes = bytemuck::cast_slice(keys);
    let mut of_queries = [&[][..]; H];
    for h in 0..H {
        of_queries[h] = &queries[h].as_chunks::<LANES>().0[..dim / LANES];
    }
    let mut of_keys = [&[][..]; K];
    for k in 0..K {
        of_keys[k] = &keys[k * dim..][..dim].as_chunks::<LANES>().0[..dim / LANES];
    }
    let mut sums = [[isa.zero(); K]; H];
    for i in 0..dim / LANES {
        let mut lanes = [isa.zero(); K];
        for k in 0..K {
            isa.prefetch(bytes, (k * dim + i * LANES) * size_of::<E>() + AHEAD);
            lanes[k] = E::load(isa, &of_keys[k][i]);
        }
        for h in 0..H {
            let query = isa.load(&of_queries[h][i]);
            for k in 0..K {
                sums[h][k] = isa.mul_add(query, lanes[k], sums[h][k]);
            }
        }
    }
    let rest = dim % LANES;
    if rest > 0 {
        for k in 0..K {
            let mut padded = [0.0; LANES];
            for (value, key) in padded.iter_mut().zip(&keys[(k + 1) * dim - rest..][..rest]) {
                *value = key.widen(isa);
            }
            let key = isa.load(&padded);
            for h in 0..H {
                let query = isa.load(&float::padded(&queries[h][dim - rest..]));
                sums[h][k] = isa.mul_add(query, key, sums[h][k]);
            }
        }
    }
    fold_all(isa, sums)
}

/// Folds all sums, four abreast where they are fours.
#[inline(always)]
fn fold_all<I: Isa, const H: usize, const K: usize>(
    isa: I,
    sums: [[I::Lanes; K]; H],
) -> [[f32; K]; H] {
    let mut dots = [[0.0; K]; H];
    if let (Some(sums), Some(dots)) = (
        sums.as_flattened().as_array::<4>(),
        dots.as_flattened_mut().as_mut_array::<4>(),
    ) {
        *dots = isa.fold_four(*sums);
    } else {
        for h in 0..H {
            for k in 0..K {
                dots[h][k] = isa.fold(sums[h][k]);
            }
        }
    }
    dots
}

/// Adds the values of as many keys as there are weights to `out`, `(H, dim)`: key after key. Asks for
/// as many behind them.
#[inline(always)]
fn add_weighted<I: Isa, E: Element, const H: usize>(
    isa: I,
    weights: [&[f32]; H],
    values: &[E],
    dim: usize,
    out: &mut [f32],
) {
    let n_keys = weights[0].len();
    let (values, bytes) = (&values[..n_keys * dim], bytemuck::cast_slice(values));
    let mut next = size_of_val(values);
    let whole = dim / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        let mut sums = [isa.zero(); H];
        for h in 0..H {
            sums[h] = isa.load(lanes_at(&out[h * dim + first..]));
        }
        for (k, value) in values.chunks_exact(dim).enumerate() {
            isa.prefetch(bytes, next);
            next += LANES * size_of::<E>();
            let value = E::load(isa, lanes_at(&value[first..]));
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
                sum = weights[h][k].mul_add(value[d].widen(isa), sum);
            }
            out[h * dim + d] = sum;
        }
    }
}

#[inline(always)]
fn lanes_at<E>(values: &[E]) -> &[E; LANES] {
    values.first_chunk().expect("16 values")
}
