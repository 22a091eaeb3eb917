//! Every other kind of `tokenizer.json`, left to the `tokenizers` library.
//!
//! The library panics on files it does not expect; what comes of that is an error like any other.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

/// A tokenizer of the library.
#[derive(Debug)]
pub(super) struct Library {
    /// Finds special tokens in a text.
    parses: Box<tokenizers::Tokenizer>,
    /// Takes their texts for text; made when first asked for.
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
    hash: String,
}

impl Library {
    /// Builds the tokenizer that a `tokenizer.json` describes; the error is the library's words.
    pub(super) fn new(json: &[u8]) -> Result<Self, String> {
        let parses = contained(|| {
            let mut tokenizer = tokenizers::Tokenizer::from_bytes(json)?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None)?;
            Ok(tokenizer)
        })?;
        Ok(Self {
            parses: Box::new(parses),
            plain: OnceLock::new(),
            hash: blake3::hash(json).to_hex().to_string(),
        })
    }

    /// Returns the tokens of `text`, with those the tokenizer adds by itself if `adds_special`.
    pub(super) fn encode(
        &self,
        text: &str,
        adds_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, String> {
        contained(|| {
            let tokenizer = if parse_special {
                &self.parses
            } else {
                self.plain.get_or_init(|| {
                    let mut plain = self.parses.clone();
                    plain.set_encode_special_tokens(true);
                    plain
                })
            };
            Ok(tokenizer
                .encode_fast(text, adds_special)?
                .get_ids()
                .to_vec())
        })
    }

    /// Returns the text of `ids`; the decoders fail on nothing that a sound vocabulary can hold, and
    /// where one does the text is empty.
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        contained(|| self.parses.decode(ids, skip_special)).unwrap_or_default()
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.parses.get_vocab_size(true)
    }

    pub(super) fn token_text(&self, id: u32) -> Option<String> {
        self.parses.id_to_token(id)
    }

    pub(super) fn special_id(&self, text: &str) -> Option<u32> {
        let id = self.parses.token_to_id(text)?;
        let added = self.parses.get_added_tokens_decoder();
        added
            .get(&id)
            .is_some_and(|token| token.special)
            .then_some(id)
    }

    /// Returns the blake3 hash of the file.
    pub(super) fn hash(&self) -> &str {
        &self.hash
    }
}

/// Calls into the library and takes its panics for errors. Nothing of it that a panic has left half
/// done is seen again but a cache, which it leaves out where it cannot be locked.
fn contained<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|panic| words(panic.as_ref()))?
        .map_err(|error| error.to_string())
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the tokenizers library panicked")
        .to_owned()
}
