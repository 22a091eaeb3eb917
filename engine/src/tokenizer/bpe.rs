//! Byte-level byte-pair encoding (GPT-2): a text is cut into pieces, a piece starts as its bytes,
//! and the pair whose merge stands first in the list is joined until none is left.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use tokenizers::NormalizedString;

use super::{byte_level, split::Split, vocabulary::VocabularyError};

/// The model part of a byte-level BPE tokenizer.
#[derive(Debug)]
pub(super) struct Bpe {
    split: Split,
    /// Unicode normal form C before cutting (Qwen 2).
    nfc: bool,
    /// A piece that is a token is that token, whether or not merges lead to it (Llama 3);
    /// empty where the model does without.
    whole: HashMap<Box<[u8]>, u32>,
    /// Token of each single byte.
    bytes: Box<[u32; 256]>,
    /// Rank and result of joining two tokens.
    merges: HashMap<(u32, u32), Merge>,
}

#[derive(Clone, Copy, Debug)]
struct Merge {
    rank: u32,
    id: u32,
}

/// What a byte-level BPE is made of.
#[derive(Debug)]
pub(super) struct Parts<'v> {
    pub(super) split: Split,
    pub(super) nfc: bool,
    pub(super) ignore_merges: bool,
    /// Texts in GPT-2's alphabet with their ids; special tokens are not among them.
    pub(super) tokens: Vec<(&'v str, u32)>,
    /// Best first.
    pub(super) merges: Vec<(&'v str, &'v str)>,
}

impl Bpe {
    /// Builds the tables, refusing what no trained vocabulary holds.
    pub(super) fn new(parts: Parts<'_>) -> Result<Self, VocabularyError> {
        let Parts {
            split,
            nfc,
            ignore_merges,
            tokens,
            merges,
        } = parts;
        let mut ids = HashMap::with_capacity(tokens.len());
        for (token, id) in tokens {
            if let Some(first) = ids.insert(token, id) {
                return Err(VocabularyError::DuplicateToken {
                    token: token.to_owned(),
                    first,
                    second: id,
                });
            }
        }

        let mut bytes = Box::new([0; 256]);
        for byte in 0..=u8::MAX {
            let character = byte_level::byte_to_char(byte);
            let mut buffer = [0; 4];
            bytes[usize::from(byte)] = *ids
                .get(&*character.encode_utf8(&mut buffer))
                .ok_or(VocabularyError::MissingByte { byte, character })?;
        }

        let mut table = HashMap::with_capacity(merges.len());
        let mut joined = String::new();
        for (index, (left, right)) in merges.into_iter().enumerate() {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let find = |part: &str| {
                ids.get(part)
                    .copied()
                    .ok_or_else(|| VocabularyError::UnknownMergePart {
                        index,
                        merge: format!("{left} {right}"),
                        part: part.to_owned(),
                    })
            };
            let pair = (find(left)?, find(right)?);
            let merge = Merge {
                rank: u32::try_from(index).map_err(|_| VocabularyError::TooManyMerges)?,
                id: find(&joined)?,
            };
            // The last of equal entries counts, as in the Python library.
            table.insert(pair, merge);
        }

        let whole = if ignore_merges {
            ids.iter()
                .map(|(token, &id)| (byte_level::token_bytes(token), id))
                .collect()
        } else {
            HashMap::new()
        };
        Ok(Self {
            split,
            nfc,
            whole,
            bytes,
            merges: table,
        })
    }

    /// Gives `put` everything besides the tokens that decides how a text is cut.
    pub(super) fn describe(&self, mut put: impl FnMut(&[u8])) {
        let Self {
            split,
            nfc,
            whole,
            bytes: _, // follows from the tokens
            merges,
        } = self;
        put(format!("bpe {split:?} nfc={nfc} whole={}", !whole.is_empty()).as_bytes());
        let mut sorted: Vec<_> = merges.iter().collect();
        sorted.sort_unstable_by_key(|(_, merge)| merge.rank);
        for ((left, right), Merge { id, .. }) in sorted {
            put(bytemuck::cast_slice(&[
                left.to_le(),
                right.to_le(),
                id.to_le(),
            ]));
        }
    }

    /// Appends the tokens of `text` to `ids`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        if self.nfc && !text.is_ascii() {
            let mut normal = NormalizedString::from(text);
            self.encode_normal(normal.nfc().get(), ids);
        } else {
            self.encode_normal(text, ids);
        }
    }

    fn encode_normal(&self, text: &str, ids: &mut Vec<u32>) {
        let mut scratch = Scratch::default();
        for piece in self.split.pieces(text) {
            if let Some(&id) = self.whole.get(piece.as_bytes()) {
                ids.push(id);
            } else {
                self.merge(piece.as_bytes(), &mut scratch, ids);
            }
        }
    }

    /// Joins pairs, best merge first and leftmost among equals.
    fn merge(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { symbols, queue } = scratch;
        symbols.clear();
        symbols.extend(piece.iter().enumerate().map(|(at, &byte)| Symbol {
            id: self.bytes[usize::from(byte)],
            previous: at.checked_sub(1),
            next: (at + 1 < piece.len()).then_some(at + 1),
            alive: true,
        }));
        for at in 1..symbols.len() {
            queue.extend(self.candidate(symbols, at - 1));
        }
        while let Some(Reverse(Candidate { left, pair, id, .. })) = queue.pop() {
            let Symbol { next, alive, .. } = symbols[left];
            let Some(right) = next.filter(|_| alive) else {
                continue;
            };
            if (symbols[left].id, symbols[right].id) != pair {
                continue; // one of the two has since been joined to something else
            }
            let after = symbols[right].next;
            symbols[right].alive = false;
            symbols[left].id = id;
            symbols[left].next = after;
            if let Some(after) = after {
                symbols[after].previous = Some(left);
                queue.extend(self.candidate(symbols, left));
            }
            if let Some(previous) = symbols[left].previous {
                queue.extend(self.candidate(symbols, previous));
            }
        }
        ids.extend(symbols.iter().filter(|s| s.alive).map(|s| s.id));
    }

    /// Returns the merge of the symbol at `left` with the one after it.
    fn candidate(&self, symbols: &[Symbol], left: usize) -> Option<Reverse<Candidate>> {
        let pair = (symbols[left].id, symbols[symbols[left].next?].id);
        let &Merge { rank, id } = self.merges.get(&pair)?;
        Some(Reverse(Candidate {
            rank,
            left,
            pair,
            id,
        }))
    }
}

/// Buffers kept from piece to piece.
#[derive(Debug, Default)]
struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

/// A link of the chain of tokens that a piece is at some moment.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: u32,
    previous: Option<usize>,
    next: Option<usize>,
    alive: bool,
}

/// A possible merge; ordered by rank, then by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    pair: (u32, u32),
    id: u32,
}
