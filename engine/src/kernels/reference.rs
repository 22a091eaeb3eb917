//! The specification: every product in plain loops, for any CPU.

use std::borrow::Cow;

use half::f16;

use super::{
    Activations, AttentionHead, Columns, Kernel, QuantizedRow,
    activations::SCALE_BLOCK,
    dense::bf16_to_f32,
    float::{self, LANES},
    rescale,
};
use crate::{
    kv_cache::KvSlice,
    quant::{q4_0, q4_k, q5_0, q5_k, q6_k, q8_0},
    weights::{DenseMatrix, DenseType, TERNARY_BLOCK, TernaryMatrix, TernaryScale},
};

/// The kernel that runs everywhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference;

impl Kernel for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        let mut codes = vec![0; input.stride()];
        for row in out.range() {
            unpack(weights, row, &mut codes);
            for token in 0..out.tokens() {
                let scale = input.scale(token);
                let value = match &weights.scale {
                    TernaryScale::Tensor(weight_scale) => {
                        let dot = integer_dot(&codes, input.codes(token));
                        rescale(dot, input.sum(token), scale, *weight_scale)
                    }
                    TernaryScale::Blocks(scales) => {
                        let n_blocks = weights.cols.div_ceil(SCALE_BLOCK);
                        let dots = codes
                            .chunks(SCALE_BLOCK)
                            .zip(input.codes(token).chunks(SCALE_BLOCK))
                            .map(|(w, x)| integer_dot(w, x));
                        blocks(
                            dots,
                            input.block_sums(token),
                            &scales[row * n_blocks..][..n_blocks],
                            scale,
                        )
                    }
                };
                out.set(token, row, value);
            }
        }
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        let mut row = vec![0.0; weights.cols];
        for r in out.range() {
            widen(weights, r, &mut row);
            for token in 0..out.tokens() {
                let x = &input[token * weights.cols..][..weights.cols];
                out.set(token, r, dot(&row, x));
            }
        }
    }

    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
        let mut row = vec![0.0; weights.cols];
        for (&r, out) in rows.iter().zip(out) {
            widen(weights, r as usize, &mut row);
            *out = dot(&row, input);
        }
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        let dim = head.head_dim;
        let (keys, values) = (floats(head.keys), floats(head.values));
        for ((query, scores), out) in head
            .queries
            .chunks_exact(dim)
            .zip(scores.chunks_exact_mut(head.n_keys()))
            .zip(out.chunks_exact_mut(dim))
        {
            for (score, key) in scores.iter_mut().zip(keys.chunks_exact(dim)) {
                *score = dot(query, key) * head.scale;
            }
            let sum = float::exp_scores(scores);
            out.fill(0.0);
            for (&weight, value) in scores.iter().zip(values.chunks_exact(dim)) {
                for (out, &v) in out.iter_mut().zip(value) {
                    *out = weight.mul_add(v, *out);
                }
            }
            for out in out {
                *out /= sum;
            }
        }
    }

    fn quantize(&self, input: &[f32], out: QuantizedRow<'_>) {
        float::quantize(input, out);
    }

    fn rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        float::rms_norm(input, gain, eps, out);
    }

    fn relu_squared_mul(&self, gate: &mut [f32], up: &[f32]) {
        float::relu_squared_mul(gate, up);
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        float::silu_mul(gate, up);
    }
}

/// Unpacks a row of packed codes, one byte each.
fn unpack(weights: &TernaryMatrix, row: usize, codes: &mut [u8]) {
    for (block, codes) in weights.row(row).zip(codes.chunks_exact_mut(TERNARY_BLOCK)) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = block[i % 32] >> (6 - 2 * (i / 32)) & 3;
        }
    }
}

/// Widens keys or values to f32; exact.
fn floats(values: KvSlice<'_>) -> Cow<'_, [f32]> {
    match values {
        KvSlice::F32(values) => Cow::Borrowed(values),
        KvSlice::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
    }
}

fn integer_dot(codes: &[u8], x: &[i8]) -> i32 {
    let products = codes
        .iter()
        .zip(x)
        .map(|(&w, &x)| i32::from(w) * i32::from(x));
    products.sum()
}

/// Combines the exact products of the blocks: `y = fma(dot − sum, scale, y)` block after block,
/// then one division by the activations' scale.
pub(super) fn blocks(
    dots: impl Iterator<Item = i32>,
    sums: &[i32],
    scales: &[f32],
    act_scale: f32,
) -> f32 {
    let mut total = 0.0_f32;
    for ((dot, sum), &scale) in dots.zip(sums).zip(scales) {
        total = ((dot - sum) as f32).mul_add(scale, total);
    }
    total / act_scale
}

/// The float dot product: 16 lanes in turn, the tail padded with zeros, folded as a tree.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    for i in 0..a.len().next_multiple_of(LANES) {
        let (x, y) = if i < a.len() {
            (a[i], b[i])
        } else {
            (0.0, 0.0)
        };
        lanes[i % LANES] = x.mul_add(y, lanes[i % LANES]);
    }
    float::fold(lanes)
}

/// Widens one row to f32: exact for every type, but that `Q4_K` and `Q5_K` round a difference once.
pub(crate) fn widen(weights: &DenseMatrix, row: usize, out: &mut [f32]) {
    let row = weights.row(row);
    match weights.dtype {
        DenseType::F32 => {
            for (out, bytes) in out.iter_mut().zip(row.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        DenseType::F16 => {
            for (out, bytes) in out.iter_mut().zip(row.as_chunks().0) {
                *out = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        DenseType::Bf16 => {
            for (out, bytes) in out.iter_mut().zip(row.as_chunks().0) {
                *out = bf16_to_f32(*bytes);
            }
        }
        DenseType::Q8_0 => unpack_blocks(row, q8_0::BLOCK_BYTES, q8_0::unpack_block, out),
        DenseType::Q4_0 => unpack_blocks(row, q4_0::BLOCK_BYTES, q4_0::unpack_block, out),
        DenseType::Q5_0 => unpack_blocks(row, q5_0::BLOCK_BYTES, q5_0::unpack_block, out),
        DenseType::Q4K => unpack_blocks(row, q4_k::BLOCK_BYTES, q4_k::unpack_block, out),
        DenseType::Q5K => unpack_blocks(row, q5_k::BLOCK_BYTES, q5_k::unpack_block, out),
        DenseType::Q6K => unpack_blocks(row, q6_k::BLOCK_BYTES, q6_k::unpack_block, out),
    }
}

fn unpack_blocks<const N: usize>(
    row: &[u8],
    block_bytes: usize,
    unpack: fn(&[u8]) -> [f32; N],
    out: &mut [f32],
) {
    for (block, out) in row.chunks_exact(block_bytes).zip(out.chunks_exact_mut(N)) {
        out.copy_from_slice(&unpack(block));
    }
}
