//! A folder's byte-level vocabulary as `tokenizer.ggml.*` keys.
//!
//! Other kinds of `tokenizer.json` are refused: GGUF's SentencePiece needs scores that the file does
//! not hold.

use std::path::Path;

use super::ConvertError;
use crate::{
    format::gguf::{Array, Metadata, Value},
    load::{VocabSource, open::Open},
    tokenizer::{Tokenizer, TokenizerError, byte_level_parts},
};

/// GGUF's kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Adds the keys of a model's vocabulary, if it has one.
pub(super) fn add(
    input: &Path,
    source: &Open,
    metadata: &mut Metadata,
) -> Result<(), ConvertError> {
    let VocabSource::TokenizerJson(folder) = &source.vocab else {
        return Ok(());
    };
    let failed = |source| ConvertError::Vocabulary {
        path: input.to_owned(),
        source,
    };
    let tokenizer = Tokenizer::new(&source.vocab).map_err(failed)?;
    let unsupported = || {
        failed(TokenizerError::Unsupported {
            what:
                "tokenizer.json is not the byte-level BPE of a rule that has a name in GGUF files \
                   (--without-vocabulary leaves it out)"
                    .to_owned(),
        })
    };
    let parts = byte_level_parts(&folder.tokenizer_json)
        .map_err(failed)?
        .ok_or_else(unsupported)?;
    // A file can only say whether there is a first token.
    let adds_bos = match &parts.prefix[..] {
        [] => false,
        [first] if Some(*first) == tokenizer.bos() => true,
        _ => return Err(unsupported()),
    };
    let vocab_size = source.config.vocab_size;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab_size];
    let plain = parts
        .tokens
        .into_iter()
        .map(|(text, id)| (text, id, NORMAL));
    let special = parts.added.into_iter().map(|(text, id, is_special)| {
        let kind = if is_special { CONTROL } else { USER_DEFINED };
        (text, id, kind)
    });
    for (text, id, kind) in plain.chain(special) {
        let Some(place) = tokens.get_mut(id as usize) else {
            return Err(ConvertError::Unsupported {
                path: input.to_owned(),
                what: format!("its token {id} is beyond the embedding's {vocab_size} rows"),
            });
        };
        *place = Some((text, kind));
    }
    // Rows without a token have one in the file, since its list is one of all rows.
    let (texts, kinds): (Vec<String>, Vec<i32>) = (0..)
        .zip(tokens)
        .map(|(id, token): (usize, _)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .unzip();

    let string = |text: &str| Value::String(text.to_owned());
    metadata.set("tokenizer.ggml.model", string("gpt2"));
    metadata.set("tokenizer.ggml.pre", string(parts.pre));
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::String(texts)));
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    metadata.set(
        "tokenizer.ggml.merges",
        Value::Array(Array::String(parts.merges)),
    );
    let ids = [
        ("bos_token_id", tokenizer.bos()),
        ("eos_token_id", tokenizer.eos()),
        ("padding_token_id", folder.padding_id),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            metadata.set(format!("tokenizer.ggml.{key}"), Value::U32(id));
        }
    }
    metadata.set("tokenizer.ggml.add_bos_token", Value::Bool(adds_bos));
    if let Some(template) = tokenizer.chat_template() {
        metadata.set("tokenizer.chat_template", string(template));
    }
    Ok(())
}
