//! Text to tokens and back: byte-level BPE and SentencePiece vocabularies from a Hugging Face
//! folder's `tokenizer.json` or from a GGUF file.
//!
//! Texts are tokenized as the model's own Python tokenizer does it. The common kinds (Llama 3,
//! Qwen 2 and GPT-2 byte-level BPE, and GGUF's SentencePiece) are our own code, whose time is
//! near linear in the text's length whatever the text; any other `tokenizer.json` is left to the
//! `tokenizers` library.

mod bpe;
mod byte_level;
mod decode;
mod folder;
mod gguf;
mod json;
mod library;
mod native;
mod sentence_piece;
mod split;
#[cfg(test)]
pub(crate) mod tests;
mod vocabulary;

use std::{io, path::PathBuf, sync::OnceLock};

pub use decode::{TextStream, clean_up_spaces};
pub use split::{Pieces, Split};
pub use vocabulary::VocabularyError;

use crate::load::VocabSource;
pub(crate) use json::byte_level_parts;
use library::Library;
use native::{Model, Native};

/// What is added around a text's own tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Nothing.
    None,
    /// What the tokenizer adds by itself, most often a first token
    /// (Python's `add_special_tokens=True`).
    Default,
    /// The first token, where the vocabulary has one and the text does not begin with it.
    Bos,
}

/// A context and what follows it, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Never empty.
    pub context: Vec<u32>,
    /// Tokens of the continuation.
    pub continuation: Vec<u32>,
}

/// A vocabulary with its rules. Threads share one.
#[derive(Debug)]
pub struct Tokenizer {
    kind: Kind,
    special: SpecialIds,
    chat_template: Option<String>,
    cleans_up_spaces: bool,
    content_hash: OnceLock<String>,
}

#[derive(Debug)]
enum Kind {
    Native(Box<Native>),
    Library(Library),
}

/// The ids with a meaning.
#[derive(Clone, Debug, Default)]
struct SpecialIds {
    bos: Option<u32>,
    eos: Option<u32>,
    /// Every id that ends a text.
    ends: Vec<u32>,
}

/// Why there is no tokenizer, or no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The model file holds no vocabulary.
    #[error("the model has no vocabulary")]
    NoVocabulary,
    /// The vocabulary is of a kind that is not supported.
    #[error("unsupported tokenizer: {what}")]
    Unsupported {
        /// What it is.
        what: String,
    },
    /// A file of the tokenizer cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the tokenizer is no JSON of the expected shape.
    #[error("cannot parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The `tokenizers` library refuses the file.
    #[error("cannot build a tokenizer from {}: {message}", path.display())]
    Library {
        /// The file.
        path: PathBuf,
        /// The library's words.
        message: String,
    },
    /// The tokens, merges or scores contradict each other.
    #[error("bad vocabulary in {origin}")]
    Vocabulary {
        /// The file, or the part of it.
        origin: String,
        /// Which entry, and why.
        #[source]
        source: VocabularyError,
    },
    /// The `tokenizers` library cannot encode a text.
    #[error("cannot tokenize: {message}")]
    Encode {
        /// The library's words.
        message: String,
    },
    /// A continuation of nothing needs a token to follow, and the vocabulary has none for that.
    #[error("an empty context needs a first or last token, and the vocabulary has neither")]
    NoPrefixToken,
}

/// Special tokens that end a text or a turn whatever the model file says of them.
const END_TOKENS: [&str; 6] = [
    "<|eot_id|>",
    "<end_of_turn>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
];

impl Tokenizer {
    /// Builds the tokenizer of a model.
    pub fn new(source: &VocabSource) -> Result<Self, TokenizerError> {
        match source {
            VocabSource::TokenizerJson(folder) => folder::read(folder),
            VocabSource::Gguf(vocab) => {
                let (native, special) = gguf::read(vocab)?;
                Ok(Self::assemble(
                    Kind::Native(Box::new(native)),
                    special,
                    vocab.chat_template.clone(),
                    false,
                ))
            }
            VocabSource::None => Err(TokenizerError::NoVocabulary),
        }
    }

    fn assemble(
        kind: Kind,
        special: SpecialIds,
        chat_template: Option<String>,
        cleans_up_spaces: bool,
    ) -> Self {
        let mut tokenizer = Self {
            kind,
            special,
            chat_template,
            cleans_up_spaces,
            content_hash: OnceLock::new(),
        };
        let named = END_TOKENS
            .into_iter()
            .filter_map(|text| tokenizer.special_id(text));
        let mut ends: Vec<u32> = tokenizer
            .special
            .ends
            .iter()
            .copied()
            .chain(named)
            .collect();
        ends.sort_unstable();
        ends.dedup();
        tokenizer.special.ends = ends;
        tokenizer
    }

    /// Returns the tokens of `text`. With `parse_special`, the text of a special token is that
    /// token, as the Python libraries do by default; without, it is text like any other.
    pub fn encode(
        &self,
        text: &str,
        special: Special,
        parse_special: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = match &self.kind {
            Kind::Native(native) => {
                let mut ids = Vec::with_capacity(text.len() / 4 + 2);
                if special == Special::Default {
                    ids.extend(&native.prefix);
                }
                native.encode(text, parse_special, &mut ids);
                if special == Special::Default {
                    ids.extend(&native.suffix);
                }
                ids
            }
            Kind::Library(library) => library
                .encode(text, special == Special::Default, parse_special)
                .map_err(|message| TokenizerError::Encode { message })?,
        };
        if let (Special::Bos, Some(bos)) = (special, self.special.bos)
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Returns the tokens of a context and of what follows it, split as lm-evaluation-harness
    /// splits them: blanks at the context's end belong to the continuation; both are tokenized
    /// together, and the continuation is what exceeds the number of tokens of the context alone.
    /// Of nothing but blanks, the context is the first token (else the last one) of the vocabulary.
    pub fn pair(
        &self,
        context: &str,
        continuation: &str,
        bos: bool,
    ) -> Result<Pair, TokenizerError> {
        let special = if bos { Special::Bos } else { Special::None };
        let trimmed = context.trim_end_matches(is_python_space);
        let context_ids = self.encode(trimmed, special, true)?;
        let mut whole = self.encode(&format!("{context}{continuation}"), special, true)?;
        if context_ids.is_empty() {
            let prefix = self.prefix_id().ok_or(TokenizerError::NoPrefixToken)?;
            if whole.first() == Some(&prefix) {
                whole.remove(0);
            }
            return Ok(Pair {
                context: vec![prefix],
                continuation: whole,
            });
        }
        let continuation = whole.split_off(context_ids.len().min(whole.len()));
        Ok(Pair {
            context: context_ids,
            continuation,
        })
    }

    /// Returns the text of `ids`; what is no UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        match &self.kind {
            Kind::Native(native) => {
                let bytes: Vec<u8> = ids
                    .iter()
                    .flat_map(|&id| native.bytes(id, skip_special))
                    .copied()
                    .collect();
                let bytes = match bytes.split_first() {
                    Some((b' ', rest)) if native.strips_first_blank() => rest,
                    _ => &bytes,
                };
                String::from_utf8_lossy(bytes).into_owned()
            }
            Kind::Library(library) => library.decode(ids, skip_special),
        }
    }

    /// Begins a text that arrives token by token, after some other text.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    /// Returns the id that begins a text, if the vocabulary has one.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos
    }

    /// Returns the id that ends a text, if the vocabulary has one.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos
    }

    /// Returns every id that ends a text or a turn, in rising order.
    pub fn end_ids(&self) -> &[u32] {
        &self.special.ends
    }

    /// Returns the id that stands for an empty context: the first token, else the last.
    pub fn prefix_id(&self) -> Option<u32> {
        self.special.bos.or(self.special.eos)
    }

    /// Returns the number of ids; a model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Native(native) => native.tokens.len(),
            Kind::Library(library) => library.vocab_size(),
        }
    }

    /// Returns the text of a token as the vocabulary writes it.
    pub fn token_text(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Native(native) => native.token(id).map(|token| token.text.to_string()),
            Kind::Library(library) => library.token_text(id),
        }
    }

    /// Returns the id of the special token with this text.
    pub fn special_id(&self, text: &str) -> Option<u32> {
        match &self.kind {
            Kind::Native(native) => {
                let at = native.tokens.iter().position(|token| {
                    token
                        .as_ref()
                        .is_some_and(|t| t.kind.is_special() && &*t.text == text)
                })?;
                u32::try_from(at).ok()
            }
            Kind::Library(library) => library.special_id(text),
        }
    }

    /// Returns the chat template that came with the vocabulary.
    pub fn chat_template(&self) -> Option<&str> {
        self.chat_template.as_deref()
    }

    /// Returns whether the Python tokenizer would pass decoded text through
    /// [`clean_up_spaces`] (`clean_up_tokenization_spaces` of `tokenizer_config.json`).
    pub fn cleans_up_spaces(&self) -> bool {
        self.cleans_up_spaces
    }

    /// Returns a blake3 hash, in hexadecimal, of all that decides how texts are tokenized: equal
    /// hashes give equal tokens. One vocabulary in two kinds of file has one hash.
    pub fn content_hash(&self) -> &str {
        self.content_hash.get_or_init(|| match &self.kind {
            Kind::Native(native) => hash(native),
            Kind::Library(library) => library.hash().to_owned(),
        })
    }
}

/// Hashes tokens and rules in one order, each with its length before it.
fn hash(native: &Native) -> String {
    let Native {
        tokens,
        added: _, // follows from the tokens' kinds
        model,
        prefix,
        suffix,
    } = native;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(b"tritmark tokenizer 1");
    put(&(tokens.len() as u64).to_le_bytes());
    for token in tokens {
        match token {
            Some(token) => {
                put(&[1, token.kind as u8]);
                put(token.text.as_bytes());
            }
            None => put(&[0]),
        }
    }
    match model {
        Model::Bpe(model) => model.describe(&mut put),
        Model::SentencePiece(model) => model.describe(&mut put),
    }
    for affix in [prefix, suffix] {
        put(bytemuck::cast_slice(
            &affix.iter().map(|id| id.to_le()).collect::<Vec<_>>(),
        ));
    }
    hasher.finalize().to_hex().to_string()
}

/// Returns whether Python's `str.strip` takes `c` away: Unicode's blanks and four separators.
pub fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
