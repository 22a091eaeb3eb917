//! The keys of a converted file.

use std::path::Path;

use super::{ConvertError, Format};
use crate::{
    config::{Activation, Architecture, RopeScaling},
    format::gguf::{Gguf, Metadata, Value},
    load::open::Open,
};

/// Names of architectures by family; each means the first one's graph, but for `bitnet`'s
/// activation.
const NAMES: [(Architecture, &[&str]); 5] = [
    (
        Architecture::Bitnet,
        &["bitnet-b1.58", "bitnet-25", "bitnet"],
    ),
    (Architecture::Llama, &["llama"]),
    (Architecture::Qwen2, &["qwen2"]),
    (Architecture::Gemma3, &["gemma3"]),
    (Architecture::Minicpm, &["minicpm"]),
];

/// Returns what the file calls its architecture.
pub(super) fn architecture(
    input: &Path,
    source: &Open,
    wanted: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<String, ConvertError> {
    let unsupported = |what| ConvertError::Unsupported {
        path: input.to_owned(),
        what,
    };
    let config = &source.config;
    let (_, names) = NAMES
        .into_iter()
        .find(|(family, _)| *family == config.architecture)
        .expect("every family has a name");
    let own = match (&source.gguf, config.activation) {
        (Some(_), _) => source.source.architecture.as_str(),
        (None, Activation::Silu) if config.architecture == Architecture::Bitnet => "bitnet",
        (None, _) => names[0],
    };
    let Some(wanted) = wanted else {
        return Ok(own.to_owned());
    };
    if !names.contains(&wanted) {
        return Err(unsupported(format!(
            "its architecture can be called {}, not `{wanted}`",
            names.join(", ")
        )));
    }
    let activation = |name: &str| match (config.architecture, name) {
        (Architecture::Bitnet, "bitnet") => Activation::Silu,
        (Architecture::Bitnet, _) => Activation::ReluSquared,
        _ => config.activation,
    };
    if activation(wanted) != config.activation {
        warnings.push(format!(
            "`{wanted}` means {:?}, and the model has {:?}: what reads the name computes another \
             model",
            activation(wanted),
            config.activation
        ));
    }
    Ok(wanted.to_owned())
}

/// Returns a GGUF file's keys: all as they are, but those that say what the conversion changes.
pub(super) fn carried_over(gguf: &Gguf, architecture: &str, format: Format) -> Metadata {
    let old = match gguf.metadata.get("general.architecture") {
        Some(Value::String(name)) => name.as_str(),
        _ => architecture,
    };
    let prefix = format!("{old}.");
    let mut metadata = Metadata::default();
    for (key, value) in gguf.metadata.iter() {
        match key {
            // The writer has its own.
            "general.alignment" => {}
            "general.architecture" => {
                metadata.set(key, Value::String(architecture.to_owned()));
            }
            "general.file_type" => metadata.set(key, Value::U32(format.file_type())),
            _ => match key.strip_prefix(&prefix).filter(|_| old != architecture) {
                Some(rest) => metadata.set(format!("{architecture}.{rest}"), value.clone()),
                None => metadata.set(key, value.clone()),
            },
        }
    }
    metadata
}

/// Returns the keys of a folder's model.
pub(super) fn of_config(
    input: &Path,
    source: &Open,
    architecture: &str,
    format: Format,
) -> Result<Metadata, ConvertError> {
    let config = &source.config;
    let unsupported = |what: String| ConvertError::Unsupported {
        path: input.to_owned(),
        what,
    };
    // A file has no key for it: readers know it by the number of layers.
    if let Some(scale) = config.attention_scale.filter(|_| config.n_layers != 62) {
        return Err(unsupported(format!(
            "its attention scale {scale} has no key"
        )));
    }
    let mut metadata = Metadata::default();
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    metadata.set(
        "general.architecture",
        Value::String(architecture.to_owned()),
    );
    metadata.set("general.name", Value::String(name.into_owned()));
    metadata.set("general.file_type", Value::U32(format.file_type()));
    metadata.set("general.quantization_version", Value::U32(2));
    let mut sizes = vec![
        ("vocab_size", config.vocab_size),
        ("context_length", config.context_length),
        ("embedding_length", config.hidden_size),
        ("block_count", config.n_layers),
        ("feed_forward_length", config.ffn_size),
        ("rope.dimension_count", config.head_dim),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("attention.head_count", config.n_heads),
        ("attention.head_count_kv", config.n_kv_heads),
    ];
    let mut floats = vec![
        ("attention.layer_norm_rms_epsilon", config.rms_norm_eps),
        ("rope.freq_base", config.rope_theta),
    ];
    if let Some(local) = &config.local {
        sizes.push(("attention.sliding_window", local.window));
        sizes.push(("attention.sliding_window_pattern", local.all_but_every));
        floats.push(("rope.freq_base_swa", local.rope_theta));
    }
    if config.architecture == Architecture::Minicpm {
        floats.push(("embedding_scale", config.embedding_scale));
        floats.push(("residual_scale", config.residual_scale));
        floats.push(("logit_scale", config.logit_scale));
    }
    if let RopeScaling::Linear { factor } = config.rope_scaling {
        let key = format!("{architecture}.rope.scaling.type");
        metadata.set(key, Value::String("linear".to_owned()));
        floats.push(("rope.scaling.factor", factor));
    }
    for (key, size) in sizes {
        let size = u32::try_from(size)
            .map_err(|_| unsupported(format!("its {key} {size} is too large")))?;
        metadata.set(format!("{architecture}.{key}"), Value::U32(size));
    }
    for (key, value) in floats {
        metadata.set(format!("{architecture}.{key}"), Value::F32(value));
    }
    Ok(metadata)
}
