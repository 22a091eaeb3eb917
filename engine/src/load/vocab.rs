//! Where a model's vocabulary comes from, as found by the loader; the tokenizer is built from it.

use std::path::PathBuf;

/// The vocabulary that came with a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum VocabSource {
    /// A Hugging Face folder with a `tokenizer.json`.
    TokenizerJson(FolderVocab),
    /// The `tokenizer.ggml.*` keys of a GGUF file.
    Gguf(Box<GgufVocab>),
    /// The model has none (a synthetic one).
    #[default]
    None,
}

/// The tokenizer's files in a Hugging Face folder, and the special ids its configuration names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FolderVocab {
    /// `tokenizer.json`.
    pub tokenizer_json: PathBuf,
    /// `tokenizer_config.json`, where there is one.
    pub tokenizer_config: Option<PathBuf>,
    /// `chat_template.jinja`, where there is one: it goes before `tokenizer_config.json`'s.
    pub chat_template: Option<PathBuf>,
    /// First token, from `generation_config.json`, else from `config.json`.
    pub bos_id: Option<u32>,
    /// Tokens that end a text, from `generation_config.json`, else from `config.json`.
    pub eos_ids: Vec<u32>,
    /// Filler token, from the same files.
    pub padding_id: Option<u32>,
}

/// The vocabulary keys of a GGUF file, unchanged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocab {
    /// `general.architecture`, for rules that depend on it.
    pub architecture: String,
    /// `tokenizer.ggml.model`: `gpt2` (byte-level BPE), `llama` (SentencePiece BPE) and others.
    pub model: String,
    /// `tokenizer.ggml.pre`: name of the splitting rule; missing in BitNet b1.58 2B4T's file.
    pub pre: Option<String>,
    /// Text of each token, in the order of their ids.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type` of each token (1 normal, 2 unknown, 3 control, 4 user defined,
    /// 5 unused, 6 byte), or empty.
    pub token_types: Vec<i32>,
    /// SentencePiece score of each token, or empty.
    pub scores: Vec<f32>,
    /// Merges as `left right`, best first, or empty.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_id: Option<u32>,
    /// `tokenizer.ggml.eot_token_id`: ends a turn.
    pub eot_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown_id: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}
