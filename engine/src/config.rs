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
    /// Gemma 3, text (GGUF `gemma3`, HF `gemma3_text`): norms behind the blocks and of each query
    /// and key, layers that see only the last positions.
    Gemma3,
    /// MiniCPM (GGUF `minicpm`, HF `minicpm`; arXiv 2404.06395): Llama with its embedding, its
    /// residual branches and its logits scaled.
    Minicpm,
}

/// The gate's activation in the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(0, x)²` (BitNet b1.58 2B4T, arXiv 2504.12285).
    ReluSquared,
    /// `x · sigmoid(x)`.
    Silu,
    /// `x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`: GELU in its tanh form (arXiv 1606.08415).
    Gelu,
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

impl RopePairs {
    /// Returns which row of q or k, in Hugging Face's order, stands in a row of a GGUF file whose
    /// heads have their halves interleaved.
    pub(crate) const fn interleaved_row(row: usize, head_dim: usize) -> usize {
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + within % 2 * (head_dim / 2) + within / 2
    }
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

/// Layers that see only the last positions (Gemma 3, arXiv 2503.19786).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocalAttention {
    /// Positions such a layer sees, the token's own included.
    pub window: usize,
    /// Base of such a layer's rotary frequencies, which are not scaled.
    pub rope_theta: f32,
    /// Every layer of this number, counted from one, sees all positions.
    pub all_but_every: usize,
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
    /// Factor of the embedding's rows: 1, or √`hidden_size`.
    pub embedding_scale: f32,
    /// Factor of what a block adds to the residual stream; 1 where a norm stands behind the block.
    pub residual_scale: f32,
    /// What the head's input is divided by: 1, or how much wider than its base a MiniCPM is.
    pub logit_scale: f32,
    /// Factor of the attention scores where it is not `1 / √head_dim`.
    pub attention_scale: Option<f32>,
    /// Layers that see only the last positions, if there are any.
    pub local: Option<LocalAttention>,
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

impl ModelConfig {
    /// Returns how a layer sees only the last positions, if it does.
    pub fn local_attention(&self, layer: usize) -> Option<&LocalAttention> {
        let local = self.local.as_ref()?;
        let sees_all = (layer + 1).is_multiple_of(local.all_but_every);
        (!sees_all).then_some(local)
    }
}
