//! What the golden tests share: where the data lies and how it is read.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod folder;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde_json::Value;
use tritmark_engine::{
    format::gguf::Gguf,
    load::{FolderVocab, VocabSource, gguf_vocab},
    tokenizer::Tokenizer,
};

/// Returns the folder of the golden data, or says loudly that the test did not run.
pub(crate) fn data(test: &str) -> Option<PathBuf> {
    let data = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if data.is_none() {
        eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
    }
    data
}

/// Reads a file that may be compressed.
pub(crate) fn read(path: &Path) -> String {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    let outcome = if path.extension().is_some_and(|e| e == "gz") {
        GzDecoder::new(file).read_to_string(&mut text)
    } else {
        { file }.read_to_string(&mut text)
    };
    outcome.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text
}

/// Reads a file of JSON that may be compressed.
pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads a list of ids.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

/// Builds the tokenizer of a Hugging Face folder.
pub(crate) fn folder_tokenizer(folder: &Path) -> Tokenizer {
    let generation = json(&folder.join("generation_config.json"));
    let eos = &generation["eos_token_id"];
    let source = VocabSource::TokenizerJson(FolderVocab {
        tokenizer_json: folder.join("tokenizer.json"),
        tokenizer_config: Some(folder.join("tokenizer_config.json")),
        chat_template: None,
        bos_id: generation["bos_token_id"].as_u64().map(|id| id as u32),
        eos_ids: if eos.is_array() {
            ids(eos)
        } else {
            eos.as_u64().map(|id| id as u32).into_iter().collect()
        },
        padding_id: None,
    });
    Tokenizer::new(&source).unwrap_or_else(|e| panic!("{}: {e:?}", folder.display()))
}

/// Builds the tokenizer of a GGUF file.
pub(crate) fn gguf_tokenizer(path: &Path) -> Tokenizer {
    Tokenizer::new(&gguf_source(path)).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()))
}

/// Reads the vocabulary of a GGUF file.
pub(crate) fn gguf_source(path: &Path) -> VocabSource {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let gguf = Gguf::parse(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    gguf_vocab(&gguf.metadata).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
