//! The tokenizer of a Hugging Face folder: `tokenizer.json`, and beside it the names of special
//! tokens and the chat template.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Kind, SpecialIds, Tokenizer, TokenizerError, json};
use crate::load::FolderVocab;

/// Builds the tokenizer of a folder.
pub(super) fn read(folder: &FolderVocab) -> Result<Tokenizer, TokenizerError> {
    let kind = match json::read(&folder.tokenizer_json)? {
        json::Tokenizer::Native(native) => Kind::Native(native),
        json::Tokenizer::Library(library) => Kind::Library(library),
    };
    let config: Option<Value> = folder.tokenizer_config.as_deref().map(parse).transpose()?;
    let template = match &folder.chat_template {
        Some(path) => Some(read_text(path)?),
        None => config.as_ref().and_then(chat_template),
    };
    let cleans_up = config
        .as_ref()
        .is_some_and(|c| c["clean_up_tokenization_spaces"] == true);

    let mut tokenizer = Tokenizer::assemble(kind, SpecialIds::default(), template, cleans_up);
    let mut ids = SpecialIds {
        bos: folder.bos_id,
        eos: folder.eos_ids.first().copied(),
        ends: folder.eos_ids.clone(),
    };
    // What the tokenizer's own configuration says goes first, `null` included: Qwen 2's says that
    // there is no first token, while its generation configuration names one.
    if let Some(config) = &config {
        ids.bos = named(config, "bos_token", ids.bos, &tokenizer);
        ids.eos = named(config, "eos_token", ids.eos, &tokenizer);
    }
    ids.ends.extend(ids.eos);
    ids.ends.append(&mut tokenizer.special.ends);
    ids.ends.sort_unstable();
    ids.ends.dedup();
    tokenizer.special = ids;
    Ok(tokenizer)
}

/// Returns the id of the token that `key` names, or `otherwise` where the key is missing.
fn named(config: &Value, key: &str, otherwise: Option<u32>, tokenizer: &Tokenizer) -> Option<u32> {
    let Some(value) = config.get(key) else {
        return otherwise;
    };
    let text = value.as_str().or_else(|| value["content"].as_str())?;
    tokenizer.special_id(text).or(otherwise)
}

/// Returns the template of `tokenizer_config.json`: a text, or the one called `default` of a list.
fn chat_template(config: &Value) -> Option<String> {
    let template = &config["chat_template"];
    let chosen = match template.as_array() {
        Some(list) => &list.iter().find(|t| t["name"] == "default")?["template"],
        None => template,
    };
    chosen.as_str().map(str::to_owned)
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, TokenizerError> {
    serde_json::from_slice(&json::read_file(path)?).map_err(|source| TokenizerError::Json {
        path: path.to_owned(),
        source,
    })
}

fn read_text(path: &Path) -> Result<String, TokenizerError> {
    String::from_utf8(json::read_file(path)?).map_err(|error| TokenizerError::Read {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })
}
