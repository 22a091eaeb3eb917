//! The JSON files of a Hugging Face folder: `config.json`, `generation_config.json` and
//! `model.safetensors.index.json`.
//!
//! Missing keys get the defaults of transformers' configuration classes, where there is one that
//! can be meant; a missing size is an error.

mod adapter;
mod json;

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use crate::config::{
    Activation, Architecture, ConfigError, KeyNames, LocalAttention, ModelConfig, RopePairs,
    RopeScaling,
};
use json::Object;

pub use adapter::{AdapterConfig, parse_adapter_config};

/// What `config.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct HfConfig {
    /// The class that transformers would load: `LlamaForCausalLM`.
    pub class: String,
    /// Shape and constants.
    pub model: ModelConfig,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// How linears are ternary, if they are.
    pub ternary: Option<TernaryConfig>,
    /// Special tokens.
    pub tokens: SpecialIds,
    /// What a reader of results must know.
    pub warnings: Vec<String>,
}

/// What is said of ternary linears.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TernaryConfig {
    /// Whether `weight_scale` is 1 / mean|W| (`linear_class: bitlinear`) rather than mean|W|
    /// (`autobitlinear`).
    pub scale_is_inverse: bool,
    /// Linears that stay as they are: full names or parts of names.
    pub not_converted: Vec<String>,
    /// Whether the sub-norms have 1bitLLM's names, `inner_attn_ln` and `ffn_layernorm`.
    pub one_bit_llm_names: bool,
}

impl TernaryConfig {
    /// Returns whether the linear of this full name, without `.weight`, is ternary.
    pub fn converts(&self, linear: &str) -> bool {
        let listed = |module: &String| {
            linear == module || linear.split('.').any(|part| part == module.as_str())
        };
        !self.not_converted.iter().any(listed)
    }
}

/// Special tokens of `config.json` or `generation_config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`: none, one or several.
    pub eos: Vec<u32>,
    /// `pad_token_id`.
    pub padding: Option<u32>,
}

/// A kind of model, and the defaults of its configuration class.
struct Kind {
    architecture: Architecture,
    activation: &'static str,
    rms_norm_eps: f32,
    rope_theta: f32,
    context_length: usize,
    /// Whether a missing `num_key_value_heads` means as many as query heads; elsewhere the class's
    /// default is a number that fits one model.
    kv_heads_default: bool,
    /// Where a missing one is not `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    tied: bool,
}

const SUPPORTED_CLASSES: &str =
    "BitNetForCausalLM, LlamaForCausalLM, Qwen2ForCausalLM, Gemma3ForCausalLM, MiniCPMForCausalLM";

fn kind(class: &str) -> Option<Kind> {
    let llama = Kind {
        architecture: Architecture::Llama,
        activation: "silu",
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        context_length: 2048,
        kv_heads_default: true,
        head_dim: None,
        tied: false,
    };
    match class {
        "LlamaForCausalLM" => Some(llama),
        "BitNetForCausalLM" => Some(Kind {
            architecture: Architecture::Bitnet,
            activation: "relu2",
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            kv_heads_default: false,
            ..llama
        }),
        // 1bitLLM's reproductions, with their own code beside them.
        "BitnetForCausalLM" => Some(Kind {
            architecture: Architecture::Bitnet,
            ..llama
        }),
        "Qwen2ForCausalLM" => Some(Kind {
            architecture: Architecture::Qwen2,
            context_length: 32_768,
            kv_heads_default: false,
            ..llama
        }),
        "Gemma3ForCausalLM" => Some(Kind {
            architecture: Architecture::Gemma3,
            activation: "gelu_pytorch_tanh",
            rope_theta: 1_000_000.0,
            context_length: 131_072,
            kv_heads_default: false,
            head_dim: Some(256),
            tied: true,
            ..llama
        }),
        // With its own code beside it.
        "MiniCPMForCausalLM" => Some(Kind {
            architecture: Architecture::Minicpm,
            tied: true,
            ..llama
        }),
        _ => None,
    }
}

/// Reads `config.json`.
pub fn parse_config(bytes: &[u8]) -> Result<HfConfig, ConfigError> {
    let root = json::parse(bytes)?;
    let config = Object::root(&root)?;
    let class = class(&config)?;
    let kind = kind(&class).ok_or_else(|| ConfigError::Unsupported {
        key: "architectures".into(),
        value: class.clone(),
        supported: SUPPORTED_CLASSES,
    })?;
    let mut warnings = Vec::new();
    let ternary = ternary(&config, &class)?;
    if class == "BitNetForCausalLM" && ternary.is_none() {
        warnings.push(
            "config.json has no `quantization_config`: the linears are used in full precision, as \
             transformers does"
                .to_owned(),
        );
    }
    let model = model(&config, &kind)?;
    Ok(HfConfig {
        tie_word_embeddings: config.bool("tie_word_embeddings")?.unwrap_or(kind.tied),
        tokens: special_ids(&config)?,
        class,
        model,
        ternary,
        warnings,
    })
}

/// Reads the special tokens of `generation_config.json`.
pub fn parse_generation_config(bytes: &[u8]) -> Result<SpecialIds, ConfigError> {
    special_ids(&Object::root(&json::parse(bytes)?)?)
}

/// Reads `model.safetensors.index.json`: the file of each tensor. Files are plain names within the
/// folder.
pub fn parse_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, ConfigError> {
    let root = json::parse(bytes)?;
    let map = Object::root(&root)?.need_object("weight_map")?;
    let files = map.iter().map(|(tensor, file)| {
        let key = format!("weight_map.{tensor}");
        let file = file.as_str().ok_or_else(|| ConfigError::Type {
            key: key.clone(),
            expected: "a file name",
            found: json::type_name(file).to_owned(),
        })?;
        if is_plain_name(file) {
            Ok((tensor.clone(), file.to_owned()))
        } else {
            Err(ConfigError::Value {
                key,
                value: format!("{file:?}"),
                reason: "must be the name of a file in the same folder".into(),
            })
        }
    });
    files.collect()
}

/// Whether a name stays within its folder on every system.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    plain && components.next().is_none() && !name.contains(['/', '\\', ':', '\0'])
}

fn class(config: &Object<'_>) -> Result<String, ConfigError> {
    if let Some(classes) = config.strings("architectures")?
        && let Some(class) = classes.first()
    {
        return Ok(class.clone());
    }
    let class = match config.string("model_type")? {
        Some("llama") => "LlamaForCausalLM",
        Some("bitnet") => "BitNetForCausalLM",
        Some("qwen2") => "Qwen2ForCausalLM",
        Some("gemma3_text") => "Gemma3ForCausalLM",
        Some("minicpm") => "MiniCPMForCausalLM",
        Some(other) => other,
        None => {
            return Err(ConfigError::Missing {
                key: "architectures".into(),
            });
        }
    };
    Ok(class.to_owned())
}

fn model(config: &Object<'_>, kind: &Kind) -> Result<ModelConfig, ConfigError> {
    refuse_other_graphs(config)?;
    let hidden_size = config.need_size("hidden_size")?;
    let n_heads = config.need_size("num_attention_heads")?;
    let head_dim = match config.size("head_dim")?.or(kind.head_dim) {
        Some(head_dim) => head_dim,
        None if n_heads > 0 && hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            return Err(ConfigError::Value {
                key: "num_attention_heads".into(),
                value: n_heads.to_string(),
                reason: format!("must divide the hidden_size {hidden_size}"),
            });
        }
    };
    let n_kv_heads = match config.size("num_key_value_heads")? {
        Some(n_kv_heads) => n_kv_heads,
        None if kind.kv_heads_default => n_heads,
        None => {
            return Err(ConfigError::Missing {
                key: "num_key_value_heads".into(),
            });
        }
    };
    let n_layers = config.need_size("num_hidden_layers")?;
    let gemma = kind.architecture == Architecture::Gemma3;
    let minicpm = kind.architecture == Architecture::Minicpm;
    let (rope_theta, rope_scaling) = rope(config, kind.rope_theta)?;
    let model = ModelConfig {
        architecture: kind.architecture,
        vocab_size: config.need_size("vocab_size")?,
        hidden_size,
        ffn_size: config.need_size("intermediate_size")?,
        n_layers,
        n_heads,
        n_kv_heads,
        head_dim,
        context_length: config
            .size("max_position_embeddings")?
            .unwrap_or(kind.context_length),
        embedding_scale: match kind.architecture {
            Architecture::Gemma3 => (hidden_size as f32).sqrt(),
            Architecture::Minicpm => config.f32("scale_emb")?.unwrap_or(1.0),
            _ => 1.0,
        },
        residual_scale: if minicpm {
            let depth = config.f64("scale_depth")?.unwrap_or(1.0);
            (depth / (n_layers as f64).sqrt()) as f32
        } else {
            1.0
        },
        logit_scale: if minicpm {
            let base = config.size("dim_model_base")?.unwrap_or(1);
            (hidden_size as f64 / base as f64) as f32
        } else {
            1.0
        },
        attention_scale: if gemma {
            attention_scale(config, head_dim)?
        } else {
            None
        },
        local: gemma
            .then(|| local_attention(config, n_layers))
            .transpose()?,
        rms_norm_eps: config.f32("rms_norm_eps")?.unwrap_or(kind.rms_norm_eps),
        rope_theta,
        rope_pairs: RopePairs::Halves,
        rope_scaling,
        rope_freq_factors: None,
        activation: activation(config, kind)?,
    };
    model.check(&KeyNames {
        vocab_size: "vocab_size".into(),
        hidden_size: "hidden_size".into(),
        ffn_size: "intermediate_size".into(),
        n_layers: "num_hidden_layers".into(),
        n_heads: "num_attention_heads".into(),
        n_kv_heads: "num_key_value_heads".into(),
        head_dim: "head_dim".into(),
        context_length: "max_position_embeddings".into(),
        embedding_scale: "scale_emb".into(),
        residual_scale: "scale_depth".into(),
        logit_scale: "dim_model_base".into(),
        attention_scale: "query_pre_attn_scalar".into(),
        window: "sliding_window".into(),
        all_but_every: "sliding_window_pattern".into(),
        local_rope_theta: "rope_local_base_freq".into(),
        rms_norm_eps: "rms_norm_eps".into(),
        rope_theta: "rope_theta".into(),
        rope_scaling: "rope_scaling".into(),
    })?;
    Ok(model)
}

/// Keys whose other values need a graph that is not there.
fn refuse_other_graphs(config: &Object<'_>) -> Result<(), ConfigError> {
    for key in ["use_sliding_window", "use_bidirectional_attention"] {
        if config.bool(key)? == Some(true) {
            return Err(unsupported(key, "true", "false"));
        }
    }
    if let Some(n) = config.size("num_experts")?.filter(|&n| n > 0) {
        return Err(unsupported("num_experts", &n.to_string(), "0"));
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap) = config.f32(key)? {
            return Err(unsupported(key, &cap.to_string(), "null"));
        }
    }
    match config.f32("partial_rotary_factor")? {
        None | Some(1.0) => Ok(()),
        Some(factor) => Err(unsupported(
            "partial_rotary_factor",
            &factor.to_string(),
            "1",
        )),
    }
}

fn unsupported(key: &str, value: &str, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported {
        key: key.into(),
        value: value.into(),
        supported,
    }
}

fn activation(config: &Object<'_>, kind: &Kind) -> Result<Activation, ConfigError> {
    let key = match kind.architecture {
        Architecture::Gemma3 => "hidden_activation",
        _ => "hidden_act",
    };
    match config.string(key)?.unwrap_or(kind.activation) {
        "relu2" => Ok(Activation::ReluSquared),
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" => Ok(Activation::Gelu),
        other => Err(unsupported(key, other, "relu2, silu, gelu_pytorch_tanh")),
    }
}

/// Reads the factor of a Gemma's attention scores, if it is not the usual one.
fn attention_scale(config: &Object<'_>, head_dim: usize) -> Result<Option<f32>, ConfigError> {
    let scalar = config.f32("query_pre_attn_scalar")?.unwrap_or(256.0);
    let usual = (scalar - head_dim as f32).abs() < f32::EPSILON;
    Ok((!usual).then(|| 1.0 / scalar.sqrt()))
}

/// Reads which layers of a Gemma 3 see only the last positions: `layer_types`, or all but every
/// sixth.
fn local_attention(config: &Object<'_>, n_layers: usize) -> Result<LocalAttention, ConfigError> {
    let all_but_every = match config.strings("layer_types")? {
        Some(types) => layer_period(&types)
            .filter(|_| types.len() == n_layers)
            .ok_or_else(|| unsupported("layer_types", &types.join(", "), PERIODIC))?,
        None => config
            .size("sliding_window_pattern")?
            .or(config.size("_sliding_window_pattern")?)
            .unwrap_or(6),
    };
    // Where transformers 5 puts it.
    let parameters = match config.object("rope_parameters")? {
        Some(parameters) => parameters.object("sliding_attention")?,
        None => None,
    };
    let rope_theta = match parameters {
        Some(parameters) => parameters.f32("rope_theta")?,
        None => config.f32("rope_local_base_freq")?,
    };
    Ok(LocalAttention {
        window: config.size("sliding_window")?.unwrap_or(4096),
        rope_theta: rope_theta.unwrap_or(10_000.0),
        all_but_every,
    })
}

const PERIODIC: &str = "sliding_attention for each layer, full_attention for every n-th";

/// Returns the `n` of layers of which every `n`-th sees all positions.
fn layer_period(types: &[String]) -> Option<usize> {
    let full = types.iter().position(|kind| kind == "full_attention");
    let period = full.unwrap_or(types.len()) + 1;
    let periodic = types.iter().enumerate().all(|(layer, kind)| {
        kind == if (layer + 1).is_multiple_of(period) {
            "full_attention"
        } else {
            "sliding_attention"
        }
    });
    periodic.then_some(period)
}

/// Reads theta and scaling, from `rope_parameters` (transformers 5) or from `rope_theta` and
/// `rope_scaling`.
fn rope(config: &Object<'_>, default_theta: f32) -> Result<(f32, RopeScaling), ConfigError> {
    let mut parameters = config.object("rope_parameters")?;
    // Of the layers that see all positions, where there are others.
    if let Some(full) = parameters.as_ref().map(|all| all.object("full_attention")) {
        parameters = full?.or(parameters);
    }
    let theta = match &parameters {
        Some(parameters) => parameters.f32("rope_theta")?,
        None => None,
    };
    let theta = match theta {
        Some(theta) => theta,
        None => config.f32("rope_theta")?.unwrap_or(default_theta),
    };
    let scaling = match parameters {
        Some(parameters) => Some(parameters),
        None => config.object("rope_scaling")?,
    };
    let Some(scaling) = scaling else {
        return Ok((theta, RopeScaling::None));
    };
    let old_key = scaling.string("type")?;
    let scaling = match scaling.string("rope_type")?.or(old_key) {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear {
            factor: scaling.need_f32("factor")?,
        },
        Some("llama3") => RopeScaling::Llama3 {
            factor: scaling.need_f32("factor")?,
            low_freq_factor: scaling.need_f32("low_freq_factor")?,
            high_freq_factor: scaling.need_f32("high_freq_factor")?,
            original_context: {
                let key = "original_max_position_embeddings";
                let size = scaling.need_size(key)?;
                size.try_into().map_err(|_| ConfigError::Value {
                    key: scaling.full(key),
                    value: size.to_string(),
                    reason: "is too large".into(),
                })?
            },
        },
        Some(other) => {
            return Err(unsupported(
                &scaling.full("rope_type"),
                other,
                "default, linear, llama3",
            ));
        }
    };
    Ok((theta, scaling))
}

fn ternary(config: &Object<'_>, class: &str) -> Result<Option<TernaryConfig>, ConfigError> {
    let one_bit_llm_names = class == "BitnetForCausalLM";
    let Some(quantization) = config.object("quantization_config")? else {
        return Ok(one_bit_llm_names.then(|| TernaryConfig {
            one_bit_llm_names,
            ..TernaryConfig::default()
        }));
    };
    let method = quantization.string("quant_method")?.unwrap_or_default();
    if method != "bitnet" {
        return Err(unsupported(
            &quantization.full("quant_method"),
            method,
            "bitnet",
        ));
    }
    // transformers' BitNetQuantConfig: `bitlinear` where nothing is said.
    let scale_is_inverse = match quantization.string("linear_class")? {
        None | Some("bitlinear") => true,
        Some("autobitlinear") => false,
        Some(other) => {
            return Err(unsupported(
                &quantization.full("linear_class"),
                other,
                "bitlinear, autobitlinear",
            ));
        }
    };
    let mode = quantization.string("quantization_mode")?;
    if let Some(other) = mode.filter(|mode| !["online", "offline"].contains(mode)) {
        return Err(unsupported(
            &quantization.full("quantization_mode"),
            other,
            "online, offline",
        ));
    }
    if quantization.bool("use_rms_norm")? == Some(true) {
        return Err(unsupported(
            &quantization.full("use_rms_norm"),
            "true",
            "false",
        ));
    }
    Ok(Some(TernaryConfig {
        scale_is_inverse,
        not_converted: quantization
            .strings("modules_to_not_convert")?
            .unwrap_or_default(),
        one_bit_llm_names,
    }))
}

fn special_ids(config: &Object<'_>) -> Result<SpecialIds, ConfigError> {
    Ok(SpecialIds {
        bos: config.ids("bos_token_id")?.first().copied(),
        eos: config.ids("eos_token_id")?,
        padding: config.ids("pad_token_id")?.first().copied(),
    })
}

#[cfg(test)]
mod tests;
