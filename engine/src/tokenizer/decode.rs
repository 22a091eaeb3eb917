//! Tokens to text, as they come.

use super::{Kind, Tokenizer};

/// A text that arrives token by token. What it has given out is never half a character; the
/// pieces and the [`finish`](Self::finish) together are the whole text.
#[derive(Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special: bool,
    /// The beginning of a character (own tokenizers).
    pending: Vec<u8>,
    /// The tokens of the last piece given out and those since (the library's): its decoders may
    /// look back for blanks and for the bytes of a character.
    window: Vec<u32>,
    /// Tokens of the window that have been given out.
    settled: usize,
    /// Bytes of their text.
    given: usize,
}

/// Tokens of an unfinished character after which the library is no longer waited for: a
/// character has at most four bytes, and a token at least one.
const MAX_WAIT: usize = 8;

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            pending: Vec::new(),
            window: Vec::new(),
            settled: 0,
            given: 0,
        }
    }

    /// Takes the next token and returns the text that is now complete.
    pub fn push(&mut self, id: u32) -> String {
        match &self.tokenizer.kind {
            Kind::Native(native) => {
                self.pending
                    .extend_from_slice(native.bytes(id, self.skip_special));
                take_complete(&mut self.pending)
            }
            Kind::Library(_) => {
                self.window.push(id);
                let text = self.tokenizer.decode(&self.window, self.skip_special);
                let waiting = self.window.len() - self.settled;
                if text.ends_with(char::REPLACEMENT_CHARACTER) && waiting <= MAX_WAIT {
                    return String::new();
                }
                let piece = text.get(self.given..).unwrap_or_default().to_owned();
                self.window.drain(..self.settled);
                self.settled = self.window.len();
                self.given = self.tokenizer.decode(&self.window, self.skip_special).len();
                piece
            }
        }
    }

    /// Returns what is left: a character that never became whole, as U+FFFD.
    pub fn finish(self) -> String {
        match &self.tokenizer.kind {
            Kind::Native(_) => String::from_utf8_lossy(&self.pending).into_owned(),
            Kind::Library(_) => self
                .tokenizer
                .decode(&self.window, self.skip_special)
                .get(self.given..)
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// Takes the characters off `pending` that are complete, or can no longer become so.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut done = 0;
    loop {
        match std::str::from_utf8(&pending[done..]) {
            Ok(rest) => {
                text.push_str(rest);
                pending.clear();
                return text;
            }
            Err(error) => {
                let valid = done + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&pending[done..valid]));
                done = valid;
                let Some(invalid) = error.error_len() else {
                    pending.drain(..done);
                    return text;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid;
            }
        }
    }
}

/// Takes blanks out as the Python library's `clean_up_tokenization` does: those before `.`, `?`,
/// `!`, `,`, around a lone apostrophe, and before `n't`, `'m`, `'s`, `'ve`, `'re`.
pub fn clean_up_spaces(text: &str) -> String {
    [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
