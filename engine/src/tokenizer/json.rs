//! From a Hugging Face folder's `tokenizer.json` to a tokenizer: our own byte-level BPE where the
//! file describes one, else the `tokenizers` library.

use std::{fmt, fs, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use super::{
    TokenizerError, bpe, byte_level,
    library::Library,
    native::{Model, Native},
    split::Split,
    vocabulary::{Added, MAX_TOKENS, Token, TokenKind, VocabularyError},
};

/// Bytes that no `tokenizer.json` comes near (Llama 3's has 9 MB, Gemma 3's 33 MB).
const MAX_BYTES: u64 = 1 << 28;

/// What a `tokenizer.json` turned out to be.
pub(super) enum Tokenizer {
    Native(Box<Native>),
    Library(Library),
}

/// Reads `tokenizer.json`.
pub(super) fn read(path: &Path) -> Result<Tokenizer, TokenizerError> {
    let bytes = read_file(path)?;
    // A file that does not have this shape is no JSON, another kind of tokenizer, or broken.
    if let Ok(file) = serde_json::from_slice::<File>(&bytes)
        && let Some(pipeline) = file.pipeline()
    {
        let native = file
            .native(&pipeline)
            .map_err(|source| TokenizerError::Vocabulary {
                origin: path.display().to_string(),
                source,
            })?;
        return Ok(Tokenizer::Native(Box::new(native)));
    }
    serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|source| TokenizerError::Json {
        path: path.to_owned(),
        source,
    })?;
    Library::new(&bytes)
        .map(Tokenizer::Library)
        .map_err(|message| TokenizerError::Library {
            path: path.to_owned(),
            message,
        })
}

/// A byte-level vocabulary as GGUF files have it.
pub(crate) struct ByteLevelParts {
    /// llama.cpp's name of the splitting rule.
    pub(crate) pre: &'static str,
    /// Texts in GPT-2's alphabet, and ids.
    pub(crate) tokens: Vec<(String, u32)>,
    /// Texts found before anything else, ids, and whether they are special.
    pub(crate) added: Vec<(String, u32, bool)>,
    /// `left right`, best first.
    pub(crate) merges: Vec<String>,
    /// What is put before a text.
    pub(crate) prefix: Vec<u32>,
}

/// Reads the parts of a `tokenizer.json` that is a byte-level BPE GGUF's rules have words for; None
/// of another kind.
pub(crate) fn byte_level_parts(path: &Path) -> Result<Option<ByteLevelParts>, TokenizerError> {
    let bytes = read_file(path)?;
    let Ok(file) = serde_json::from_slice::<File>(&bytes) else {
        return Ok(None);
    };
    let Some(pipeline) = file.pipeline() else {
        return Ok(None);
    };
    let Pipeline {
        split,
        nfc,
        prefix,
        suffix,
    } = pipeline;
    // What the names stand for besides the rule.
    let (pre, ignores_merges, normalizes) = match split {
        Split::Llama3 => ("llama-bpe", true, false),
        Split::Qwen2 => ("qwen2", false, true),
        Split::Gpt2 => ("gpt-2", false, false),
    };
    if (ignores_merges, normalizes) != (file.model.ignore_merges, nfc) || !suffix.is_empty() {
        return Ok(None);
    }
    let merges = file.model.merges.iter().enumerate().map(|(index, merge)| {
        let (left, right) = merge.parts(index)?;
        Ok(format!("{left} {right}"))
    });
    let merges = merges
        .collect::<Result<_, _>>()
        .map_err(|source| TokenizerError::Vocabulary {
            origin: path.display().to_string(),
            source,
        })?;
    let added = file.added_tokens.into_iter();
    Ok(Some(ByteLevelParts {
        pre,
        tokens: file.model.vocab,
        added: added
            .map(|token| (token.content, token.id, token.special))
            .collect(),
        merges,
        prefix,
    }))
}

/// Reads a whole file of a plausible size.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_owned(),
        source,
    };
    let len = fs::metadata(path).map_err(failed)?.len();
    if len > MAX_BYTES {
        return Err(failed(std::io::Error::other(format!(
            "{len} bytes are more than any such file has"
        ))));
    }
    fs::read(path).map_err(failed)
}

/// `tokenizer.json`, as far as byte-level BPE goes.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    model: BpeModel,
}

#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own fields")]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct BpeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f32>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(deserialize_with = "entries")]
    vocab: Vec<(String, u32)>,
    merges: Vec<Merge>,
}

/// What surrounds the model in a pipeline that we know.
struct Pipeline {
    split: Split,
    nfc: bool,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
}

impl File {
    /// Returns the pipeline if it is one that [`Native`] runs to the letter.
    fn pipeline(&self) -> Option<Pipeline> {
        let model = &self.model;
        let plain = model.kind.as_deref() == Some("BPE")
            && model.dropout.is_none_or(|p| p == 0.0)
            && model.unk_token.is_none()
            && model
                .continuing_subword_prefix
                .as_deref()
                .unwrap_or("")
                .is_empty()
            && model.end_of_word_suffix.as_deref().unwrap_or("").is_empty()
            && !model.fuse_unk
            && !model.byte_fallback
            && self.decoder["type"] == "ByteLevel";
        let nfc = match &self.normalizer {
            Value::Null => false,
            normalizer if normalizer["type"] == "NFC" => true,
            _ => return None,
        };
        let added_plainly = !self.added_tokens.iter().any(|token| {
            token.single_word || token.lstrip || token.rstrip || (token.normalized && nfc)
        });
        // The library looks for both kinds one after the other, which only shows where they mix.
        let one_pass = self
            .added_tokens
            .windows(2)
            .all(|pair| pair[0].normalized == pair[1].normalized);
        if !(plain && added_plainly && one_pass) {
            return None;
        }
        let (prefix, suffix) = affixes(&self.post_processor)?;
        Some(Pipeline {
            split: split(&self.pre_tokenizer)?,
            nfc,
            prefix,
            suffix,
        })
    }

    fn native(&self, pipeline: &Pipeline) -> Result<Native, VocabularyError> {
        let Pipeline {
            split,
            nfc,
            ref prefix,
            ref suffix,
        } = *pipeline;
        let parts = bpe::Parts {
            split,
            nfc,
            ignore_merges: self.model.ignore_merges,
            tokens: self
                .model
                .vocab
                .iter()
                .map(|(text, id)| (text.as_str(), *id))
                .collect(),
            merges: self
                .model
                .merges
                .iter()
                .enumerate()
                .map(|(index, merge)| merge.parts(index))
                .collect::<Result<_, _>>()?,
        };
        let kind = |token: &AddedToken| {
            if token.special {
                TokenKind::Control
            } else {
                TokenKind::UserDefined
            }
        };
        let mut tokens = Vec::new();
        for (text, id) in &self.model.vocab {
            let token = Token {
                text: text.as_str().into(),
                bytes: byte_level::token_bytes(text),
                kind: TokenKind::Normal,
            };
            place(&mut tokens, *id, token)?;
        }
        for token in &self.added_tokens {
            let text = token.content.as_str();
            let placed = Token {
                text: text.into(),
                bytes: text.as_bytes().into(),
                kind: kind(token),
            };
            place(&mut tokens, token.id, placed)?;
        }
        for (what, &id) in prefix
            .iter()
            .map(|id| ("first", id))
            .chain(suffix.iter().map(|id| ("last", id)))
        {
            if usize::try_from(id).is_ok_and(|id| id >= tokens.len()) {
                return Err(VocabularyError::SpecialOutOfRange {
                    what,
                    id,
                    tokens: tokens.len(),
                });
            }
        }
        let added: Vec<_> = self
            .added_tokens
            .iter()
            .map(|token| (token.content.as_str(), token.id, kind(token)))
            .collect();
        Ok(Native {
            tokens,
            added: Added::new(&added)?,
            model: Model::Bpe(bpe::Bpe::new(parts)?),
            prefix: prefix.clone(),
            suffix: suffix.clone(),
        })
    }
}

/// Puts a token at its id; one text may be put there twice, the added token last.
fn place(tokens: &mut Vec<Option<Token>>, id: u32, token: Token) -> Result<(), VocabularyError> {
    let at = id as usize;
    if at >= MAX_TOKENS {
        return Err(VocabularyError::IdTooLarge {
            token: token.text.into(),
            id,
        });
    }
    if at >= tokens.len() {
        tokens.resize(at + 1, None);
    }
    match &tokens[at] {
        Some(first) if first.text != token.text => Err(VocabularyError::DuplicateId {
            id,
            first: first.text.clone().into(),
            second: token.text.into(),
        }),
        _ => {
            tokens[at] = Some(token);
            Ok(())
        }
    }
}

/// Returns the rule of a byte-level pre-tokeniser.
fn split(pre_tokenizer: &Value) -> Option<Split> {
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            // Older files leave it out, and mean true.
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if byte_level(pre_tokenizer, true) {
        return Some(Split::Gpt2);
    }
    match pre_tokenizer["pretokenizers"].as_array()?.as_slice() {
        [cut, bytes]
            if cut["type"] == "Split"
                && cut["behavior"] == "Isolated"
                && cut["invert"] == false
                && byte_level(bytes, false) =>
        {
            Split::from_regex(cut["pattern"]["Regex"].as_str()?)
        }
        [one] if byte_level(one, true) => Some(Split::Gpt2),
        _ => None,
    }
}

/// Returns the ids that a post-processor puts before and after a text.
fn affixes(post_processor: &Value) -> Option<(Vec<u32>, Vec<u32>)> {
    match post_processor["type"].as_str() {
        // Its offsets are trimmed; the tokens stay.
        None | Some("ByteLevel") => Some((Vec::new(), Vec::new())),
        Some("Sequence") => {
            let mut all = (Vec::new(), Vec::new());
            for step in post_processor["processors"].as_array()? {
                let (mut prefix, suffix) = affixes(step)?;
                prefix.append(&mut all.0);
                all.0 = prefix;
                all.1.extend(suffix);
            }
            Some(all)
        }
        Some("TemplateProcessing") => {
            let (mut prefix, mut suffix) = (Vec::new(), Vec::new());
            let mut seen_text = false;
            for step in post_processor["single"].as_array()? {
                if let Some(name) = step["SpecialToken"]["id"].as_str() {
                    let ids = post_processor["special_tokens"][name]["ids"].as_array()?;
                    let side = if seen_text { &mut suffix } else { &mut prefix };
                    for id in ids {
                        side.push(u32::try_from(id.as_u64()?).ok()?);
                    }
                } else if step["Sequence"].is_object() && !seen_text {
                    seen_text = true;
                } else {
                    return None;
                }
            }
            seen_text.then_some((prefix, suffix))
        }
        Some(_) => None,
    }
}

/// A merge, written `"left right"` or `["left", "right"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Merge {
    fn parts(&self, index: usize) -> Result<(&str, &str), VocabularyError> {
        match self {
            Self::Line(line) => {
                line.split_once(' ')
                    .ok_or_else(|| VocabularyError::MalformedMerge {
                        index,
                        merge: line.clone(),
                    })
            }
            Self::Pair(left, right) => Ok((left, right)),
        }
    }
}

/// Reads a map as a list, so that a key that stands twice is seen.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, u32)>, D::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, u32)>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a map from token to id")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries)
}
