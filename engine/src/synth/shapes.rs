//! The shapes: dummy models of the bitnet.cpp paper (arXiv 2410.16144, appendix A) and BitNet b1.58
//! 2B4T (arXiv 2504.12285).

/// Shape of a synthetic model; its embedding is its head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Name in plans: `700m`, `2b4t`.
    pub name: &'static str,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width between gate/up and down.
    pub ffn_size: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Positions.
    pub context_length: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
}

impl Shape {
    /// Returns the weights of the block linears.
    pub const fn n_linear_params(&self) -> u64 {
        let hidden = self.hidden_size as u64;
        let q_size = (self.n_heads * self.head_dim) as u64;
        let kv_size = (self.n_kv_heads * self.head_dim) as u64;
        let attention = 2 * hidden * q_size + 2 * hidden * kv_size;
        self.n_layers as u64 * (attention + 3 * hidden * self.ffn_size as u64)
    }
}

/// A dummy model of the paper. The appendix lists neither key/value heads nor the vocabulary: as
/// bitnet.cpp's `generate-dummy-bitnet-model.py`, every query head has its own key/value head and
/// the vocabulary has 32002 tokens. The context is long enough for measuring at depth.
const fn dummy(
    name: &'static str,
    hidden_size: usize,
    ffn_size: usize,
    n_layers: usize,
    n_heads: usize,
) -> Shape {
    assert!(hidden_size.is_multiple_of(n_heads));
    Shape {
        name,
        hidden_size,
        ffn_size,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: hidden_size / n_heads,
        vocab_size: 32_002,
        context_length: 8192,
        rope_theta: 10_000.0,
    }
}

/// All shapes, small to large. As printed, 1.5B has heads of 48 values and 3.8B of 120, where all
/// others have 64, 96 or 128; and 1.5B is narrower than 1B, with a wide feed-forward block.
static SHAPES: [Shape; 13] = [
    dummy("125m", 768, 3072, 11, 12),
    dummy("350m", 1024, 3072, 24, 16),
    dummy("700m", 1536, 4096, 24, 16),
    dummy("1b", 2048, 3584, 24, 32),
    dummy("1.5b", 1536, 9216, 28, 32),
    Shape {
        name: "2b4t",
        n_kv_heads: 5,
        vocab_size: 128_256,
        context_length: 4096,
        rope_theta: 500_000.0,
        ..dummy("2.5b", 2560, 6912, 30, 20)
    },
    dummy("2.5b", 2560, 6912, 30, 20),
    dummy("3.8b", 3840, 8192, 24, 32),
    dummy("7b", 4096, 12_032, 32, 32),
    dummy("13b", 5120, 13_824, 40, 40),
    dummy("30b", 6656, 16_384, 60, 52),
    dummy("70b", 8192, 24_576, 80, 64),
    dummy("100b", 8192, 45_568, 72, 64),
];

/// Returns all shapes, small to large.
pub fn shapes() -> &'static [Shape] {
    &SHAPES
}

/// Returns the shape of a name.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}
