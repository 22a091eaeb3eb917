//! Models in a GGUF file (names and keys as llama.cpp and bitnet.cpp write them).

use std::{path::Path, sync::Arc};

use memmap2::Mmap;

use super::{
    GgufVocab, LoadError, LoadOptions, ModelSource, VocabSource,
    assemble::{Names, Part, Rules, Tensors, add_files},
    open::Open,
    tensor::{Encoding, FromFloats, Tensor},
};
use crate::{
    config::{
        Activation, Architecture, ConfigError, KeyNames, LocalAttention, ModelConfig, RopePairs,
        RopeScaling,
    },
    format::gguf::{Array, Gguf, GgufError, Metadata, TensorType, Value},
    mmap,
    weights::{Bytes, DenseType},
};

pub(super) const NAMES: Names = Names {
    embedding: "token_embd",
    output_norm: "output_norm",
    head: "output",
    part: |layer, part| {
        let name = match part {
            Part::AttnNorm => "attn_norm",
            Part::Q => "attn_q",
            Part::K => "attn_k",
            Part::V => "attn_v",
            Part::QNorm => "attn_q_norm",
            Part::KNorm => "attn_k_norm",
            Part::AttnSubNorm => "attn_sub_norm",
            Part::O => "attn_output",
            Part::AttnPostNorm => "post_attention_norm",
            Part::FfnNorm => "ffn_norm",
            Part::Gate => "ffn_gate",
            Part::Up => "ffn_up",
            Part::FfnSubNorm => "ffn_sub_norm",
            Part::Down => "ffn_down",
            Part::FfnPostNorm => "post_ffw_norm",
        };
        format!("blk.{layer}.{name}")
    },
    scales: &[".scale", "_scale", ".weight_scale"],
};

/// Divisors of the rotary frequencies, `(head_dim / 2)`.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<Open, LoadError> {
    let map = mmap::map(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    let gguf_error = |source| LoadError::Gguf {
        path: path.to_owned(),
        source,
    };
    let gguf = Gguf::parse(&map).map_err(gguf_error)?;
    let mut config = config(&gguf).map_err(|source| LoadError::Config {
        path: path.to_owned(),
        source,
    })?;
    let vocab = vocab(&gguf.metadata).map_err(gguf_error)?;
    let mut source = ModelSource {
        architecture: gguf
            .metadata
            .string("general.architecture")
            .map_err(gguf_error)?
            .unwrap_or_default()
            .to_owned(),
        ..ModelSource::default()
    };
    add_files(&mut source, &[path.to_owned()])?;
    if let VocabSource::Gguf(vocab) = &vocab
        && vocab.tokens.len() > config.vocab_size
    {
        source.warnings.push(format!(
            "the vocabulary has {} tokens, but the embedding only {} rows",
            vocab.tokens.len(),
            config.vocab_size
        ));
    }
    let mut tensors = tensors(path, &map, &gguf, options);
    if let Some(tensor) = tensors.take(ROPE_FREQS) {
        let factors = tensor.vector(config.head_dim / 2)?;
        if factors.iter().any(|&factor| factor <= 0.0) {
            return Err(tensor.fault("has a factor that is not positive"));
        }
        config.rope_freq_factors = Some(factors);
    }
    let ternary = config.architecture == Architecture::Bitnet;
    let rules = Rules {
        from_floats: Box::new(move |_| ternary.then_some(FromFloats::ExactOrAbsmean)),
        float_scales: true,
        packed_scale_is_inverse: false,
        tied: None,
        // The converter has added Gemma's 1.
        gain_offset: 0.0,
    };
    Ok(Open {
        config,
        tensors,
        names: NAMES,
        rules,
        source,
        vocab,
        gguf: Some(gguf),
    })
}

/// Lists the file's tensors without reading their bytes.
fn tensors(path: &Path, map: &Arc<Mmap>, gguf: &Gguf, options: &LoadOptions) -> Tensors {
    let shared: Arc<Path> = path.into();
    let by_name = gguf.tensors.iter().map(|info| {
        let tensor = Tensor {
            name: info.name.clone(),
            path: Arc::clone(&shared),
            // Each is not above the file's size, which is a usize.
            dims: info.dims.iter().rev().map(|&dim| dim as usize).collect(),
            encoding: match info.kind {
                TensorType::F32 => Encoding::Dense(DenseType::F32),
                TensorType::F16 => Encoding::Dense(DenseType::F16),
                TensorType::Bf16 => Encoding::Dense(DenseType::Bf16),
                TensorType::Q8_0 => Encoding::Dense(DenseType::Q8_0),
                TensorType::Q4_0 => Encoding::Dense(DenseType::Q4_0),
                TensorType::Q5_0 => Encoding::Dense(DenseType::Q5_0),
                TensorType::Q4K => Encoding::Dense(DenseType::Q4K),
                TensorType::Q5K => Encoding::Dense(DenseType::Q5K),
                TensorType::Q6K => Encoding::Dense(DenseType::Q6K),
                TensorType::Tq1_0 => Encoding::Tq1_0,
                TensorType::Tq2_0 => Encoding::Tq2_0,
                TensorType::I2S => Encoding::I2S(options.i2_s_layout),
            },
            bytes: Bytes::Mapped {
                map: Arc::clone(map),
                offset: info.offset as usize,
                len: info.len as usize,
            },
        };
        (info.name.clone(), tensor)
    });
    Tensors {
        path: path.to_owned(),
        by_name: by_name.collect(),
    }
}

impl From<GgufError> for ConfigError {
    fn from(error: GgufError) -> Self {
        match error {
            GgufError::KeyType {
                key,
                expected,
                found,
            } => Self::Type {
                key,
                expected,
                found,
            },
            other => Self::Value {
                key: "general.architecture".to_owned(),
                value: "unreadable".to_owned(),
                reason: other.to_string(),
            },
        }
    }
}

/// Reads a file's configuration.
pub(super) fn config(gguf: &Gguf) -> Result<ModelConfig, ConfigError> {
    let metadata = &gguf.metadata;
    let name = metadata
        .string("general.architecture")?
        .ok_or_else(|| missing("general.architecture"))?;
    let (architecture, rope_pairs, activation) = match name {
        "bitnet-b1.58" | "bitnet-25" => (
            Architecture::Bitnet,
            RopePairs::Halves,
            Activation::ReluSquared,
        ),
        // 1bitLLM's models, before ReLU².
        "bitnet" => (Architecture::Bitnet, RopePairs::Halves, Activation::Silu),
        // q and k rows are permuted by the converters.
        "llama" => (Architecture::Llama, RopePairs::Neighbours, Activation::Silu),
        "minicpm" => (
            Architecture::Minicpm,
            RopePairs::Neighbours,
            Activation::Silu,
        ),
        "qwen2" => (Architecture::Qwen2, RopePairs::Halves, Activation::Silu),
        "gemma3" => (Architecture::Gemma3, RopePairs::Halves, Activation::Gelu),
        _ => {
            return Err(ConfigError::Unsupported {
                key: "general.architecture".into(),
                value: name.into(),
                supported: "bitnet-b1.58, bitnet-25, bitnet, llama, qwen2, gemma3, minicpm",
            });
        }
    };
    let keys = Keys { metadata, name };
    let hidden_size = keys.need("embedding_length")?;
    let n_heads = keys.need("attention.head_count")?;
    let head_dim = match keys.size("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => keys.head_dim(hidden_size, n_heads)?,
    };
    keys.must_equal("attention.value_length", head_dim)?;
    keys.must_equal("rope.dimension_count", head_dim)?;
    keys.must_equal("expert_count", 0)?;
    let n_layers = keys.need("block_count")?;
    let gemma = architecture == Architecture::Gemma3;
    let scales = match architecture {
        Architecture::Minicpm => keys.minicpm_scales(hidden_size, n_layers)?,
        Architecture::Gemma3 => Scales {
            embedding: (hidden_size as f32).sqrt(),
            ..Scales::NONE
        },
        _ => Scales::NONE,
    };
    let config = ModelConfig {
        architecture,
        vocab_size: keys.vocab_size(gguf)?,
        hidden_size,
        ffn_size: keys.need("feed_forward_length")?,
        n_layers,
        n_heads,
        n_kv_heads: keys.size("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        context_length: keys.need("context_length")?,
        embedding_scale: scales.embedding,
        residual_scale: scales.residual,
        logit_scale: scales.logit,
        // No key says it; llama.cpp too knows the one model that differs by its layers.
        attention_scale: (gemma && n_layers == 62)
            .then(|| 1.0 / (hidden_size as f32 / n_heads as f32).sqrt()),
        local: gemma.then(|| keys.local_attention()).transpose()?,
        rms_norm_eps: keys
            .f32("attention.layer_norm_rms_epsilon")?
            .ok_or_else(|| missing(&keys.full("attention.layer_norm_rms_epsilon")))?,
        rope_theta: keys.f32("rope.freq_base")?.unwrap_or(10_000.0),
        rope_pairs,
        rope_scaling: keys.rope_scaling()?,
        rope_freq_factors: None,
        activation,
    };
    config.check(&KeyNames {
        vocab_size: keys.full("vocab_size"),
        hidden_size: keys.full("embedding_length"),
        ffn_size: keys.full("feed_forward_length"),
        n_layers: keys.full("block_count"),
        n_heads: keys.full("attention.head_count"),
        n_kv_heads: keys.full("attention.head_count_kv"),
        head_dim: keys.full("attention.key_length"),
        context_length: keys.full("context_length"),
        embedding_scale: keys.full("embedding_scale"),
        residual_scale: keys.full("residual_scale"),
        logit_scale: keys.full("logit_scale"),
        attention_scale: keys.full("attention.scale"),
        window: keys.full("attention.sliding_window"),
        all_but_every: keys.full("attention.sliding_window_pattern"),
        local_rope_theta: keys.full("rope.freq_base_swa"),
        rms_norm_eps: keys.full("attention.layer_norm_rms_epsilon"),
        rope_theta: keys.full("rope.freq_base"),
        rope_scaling: keys.full("rope.scaling.factor"),
    })?;
    Ok(config)
}

fn missing(key: &str) -> ConfigError {
    ConfigError::Missing { key: key.into() }
}

/// Factors of the embedding and the residual branches, and the divisor of the head's input.
struct Scales {
    embedding: f32,
    residual: f32,
    logit: f32,
}

impl Scales {
    const NONE: Self = Self {
        embedding: 1.0,
        residual: 1.0,
        logit: 1.0,
    };
}

/// The keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    name: &'a str,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let value = self.metadata.u64(&self.full(key))?;
        // Far too large either way; the check names the key.
        Ok(value.map(|value| usize::try_from(value).unwrap_or(usize::MAX)))
    }

    fn f32(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        Ok(self.metadata.f32(&self.full(key))?)
    }

    fn need(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| missing(&self.full(key)))
    }

    fn head_dim(&self, hidden_size: usize, n_heads: usize) -> Result<usize, ConfigError> {
        if n_heads > 0 && hidden_size.is_multiple_of(n_heads) {
            return Ok(hidden_size / n_heads);
        }
        Err(ConfigError::Value {
            key: self.full("attention.head_count"),
            value: n_heads.to_string(),
            reason: format!("must divide the embedding length {hidden_size}"),
        })
    }

    /// Refuses a key whose other values need a graph that is not there.
    fn must_equal(&self, key: &str, expected: usize) -> Result<(), ConfigError> {
        match self.size(key)? {
            Some(value) if value != expected => Err(ConfigError::Value {
                key: self.full(key),
                value: value.to_string(),
                reason: format!("only {expected} is supported for this model"),
            }),
            _ => Ok(()),
        }
    }

    /// Gemma 3: every sixth layer sees all positions; theta is older than its key.
    fn local_attention(&self) -> Result<LocalAttention, ConfigError> {
        for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.f32(key)?.filter(|&cap| cap != 0.0) {
                return Err(ConfigError::Unsupported {
                    key: self.full(key),
                    value: cap.to_string(),
                    supported: "0",
                });
            }
        }
        Ok(LocalAttention {
            window: self.need("attention.sliding_window")?,
            rope_theta: self.f32("rope.freq_base_swa")?.unwrap_or(10_000.0),
            all_but_every: self.size("attention.sliding_window_pattern")?.unwrap_or(6),
        })
    }

    /// MiniCPM: keys that files from before them lack; all of those are MiniCPM-2B's kind, whose
    /// base has a width of 256.
    ///
    /// llama.cpp's own default of the last one is the inverse of what its converter writes there
    /// and its graph divides by (`src/models/minicpm.cpp`), which no model means.
    fn minicpm_scales(&self, hidden_size: usize, n_layers: usize) -> Result<Scales, ConfigError> {
        Ok(Scales {
            embedding: self.f32("embedding_scale")?.unwrap_or(12.0),
            residual: self
                .f32("residual_scale")?
                .unwrap_or((1.4 / (n_layers as f64).sqrt()) as f32),
            logit: self
                .f32("logit_scale")?
                .unwrap_or((hidden_size as f64 / 256.0) as f32),
        })
    }

    /// Rows of the embedding, which the key must not contradict.
    fn vocab_size(&self, gguf: &Gguf) -> Result<usize, ConfigError> {
        let rows = gguf
            .tensor("token_embd.weight")
            .and_then(|tensor| tensor.dims.get(1))
            .map(|&rows| rows as usize);
        match (self.size("vocab_size")?, rows) {
            (Some(key), Some(rows)) if key != rows => Err(ConfigError::Value {
                key: self.full("vocab_size"),
                value: key.to_string(),
                reason: format!("tensor `token_embd.weight` has {rows} rows"),
            }),
            (None, None) => Err(missing(&self.full("vocab_size"))),
            (key, rows) => Ok(rows.or(key).unwrap_or_default()),
        }
    }

    fn rope_scaling(&self) -> Result<RopeScaling, ConfigError> {
        let kind_key = self.full("rope.scaling.type");
        let kind = self.metadata.string(&kind_key)?;
        // The older form of linear scaling.
        let old_factor = self.f32("rope.scale_linear")?;
        let factor = self.f32("rope.scaling.factor")?.or(old_factor);
        match kind {
            Some("none") => Ok(RopeScaling::None),
            Some("linear") | None => Ok(match factor {
                None | Some(1.0) => RopeScaling::None,
                Some(factor) => RopeScaling::Linear { factor },
            }),
            Some(kind) => Err(ConfigError::Unsupported {
                key: kind_key,
                value: kind.into(),
                supported: "none, linear, or a rope_freqs.weight tensor",
            }),
        }
    }
}

/// Reads the vocabulary, if the file has one.
pub fn vocab(metadata: &Metadata) -> Result<VocabSource, GgufError> {
    let model = metadata.string("tokenizer.ggml.model")?;
    let tokens = metadata.strings("tokenizer.ggml.tokens")?;
    let (Some(model), Some(tokens)) = (model, tokens) else {
        return Ok(VocabSource::None);
    };
    let text = |key| Ok::<_, GgufError>(metadata.string(key)?.map(str::to_owned));
    let strings = |key| Ok::<_, GgufError>(metadata.strings(key)?.unwrap_or_default().to_vec());
    Ok(VocabSource::Gguf(Box::new(GgufVocab {
        architecture: text("general.architecture")?.unwrap_or_default(),
        model: model.to_owned(),
        pre: text("tokenizer.ggml.pre")?,
        tokens: tokens.to_vec(),
        token_types: token_types(metadata, tokens.len())?,
        scores: scores(metadata, tokens.len())?,
        merges: strings("tokenizer.ggml.merges")?,
        bos_id: token_id(metadata, "tokenizer.ggml.bos_token_id", tokens.len())?,
        eos_id: token_id(metadata, "tokenizer.ggml.eos_token_id", tokens.len())?,
        eot_id: token_id(metadata, "tokenizer.ggml.eot_token_id", tokens.len())?,
        unknown_id: token_id(metadata, "tokenizer.ggml.unknown_token_id", tokens.len())?,
        padding_id: token_id(metadata, "tokenizer.ggml.padding_token_id", tokens.len())?,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?,
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?,
        add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?,
        chat_template: text("tokenizer.chat_template")?,
    })))
}

fn token_id(metadata: &Metadata, key: &str, n_tokens: usize) -> Result<Option<u32>, GgufError> {
    match metadata.u64(key)? {
        None => Ok(None),
        // Writers put −1 as a u32 where there is no such token.
        Some(id) if id == u64::from(u32::MAX) => Ok(None),
        Some(id) if id < n_tokens as u64 => Ok(Some(id as u32)),
        Some(id) => Err(GgufError::KeyType {
            key: key.to_owned(),
            expected: "the id of a token",
            found: format!("{id} of {n_tokens} tokens"),
        }),
    }
}

fn token_types(metadata: &Metadata, n_tokens: usize) -> Result<Vec<i32>, GgufError> {
    let key = "tokenizer.ggml.token_type";
    let types = match metadata.get(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(Array::I32(types))) => types.clone(),
        Some(Value::Array(Array::U32(types))) => types.iter().map(|&x| x.cast_signed()).collect(),
        Some(other) => return Err(not_per_token(key, "an array of i32", other.type_name())),
    };
    check_length(key, types.len(), n_tokens)?;
    Ok(types)
}

fn scores(metadata: &Metadata, n_tokens: usize) -> Result<Vec<f32>, GgufError> {
    let key = "tokenizer.ggml.scores";
    match metadata.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(Array::F32(scores))) => {
            check_length(key, scores.len(), n_tokens)?;
            Ok(scores.clone())
        }
        Some(other) => Err(not_per_token(key, "an array of f32", other.type_name())),
    }
}

fn check_length(key: &str, len: usize, n_tokens: usize) -> Result<(), GgufError> {
    if len == n_tokens {
        return Ok(());
    }
    let found = format!("an array of {len} for {n_tokens} tokens");
    Err(not_per_token(key, "one value for each token", found))
}

fn not_per_token(key: &str, expected: &'static str, found: String) -> GgufError {
    GgufError::KeyType {
        key: key.to_owned(),
        expected,
        found,
    }
}
