//! The papers' arithmetic estimate of energy (arithmetic operations energy).
//!
//! Counts additions and multiplications of the matrix products of one whole sequence and prices
//! them: BitNet (arXiv 2310.11453, eq. 16–18 and table 2), used for the energy column of
//! BitNet b1.58 2B4T (arXiv 2504.12285, table 1). Arithmetic only: no memory traffic, no leakage,
//! no embedding, no output head. Never to be mixed with a measured figure.

use tritmark_engine::{
    config::ModelConfig,
    weights::{DenseType, Layer, Matrix, Weights},
};

/// Tokens of the sequence that the papers price.
pub const SEQUENCE: u32 = 512;
/// Names the estimate in records.
pub const SOURCE: &str = "aoe:7nm";

/// Energy of one operation at 7 nm, in joules (Zhang, Zhang and Lew 2022, as cited by 2310.11453).
struct Price {
    add: f64,
    mul: f64,
}

const FP32: Price = Price {
    add: 0.38e-12,
    mul: 1.31e-12,
};
const FP16: Price = Price {
    add: 0.16e-12,
    mul: 0.34e-12,
};
const INT8_ADD: f64 = 0.007e-12;

/// Sizes of a decoder that the estimate depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width between gate/up and down.
    pub ffn: u64,
    /// Decoder layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Key/value heads.
    pub kv_heads: u64,
    /// Values per head.
    pub head_dim: u64,
}

impl Shape {
    /// Returns the sizes of a model.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            hidden: config.hidden_size as u64,
            ffn: config.ffn_size as u64,
            layers: config.n_layers as u64,
            heads: config.n_heads as u64,
            kv_heads: config.n_kv_heads as u64,
            head_dim: config.head_dim as u64,
        }
    }

    /// Returns (inputs, outputs) of one layer's linears: q, k, v, o, gate, up, down.
    fn linears(self) -> [(u64, u64); 7] {
        let queries = self.heads * self.head_dim;
        let keys = self.kv_heads * self.head_dim;
        [
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.ffn),
            (self.hidden, self.ffn),
            (self.ffn, self.hidden),
        ]
    }

    /// Returns the weights of the block linears.
    pub fn linear_weights(self) -> u64 {
        self.layers * self.linears().iter().map(|(n, p)| n * p).sum::<u64>()
    }
}

/// How the block linears compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Ternary weights, int8 activations: additions, and FP16 rescaling.
    Ternary,
    /// FP16 additions and multiplications; bf16 counts as FP16.
    Fp16,
    /// FP32 additions and multiplications.
    Fp32,
}

impl Arithmetic {
    /// Returns how a model's block linears compute, or why the papers have no price for it.
    pub fn of(weights: &Weights) -> Result<Self, String> {
        let linears = weights.layers.iter().flat_map(Layer::linears);
        let mut found = None;
        for linear in linears {
            let arithmetic = match &linear.matrix {
                Matrix::Ternary(_) | Matrix::Lookup(_) => Self::Ternary,
                Matrix::Dense(dense) => match dense.dtype {
                    DenseType::F32 => Self::Fp32,
                    DenseType::F16 | DenseType::Bf16 => Self::Fp16,
                    DenseType::Q8_0
                    | DenseType::Q4_0
                    | DenseType::Q5_0
                    | DenseType::Q4K
                    | DenseType::Q5K
                    | DenseType::Q6K => {
                        return Err(format!(
                            "the papers price no block-quantised weights ({})",
                            dense.dtype.name()
                        ));
                    }
                },
            };
            if found.is_some_and(|found| found != arithmetic) {
                return Err("the model's linears are of more than one kind".to_owned());
            }
            found = Some(arithmetic);
        }
        found.ok_or_else(|| "the model has no layers".to_owned())
    }
}

/// The estimate for one sequence, in joules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The block linears, rescaling apart.
    pub linear_j: f64,
    /// Rescaling of ternary linears' inputs and outputs.
    pub scaling_j: f64,
    /// `QKᵀ` and `PV` over the full square, FP16.
    pub attention_j: f64,
}

impl Estimate {
    /// Returns the whole.
    pub fn total_j(&self) -> f64 {
        self.linear_j + self.scaling_j + self.attention_j
    }
}

/// Returns the estimate for a sequence of `n_tokens`.
///
/// A product of (m × n) and (n × p) has m·p·(n − 1) additions and m·n·p multiplications; a ternary
/// one has the additions in int8 and m·(n + p) multiplications in FP16.
pub fn estimate(shape: Shape, arithmetic: Arithmetic, n_tokens: u32) -> Estimate {
    let m = f64::from(n_tokens);
    let layers = shape.layers as f64;
    let mut linear_j = 0.0;
    let mut scaling_j = 0.0;
    for (n, p) in shape.linears() {
        let (n, p) = (n as f64, p as f64);
        let additions = m * (n - 1.0) * p;
        match arithmetic {
            Arithmetic::Ternary => {
                scaling_j += layers * m * (n + p) * FP16.mul;
                linear_j += layers * additions * INT8_ADD;
            }
            Arithmetic::Fp16 => linear_j += layers * (additions * FP16.add + m * n * p * FP16.mul),
            Arithmetic::Fp32 => linear_j += layers * (additions * FP32.add + m * n * p * FP32.mul),
        }
    }
    let products = 2.0 * m * m * (shape.heads * shape.head_dim) as f64 * layers;
    Estimate {
        linear_j,
        scaling_j,
        attention_j: products * (FP16.add + FP16.mul),
    }
}

#[cfg(test)]
mod tests {
    use tritmark_engine::testing::tiny_models;

    use super::*;

    fn shape([hidden, ffn, layers, heads, kv_heads, head_dim]: [u64; 6]) -> Shape {
        Shape {
            hidden,
            ffn,
            layers,
            heads,
            kv_heads,
            head_dim,
        }
    }

    #[test]
    fn the_six_published_values_come_out_to_the_printed_digit() {
        use Arithmetic::{Fp16, Ternary};
        // arXiv 2504.12285, table 1, row "Energy"; linear weights and parts recomputed from it.
        let check = |sizes,
                     arithmetic,
                     weights: f64,
                     linear: f64,
                     attention: f64,
                     total: f64,
                     printed: &str| {
            let shape = shape(sizes);
            let found = estimate(shape, arithmetic, SEQUENCE);
            assert_eq!(format!("{:.3}", found.total_j()), printed);
            // The table counts n additions for n - 1, and adds its rounded parts.
            assert!((found.linear_j - linear).abs() <= 1e-4, "{found:?}");
            assert!(
                (found.attention_j - attention).abs() <= 0.5001e-4,
                "{found:?}"
            );
            assert!((found.total_j() - total).abs() <= 1e-4, "{found:?}");
            let relative = shape.linear_weights() as f64 / weights - 1.0;
            assert!(relative.abs() < 5e-4, "{}", shape.linear_weights());
        };
        check(
            [2048, 8192, 16, 32, 8, 64],
            Fp16,
            0.9731e9,
            0.2491,
            0.0086,
            0.2577,
            "0.258",
        );
        check(
            [1152, 6912, 26, 4, 1, 256],
            Fp16,
            0.6978e9,
            0.1786,
            0.0070,
            0.1856,
            "0.186",
        );
        check(
            [1536, 8960, 28, 12, 2, 128],
            Fp16,
            1.310e9,
            0.3354,
            0.0113,
            0.3467,
            "0.347",
        );
        check(
            [2048, 8192, 24, 32, 32, 64],
            Fp16,
            1.611e9,
            0.4123,
            0.0129,
            0.4252,
            "0.425",
        );
        check(
            [2304, 5760, 40, 36, 36, 64],
            Fp16,
            2.442e9,
            0.6251,
            0.0242,
            0.6493,
            "0.649",
        );
        check(
            [2560, 6912, 30, 20, 5, 128],
            Ternary,
            2.084e9,
            0.0075,
            0.0201,
            0.0278,
            "0.028",
        );
        let scaling = estimate(shape([2560, 6912, 30, 20, 5, 128]), Ternary, SEQUENCE).scaling_j;
        assert_eq!(format!("{scaling:.4}"), "0.0002");
    }

    #[test]
    fn the_ratio_of_one_addition_is_the_papers() {
        let ratio = (FP16.add + FP16.mul) / INT8_ADD;
        assert_eq!(format!("{ratio:.1}"), "71.4");
    }

    #[test]
    fn every_model_is_priced_by_its_own_arithmetic() {
        for (name, config, weights) in tiny_models(7) {
            let found = Arithmetic::of(&weights);
            if weights
                .layers
                .iter()
                .all(|l| matches!(l.q.matrix, Matrix::Ternary(_)))
            {
                assert_eq!(found, Ok(Arithmetic::Ternary), "{name}");
            } else {
                assert_ne!(found, Ok(Arithmetic::Ternary), "{name}");
            }
            let shape = Shape::of(&config);
            let short = estimate(shape, Arithmetic::Fp16, 1);
            let long = estimate(shape, Arithmetic::Fp32, 1);
            assert!(short.linear_j < long.linear_j, "{name}");
        }
    }
}
