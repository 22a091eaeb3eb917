//! The pre-tokenisers of byte-level BPE: cutting a text into the pieces that merges stay within.
//!
//! Each rule is a published regular expression, given in [`Split`], walked by hand: one pass over
//! the text whatever it holds, where a backtracking matcher gives up on long runs of blanks.

use std::{cmp::Ordering, sync::LazyLock};

use regex_syntax::hir::{Class, HirKind};
use serde::Serialize;

/// A published splitting rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Llama 3: its published expression.
    Llama3,
    /// Qwen 2: the same with single digits.
    Qwen2,
    /// GPT-2's published expression.
    Gpt2,
}

/// Llama 3's rule.
pub(super) const LLAMA3_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's rule.
pub(super) const QWEN2_REGEX: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-2's rule.
pub(super) const GPT2_REGEX: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

impl Split {
    /// Returns the rule that a regular expression of `tokenizer.json` states.
    pub fn from_regex(regex: &str) -> Option<Self> {
        match regex {
            LLAMA3_REGEX => Some(Self::Llama3),
            QWEN2_REGEX => Some(Self::Qwen2),
            GPT2_REGEX => Some(Self::Gpt2),
            _ => None,
        }
    }

    /// Returns the rule that `tokenizer.ggml.pre` names (llama.cpp's names).
    pub fn from_gguf_name(name: &str) -> Option<Self> {
        match name {
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" => Some(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => Some(Self::Qwen2),
            "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jais" => Some(Self::Gpt2),
            _ => None,
        }
    }

    /// Cuts `text` into pieces; together they are the text.
    pub fn pieces(self, text: &str) -> Pieces<'_> {
        Pieces {
            split: self,
            rest: text,
        }
    }
}

/// The pieces of a text, in order.
#[derive(Clone, Debug)]
pub struct Pieces<'t> {
    split: Split,
    rest: &'t str,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (piece, rest) = self.rest.split_at(self.split.first(self.rest));
        self.rest = rest;
        Some(piece)
    }
}

impl Split {
    /// Returns the length in bytes of the first piece of a text that is not empty.
    fn first(self, text: &str) -> usize {
        let alternatives: &[fn(&str) -> Option<usize>] = match self {
            Self::Llama3 => &[
                contraction_any_case,
                word_after_any,
                |text| digits(text, 3),
                symbols_with_newlines,
                blanks_to_newline,
            ],
            Self::Qwen2 => &[
                contraction_any_case,
                word_after_any,
                |text| digits(text, 1),
                symbols_with_newlines,
                blanks_to_newline,
            ],
            Self::Gpt2 => &[
                contraction,
                |text| after_space(text, Kind::Letter),
                |text| after_space(text, Kind::Number),
                |text| after_space(text, Kind::Symbol),
            ],
        };
        alternatives
            .iter()
            .find_map(|alternative| alternative(text))
            .unwrap_or_else(|| blanks(text))
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str) -> Option<usize> {
    let tail = text.strip_prefix('\'')?;
    ["s", "t", "re", "ve", "m", "ll", "d"]
        .into_iter()
        .find(|ending| tail.starts_with(ending))
        .map(|ending| 1 + ending.len())
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)`; the long s folds to s.
fn contraction_any_case(text: &str) -> Option<usize> {
    let mut chars = text.strip_prefix('\'')?.chars();
    let first = chars.next()?;
    if first == 'ſ' {
        return Some(1 + first.len_utf8());
    }
    let second = chars.next().map(|c| c.to_ascii_lowercase());
    match (first.to_ascii_lowercase(), second) {
        ('s' | 't' | 'm' | 'd', _) => Some(2),
        ('r' | 'v', Some('e')) | ('l', Some('l')) => Some(3),
        _ => None,
    }
}

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
fn word_after_any(text: &str) -> Option<usize> {
    let first = text.chars().next()?;
    let lead = match kind(first) {
        Kind::Letter => 0,
        Kind::Number => return None,
        _ if is_newline(first) => return None,
        _ => first.len_utf8(),
    };
    let letters = run(&text[lead..], Kind::Letter);
    (letters > 0).then_some(lead + letters)
}

/// `\p{N}{1,max}`
fn digits(text: &str, max: usize) -> Option<usize> {
    let len = text
        .chars()
        .take(max)
        .take_while(|&c| kind(c) == Kind::Number)
        .map(char::len_utf8)
        .sum();
    (len > 0).then_some(len)
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
fn symbols_with_newlines(text: &str) -> Option<usize> {
    let len = after_space(text, Kind::Symbol)?;
    let newlines = text[len..]
        .bytes()
        .take_while(|b| matches!(b, b'\r' | b'\n'));
    Some(len + newlines.count())
}

/// ` ?` and a run of one kind.
fn after_space(text: &str, wanted: Kind) -> Option<usize> {
    let lead = usize::from(text.starts_with(' '));
    let len = run(&text[lead..], wanted);
    (len > 0).then_some(lead + len)
}

/// `\s*[\r\n]+`: up to the last line end of the blanks ahead.
fn blanks_to_newline(text: &str) -> Option<usize> {
    text[..run(text, Kind::Blank)]
        .rfind(['\r', '\n'])
        .map(|last| last + 1)
}

/// `\s+(?!\S)|\s+`: blanks leave their last one to the word that follows, if they have another.
/// Every other kind of character has been taken by then, so that there is at least one.
fn blanks(text: &str) -> usize {
    let len = run(text, Kind::Blank);
    let last = text[..len].chars().next_back().map_or(0, char::len_utf8);
    if len == text.len() || len == last {
        return len;
    }
    len - last
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// Returns the length in bytes of the run of one kind that `text` begins with.
fn run(text: &str, wanted: Kind) -> usize {
    text.char_indices()
        .find(|&(_, c)| kind(c) != wanted)
        .map_or(text.len(), |(at, _)| at)
}

/// What the regular expressions tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Blank,
    /// Everything else.
    Symbol,
}

fn kind(c: char) -> Kind {
    if c.is_ascii() {
        return match c {
            'a'..='z' | 'A'..='Z' => Kind::Letter,
            '0'..='9' => Kind::Number,
            ' ' | '\t'..='\r' => Kind::Blank,
            _ => Kind::Symbol,
        };
    }
    if c.is_whitespace() {
        Kind::Blank
    } else if c.is_numeric() {
        Kind::Number
    } else if is_letter(c) {
        Kind::Letter
    } else {
        Kind::Symbol
    }
}

/// Returns whether `c` is of general category L; `char::is_alphabetic` is a wider property.
fn is_letter(c: char) -> bool {
    static LETTERS: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
        let hir = regex_syntax::parse(r"\p{L}").expect("a valid expression");
        let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
            unreachable!("a Unicode category is a class of characters");
        };
        class.iter().map(|r| (r.start(), r.end())).collect()
    });
    LETTERS
        .binary_search_by(|&(start, end)| {
            if end < c {
                Ordering::Less
            } else if start > c {
                Ordering::Greater
            } else {
                Ordering::Equal
            }
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
        pre_tokenizers::split::{Split as RegexSplit, SplitPattern},
    };

    use super::*;

    static RULES: LazyLock<[(Split, RegexSplit); 3]> = LazyLock::new(|| {
        [
            (Split::Llama3, LLAMA3_REGEX),
            (Split::Qwen2, QWEN2_REGEX),
            (Split::Gpt2, GPT2_REGEX),
        ]
        .map(|(split, regex)| {
            let pattern = SplitPattern::Regex(regex.to_owned());
            let isolated = SplitDelimiterBehavior::Isolated;
            (split, RegexSplit::new(pattern, isolated, false).unwrap())
        })
    });

    /// Cuts with a regular expression engine, as the Python libraries do.
    fn by_regex(split: &RegexSplit, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        split.pre_tokenize(&mut pieces).unwrap();
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(piece, _, _)| piece.to_owned())
            .filter(|piece| !piece.is_empty())
            .collect()
    }

    fn check(text: &str) {
        for (split, regex) in &*RULES {
            let pieces: Vec<_> = split.pieces(text).collect();
            assert_eq!(pieces, by_regex(regex, text), "{split:?} of {text:?}");
        }
    }

    #[test]
    fn every_rule_cuts_as_its_regular_expression_does() {
        for text in [
            "",
            " ",
            "  ",
            "a",
            "  a",
            " \n",
            "\n \n  x",
            "\r\n\r\n  \t",
            "I'll we'Re 'S 'ſ 'x ''t '",
            "1234567 ١٢٣٤ ½²",
            "!!!\n\n??  --\r\na",
            "\u{a0}\u{a0}b\u{3000}\u{2003}c",
            "e\u{301}\u{301}x नमस्ते ⓐⓑ ªº",
            "\u{200b}\u{feff}z",
        ] {
            check(text);
        }
    }

    #[test]
    fn a_megabyte_of_one_character_is_cut_in_one_pass() {
        for c in ["a", " ", "\n", "1", "!", "\t", "é", "'"] {
            let text = c.repeat((1 << 20) / c.len());
            for (split, _) in &*RULES {
                let bytes: usize = split.pieces(&text).map(str::len).sum();
                assert_eq!(bytes, text.len());
            }
        }
    }

    proptest! {
        #[test]
        fn random_texts_are_cut_as_the_regular_expressions_cut_them(
            text in r"([ \t\r\n]|[a-zA-Z]|[0-9]|'|[!-/]|\p{L}|\p{M}|\p{N}|\p{Z}|\p{S}|.){0,60}"
        ) {
            check(&text);
        }
    }
}
