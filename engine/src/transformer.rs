//! The forward pass: tokens in, residual stream out, logits where asked.
//!
//! A decoder of the Llama kind (arXiv 2302.13971) with what its families add: BitNet's sub-norms
//! and `ReLU²` (arXiv 2504.12285), grouped queries, Qwen2's biases, Gemma 3's norms behind the
//! blocks and of each head, and its layers that see only the last positions (arXiv 2503.19786),
//! MiniCPM's scales of the embedding, the residual branches and the logits (arXiv 2404.06395).

use std::ops::Range;

use crate::{
    config::{Activation, ModelConfig},
    kernels::{self, Kernel},
    kv_cache::KvCache,
    ops::{
        Compute,
        attention::{Attended, Attention, Place, store},
        linear::{self, Forms, Input, linears},
        norm::{Norm, Normed},
        rope::Ropes,
    },
    weights::{Layer, Weights},
};

/// Most tokens that go through the layers at once.
pub(crate) const MICRO_BATCH: usize = 512;

/// Tokens of one sequence, which go behind those in its cache.
#[derive(Debug)]
pub(crate) struct Sequence<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) tokens: &'a [u32],
}

/// What lies between the steps of a pass; kept from one pass to the next.
#[derive(Debug, Default)]
pub(crate) struct State {
    // (n)
    places: Vec<Place>,
    // (n, hidden_size), the residual stream; at the end that of the wanted tokens
    x: Vec<f32>,
    normed: Normed,
    // (n, n_heads * head_dim)
    q: Vec<f32>,
    // (n, n_kv_heads * head_dim)
    k: Vec<f32>,
    // (n, n_kv_heads * head_dim)
    v: Vec<f32>,
    attended: Attended,
    // (n, ffn_size)
    gate: Vec<f32>,
    // (n, ffn_size)
    up: Vec<f32>,
    // (n, hidden_size), what a block yields
    delta: Vec<f32>,
}

impl State {
    /// Makes room for the tokens that have places.
    fn resize(&mut self, config: &ModelConfig) {
        let n = self.places.len();
        let kv_width = config.n_kv_heads * config.head_dim;
        self.x.resize(n * config.hidden_size, 0.0);
        self.q.resize(n * config.n_heads * config.head_dim, 0.0);
        self.k.resize(n * kv_width, 0.0);
        self.v.resize(n * kv_width, 0.0);
        self.gate.resize(n * config.ffn_size, 0.0);
        self.up.resize(n * config.ffn_size, 0.0);
        self.delta.resize(n * config.hidden_size, 0.0);
    }
}

/// Sends up to [`MICRO_BATCH`] tokens, of one sequence or of several, through all layers.
///
/// All of them meet a layer's weights at once; attention sees each sequence alone. Their keys and
/// values join the caches; the residual stream of the tokens `wanted`, ascending ones of the pass,
/// stays in `state` for [`output`] and [`logits`], which count them from 0. Of the other tokens the
/// last layer makes keys and values only.
pub(crate) fn forward(
    config: &ModelConfig,
    weights: &Weights,
    compute: &mut Compute,
    ropes: &mut Ropes,
    batch: &mut [Sequence<'_>],
    wanted: &[usize],
    state: &mut State,
) {
    let hidden = config.hidden_size;
    let q_width = config.n_heads * config.head_dim;
    place(batch, ropes, &mut state.places);
    state.resize(config);
    let State {
        places,
        x,
        normed,
        q,
        k,
        v,
        attended,
        gate,
        up,
        delta,
    } = state;

    embed(config, weights, batch, x);
    delta.fill(0.0);
    // The norm between a block's result and the stream, if there is one.
    let mut post: Option<&[f32]> = None;

    for (index, layer) in weights.layers.iter().enumerate() {
        let Layer {
            attn_norm,
            q: w_q,
            k: w_k,
            v: w_v,
            q_norm: _, // attention reads
            k_norm: _, // these two
            attn_sub_norm,
            o: w_o,
            attn_post_norm,
            ffn_norm,
            gate: w_gate,
            up: w_up,
            ffn_sub_norm,
            down: w_down,
            ffn_post_norm,
        } = layer;
        let numerics = compute.numerics;
        let norm = |gain, forms| Norm {
            gain,
            eps: config.rms_norm_eps,
            divisor: None,
            forms,
        };

        // q, k, v = W rmsnorm(x), where x has the last block's result added
        let pre = norm(Some(&attn_norm[..]), Forms::of(numerics, [w_q, w_k, w_v]));
        normed.take(compute, x, hidden, pre, |token, kernel, x| {
            add(config, kernel, x, &delta[token * hidden..], post);
        });
        linears(compute, [w_q, w_k, w_v], normed.input(), [q, k, v]);

        // attention over each cache, the new keys and values included
        let attention = Attention::new(config, ropes, index, layer);
        store(compute, &attention, batch, k, v);
        if index + 1 == weights.layers.len() && wanted.len() < places.len() {
            if wanted.is_empty() {
                break;
            }
            keep(wanted, 1, places);
            keep(wanted, q_width, q);
            keep(wanted, hidden, x);
            gate.truncate(wanted.len() * config.ffn_size);
            up.truncate(wanted.len() * config.ffn_size);
            delta.truncate(wanted.len() * hidden);
        }
        attended.attend(compute, &attention, batch, places, q);

        // delta = W_o subnorm(attended); q's place takes the gathered heads
        let sub = norm(attn_sub_norm.as_deref(), Forms::of(numerics, [w_o]));
        normed.take(compute, q, q_width, sub, |token, _, row| {
            attended.gather(token, config, row);
        });
        linears(compute, [w_o], normed.input(), [delta]);
        post = attn_post_norm.as_deref();

        // gate, up = W rmsnorm(x + delta)
        let pre = norm(Some(&ffn_norm[..]), Forms::of(numerics, [w_gate, w_up]));
        normed.take(compute, x, hidden, pre, |token, kernel, x| {
            add(config, kernel, x, &delta[token * hidden..], post);
        });
        linears(compute, [w_gate, w_up], normed.input(), [gate, up]);

        // delta = W_down subnorm(activation(gate) * up)
        let sub = norm(ffn_sub_norm.as_deref(), Forms::of(numerics, [w_down]));
        normed.take(
            compute,
            gate,
            config.ffn_size,
            sub,
            |token, kernel, gate| {
                activate(
                    config.activation,
                    kernel,
                    gate,
                    &up[token * config.ffn_size..],
                );
            },
        );
        linears(compute, [w_down], normed.input(), [delta]);
        post = ffn_post_norm.as_deref();
    }

    let kernel = &*compute.kernel;
    for (x, delta) in x.chunks_exact_mut(hidden).zip(delta.chunks_exact(hidden)) {
        add(config, kernel, x, delta, post);
    }
    for Sequence { cache, tokens } in batch {
        cache.advance(tokens.len());
    }
}

/// Writes down where the tokens of a batch stand, and makes sure of their rotations.
fn place(batch: &[Sequence<'_>], ropes: &mut Ropes, places: &mut Vec<Place>) {
    places.clear();
    for (index, sequence) in batch.iter().enumerate() {
        let first = sequence.cache.len();
        let end = first + sequence.tokens.len();
        ropes.extend(end);
        places.extend((first..end).map(|position| Place {
            sequence: index,
            position,
        }));
    }
}

/// Computes `x = scale * embedding[token]`.
fn embed(config: &ModelConfig, weights: &Weights, batch: &[Sequence<'_>], x: &mut [f32]) {
    let tokens = batch.iter().flat_map(|sequence| sequence.tokens);
    for (x, &token) in x.chunks_exact_mut(config.hidden_size).zip(tokens) {
        kernels::widen(&weights.embedding, token as usize, x);
        for x in x {
            *x *= config.embedding_scale;
        }
    }
}

/// Keeps only some rows of a `(n, width)` matrix, ascending ones.
fn keep<T: Copy>(rows: &[usize], width: usize, matrix: &mut Vec<T>) {
    for (kept, &row) in rows.iter().enumerate() {
        debug_assert!(row >= kept, "rows ascend");
        if row != kept {
            matrix.copy_within(row * width..(row + 1) * width, kept * width);
        }
    }
    matrix.truncate(rows.len() * width);
}

/// Returns what the head reads of some of the wanted tokens.
pub(crate) fn output<'a>(
    config: &ModelConfig,
    weights: &Weights,
    compute: &mut Compute,
    state: &'a mut State,
    rows: Range<usize>,
) -> Input<'a> {
    let norm = Norm {
        gain: Some(&weights.output_norm),
        eps: config.rms_norm_eps,
        // Before the head rather than behind it, so that a screen's bounds are of what it reads.
        divisor: Some(config.logit_scale),
        forms: Forms::of_head(compute.numerics, weights.head()),
    };
    let width = config.hidden_size;
    let rows = &mut state.x[rows.start * width..rows.end * width];
    state
        .normed
        .take(compute, rows, config.hidden_size, norm, |_, _, _| {});
    state.normed.input()
}

/// Computes the logits, `(n, vocab_size)`, of some of the wanted tokens.
pub(crate) fn logits(
    config: &ModelConfig,
    weights: &Weights,
    compute: &mut Compute,
    state: &mut State,
    rows: Range<usize>,
    out: &mut [f32],
) {
    let x = output(config, weights, compute, state, rows);
    linear::head(compute, weights.head(), x, out);
}

/// Adds a block's result to the stream of one token, normed where there is a norm for it, scaled
/// elsewhere.
fn add(
    config: &ModelConfig,
    kernel: &dyn Kernel,
    x: &mut [f32],
    delta: &[f32],
    post: Option<&[f32]>,
) {
    let delta = &delta[..x.len()];
    if let Some(gain) = post {
        kernel.add_rms_norm(delta, gain, config.rms_norm_eps, x);
        return;
    }
    // A factor of 1 changes no bit.
    let scale = config.residual_scale;
    for (x, delta) in x.iter_mut().zip(delta) {
        *x += scale * delta;
    }
}

fn activate(activation: Activation, kernel: &dyn Kernel, gate: &mut [f32], up: &[f32]) {
    let up = &up[..gate.len()];
    match activation {
        Activation::ReluSquared => kernel.relu_squared_mul(gate, up),
        Activation::Silu => kernel.silu_mul(gate, up),
        Activation::Gelu => kernel.gelu_mul(gate, up),
    }
}

#[cfg(test)]
mod trace;
