//! A tokenizer of our own making: the special tokens, then byte-level BPE or SentencePiece.

use super::{
    bpe::Bpe,
    sentence_piece::SentencePiece,
    vocabulary::{Added, Fragment, Token},
};

/// The vocabulary and its model.
#[derive(Debug)]
pub(super) struct Native {
    /// By id; a gap is an id that no token has.
    pub(super) tokens: Vec<Option<Token>>,
    pub(super) added: Added,
    pub(super) model: Model,
    /// What the tokenizer itself puts before a text.
    pub(super) prefix: Vec<u32>,
    /// What the tokenizer itself puts after a text.
    pub(super) suffix: Vec<u32>,
}

#[derive(Debug)]
pub(super) enum Model {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
}

impl Native {
    /// Appends the tokens of `text` to `ids`.
    pub(super) fn encode(&self, text: &str, parse_special: bool, ids: &mut Vec<u32>) {
        let mut begins = true;
        self.added
            .split(text, parse_special, |fragment| match fragment {
                Fragment::Token(id) => {
                    ids.push(id);
                    begins = true;
                }
                Fragment::Text(text) => {
                    match &self.model {
                        Model::Bpe(bpe) => bpe.encode(text, ids),
                        Model::SentencePiece(model) => model.encode(text, begins, ids),
                    }
                    begins = false;
                }
            });
    }

    /// Returns the token of an id, if it has one.
    pub(super) fn token(&self, id: u32) -> Option<&Token> {
        self.tokens.get(usize::try_from(id).ok()?)?.as_ref()
    }

    /// Returns the bytes that `id` adds to a text: none of an id without a token, as in the
    /// Python library.
    pub(super) fn bytes(&self, id: u32, skip_special: bool) -> &[u8] {
        match self.token(id) {
            Some(token) if !(skip_special && token.kind.is_special()) => &token.bytes,
            _ => &[],
        }
    }

    /// Returns whether decoding takes a blank off the beginning that encoding put there.
    pub(super) fn strips_first_blank(&self) -> bool {
        matches!(&self.model, Model::SentencePiece(model) if model.space_prefix)
    }
}
