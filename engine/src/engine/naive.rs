//! The forward pass once more, in f64 and plain loops, written apart from the engine's code.

use crate::{
    config::{Activation, ModelConfig, RopePairs, RopeScaling},
    engine::{Engine, EngineOptions, Logits},
    quant,
    testing::{TestRng, adapt, tiny_models},
    weights::{Adapter, DenseMatrix, DenseType, Linear, Matrix, TernaryScale, Weights},
};

type Vector = Vec<f64>;

fn dense_row(matrix: &DenseMatrix, row: usize) -> Vector {
    let bytes = matrix.data.len() / matrix.rows;
    let row = &matrix.data[row * bytes..][..bytes];
    let f16 = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
    let unpacked = |block_bytes, unpack: fn(&[u8]) -> Vec<f32>| {
        let blocks = row.chunks(block_bytes).flat_map(unpack);
        blocks.map(f64::from).collect()
    };
    match matrix.dtype {
        DenseType::F32 => row
            .chunks(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        DenseType::F16 => row.chunks(2).map(f16).collect(),
        DenseType::Bf16 => row
            .chunks(2)
            .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f64())
            .collect(),
        DenseType::Q8_0 => row
            .chunks(34)
            .flat_map(|block| {
                let scale = f16(block);
                block[2..]
                    .iter()
                    .map(move |&q| scale * f64::from(q.cast_signed()))
            })
            .collect(),
        DenseType::Q4_0 => row
            .chunks(18)
            .flat_map(|block| {
                let scale = f16(block);
                let low = block[2..].iter().map(|q| q & 15);
                let high = block[2..].iter().map(|q| q >> 4);
                low.chain(high)
                    .map(move |q| scale * (f64::from(q) - 8.0))
                    .collect::<Vec<_>>()
            })
            .collect(),
        // Their blocks have known answers of their own.
        DenseType::Q5_0 => unpacked(22, |block| quant::q5_0::unpack_block(block).to_vec()),
        DenseType::Q4K => unpacked(144, |block| quant::q4_k::unpack_block(block).to_vec()),
        DenseType::Q5K => unpacked(176, |block| quant::q5_k::unpack_block(block).to_vec()),
        DenseType::Q6K => unpacked(210, |block| quant::q6_k::unpack_block(block).to_vec()),
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn linear(layer: &Linear, x: &[f64]) -> Vector {
    let mut y: Vector = match &layer.matrix {
        Matrix::Dense(matrix) => (0..matrix.rows)
            .map(|row| dot(&dense_row(matrix, row), x))
            .collect(),
        Matrix::Lookup(_) => unreachable!("the weights are as they were made"),
        Matrix::Ternary(matrix) => {
            let absmax = x.iter().fold(1e-5, |m: f64, x| m.max(x.abs()));
            let q: Vector = x
                .iter()
                .map(|x| (x * 127.0 / absmax).round_ties_even() * absmax / 127.0)
                .collect();
            (0..matrix.rows)
                .map(|row| {
                    let codes: Vec<u8> = matrix.row(row).flatten().copied().collect();
                    let terms = q.iter().enumerate().map(|(i, q)| {
                        let byte = codes[i / 128 * 32 + i % 32];
                        let trit = f64::from(byte >> (6 - i % 128 / 32 * 2) & 3) - 1.0;
                        let scale = match &matrix.scale {
                            TernaryScale::Tensor(scale) => *scale,
                            TernaryScale::Blocks(scales) => {
                                scales[row * matrix.cols.div_ceil(256) + i / 256]
                            }
                        };
                        trit * q * f64::from(scale)
                    });
                    terms.sum()
                })
                .collect()
        }
    };
    for (y, bias) in y.iter_mut().zip(layer.bias.iter().flatten()) {
        *y += f64::from(*bias);
    }
    if let Some(Adapter { a, b, scale }) = &layer.adapter {
        let inner: Vector = (0..a.rows).map(|row| dot(&dense_row(a, row), x)).collect();
        for (row, y) in y.iter_mut().enumerate() {
            *y += f64::from(*scale) * dot(&dense_row(b, row), &inner);
        }
    }
    y
}

fn rms_norm(x: &[f64], gain: &[f32], eps: f32) -> Vector {
    let mean = dot(x, x) / x.len() as f64;
    let inverse = 1.0 / (mean + f64::from(eps)).sqrt();
    x.iter()
        .zip(gain)
        .map(|(x, gain)| x * inverse * f64::from(*gain))
        .collect()
}

fn rope(config: &ModelConfig, layer: usize, position: usize, head: &mut [f64]) {
    let half = head.len() / 2;
    let local = config.local_attention(layer);
    for i in 0..half {
        let theta = f64::from(local.map_or(config.rope_theta, |local| local.rope_theta));
        let mut frequency = theta.powf(-((2 * i) as f64) / head.len() as f64);
        if let RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } = config.rope_scaling
        {
            let [factor, low, high] = [factor, low_freq_factor, high_freq_factor].map(f64::from);
            let turns = f64::from(original_context) * frequency / std::f64::consts::TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            frequency *= kept + (1.0 - kept) / factor;
        }
        if let (RopeScaling::Linear { factor }, None) = (config.rope_scaling, local) {
            frequency /= f64::from(factor);
        }
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = match config.rope_pairs {
            RopePairs::Halves => (i, i + half),
            RopePairs::Neighbours => (2 * i, 2 * i + 1),
        };
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// Returns the logits of the last token.
fn forward(config: &ModelConfig, weights: &Weights, tokens: &[u32]) -> Vector {
    let dim = config.head_dim;
    let eps = config.rms_norm_eps;
    let mut stream: Vec<Vector> = tokens
        .iter()
        .map(|&token| {
            let row = dense_row(&weights.embedding, token as usize);
            let scale = f64::from(config.embedding_scale);
            row.into_iter().map(|x| scale * x).collect()
        })
        .collect();
    let after = |y: Vector, gain: &Option<Vec<f32>>| match gain {
        Some(gain) => rms_norm(&y, gain, eps),
        None => y,
    };
    let score_scale = match config.attention_scale {
        Some(scale) => f64::from(scale),
        None => 1.0 / (dim as f64).sqrt(),
    };
    for (index, layer) in weights.layers.iter().enumerate() {
        let local = config.local_attention(index);
        let normed: Vec<Vector> = stream
            .iter()
            .map(|x| rms_norm(x, &layer.attn_norm, eps))
            .collect();
        let rotated = |linear_layer: &Linear, gain: &Option<Vec<f32>>| -> Vec<Vector> {
            let rows = normed.iter().enumerate().map(|(position, x)| {
                let y = linear(linear_layer, x);
                let heads = y.chunks(dim).flat_map(|head| {
                    let mut head = after(head.to_vec(), gain);
                    rope(config, index, position, &mut head);
                    head
                });
                heads.collect()
            });
            rows.collect()
        };
        let queries = rotated(&layer.q, &layer.q_norm);
        let keys = rotated(&layer.k, &layer.k_norm);
        let values: Vec<Vector> = normed.iter().map(|x| linear(&layer.v, x)).collect();
        for (t, x) in stream.iter_mut().enumerate() {
            let mut attended = vec![0.0; config.n_heads * dim];
            for head in 0..config.n_heads {
                let kv = head / (config.n_heads / config.n_kv_heads);
                let query = &queries[t][head * dim..][..dim];
                let seen = local.map_or(0, |local| (t + 1).saturating_sub(local.window))..=t;
                let scores: Vector = seen
                    .clone()
                    .map(|s| (dot(query, &keys[s][kv * dim..][..dim]) * score_scale).exp())
                    .collect();
                let total: f64 = scores.iter().sum();
                for (s, score) in seen.zip(scores) {
                    for d in 0..dim {
                        attended[head * dim + d] += score / total * values[s][kv * dim + d];
                    }
                }
            }
            if let Some(gain) = &layer.attn_sub_norm {
                attended = rms_norm(&attended, gain, eps);
            }
            let block = after(linear(&layer.o, &attended), &layer.attn_post_norm);
            for (x, delta) in x.iter_mut().zip(block) {
                *x += f64::from(config.residual_scale) * delta;
            }
            let normed = rms_norm(x, &layer.ffn_norm, eps);
            let up = linear(&layer.up, &normed);
            let mut inner: Vector = linear(&layer.gate, &normed)
                .into_iter()
                .zip(up)
                .map(|(gate, up)| match config.activation {
                    Activation::ReluSquared => gate.max(0.0).powi(2) * up,
                    Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
                    Activation::Gelu => {
                        let inner = gate + 0.044_715 * gate.powi(3);
                        0.5 * gate
                            * (1.0 + (inner / std::f64::consts::FRAC_PI_2.sqrt()).tanh())
                            * up
                    }
                })
                .collect();
            if let Some(gain) = &layer.ffn_sub_norm {
                inner = rms_norm(&inner, gain, eps);
            }
            let block = after(linear(&layer.down, &inner), &layer.ffn_post_norm);
            for (x, delta) in x.iter_mut().zip(block) {
                *x += f64::from(config.residual_scale) * delta;
            }
        }
    }
    let last = stream.last().expect("a token");
    let normed = rms_norm(last, &weights.output_norm, eps);
    let head = weights.head.as_ref().unwrap_or(&weights.embedding);
    (0..head.rows)
        .map(|row| dot(&dense_row(head, row), &normed) / f64::from(config.logit_scale))
        .collect()
}

#[test]
fn logits_match_an_independent_forward_pass_in_f64() {
    let adapted = tiny_models(23)
        .into_iter()
        .map(|(name, config, mut weights)| {
            adapt(&mut weights, &mut TestRng::new(24));
            (name, config, weights)
        });
    for (name, config, weights) in tiny_models(21).into_iter().chain(adapted) {
        let tokens = TestRng::new(22).tokens(12, config.vocab_size);
        let expected = forward(&config, &weights, &tokens);
        let ternary = matches!(weights.layers[0].q.matrix, Matrix::Ternary(_));
        let mut engine = Engine::new(config, weights, &EngineOptions::default()).unwrap();
        let mut cache = engine.new_cache(tokens.len());
        let mut logits = Vec::new();
        engine
            .forward(&mut cache, &tokens, Logits::Last, &mut logits)
            .unwrap();
        let spread = expected.iter().map(|x| x.abs()).fold(0.0, f64::max);
        let worst = expected
            .iter()
            .zip(&logits)
            .map(|(expected, actual)| (expected - f64::from(*actual)).abs())
            .fold(0.0, f64::max);
        assert!(spread > 1.0, "{name}: logits of some size, not {spread}");
        // An activation near a half may round the other way in f64, which moves logits by some 1e-3.
        let limit = if ternary { 2e-2 } else { 1e-5 };
        assert!(worst < limit * spread, "{name}: {worst:e} of {spread}");
    }
}
