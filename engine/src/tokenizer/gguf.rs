//! From the `tokenizer.ggml.*` keys of a GGUF file to a tokenizer.

use std::borrow::Cow;

use super::{
    SpecialIds, TokenizerError, bpe, byte_level,
    native::{Model, Native},
    sentence_piece::{self, SentencePiece},
    split::Split,
    vocabulary::{Added, MAX_TOKENS, Token, TokenKind, VocabularyError},
};
use crate::load::GgufVocab;

/// Builds the tokenizer that a GGUF file describes.
pub(super) fn read(vocab: &GgufVocab) -> Result<(Native, SpecialIds), TokenizerError> {
    let malformed = |source| TokenizerError::Vocabulary {
        origin: "tokenizer.ggml".to_owned(),
        source,
    };
    let kinds = kinds(vocab).map_err(malformed)?;
    let native = match vocab.model.as_str() {
        "gpt2" => byte_level_bpe(vocab, &kinds, split(vocab)?),
        "llama" => sentence_piece(vocab, &kinds),
        other => {
            return Err(TokenizerError::Unsupported {
                what: format!("tokenizer.ggml.model `{other}`"),
            });
        }
    }
    .map_err(malformed)?;
    let special = special_ids(vocab).map_err(malformed)?;
    Ok((native, special))
}

/// Returns the kind of each token.
fn kinds(vocab: &GgufVocab) -> Result<Vec<TokenKind>, VocabularyError> {
    let n = vocab.tokens.len();
    if n > MAX_TOKENS {
        return Err(VocabularyError::TooManyTokens { n });
    }
    if vocab.token_types.is_empty() {
        return Ok(vec![TokenKind::Normal; n]);
    }
    if vocab.token_types.len() != n {
        return Err(VocabularyError::LengthMismatch {
            what: "token types",
            n: vocab.token_types.len(),
            tokens: n,
        });
    }
    (0..)
        .zip(&vocab.token_types)
        .map(|(id, &kind)| {
            TokenKind::from_gguf(kind).ok_or(VocabularyError::UnknownKind { id, kind })
        })
        .collect()
}

/// Returns the splitting rule. The official BitNet b1.58 2B4T file names none; its vocabulary is
/// Llama 3's, and the rule that llama.cpp falls back to gives other tokens (microsoft/BitNet #508).
fn split(vocab: &GgufVocab) -> Result<Split, TokenizerError> {
    match vocab.pre.as_deref() {
        None | Some("" | "default") if vocab.architecture.starts_with("bitnet") => {
            Ok(Split::Llama3)
        }
        None => Err(TokenizerError::Unsupported {
            what: "a byte-level vocabulary without tokenizer.ggml.pre".to_owned(),
        }),
        Some(name) => Split::from_gguf_name(name).ok_or_else(|| TokenizerError::Unsupported {
            what: format!("tokenizer.ggml.pre `{name}`"),
        }),
    }
}

fn byte_level_bpe(
    vocab: &GgufVocab,
    kinds: &[TokenKind],
    split: Split,
) -> Result<Native, VocabularyError> {
    let entries = || (0u32..).zip(vocab.tokens.iter().zip(kinds));
    let parts = bpe::Parts {
        split,
        // The file does not say; the tokenizer that Qwen 2 was trained with does it.
        nfc: split == Split::Qwen2,
        ignore_merges: split == Split::Llama3,
        tokens: entries()
            .filter(|(_, (_, kind))| matches!(kind, TokenKind::Normal | TokenKind::Unused))
            .map(|(id, (text, _))| (text.as_str(), id))
            .collect(),
        merges: vocab
            .merges
            .iter()
            .enumerate()
            .map(|(index, merge)| {
                merge
                    .split_once(' ')
                    .ok_or_else(|| VocabularyError::MalformedMerge {
                        index,
                        merge: merge.clone(),
                    })
            })
            .collect::<Result<_, _>>()?,
    };
    let tokens = entries().map(|(_, (text, &kind))| {
        let bytes = if matches!(kind, TokenKind::Normal | TokenKind::Unused) {
            byte_level::token_bytes(text)
        } else {
            text.as_bytes().into()
        };
        Token {
            text: text.as_str().into(),
            bytes,
            kind,
        }
    });
    let (prefix, suffix) = affixes(vocab, split == Split::Llama3);
    Ok(Native {
        tokens: tokens.map(Some).collect(),
        added: added(vocab, kinds)?,
        model: Model::Bpe(bpe::Bpe::new(parts)?),
        prefix,
        suffix,
    })
}

fn sentence_piece(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Native, VocabularyError> {
    if vocab.scores.len() != vocab.tokens.len() {
        return Err(VocabularyError::LengthMismatch {
            what: "scores",
            n: vocab.scores.len(),
            tokens: vocab.tokens.len(),
        });
    }
    let entries = || (0u32..).zip(vocab.tokens.iter().zip(kinds).zip(&vocab.scores));
    let parts = sentence_piece::Parts {
        tokens: entries()
            .filter(|(_, ((_, kind), _))| matches!(kind, TokenKind::Normal | TokenKind::Unused))
            .map(|(id, ((text, _), &score))| (text.as_str(), id, score))
            .collect(),
        bytes: entries()
            .filter(|(_, ((_, kind), _))| **kind == TokenKind::Byte)
            .map(|(id, ((text, _), _))| (text.as_str(), id))
            .collect(),
        unknown: vocab.unknown_id,
        space_prefix: vocab.add_space_prefix.unwrap_or(true),
    };
    let tokens = entries().map(|(_, ((text, &kind), _))| {
        let decoded: Cow<'_, [u8]> = match kind {
            TokenKind::Byte => sentence_piece::parse_byte(text).into_iter().collect(),
            TokenKind::Normal | TokenKind::Unused => {
                text.replace(sentence_piece::BLANK, " ").into_bytes().into()
            }
            _ => text.as_bytes().into(),
        };
        Token {
            text: text.as_str().into(),
            bytes: decoded.into(),
            kind,
        }
    });
    let (prefix, suffix) = affixes(vocab, true);
    Ok(Native {
        tokens: tokens.map(Some).collect(),
        added: added(vocab, kinds)?,
        model: Model::SentencePiece(SentencePiece::new(parts)?),
        prefix,
        suffix,
    })
}

/// Returns what goes before and after a text when special tokens are asked for.
fn affixes(vocab: &GgufVocab, bos_by_default: bool) -> (Vec<u32>, Vec<u32>) {
    let bos = vocab.add_bos.unwrap_or(bos_by_default);
    let eos = vocab.add_eos.unwrap_or(false);
    (
        vocab.bos_id.filter(|_| bos).into_iter().collect(),
        vocab.eos_id.filter(|_| eos).into_iter().collect(),
    )
}

fn added(vocab: &GgufVocab, kinds: &[TokenKind]) -> Result<Added, VocabularyError> {
    let special: Vec<_> = (0u32..)
        .zip(vocab.tokens.iter().zip(kinds))
        .filter(|(_, (_, kind))| {
            matches!(
                kind,
                TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown
            )
        })
        .map(|(id, (text, &kind))| (text.as_str(), id, kind))
        .collect();
    Added::new(&special)
}

fn special_ids(vocab: &GgufVocab) -> Result<SpecialIds, VocabularyError> {
    let tokens = vocab.tokens.len();
    for (what, id) in [
        ("first", vocab.bos_id),
        ("last", vocab.eos_id),
        ("end-of-turn", vocab.eot_id),
        ("unknown", vocab.unknown_id),
    ] {
        if let Some(id) = id.filter(|&id| usize::try_from(id).is_ok_and(|id| id >= tokens)) {
            return Err(VocabularyError::SpecialOutOfRange { what, id, tokens });
        }
    }
    Ok(SpecialIds {
        bos: vocab.bos_id,
        eos: vocab.eos_id,
        ends: vocab.eos_id.into_iter().chain(vocab.eot_id).collect(),
    })
}
