//! What can be wrong with a configuration, and the checks every one passes.

use std::fmt::Display;

use super::{ModelConfig, RopeScaling};

/// Largest width, count or length of a model, far above any real one: products of two fit 64 bits.
const LARGEST: usize = 1 << 31;

/// A configuration, JSON or GGUF keys, that describes no model this engine runs.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Text that is not JSON.
    #[error("it is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// A key that has to be there.
    #[error("key `{key}` is missing")]
    Missing {
        /// Key.
        key: String,
    },
    /// A key of another type.
    #[error("key `{key}` is {found}, not {expected}")]
    Type {
        /// Key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A value that makes no sense.
    #[error("key `{key}` is {value}: {reason}")]
    Value {
        /// Key.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that makes sense but not here.
    #[error("key `{key}` is `{value}`, which is not supported (supported: {supported})")]
    Unsupported {
        /// Key.
        key: String,
        /// Its value.
        value: String,
        /// What may stand there.
        supported: &'static str,
    },
}

/// The file's own names of a configuration's fields, for errors.
pub(crate) struct KeyNames {
    pub(crate) vocab_size: String,
    pub(crate) hidden_size: String,
    pub(crate) ffn_size: String,
    pub(crate) n_layers: String,
    pub(crate) n_heads: String,
    pub(crate) n_kv_heads: String,
    pub(crate) head_dim: String,
    pub(crate) context_length: String,
    pub(crate) embedding_scale: String,
    pub(crate) residual_scale: String,
    pub(crate) logit_scale: String,
    pub(crate) attention_scale: String,
    pub(crate) window: String,
    pub(crate) all_but_every: String,
    pub(crate) local_rope_theta: String,
    pub(crate) rms_norm_eps: String,
    pub(crate) rope_theta: String,
    pub(crate) rope_scaling: String,
}

impl ModelConfig {
    /// Checks what every forward pass relies on.
    pub(crate) fn check(&self, keys: &KeyNames) -> Result<(), ConfigError> {
        let sizes = [
            (&keys.vocab_size, self.vocab_size),
            (&keys.hidden_size, self.hidden_size),
            (&keys.ffn_size, self.ffn_size),
            (&keys.n_layers, self.n_layers),
            (&keys.n_heads, self.n_heads),
            (&keys.n_kv_heads, self.n_kv_heads),
            (&keys.head_dim, self.head_dim),
            (&keys.context_length, self.context_length),
        ];
        for (key, size) in sizes {
            if !(1..LARGEST).contains(&size) {
                return Err(bad(key, size, format!("must be 1 to {}", LARGEST - 1)));
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let reason = format!("must divide the {} query heads", self.n_heads);
            return Err(bad(&keys.n_kv_heads, self.n_kv_heads, reason));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(bad(&keys.head_dim, self.head_dim, "must be even"));
        }
        if self.n_heads * self.head_dim >= LARGEST {
            return Err(bad(&keys.head_dim, self.head_dim, "is too large"));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps >= 0.0) {
            let reason = "must be finite and not negative";
            return Err(bad(&keys.rms_norm_eps, self.rms_norm_eps, reason));
        }
        let local_theta = self.local.as_ref().map(|local| local.rope_theta);
        for (key, value) in [
            (&keys.rope_theta, Some(self.rope_theta)),
            (&keys.local_rope_theta, local_theta),
            (&keys.embedding_scale, Some(self.embedding_scale)),
            (&keys.residual_scale, Some(self.residual_scale)),
            (&keys.logit_scale, Some(self.logit_scale)),
            (&keys.attention_scale, self.attention_scale),
        ] {
            if let Some(value) = value.filter(|&value| !is_positive(value)) {
                return Err(bad(key, value, POSITIVE));
            }
        }
        if let Some(local) = &self.local {
            for (key, size) in [
                (&keys.window, local.window),
                (&keys.all_but_every, local.all_but_every),
            ] {
                if size == 0 {
                    return Err(bad(key, size, "must be at least 1"));
                }
            }
        }
        let (factors, high_above_low) = match self.rope_scaling {
            RopeScaling::None => (vec![], true),
            RopeScaling::Linear { factor } => (vec![factor], true),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context,
            } => (vec![factor, low, high, original_context as f32], high > low),
        };
        if let Some(factor) = factors.into_iter().find(|&factor| !is_positive(factor)) {
            return Err(bad(&keys.rope_scaling, factor, POSITIVE));
        }
        if !high_above_low {
            let reason = "high_freq_factor must be above low_freq_factor";
            return Err(bad(&keys.rope_scaling, "llama3", reason));
        }
        Ok(())
    }
}

const POSITIVE: &str = "must be finite and positive";

fn is_positive(x: f32) -> bool {
    x.is_finite() && x > 0.0
}

fn bad(key: &str, value: impl Display, reason: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        value: value.to_string(),
        reason: reason.into(),
    }
}
