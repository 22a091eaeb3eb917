//! Text from a prompt, token by token: of one prompt ([`generate`]), or of many at a time
//! ([`generate_many`]).

mod many;

use std::ops::ControlFlow;

use crate::{
    engine::{Engine, ForwardError, Logits},
    kv_cache::KvCache,
    sampler::{SampleError, Sampler, Sampling},
    tokenizer::{TextStream, Tokenizer},
};

pub use many::{Prompt, generate_many};

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct Params {
    /// Most tokens to generate.
    pub max_new: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the generation where they first occur; they are no part of its text. Empty
    /// ones are ignored.
    pub stop: Vec<String>,
    /// Whether tokens that end a text are tokens like any other.
    pub ignore_eos: bool,
}

/// One generated token, as it comes. The first comes right after the prompt was evaluated, so
/// that a caller who reads a clock here has the time to first token and those between tokens.
#[derive(Debug)]
pub struct Step<'a> {
    /// Place among the generated tokens, from 0.
    pub index: usize,
    /// The token.
    pub token: u32,
    /// The text that has become certain with it: whole characters, and nothing that may yet turn
    /// out to begin a stop text.
    pub text: &'a str,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All tokens asked for are there.
    MaxNew,
    /// The model's context, or the cache, is full.
    ContextFull,
    /// The model ended its text with this token, which is not among the tokens.
    EndToken(u32),
    /// This stop text occurred.
    Stop(String),
    /// The callback asked for it.
    Cancelled,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// All generated tokens, those of a stop text included.
    pub tokens: Vec<u32>,
    /// Their text without special tokens, up to the stop text.
    pub text: String,
    /// Why it ended.
    pub end: End,
}

/// Why nothing, or nothing more, could be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is no token to follow.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The prompt exceeds the cache or the model's context.
    #[error("the prompt has {len} tokens, but there is room for {room}")]
    PromptTooLong {
        /// Its tokens.
        len: usize,
        /// Tokens the cache and the model can still take.
        room: usize,
    },
    /// The model cannot be evaluated.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// No token can be chosen.
    #[error("cannot choose token {index}")]
    Sample {
        /// Its place among the generated tokens.
        index: usize,
        /// Why.
        #[source]
        source: SampleError,
    },
}

/// Evaluates `prompt` behind what the cache holds, and generates what follows it. After each token
/// `on_token` is called, which may end the generation.
pub fn generate(
    engine: &mut Engine,
    cache: &mut KvCache,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    params: &Params,
    mut on_token: impl FnMut(&Step<'_>) -> ControlFlow<()>,
) -> Result<Generation, GenerateError> {
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    let capacity = cache.capacity().min(engine.config().context_length);
    let room = capacity.saturating_sub(cache.len());
    if prompt.len() > room {
        return Err(GenerateError::PromptTooLong {
            len: prompt.len(),
            room,
        });
    }
    let mut running = Running::new(tokenizer, params, capacity);
    let (mut greatest, mut logits) = (Vec::new(), Vec::new());
    let end = loop {
        let input = match running.input(cache.len()) {
            Ok(Some(last)) => &[last],
            Ok(None) => prompt,
            Err(end) => break end,
        };
        let sampler = &mut running.sampler;
        let token = if let Some(k) = sampler.wants() {
            engine.top(cache, input, k, &mut greatest)?;
            sampler.choose(&greatest)
        } else {
            engine.forward(cache, input, Logits::Last, &mut logits)?;
            sampler.sample(&logits)
        };
        if let Some(end) = running.take(token, &mut on_token)? {
            break end;
        }
    };
    Ok(running.finish(end))
}

/// A generation under way.
struct Running<'p, 't> {
    tokenizer: &'t Tokenizer,
    params: &'p Params,
    /// Positions there are for it.
    capacity: usize,
    sampler: Sampler,
    text: StopText<'p, 't>,
    tokens: Vec<u32>,
}

impl<'p, 't> Running<'p, 't> {
    fn new(tokenizer: &'t Tokenizer, params: &'p Params, capacity: usize) -> Self {
        Self {
            tokenizer,
            params,
            capacity,
            sampler: Sampler::new(params.sampling),
            text: StopText::new(tokenizer.stream(true), &params.stop),
            tokens: Vec::new(),
        }
    }

    /// Returns the token to evaluate next, behind `held` others; `None` is the prompt.
    fn input(&self, held: usize) -> Result<Option<u32>, End> {
        if self.tokens.len() >= self.params.max_new {
            return Err(End::MaxNew);
        }
        match self.tokens.last() {
            Some(_) if held >= self.capacity => Err(End::ContextFull),
            last => Ok(last.copied()),
        }
    }

    /// Takes what was chosen, and tells `on_token`; returns the end if this is it.
    fn take(
        &mut self,
        token: Result<u32, SampleError>,
        on_token: impl FnOnce(&Step<'_>) -> ControlFlow<()>,
    ) -> Result<Option<End>, GenerateError> {
        let index = self.tokens.len();
        let token = token.map_err(|source| GenerateError::Sample { index, source })?;
        if !self.params.ignore_eos && self.tokenizer.end_ids().contains(&token) {
            return Ok(Some(End::EndToken(token)));
        }
        self.tokens.push(token);
        let (certain, found) = self.text.push(token);
        let step = Step {
            index,
            token,
            text: certain,
        };
        let flow = on_token(&step);
        let cancelled = flow.is_break().then_some(End::Cancelled);
        Ok(found.map(End::Stop).or(cancelled))
    }

    fn finish(self, end: End) -> Generation {
        Generation {
            tokens: self.tokens,
            text: self.text.finish(),
            end,
        }
    }
}

/// A streamed text that ends before the first stop text.
struct StopText<'s, 't> {
    stream: TextStream<'t>,
    stops: Vec<&'s str>,
    /// All text so far.
    text: String,
    /// Bytes of it that have been given out.
    given: usize,
    stopped: bool,
}

impl<'s, 't> StopText<'s, 't> {
    fn new(stream: TextStream<'t>, stops: &'s [String]) -> Self {
        Self {
            stream,
            stops: stops
                .iter()
                .map(String::as_str)
                .filter(|stop| !stop.is_empty())
                .collect(),
            text: String::new(),
            given: 0,
            stopped: false,
        }
    }

    /// Takes a token; returns the text that has become certain, and the stop text if one is there.
    fn push(&mut self, token: u32) -> (&str, Option<String>) {
        let before = self.text.len();
        let piece = self.stream.push(token);
        self.append(&piece, before)
    }

    fn append(&mut self, piece: &str, before: usize) -> (&str, Option<String>) {
        self.text.push_str(piece);
        let found = self
            .stops
            .iter()
            .filter_map(|stop| {
                // Only what reaches into the new piece can be new.
                let mut from = before.saturating_sub(stop.len());
                while !self.text.is_char_boundary(from) {
                    from -= 1;
                }
                Some((from + self.text[from..].find(stop)?, *stop))
            })
            .min_by_key(|&(at, _)| at)
            .map(|(at, stop)| (at, stop.to_owned()));
        let certain = match &found {
            Some((at, _)) => {
                self.text.truncate(*at);
                self.stopped = true;
                *at
            }
            None => self.text.len() - self.held_back(),
        };
        let from = self.given.min(certain);
        self.given = self.given.max(certain);
        (&self.text[from..certain], found.map(|(_, stop)| stop))
    }

    /// Returns the bytes at the text's end that may begin a stop text.
    fn held_back(&self) -> usize {
        self.stops
            .iter()
            .filter_map(|stop| {
                (1..stop.len())
                    .rev()
                    .filter(|&len| stop.is_char_boundary(len))
                    .find(|&len| self.text.ends_with(&stop[..len]))
            })
            .max()
            .unwrap_or(0)
    }

    /// Returns the whole text.
    fn finish(self) -> String {
        let Self {
            stream,
            mut text,
            stopped,
            ..
        } = self;
        if !stopped {
            text.push_str(&stream.finish());
        }
        text
    }
}

#[cfg(test)]
mod tests;
