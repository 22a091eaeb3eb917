//! Texts of many prompts at a time: sequences decode together, and one that has ended makes room for
//! the next prompt at once (continuous batching, as in Orca, OSDI 2022).
//!
//! What a prompt has in common with a sequence whose keys and values are still there is copied, so
//! that the examples of a few-shot task are evaluated once.

use std::{num::NonZeroUsize, ops::ControlFlow};

use super::{End, GenerateError, Generation, Params, Running};
use crate::{
    engine::{Engine, ForwardError, Segment},
    kv_cache::KvCache,
    sampler,
    tokenizer::Tokenizer,
};

/// A prompt is held back for one pass if that saves it this many tokens.
const WORTH_WAITING: usize = 32;

/// Cache capacities are multiples of this, so that one serves many prompts.
const GRAIN: usize = 64;

/// A prompt of its own parameters.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// What to generate behind it.
    pub params: &'a Params,
}

/// Generates what follows each prompt, up to `max_batch` of them at a time. Whenever one has ended
/// `on_end` is called with its place, and may end all.
///
/// Each generation is that of [`generate`](super::generate) alone with a cache of the model's whole
/// context. Memory: `max_batch` caches of the longest prompts with their new tokens.
///
/// # Errors
/// Those of one prompt are handed to `on_end`.
pub fn generate_many(
    engine: &mut Engine,
    tokenizer: &Tokenizer,
    prompts: &[Prompt<'_>],
    max_batch: NonZeroUsize,
    mut on_end: impl FnMut(usize, Result<Generation, GenerateError>) -> ControlFlow<()>,
) -> Result<(), ForwardError> {
    let mut waiting = prompts.iter().enumerate().peekable();
    let mut batch = Batch {
        tokenizer,
        slots: Vec::new(),
        max_slots: max_batch.get(),
    };
    loop {
        let mut ended = Vec::new();
        while let Some(&(index, prompt)) = waiting.peek() {
            if let Some(result) = refuse(engine, tokenizer, prompt) {
                ended.push((index, result));
            } else if !batch.admit(engine, index, prompt)? {
                break;
            }
            waiting.next();
        }
        ended.extend(batch.step(engine)?);
        for (index, result) in ended {
            if on_end(index, result).is_break() {
                return Ok(());
            }
        }
        if waiting.peek().is_none() && batch.slots.iter().all(|slot| slot.job.is_none()) {
            return Ok(());
        }
    }
}

/// Returns the result of a prompt that needs no evaluation.
fn refuse(
    engine: &Engine,
    tokenizer: &Tokenizer,
    prompt: &Prompt<'_>,
) -> Option<Result<Generation, GenerateError>> {
    let room = engine.config().context_length;
    let len = prompt.tokens.len();
    if len == 0 {
        return Some(Err(GenerateError::EmptyPrompt));
    }
    if len > room {
        return Some(Err(GenerateError::PromptTooLong { len, room }));
    }
    let running = Running::new(tokenizer, prompt.params, room);
    if let Err(end) = running.input(0) {
        return Some(Ok(running.finish(end)));
    }
    let checked = engine.check_vocabulary(prompt.tokens);
    checked.err().map(|error| Err(error.into()))
}

/// Place and result of a prompt.
type Ended = (usize, Result<Generation, GenerateError>);

/// The sequences under way.
struct Batch<'p, 't> {
    tokenizer: &'t Tokenizer,
    slots: Vec<Slot<'p, 't>>,
    max_slots: usize,
}

/// A place for a sequence.
struct Slot<'p, 't> {
    cache: KvCache,
    /// The tokens in the cache; they stay when their sequence has ended.
    held: Vec<u32>,
    job: Option<Job<'p, 't>>,
}

struct Job<'p, 't> {
    /// Place of the prompt.
    index: usize,
    prompt: &'p [u32],
    running: Running<'p, 't>,
    /// What to evaluate next.
    input: Vec<u32>,
}

impl Slot<'_, '_> {
    /// Returns how many of the tokens, but for the last, need not be evaluated.
    fn common(&self, tokens: &[u32]) -> usize {
        common_prefix(&self.held, &tokens[..tokens.len() - 1])
    }
}

impl<'p> Batch<'p, '_> {
    /// Gives a prompt a slot; returns whether it has one.
    fn admit(
        &mut self,
        engine: &Engine,
        index: usize,
        prompt: &Prompt<'p>,
    ) -> Result<bool, ForwardError> {
        let tokens = prompt.tokens;
        let place = self.free_slot(engine, tokens);
        let source = (0..self.slots.len()).max_by_key(|&slot| self.slots[slot].common(tokens));
        let (Some(place), Some(source)) = (place, source) else {
            return Ok(false);
        };
        let common = self.slots[source].common(tokens);
        let coming = self.slots.iter().filter_map(|slot| slot.job.as_ref());
        let coming = coming.map(|job| common_prefix(job.prompt, &tokens[..tokens.len() - 1]));
        if coming.max().unwrap_or(0) >= common + WORTH_WAITING {
            return Ok(false);
        }

        let context = engine.config().context_length;
        let positions = tokens
            .len()
            .saturating_add(prompt.params.max_new)
            .min(context);
        if self.slots[place].cache.capacity() < positions {
            let mut cache = engine.new_cache(positions.next_multiple_of(GRAIN));
            cache.copy_prefix(&self.slots[source].cache, common)?;
            self.slots[place].cache = cache;
        } else if let Ok([to, from]) = self.slots.get_disjoint_mut([place, source]) {
            to.cache.copy_prefix(&from.cache, common)?;
        } else {
            self.slots[place].cache.truncate(common);
        }
        let slot = &mut self.slots[place];
        slot.held.clear();
        slot.held.extend_from_slice(&tokens[..common]);
        slot.job = Some(Job {
            index,
            prompt: tokens,
            running: Running::new(self.tokenizer, prompt.params, context),
            input: tokens[common..].to_vec(),
        });
        Ok(true)
    }

    /// Returns the free slot that holds the most of a prompt.
    fn free_slot(&mut self, engine: &Engine, tokens: &[u32]) -> Option<usize> {
        if self.slots.iter().all(|slot| slot.job.is_some()) && self.slots.len() < self.max_slots {
            self.slots.push(Slot {
                cache: engine.new_cache(0),
                held: Vec::new(),
                job: None,
            });
        }
        let free = (0..self.slots.len()).filter(|&slot| self.slots[slot].job.is_none());
        free.max_by_key(|&slot| self.slots[slot].common(tokens))
    }

    /// Evaluates what is next in every sequence; returns those that have ended with it.
    fn step(&mut self, engine: &mut Engine) -> Result<Vec<Ended>, ForwardError> {
        let mut greatest = self.evaluate(engine)?.into_iter();
        let mut ended = Vec::new();
        for slot in &mut self.slots {
            let Some(mut job) = slot.job.take() else {
                continue;
            };
            slot.held.append(&mut job.input);
            let greatest = greatest.next().unwrap_or_default();
            let token = job.running.sampler.choose(&greatest);
            let next = match job.running.take(token, |_| ControlFlow::Continue(())) {
                Err(error) => Err(Err(error)),
                Ok(Some(end)) => Err(Ok(end)),
                Ok(None) => job.running.input(slot.cache.len()).map_err(Ok),
            };
            match next {
                Ok(last) => {
                    job.input.extend(last);
                    slot.job = Some(job);
                }
                Err(end) => {
                    let finish = |end: End| job.running.finish(end);
                    ended.push((job.index, end.map(finish)));
                }
            }
        }
        Ok(ended)
    }

    /// Evaluates the inputs of all jobs; returns the greatest logits behind each, as many as its
    /// sampler wants.
    fn evaluate(&mut self, engine: &mut Engine) -> Result<Vec<Vec<(u32, f32)>>, ForwardError> {
        let mut jobs: Vec<_> = self
            .slots
            .iter_mut()
            .filter_map(|Slot { cache, job, .. }| job.as_ref().map(|job| (cache, job)))
            .collect();
        // One alone may use the screen of the head.
        if let [(cache, job)] = &mut jobs[..]
            && let Some(k) = job.running.sampler.wants()
        {
            let mut greatest = Vec::new();
            engine.top(cache, &job.input, k, &mut greatest)?;
            return Ok(vec![greatest]);
        }
        let wants: Vec<_> = jobs
            .iter()
            .map(|(_, job)| job.running.sampler.wants())
            .collect();
        let mut segments: Vec<_> = jobs
            .into_iter()
            .map(|(cache, job)| Segment {
                cache,
                tokens: &job.input,
                wanted: 1,
            })
            .collect();
        engine.map_logits(&mut segments, |_, row, logits| {
            let mut greatest = Vec::new();
            let k = wants[row].map_or(logits.len(), usize::from);
            sampler::greatest(logits, k, &mut greatest);
            greatest
        })
    }
}

fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests;
