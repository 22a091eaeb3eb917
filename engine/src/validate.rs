//! Checks that weights have the shapes their config promises, before anything reads them.

use thiserror::Error;

use crate::{
    config::{ModelConfig, RopeScaling},
    kernels::SCALE_BLOCK,
    weights::{
        Adapter, DenseMatrix, Layer, Linear, Matrix, TERNARY_GROUP, TernaryMatrix, TernaryScale,
        Weights,
    },
};

/// What does not fit together in a model.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ShapeError {
    /// A constant of the config is impossible.
    #[error("the model's config is impossible: {what}")]
    Config {
        /// The constant and why.
        what: String,
    },
    /// The number of layers differs.
    #[error("the config says {expected} layers, and there are {actual}")]
    Layers {
        /// Layers by the config.
        expected: usize,
        /// Layers of weights.
        actual: usize,
    },
    /// A matrix has other dimensions.
    #[error(
        "`{tensor}` is ({rows}, {cols}), and the config asks ({expected_rows}, {expected_cols})"
    )]
    Matrix {
        /// Name of the tensor.
        tensor: String,
        /// Outputs found.
        rows: usize,
        /// Inputs found.
        cols: usize,
        /// Outputs by the config.
        expected_rows: usize,
        /// Inputs by the config.
        expected_cols: usize,
    },
    /// A vector, or the scales of a matrix, have another length.
    #[error("`{tensor}` has {len} values, and the config asks {expected}")]
    Vector {
        /// Name of the tensor.
        tensor: String,
        /// Values found.
        len: usize,
        /// Values by the config.
        expected: usize,
    },
    /// A matrix has too few or too many bytes for its dimensions.
    #[error("`{tensor}` has {len} bytes, and its shape and type ask {expected}")]
    Bytes {
        /// Name of the tensor.
        tensor: String,
        /// Bytes found.
        len: usize,
        /// Bytes by shape and type.
        expected: usize,
    },
    /// Rows of a block type are not whole blocks.
    #[error("rows of `{tensor}` hold {cols} values, which are no whole blocks of {block}")]
    Blocks {
        /// Name of the tensor.
        tensor: String,
        /// Inputs found.
        cols: usize,
        /// Values of a block.
        block: usize,
    },
}

/// Checks a model's config and weights against each other.
pub fn validate(config: &ModelConfig, weights: &Weights) -> Result<(), ShapeError> {
    check_config(config)?;
    let Weights {
        embedding,
        layers,
        output_norm,
        head,
    } = weights;
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    check_dense("embedding", embedding, vocab, hidden)?;
    check_vector("output_norm", output_norm, hidden)?;
    if let Some(head) = head {
        check_dense("head", head, vocab, hidden)?;
    }
    if layers.len() != config.n_layers {
        return Err(ShapeError::Layers {
            expected: config.n_layers,
            actual: layers.len(),
        });
    }
    layers
        .iter()
        .enumerate()
        .try_for_each(|(index, layer)| check_layer(config, index, layer))
}

fn check_layer(config: &ModelConfig, index: usize, layer: &Layer) -> Result<(), ShapeError> {
    let Layer {
        attn_norm,
        q,
        k,
        v,
        q_norm,
        k_norm,
        attn_sub_norm,
        o,
        attn_post_norm,
        ffn_norm,
        gate,
        up,
        ffn_sub_norm,
        down,
        ffn_post_norm,
    } = layer;
    let hidden = config.hidden_size;
    let ffn = config.ffn_size;
    let q_width = config.n_heads * config.head_dim;
    let kv_width = config.n_kv_heads * config.head_dim;
    let name = |tensor: &str| format!("layers.{index}.{tensor}");

    let behind = attn_post_norm.is_some() || ffn_post_norm.is_some();
    #[expect(clippy::float_cmp, reason = "1 is told apart, not computed")]
    if behind && config.residual_scale != 1.0 {
        return Err(ShapeError::Config {
            what: format!(
                "residual_scale is {}, and norms stand behind the blocks",
                config.residual_scale
            ),
        });
    }
    for (tensor, linear, rows, cols) in [
        ("q", q, q_width, hidden),
        ("k", k, kv_width, hidden),
        ("v", v, kv_width, hidden),
        ("o", o, hidden, q_width),
        ("gate", gate, ffn, hidden),
        ("up", up, ffn, hidden),
        ("down", down, hidden, ffn),
    ] {
        check_linear(&name(tensor), linear, rows, cols)?;
    }
    for (tensor, gain, len) in [
        ("attn_norm", Some(attn_norm), hidden),
        ("q_norm", q_norm.as_ref(), config.head_dim),
        ("k_norm", k_norm.as_ref(), config.head_dim),
        ("attn_sub_norm", attn_sub_norm.as_ref(), q_width),
        ("attn_post_norm", attn_post_norm.as_ref(), hidden),
        ("ffn_norm", Some(ffn_norm), hidden),
        ("ffn_sub_norm", ffn_sub_norm.as_ref(), ffn),
        ("ffn_post_norm", ffn_post_norm.as_ref(), hidden),
    ] {
        if let Some(gain) = gain {
            check_vector(&name(tensor), gain, len)?;
        }
    }
    Ok(())
}

fn check_config(config: &ModelConfig) -> Result<(), ShapeError> {
    let impossible = |what: String| Err(ShapeError::Config { what });
    for (name, value) in [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("ffn_size", config.ffn_size),
        ("n_layers", config.n_layers),
        ("n_heads", config.n_heads),
        ("n_kv_heads", config.n_kv_heads),
        ("head_dim", config.head_dim),
        ("context_length", config.context_length),
    ] {
        // Products of two of them are taken below and in every buffer's size.
        if value == 0 || value > 1 << 28 {
            return impossible(format!("{name} is {value}"));
        }
    }
    if !config.n_heads.is_multiple_of(config.n_kv_heads) {
        return impossible(format!(
            "{} query heads cannot share {} key/value heads",
            config.n_heads, config.n_kv_heads
        ));
    }
    if !config.head_dim.is_multiple_of(2) {
        return impossible(format!("head_dim is {}, which is odd", config.head_dim));
    }
    // Past this an int32 sum of int8 products times codes could overflow.
    let q_width = config.n_heads * config.head_dim;
    for width in [config.hidden_size, config.ffn_size, q_width] {
        if width > 1 << 19 {
            return impossible(format!("a width of {width} exceeds exact int32 sums"));
        }
    }
    let positive = |value: f32| value.is_finite() && value > 0.0;
    if !(config.rms_norm_eps.is_finite() && config.rms_norm_eps >= 0.0) {
        return impossible(format!("rms_norm_eps is {}", config.rms_norm_eps));
    }
    if !positive(config.rope_theta) {
        return impossible(format!("rope_theta is {}", config.rope_theta));
    }
    for (name, scale) in [
        ("embedding_scale", config.embedding_scale),
        ("residual_scale", config.residual_scale),
        ("logit_scale", config.logit_scale),
    ] {
        if !positive(scale) {
            return impossible(format!("{name} is {scale}"));
        }
    }
    if let Some(scale) = config.attention_scale.filter(|&scale| !positive(scale)) {
        return impossible(format!("attention_scale is {scale}"));
    }
    if let Some(local) = &config.local
        && (local.window == 0 || local.all_but_every == 0 || !positive(local.rope_theta))
    {
        return impossible(format!("local attention is {local:?}"));
    }
    let scaling = match config.rope_scaling {
        RopeScaling::None => true,
        RopeScaling::Linear { factor } => positive(factor),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_context,
        } => {
            positive(factor)
                && positive(low_freq_factor)
                && high_freq_factor > low_freq_factor
                && original_context > 0
        }
    };
    if !scaling {
        return impossible(format!("rope_scaling is {:?}", config.rope_scaling));
    }
    if let Some(factors) = &config.rope_freq_factors {
        check_vector("rope_freq_factors", factors, config.head_dim / 2)?;
        if let Some(factor) = factors.iter().find(|factor| !positive(**factor)) {
            return impossible(format!("a rope_freq_factor is {factor}"));
        }
    }
    Ok(())
}

fn check_linear(tensor: &str, linear: &Linear, rows: usize, cols: usize) -> Result<(), ShapeError> {
    let Linear {
        matrix,
        bias,
        adapter,
    } = linear;
    match matrix {
        Matrix::Ternary(matrix) => check_ternary(tensor, matrix, rows, cols)?,
        // Its own constructor is the proof of all but the shape.
        Matrix::Lookup(matrix) => check_dims(tensor, (matrix.rows, matrix.cols), (rows, cols))?,
        Matrix::Dense(matrix) => check_dense(tensor, matrix, rows, cols)?,
    }
    if let Some(bias) = bias {
        check_vector(&format!("{tensor}.bias"), bias, rows)?;
    }
    if let Some(adapter) = adapter {
        check_adapter(tensor, adapter, rows, cols)?;
    }
    Ok(())
}

fn check_adapter(
    tensor: &str,
    adapter: &Adapter,
    rows: usize,
    cols: usize,
) -> Result<(), ShapeError> {
    let Adapter { a, b, scale } = adapter;
    if a.rows == 0 || !scale.is_finite() {
        return Err(ShapeError::Config {
            what: format!("`{tensor}` has an adapter of rank {} times {scale}", a.rows),
        });
    }
    check_dense(&format!("{tensor}.a"), a, a.rows, cols)?;
    check_dense(&format!("{tensor}.b"), b, rows, a.rows)
}

fn check_ternary(
    tensor: &str,
    matrix: &TernaryMatrix,
    rows: usize,
    cols: usize,
) -> Result<(), ShapeError> {
    check_dims(tensor, (matrix.rows, matrix.cols), (rows, cols))?;
    check_bytes(
        tensor,
        matrix.codes.len(),
        rows.next_multiple_of(TERNARY_GROUP),
        TernaryMatrix::row_bytes(cols),
    )?;
    match &matrix.scale {
        TernaryScale::Tensor(_) => Ok(()),
        TernaryScale::Blocks(scales) => check_vector(
            &format!("{tensor}.scale"),
            scales,
            rows * cols.div_ceil(SCALE_BLOCK),
        ),
    }
}

fn check_dense(
    tensor: &str,
    matrix: &DenseMatrix,
    rows: usize,
    cols: usize,
) -> Result<(), ShapeError> {
    check_dims(tensor, (matrix.rows, matrix.cols), (rows, cols))?;
    let (block, _) = matrix.dtype.block();
    if !cols.is_multiple_of(block) {
        return Err(ShapeError::Blocks {
            tensor: tensor.to_owned(),
            cols,
            block,
        });
    }
    check_bytes(
        tensor,
        matrix.data.len(),
        rows,
        matrix.dtype.row_bytes(cols),
    )
}

fn check_dims(
    tensor: &str,
    (rows, cols): (usize, usize),
    (expected_rows, expected_cols): (usize, usize),
) -> Result<(), ShapeError> {
    if (rows, cols) == (expected_rows, expected_cols) {
        return Ok(());
    }
    Err(ShapeError::Matrix {
        tensor: tensor.to_owned(),
        rows,
        cols,
        expected_rows,
        expected_cols,
    })
}

fn check_bytes(tensor: &str, len: usize, rows: usize, row_bytes: usize) -> Result<(), ShapeError> {
    let expected = rows.saturating_mul(row_bytes);
    if len == expected {
        return Ok(());
    }
    Err(ShapeError::Bytes {
        tensor: tensor.to_owned(),
        len,
        expected,
    })
}

fn check_vector(tensor: &str, values: &[f32], expected: usize) -> Result<(), ShapeError> {
    if values.len() == expected {
        return Ok(());
    }
    Err(ShapeError::Vector {
        tensor: tensor.to_owned(),
        len: values.len(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestRng, adapt, tiny_model};

    fn error(change: impl FnOnce(&mut ModelConfig, &mut Weights)) -> String {
        let (mut config, mut weights) = tiny_model(1);
        assert_eq!(validate(&config, &weights), Ok(()));
        change(&mut config, &mut weights);
        validate(&config, &weights).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_tensor() {
        assert_eq!(
            error(|_, weights| weights.layers[1].ffn_norm.push(0.0)),
            "`layers.1.ffn_norm` has 73 values, and the config asks 72"
        );
        assert_eq!(
            error(|config, _| config.ffn_size = 8),
            "`layers.0.gate` is (200, 72), and the config asks (8, 72)"
        );
        let short = error(|_, weights| weights.embedding.data = vec![0; 3].into());
        assert!(short.starts_with("`embedding` has 3 bytes"), "{short}");
        let adapter = error(|_, weights| {
            adapt(weights, &mut TestRng::new(3));
            let adapter = weights.layers[0].k.adapter.as_mut().unwrap();
            adapter.b.rows -= 1;
        });
        assert_eq!(
            adapter,
            "`layers.0.k.b` is (59, 2), and the config asks (60, 2)"
        );
        let scales = error(|_, weights| {
            if let Matrix::Ternary(matrix) = &mut weights.layers[0].down.matrix {
                matrix.scale = TernaryScale::Blocks(Vec::new());
            }
        });
        assert_eq!(
            scales,
            "`layers.0.down.scale` has 0 values, and the config asks 72"
        );
    }

    #[test]
    fn impossible_configs_are_refused() {
        for (change, expected) in [
            (
                (|config| config.n_kv_heads = 4) as fn(&mut ModelConfig),
                "6 query heads cannot share 4 key/value heads",
            ),
            (|config| config.head_dim = 0, "head_dim is 0"),
            (
                |config| config.head_dim = 11,
                "head_dim is 11, which is odd",
            ),
            (|config| config.rope_theta = f32::NAN, "rope_theta is NaN"),
            (|config| config.rms_norm_eps = -1.0, "rms_norm_eps is -1"),
            (|config| config.vocab_size = usize::MAX, "vocab_size is"),
            (|config| config.residual_scale = 0.0, "residual_scale is 0"),
            (|config| config.logit_scale = -1.0, "logit_scale is -1"),
        ] {
            let error = error(|config, _| change(config));
            assert!(error.contains(expected), "{error}");
        }
    }
}
