//! What a model file says of its architecture, in one form for GGUF and Hugging Face folders.

mod check;

use serde::Serialize;

pub use check::ConfigError;
pub(crate) use check::KeyNames;

/// Families of decoder the forward pass knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// BitNet b1.58 (GGUF `bitnet`, `bitnet-25`, `bitnet-b1.58`; HF `bitnet`).
    Bitnet,
    /// Llama (GGUF and HF `llama`), dense or with ternary linears.
    Llama,
    /// Qwen2 (GGUF and HF `qwen2`): biases on q, k and v.
    Qwen2,
}

/// The gate's activation in the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(0, x)²` (BitNet b1.58 2B4T, arXiv 2504.12285).
    ReluSquared,
    /// `x · sigmoid(x)`.
    Silu,
}

/// Which two values of a head a rotary angle turns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RopePairs {
    /// `(i, i + head_dim / 2)`: Hugging Face and ggml's NEOX.
    Halves,
    /// `(2i, 2i + 1)`: ggml's NORM, for GGUF files whose q and k rows were permuted.
    Neighbours,
}

/// A change of the rotary frequencies for long contexts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeScaling {
    /// Plain frequencies.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// Llama 3.1's rule (HF `rope_type: llama3`).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths above `original_context / low_freq_factor` are divided.
        low_freq_factor: f32,
        /// Wavelengths below `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context length the model was first trained with.
        original_context: u32,
    },
}

/// Shape and constants of a decoder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Family of the graph.
    pub architecture: Architecture,
    /// Rows of the embedding; may exceed the tokenizer's size.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between gate/up and down.
    pub ffn_size: usize,
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Values per head; even.
    pub head_dim: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Pairing of rotary values.
    pub rope_pairs: RopePairs,
    /// Frequencies' scaling.
    pub rope_scaling: RopeScaling,
    /// Per-frequency divisors given by the file itself (GGUF `rope_freqs.weight`), `(head_dim / 2)`.
    pub rope_freq_factors: Option<Vec<f32>>,
    /// Gate's activation.
    pub activation: Activation,
}
