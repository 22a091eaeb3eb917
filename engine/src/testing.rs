//! Small random models for the tests of this crate and of those above it.
//!
//! Their sizes are odd on purpose: no dimension is a multiple of a kernel's tile.

use half::{bf16, f16};

use crate::{
    config::{Activation, Architecture, LocalAttention, ModelConfig, RopePairs, RopeScaling},
    kernels::SCALE_BLOCK,
    weights::{
        Adapter, DenseMatrix, DenseType, Layer, Linear, Matrix, TERNARY_BLOCK, TernaryMatrix,
        TernaryScale, Weights,
    },
};

/// `SplitMix64`: random numbers for tests, the same on every machine.
#[derive(Clone, Debug)]
pub struct TestRng(u64);

impl TestRng {
    /// Starts the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`, nearly uniform.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }

    /// Returns a float in −1..1.
    pub fn signed_unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// Returns `n` floats in −1..1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.signed_unit()).collect()
    }

    /// Returns `n` token ids below `vocab_size`.
    pub fn tokens(&mut self, n: usize, vocab_size: usize) -> Vec<u32> {
        (0..n).map(|_| self.below(vocab_size) as u32).collect()
    }
}

/// Returns the config of [`tiny_model`].
pub fn tiny_config() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Bitnet,
        vocab_size: 101,
        hidden_size: 72,
        ffn_size: 200,
        n_layers: 2,
        n_heads: 6,
        n_kv_heads: 3,
        head_dim: 20,
        context_length: 256,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_scale: None,
        local: None,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_pairs: RopePairs::Halves,
        rope_scaling: RopeScaling::None,
        rope_freq_factors: None,
        activation: Activation::ReluSquared,
    }
}

/// Returns a random BitNet of [`tiny_config`]: sub-norms, `ReLU²`, a tied F16 head.
pub fn tiny_model(seed: u64) -> (ModelConfig, Weights) {
    let config = tiny_config();
    let mut rng = TestRng::new(seed);
    let weights = random_weights(&config, &mut rng, Kind::Ternary, DenseType::F16);
    (config, weights)
}

/// Returns random models of every kind of weights and every family, named.
pub fn tiny_models(seed: u64) -> Vec<(&'static str, ModelConfig, Weights)> {
    let mut rng = TestRng::new(seed);
    let bitnet = tiny_config();
    let llama = tiny_llama();
    let wide_bitnet = ModelConfig {
        ffn_size: 600,
        ..tiny_config()
    };
    // Widths of whole blocks of 32, and rows longer than one block of scales.
    let blocks = ModelConfig {
        hidden_size: 96,
        ffn_size: 288,
        head_dim: 16,
        ..tiny_llama()
    };
    // Widths of whole blocks of 256.
    let k_blocks = ModelConfig {
        hidden_size: 256,
        ffn_size: 512,
        n_heads: 8,
        n_kv_heads: 2,
        head_dim: 32,
        ..tiny_llama()
    };
    let dense = |name, config, dtype| (name, config, Kind::Dense(dtype), dtype);
    [
        ("bitnet", bitnet, Kind::Ternary, DenseType::F16),
        (
            "bitnet-blocks",
            wide_bitnet,
            Kind::TernaryBlocks,
            DenseType::Bf16,
        ),
        (
            "llama-ternary",
            llama.clone(),
            Kind::Ternary,
            DenseType::F32,
        ),
        dense("llama-f32", llama.clone(), DenseType::F32),
        dense("llama-f16", llama, DenseType::F16),
        dense("qwen2-bf16", tiny_qwen2(), DenseType::Bf16),
        dense("gemma3-bf16", tiny_gemma3(), DenseType::Bf16),
        dense("llama-q8_0", blocks.clone(), DenseType::Q8_0),
        dense("llama-q4_0", blocks.clone(), DenseType::Q4_0),
        dense("llama-q5_0", blocks, DenseType::Q5_0),
        (
            "llama-q4_k",
            k_blocks.clone(),
            Kind::Dense(DenseType::Q4K),
            DenseType::Q6K,
        ),
        (
            "llama-q5_k",
            k_blocks,
            Kind::Dense(DenseType::Q5K),
            DenseType::Q4K,
        ),
        dense("minicpm-bf16", tiny_minicpm(), DenseType::Bf16),
    ]
    .into_iter()
    .map(|(name, config, kind, dtype)| {
        let weights = random_weights(&config, &mut rng, kind, dtype);
        (name, config, weights)
    })
    .collect()
}

fn tiny_llama() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Llama,
        activation: Activation::Silu,
        rope_pairs: RopePairs::Neighbours,
        rope_scaling: RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 64,
        },
        ..tiny_config()
    }
}

fn tiny_qwen2() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Qwen2,
        activation: Activation::Silu,
        n_heads: 5,
        n_kv_heads: 1,
        rope_theta: 1e6,
        ..tiny_config()
    }
}

fn tiny_gemma3() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gemma3,
        activation: Activation::Gelu,
        n_layers: 3,
        embedding_scale: 72_f32.sqrt(),
        attention_scale: Some(0.15),
        local: Some(LocalAttention {
            window: 7,
            rope_theta: 500.0,
            all_but_every: 2,
        }),
        rope_scaling: RopeScaling::Linear { factor: 4.0 },
        ..tiny_config()
    }
}

fn tiny_minicpm() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Minicpm,
        activation: Activation::Silu,
        embedding_scale: 12.0,
        residual_scale: 1.4 / 2_f32.sqrt(),
        logit_scale: 1.5,
        ..tiny_config()
    }
}

/// How the linear layers of a random model are stored.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Ternary,
    TernaryBlocks,
    Dense(DenseType),
}

fn random_weights(
    config: &ModelConfig,
    rng: &mut TestRng,
    kind: Kind,
    dtype: DenseType,
) -> Weights {
    let hidden = config.hidden_size;
    let ffn = config.ffn_size;
    let q_width = config.n_heads * config.head_dim;
    let kv_width = config.n_kv_heads * config.head_dim;
    let bitnet = config.architecture == Architecture::Bitnet;
    let qwen2 = config.architecture == Architecture::Qwen2;
    let gemma3 = config.architecture == Architecture::Gemma3;
    let layers = (0..config.n_layers)
        .map(|_| Layer {
            attn_norm: random_gain(rng, hidden),
            q: random_linear(rng, q_width, hidden, kind, qwen2),
            k: random_linear(rng, kv_width, hidden, kind, qwen2),
            v: random_linear(rng, kv_width, hidden, kind, qwen2),
            q_norm: gemma3.then(|| random_gain(rng, config.head_dim)),
            k_norm: gemma3.then(|| random_gain(rng, config.head_dim)),
            attn_sub_norm: bitnet.then(|| random_gain(rng, q_width)),
            o: random_linear(rng, hidden, q_width, kind, false),
            attn_post_norm: gemma3.then(|| random_gain(rng, hidden)),
            ffn_norm: random_gain(rng, hidden),
            gate: random_linear(rng, ffn, hidden, kind, false),
            up: random_linear(rng, ffn, hidden, kind, false),
            ffn_sub_norm: bitnet.then(|| random_gain(rng, ffn)),
            down: random_linear(rng, hidden, ffn, kind, false),
            ffn_post_norm: gemma3.then(|| random_gain(rng, hidden)),
        })
        .collect();
    Weights {
        embedding: random_dense(rng, config.vocab_size, hidden, dtype),
        layers,
        output_norm: random_gain(rng, hidden),
        head: qwen2.then(|| random_dense(rng, config.vocab_size, hidden, dtype)),
    }
}

fn random_gain(rng: &mut TestRng, n: usize) -> Vec<f32> {
    rng.floats(n).into_iter().map(|x| 1.0 + 0.3 * x).collect()
}

fn random_linear(rng: &mut TestRng, rows: usize, cols: usize, kind: Kind, bias: bool) -> Linear {
    let matrix = match kind {
        Kind::Ternary => Matrix::Ternary(random_ternary(rng, rows, cols, false)),
        Kind::TernaryBlocks => Matrix::Ternary(random_ternary(rng, rows, cols, true)),
        Kind::Dense(dtype) => Matrix::Dense(random_dense(rng, rows, cols, dtype)),
    };
    Linear {
        matrix,
        bias: bias.then(|| rng.floats(rows)),
        adapter: None,
    }
}

/// Puts random adapters beside all linear layers, of another rank and type each.
pub fn adapt(weights: &mut Weights, rng: &mut TestRng) {
    let types = [DenseType::F32, DenseType::F16, DenseType::Bf16];
    let linears = weights.layers.iter_mut().flat_map(Layer::linears_mut);
    for (nth, linear) in linears.enumerate() {
        let (rank, dtype) = (1 + nth % 7, types[nth % types.len()]);
        linear.adapter = Some(Adapter {
            a: random_dense(rng, rank, linear.matrix.cols(), dtype),
            b: random_dense(rng, linear.matrix.rows(), rank, dtype),
            scale: 0.5 + 0.25 * rng.signed_unit(),
        });
    }
}

/// Packs a `(rows, cols)` matrix of trits.
///
/// # Panics
/// If there are not `rows * cols` trits, or `cols` is 0.
pub fn pack_ternary(trits: &[i8], rows: usize, cols: usize, scale: TernaryScale) -> TernaryMatrix {
    assert_eq!(trits.len(), rows * cols, "a trit for each weight");
    let row_bytes = TernaryMatrix::row_bytes(cols);
    let mut codes = vec![0_u8; rows * row_bytes];
    for (row, trits) in codes
        .chunks_exact_mut(row_bytes)
        .zip(trits.chunks_exact(cols))
    {
        for i in 0..cols.next_multiple_of(TERNARY_BLOCK) {
            let code = (trits.get(i).copied().unwrap_or(0) + 1).cast_unsigned();
            row[i / TERNARY_BLOCK * 32 + i % 32] |= code << (6 - 2 * (i % TERNARY_BLOCK / 32));
        }
    }
    TernaryMatrix::from_i2_s_rows(rows, cols, &codes, scale)
}

/// Returns random trits, with one scale or one for each block of 256.
pub fn random_ternary(rng: &mut TestRng, rows: usize, cols: usize, blocks: bool) -> TernaryMatrix {
    let trits: Vec<i8> = (0..rows * cols).map(|_| rng.below(3) as i8 - 1).collect();
    let unit = 1.5 / (cols as f32).sqrt();
    let mut scale = || unit * (1.0 + 0.4 * rng.signed_unit());
    let scale = if blocks {
        let n = rows * cols.div_ceil(SCALE_BLOCK);
        TernaryScale::Blocks((0..n).map(|_| scale()).collect())
    } else {
        TernaryScale::Tensor(scale())
    };
    pack_ternary(&trits, rows, cols, scale)
}

/// Rounds to f16 in integer steps: the emulator in which AVX-512 is tested rounds some values
/// otherwise.
fn half(value: f32) -> f16 {
    f16::from_f32_const(value)
}

/// Returns a random matrix of any dense type, its values of order `1 / sqrt(cols)`.
///
/// # Panics
/// If a block type is asked for and `cols` is not a multiple of 32.
pub fn random_dense(rng: &mut TestRng, rows: usize, cols: usize, dtype: DenseType) -> DenseMatrix {
    let unit = 1.7 / (cols as f32).sqrt();
    let mut data = Vec::with_capacity(rows * dtype.row_bytes(cols));
    let n = rows * cols;
    match dtype {
        DenseType::F32 => {
            (0..n).for_each(|_| data.extend((rng.signed_unit() * unit).to_le_bytes()));
        }
        DenseType::F16 => {
            let mut value = || half(rng.signed_unit() * unit);
            (0..n).for_each(|_| data.extend(value().to_le_bytes()));
        }
        DenseType::Bf16 => {
            let mut value = || bf16::from_f32(rng.signed_unit() * unit);
            (0..n).for_each(|_| data.extend(value().to_le_bytes()));
        }
        _ => {
            let (weights, bytes) = dtype.block();
            assert!(cols.is_multiple_of(weights), "rows are whole blocks");
            for _ in 0..n / weights {
                let start = data.len();
                data.extend((0..bytes).map(|_| rng.next_u64() as u8));
                let mut put = |at: usize, largest: f32| {
                    let scale = unit / largest * (1.0 + 0.5 * rng.signed_unit());
                    data[start + at..][..2].copy_from_slice(&half(scale).to_le_bytes());
                };
                // The scale's place, and what a code, its own scale included, is at most.
                match dtype {
                    DenseType::Q8_0 => put(0, 127.0),
                    DenseType::Q4_0 => put(0, 8.0),
                    DenseType::Q5_0 => put(0, 16.0),
                    // Codes of one sign: the mins take half of it away, on average.
                    DenseType::Q4K => {
                        put(0, 63.0 * 8.0);
                        put(2, 63.0);
                    }
                    DenseType::Q5K => {
                        put(0, 63.0 * 16.0);
                        put(2, 63.0);
                    }
                    _ => put(208, 127.0 * 32.0),
                }
            }
        }
    }
    DenseMatrix {
        rows,
        cols,
        dtype,
        data: data.into(),
    }
}
