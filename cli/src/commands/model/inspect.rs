//! `tritmark model inspect`: what a model file holds and what the engine makes of it.

use std::path::Path;

use serde_json::{Value, json};
use tritmark_engine::load::{self, LoadOptions, LoadedModel, VocabSource};

use crate::{
    exit::{Exit, OrExit as _, Outcome},
    out,
};

pub(super) fn exec(path: &Path, options: &LoadOptions, as_json: bool) -> Outcome {
    let model = load::load(path, options)
        .or_exit(Exit::Usage, || format!("cannot load {}", path.display()))?;
    let hash = model
        .source
        .weights_hash()
        .or_exit(Exit::Internal, || format!("cannot hash {}", path.display()))?;
    let description = describe(&model, &hash);
    if as_json {
        out::json(&description)?;
    } else {
        out::line(&lines(&description))?;
    }
    Ok(Exit::Pass)
}

fn describe(model: &LoadedModel, hash: &str) -> Value {
    json!({
        "files": model.source.files,
        "file_bytes": model.source.file_bytes,
        "weights_hash": hash,
        "architecture": model.source.architecture,
        "stored_linear_format": model.source.stored_linear_format,
        "linear_format": model.source.linear_format,
        "adapter": model.source.adapter,
        "head_format": model.source.head_format,
        "n_params": model.source.n_params,
        "n_linear_params": model.source.n_linear_params,
        "weight_bytes": model.source.weight_bytes,
        "linear_weight_bytes": model.source.linear_weight_bytes,
        "bits_per_weight": model.source.bits_per_weight,
        "kv_bytes_per_token": kv_bytes_per_token(model),
        "vocabulary": vocabulary(&model.vocab),
        "config": model.config,
        "warnings": model.source.warnings,
    })
}

fn kv_bytes_per_token(model: &LoadedModel) -> usize {
    let config = &model.config;
    2 * config.n_layers * config.n_kv_heads * config.head_dim * size_of::<f32>()
}

fn vocabulary(vocab: &VocabSource) -> Value {
    match vocab {
        VocabSource::TokenizerJson(folder) => json!({
            "source": "tokenizer.json",
            "bos_id": folder.bos_id,
            "eos_ids": folder.eos_ids,
            "chat_template": folder.chat_template.is_some() || folder.tokenizer_config.is_some(),
        }),
        VocabSource::Gguf(gguf) => json!({
            "source": "GGUF",
            "model": gguf.model,
            "pre": gguf.pre,
            "n_tokens": gguf.tokens.len(),
            "bos_id": gguf.bos_id,
            "eos_id": gguf.eos_id,
            "add_bos": gguf.add_bos,
            "chat_template": gguf.chat_template.is_some(),
        }),
        VocabSource::None => Value::Null,
    }
}

/// Lays a description out as `key  value` lines; a map becomes keys with dots.
fn lines(description: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", description, &mut rows);
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    rows.into_iter()
        .map(|(key, value)| format!("{key:width$}  {value}"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let key_of = |key: &str| match prefix {
        "" => key.to_owned(),
        prefix => format!("{prefix}.{key}"),
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(&key_of(key), value, rows);
            }
        }
        Value::Array(list) if list.iter().all(Value::is_string) => {
            for value in list {
                flatten(prefix, value, rows);
            }
        }
        Value::Array(list) => {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            rows.push((prefix.to_owned(), list.join(", ")));
        }
        Value::Null => {}
        Value::String(text) => rows.push((prefix.to_owned(), text.clone())),
        Value::Number(number) => {
            let text = match number.as_u64() {
                Some(bytes) if prefix.ends_with("bytes") => {
                    format!("{bytes} ({})", out::bytes(bytes))
                }
                _ => number.to_string(),
            };
            rows.push((prefix.to_owned(), text));
        }
        Value::Bool(flag) => rows.push((prefix.to_owned(), flag.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_one_line_a_key() {
        let text = lines(&json!({
            "file_bytes": 2048,
            "config": { "n_layers": 4 },
            "warnings": ["no tokenizer.ggml.pre"],
            "absent": null,
        }));
        assert_eq!(
            text,
            "file_bytes       2048 (2.0 KiB)\n\
             config.n_layers  4\n\
             warnings         no tokenizer.ggml.pre"
        );
    }
}
