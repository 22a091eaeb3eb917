//! The tokens of a vocabulary, whatever file they came from: their texts, their kinds, and the
//! special ones that are found in a text before anything else happens to it.

use aho_corasick::{AhoCorasick, MatchKind};

/// Tokens that no vocabulary in use comes near; keeps a hostile id from asking for gigabytes.
pub(super) const MAX_TOKENS: usize = 1 << 20;

/// What is wrong with a vocabulary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// Two ids for one text.
    #[error("token `{token}` stands twice, as {first} and as {second}")]
    DuplicateToken {
        /// The text.
        token: String,
        /// One id.
        first: u32,
        /// The other.
        second: u32,
    },
    /// Two texts for one id.
    #[error("token {id} is both `{first}` and `{second}`")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One text.
        first: String,
        /// The other.
        second: String,
    },
    /// An id beyond any vocabulary.
    #[error("token `{token}` has id {id}, and no vocabulary is that large")]
    IdTooLarge {
        /// The text.
        token: String,
        /// The id.
        id: u32,
    },
    /// More tokens than any vocabulary has.
    #[error("{n} tokens are more than any vocabulary has")]
    TooManyTokens {
        /// How many.
        n: usize,
    },
    /// More merges than any vocabulary has.
    #[error("more than 2^32 merges")]
    TooManyMerges,
    /// A byte that cannot be written.
    #[error("no token for byte {byte:#04x} (`{character}`)")]
    MissingByte {
        /// The byte.
        byte: u8,
        /// How the vocabulary would write it.
        character: char,
    },
    /// A byte token that names no byte.
    #[error("token {id} is marked as a byte, but `{token}` names none")]
    ByteToken {
        /// The text.
        token: String,
        /// The id.
        id: u32,
    },
    /// A merge of, or into, a text that is no token.
    #[error("merge {index} (`{merge}`): `{part}` is no token")]
    UnknownMergePart {
        /// Place in the list, from 0.
        index: usize,
        /// The entry.
        merge: String,
        /// The text that is missing.
        part: String,
    },
    /// A merge that is not two texts with a blank between them.
    #[error("merge {index} (`{merge}`) is not two tokens")]
    MalformedMerge {
        /// Place in the list, from 0.
        index: usize,
        /// The entry.
        merge: String,
    },
    /// A score that cannot be compared.
    #[error("the score of token {id} (`{token}`) is not a number")]
    Score {
        /// The text.
        token: String,
        /// The id.
        id: u32,
    },
    /// Lists that should be equally long.
    #[error("{n} {what} for {tokens} tokens")]
    LengthMismatch {
        /// Which list.
        what: &'static str,
        /// Its length.
        n: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// A type number outside the format.
    #[error("token {id} has type {kind}, which GGUF does not define")]
    UnknownKind {
        /// The id.
        id: u32,
        /// The number.
        kind: i32,
    },
    /// A special id without a token.
    #[error("the {what} token is {id}, but there are {tokens} tokens")]
    SpecialOutOfRange {
        /// Which one.
        what: &'static str,
        /// Its id.
        id: u32,
        /// Number of tokens.
        tokens: usize,
    },
    /// Special tokens whose search table would not fit.
    #[error("the special tokens cannot be searched for: {0}")]
    Search(String),
}

/// What a token is for (GGUF's `token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    /// Returns the kind of a GGUF `token_type`.
    pub(super) fn from_gguf(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Returns whether the token is structure rather than text.
    pub(super) fn is_special(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// A token of a vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The text as the file writes it.
    pub(super) text: Box<str>,
    /// What it adds to a decoded text.
    pub(super) bytes: Box<[u8]>,
    pub(super) kind: TokenKind,
}

/// Finds the tokens that are taken out of a text before it is cut: leftmost first, then longest.
#[derive(Debug)]
pub(super) struct Added {
    all: Finder,
    user_defined: Finder,
}

#[derive(Debug)]
struct Finder {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// A stretch of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text for the model.
    Text(&'t str),
    /// A special or user-defined token.
    Token(u32),
}

impl Added {
    /// Takes the tokens to look for with their ids and kinds.
    pub(super) fn new(tokens: &[(&str, u32, TokenKind)]) -> Result<Self, VocabularyError> {
        let finder = |wanted: fn(TokenKind) -> bool| {
            let chosen = || {
                tokens
                    .iter()
                    .filter(|(text, _, kind)| !text.is_empty() && wanted(*kind))
            };
            Ok::<_, VocabularyError>(Finder {
                automaton: AhoCorasick::builder()
                    .match_kind(MatchKind::LeftmostLongest)
                    .build(chosen().map(|(text, ..)| text))
                    .map_err(|error| VocabularyError::Search(error.to_string()))?,
                ids: chosen().map(|&(_, id, _)| id).collect(),
            })
        };
        Ok(Self {
            all: finder(|_| true)?,
            user_defined: finder(|kind| kind == TokenKind::UserDefined)?,
        })
    }

    /// Calls `visit` with the stretches of `text` in order, none of them empty.
    pub(super) fn split<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        mut visit: impl FnMut(Fragment<'t>),
    ) {
        let finder = if parse_special {
            &self.all
        } else {
            &self.user_defined
        };
        let mut done = 0;
        for found in finder.automaton.find_iter(text) {
            if found.start() > done {
                visit(Fragment::Text(&text[done..found.start()]));
            }
            visit(Fragment::Token(finder.ids[found.pattern().as_usize()]));
            done = found.end();
        }
        if done < text.len() {
            visit(Fragment::Text(&text[done..]));
        }
    }
}
