//! SentencePiece BPE as GGUF's tokenizer model `llama` stores it: no list of merges, but a score
//! for each token; the two neighbours whose joint token scores best are joined until none is left,
//! and what is no token at all becomes its bytes (llama.cpp, `llm_tokenizer_spm`).

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
};

use super::vocabulary::VocabularyError;

/// SentencePiece's visible blank.
pub(super) const BLANK: char = '\u{2581}';

/// The model part of a SentencePiece tokenizer.
#[derive(Debug)]
pub(super) struct SentencePiece {
    ids: HashMap<Box<str>, (u32, f32)>,
    /// Bytes of the longest token: no longer text needs looking up.
    longest: usize,
    /// Token of each byte that no other token covers.
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
    /// Whether a text is preceded by a blank.
    pub(super) space_prefix: bool,
}

/// What a SentencePiece model is made of.
#[derive(Debug)]
pub(super) struct Parts<'v> {
    /// Texts with their ids and scores.
    pub(super) tokens: Vec<(&'v str, u32, f32)>,
    /// Byte tokens `<0x00>` to `<0xFF>`.
    pub(super) bytes: Vec<(&'v str, u32)>,
    pub(super) unknown: Option<u32>,
    pub(super) space_prefix: bool,
}

impl SentencePiece {
    /// Builds the tables, refusing what no trained vocabulary holds.
    pub(super) fn new(parts: Parts<'_>) -> Result<Self, VocabularyError> {
        let Parts {
            tokens,
            bytes: byte_tokens,
            unknown,
            space_prefix,
        } = parts;
        let longest = tokens.iter().map(|(t, ..)| t.len()).max().unwrap_or(0);
        let mut ids = HashMap::with_capacity(tokens.len());
        for (token, id, score) in tokens {
            if score.is_nan() {
                return Err(VocabularyError::Score {
                    token: token.to_owned(),
                    id,
                });
            }
            if let Some((first, _)) = ids.insert(token.into(), (id, score)) {
                return Err(VocabularyError::DuplicateToken {
                    token: token.to_owned(),
                    first,
                    second: id,
                });
            }
        }
        let mut bytes = Box::new([None; 256]);
        for (token, id) in byte_tokens {
            let byte = parse_byte(token).ok_or_else(|| VocabularyError::ByteToken {
                token: token.to_owned(),
                id,
            })?;
            if let Some(first) = bytes[usize::from(byte)].replace(id) {
                return Err(VocabularyError::DuplicateToken {
                    token: token.to_owned(),
                    first,
                    second: id,
                });
            }
        }
        if unknown.is_none()
            && let Some(byte) = (0..=u8::MAX).find(|&b| bytes[usize::from(b)].is_none())
        {
            return Err(VocabularyError::MissingByte {
                byte,
                character: char::from(byte),
            });
        }
        Ok(Self {
            ids,
            longest,
            bytes,
            unknown,
            space_prefix,
        })
    }

    /// Gives `put` everything besides the tokens that decides how a text is cut.
    pub(super) fn describe(&self, mut put: impl FnMut(&[u8])) {
        let Self {
            ids,
            longest: _, // these follow from the tokens
            bytes: _,
            unknown,
            space_prefix,
        } = self;
        put(format!("spm unknown={unknown:?} prefix={space_prefix}").as_bytes());
        let mut sorted: Vec<_> = ids.values().collect();
        sorted.sort_unstable_by_key(|(id, _)| *id);
        for (id, score) in sorted {
            put(&id.to_le_bytes());
            put(&score.to_le_bytes());
        }
    }

    /// Appends the tokens of `text` to `ids`; `begins` says that nothing or a special token
    /// stands before it.
    pub(super) fn encode(&self, text: &str, begins: bool, ids: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + 3);
        if self.space_prefix && begins {
            escaped.push(BLANK);
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { BLANK } else { c }));

        let mut symbols: Vec<Symbol> = escaped
            .char_indices()
            .enumerate()
            .map(|(at, (start, c))| Symbol {
                start,
                len: c.len_utf8(),
                previous: at.checked_sub(1),
                next: Some(at + 1),
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut queue: BinaryHeap<Candidate> = (1..symbols.len())
            .filter_map(|at| self.candidate(&escaped, &symbols, at - 1))
            .collect();
        while let Some(Candidate { left, len, .. }) = queue.pop() {
            let Some(right) = symbols[left].next.filter(|_| symbols[left].len > 0) else {
                continue;
            };
            if symbols[left].len + symbols[right].len != len {
                continue; // one of the two has since been joined to something else
            }
            let after = symbols[right].next;
            symbols[right].len = 0;
            symbols[left].len = len;
            symbols[left].next = after;
            if let Some(after) = after {
                symbols[after].previous = Some(left);
                queue.extend(self.candidate(&escaped, &symbols, left));
            }
            if let Some(previous) = symbols[left].previous {
                queue.extend(self.candidate(&escaped, &symbols, previous));
            }
        }
        for Symbol { start, len, .. } in symbols.into_iter().filter(|s| s.len > 0) {
            self.push(&escaped[start..start + len], ids);
        }
    }

    fn candidate(&self, text: &str, symbols: &[Symbol], left: usize) -> Option<Candidate> {
        let Symbol {
            start, len, next, ..
        } = symbols[left];
        let len = len + symbols[next?].len;
        if len > self.longest {
            return None;
        }
        let &(_, score) = self.ids.get(&text[start..start + len])?;
        Some(Candidate { score, left, len })
    }

    /// Appends one symbol: its token, else the tokens of its bytes.
    fn push(&self, symbol: &str, ids: &mut Vec<u32>) {
        match self.ids.get(symbol) {
            Some(&(id, _)) => ids.push(id),
            None => ids.extend(
                symbol
                    .bytes()
                    .filter_map(|byte| self.bytes[usize::from(byte)].or(self.unknown)),
            ),
        }
    }
}

/// Reads `<0xA5>`.
pub(super) fn parse_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A link of the chain of parts that a text is at some moment; empty once joined to its left.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A possible join: the best score is the greatest, and the leftmost among equals.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Never NaN.
    score: f32,
    left: usize,
    /// Bytes of both together.
    len: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let score = self.score.total_cmp(&other.score);
        score
            .then_with(|| other.left.cmp(&self.left))
            .then_with(|| self.len.cmp(&other.len))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}
