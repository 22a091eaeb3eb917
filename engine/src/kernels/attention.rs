//! Softmax attention of one token over one key/value head, on any [`Isa`].

use half::f16;

use super::{float, float::LANES, isa::Isa};
use crate::kv_cache::KvSlice;

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
trait Element: Copy {
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
    if dim.is_multiple_of(LANES) {
        for h in 0..H {
            let scores = &mut scores[h * n_keys..][..n_keys];
            scores_of(isa, heads[h], keys, head.scale, scores);
        }
    } else {
        for (k, key) in keys.chunks_exact(dim).enumerate() {
            let dots = dots(isa, heads, key);
            for h in 0..H {
                scores[h * n_keys + k] = dots[h] * head.scale;
            }
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
        let values = &values[keys.start * dim..keys.end * dim];
        add_weighted(isa, weights, values, dim, out);
    }
    for (out, sum) in out.chunks_exact_mut(dim).zip(sums) {
        for x in out {
            *x /= sum;
        }
    }
}

/// Dot products of one query of whole lanes with all keys, four of them abreast, scaled.
#[inline(always)]
fn scores_of<I: Isa, E: Element>(
    isa: I,
    query: &[f32],
    keys: &[E],
    scale: f32,
    scores: &mut [f32],
) {
    const KEYS: usize = 4;
    let dim = query.len();
    let (query, _) = query.as_chunks::<LANES>();
    let (fours, rest) = scores.as_chunks_mut::<KEYS>();
    let mut of_fours = keys.chunks_exact(KEYS * dim);
    for (scores, keys) in fours.iter_mut().zip(&mut of_fours) {
        let mut chunks = [&[][..]; KEYS];
        for (chunks, key) in chunks.iter_mut().zip(keys.chunks_exact(dim)) {
            *chunks = &key.as_chunks::<LANES>().0[..query.len()];
        }
        let mut sums = [isa.zero(); KEYS];
        for (i, query) in query.iter().enumerate() {
            let query = isa.load(query);
            for k in 0..KEYS {
                sums[k] = isa.mul_add(query, E::load(isa, &chunks[k][i]), sums[k]);
            }
        }
        *scores = isa.fold_four(sums);
        for score in scores {
            *score *= scale;
        }
    }
    for (score, key) in rest.iter_mut().zip(of_fours.remainder().chunks_exact(dim)) {
        let mut sum = isa.zero();
        for (query, key) in query.iter().zip(key.as_chunks::<LANES>().0) {
            sum = isa.mul_add(isa.load(query), E::load(isa, key), sum);
        }
        *score = isa.fold(sum) * scale;
    }
}

/// Dot products of some queries with one key.
#[inline(always)]
fn dots<I: Isa, E: Element, const H: usize>(isa: I, queries: [&[f32]; H], key: &[E]) -> [f32; H] {
    let (key_chunks, key_tail) = key.as_chunks::<LANES>();
    let n = key_chunks.len();
    let mut chunks = [&[][..]; H];
    for h in 0..H {
        chunks[h] = &queries[h].as_chunks::<LANES>().0[..n];
    }
    let mut sums = [isa.zero(); H];
    for (i, key) in key_chunks.iter().enumerate() {
        let key = E::load(isa, key);
        for h in 0..H {
            sums[h] = isa.mul_add(isa.load(&chunks[h][i]), key, sums[h]);
        }
    }
    if !key_tail.is_empty() {
        let mut padded = [0.0; LANES];
        for (value, key) in padded.iter_mut().zip(key_tail) {
            *value = key.widen(isa);
        }
        let key = isa.load(&padded);
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
fn add_weighted<I: Isa, E: Element, const H: usize>(
    isa: I,
    weights: [&[f32]; H],
    values: &[E],
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
