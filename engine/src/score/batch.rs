//! Many items at a time: passes that are full, and nothing evaluated twice.
//!
//! Items are scored in windows of as many as their caches may hold positions. What consecutive items
//! begin with (the examples of a few-shot task) is evaluated once and copied; what the requests of
//! an item begin with, for all items of a window at once; and then what is left of each request,
//! again all at once. Rows of a pass need no padding, so that the order of the items does not matter
//! to its fullness.

use super::{Request, Row, Score, ScoreError, Scored, common_prefix};
use crate::{
    engine::{Engine, ForwardError, Logits, Segment},
    kv_cache::KvCache,
};

/// Fewer tokens than this are not worth a pass of their own, even if many items begin with them.
const SHORTEST_TRUNK: usize = 32;

/// Cache capacities are multiples of this, so that one serves many sequences.
const GRAIN: usize = 32;

/// Scores many items with one engine.
///
/// Scores are bit-equal to those of [`loglikelihoods`](super::loglikelihoods), item by item.
#[derive(Debug)]
pub struct Scorer<'e> {
    engine: &'e mut Engine,
    caches: Caches,
    /// What the last items began with, and its keys and values.
    trunk: Vec<u32>,
    trunk_cache: KvCache,
}

/// Requests after the cut to the model's context.
struct Item {
    requests: Vec<Scored>,
    /// Tokens that all inputs begin with.
    shared: usize,
    /// First position that any request scores.
    first_scored: usize,
}

impl Item {
    fn new(requests: Vec<Scored>) -> Self {
        let shared = requests.split_first().map_or(0, |(first, others)| {
            let common = |other: &Scored| common_prefix(first.input(), other.input());
            let all = first.input().len();
            others.iter().map(common).min().unwrap_or(all)
        });
        let first_scored = requests.iter().map(|request| request.first_scored).min();
        Self {
            requests,
            shared,
            first_scored: first_scored.unwrap_or(0),
        }
    }

    /// Returns the tokens that all inputs begin with.
    fn shared(&self) -> &[u32] {
        self.requests
            .first()
            .map_or(&[], |first| &first.input()[..self.shared])
    }

    /// Returns the tokens that all inputs begin with and none scores.
    fn unscored(&self) -> &[u32] {
        &self.shared()[..self.shared.min(self.first_scored)]
    }

    /// Returns the requests that have tokens behind the shared ones, with their places.
    fn rests(&self) -> impl DoubleEndedIterator<Item = (usize, &Scored)> {
        self.requests
            .iter()
            .enumerate()
            .filter(|(_, request)| request.input().len() > self.shared)
    }

    /// Returns the positions of the caches that its requests take at once.
    fn positions(&self) -> usize {
        let rests = self.rests().map(|(_, rest)| capacity(rest.input().len()));
        rests.sum::<usize>().max(capacity(self.shared))
    }
}

impl<'e> Scorer<'e> {
    /// Makes a scorer whose caches hold up to `max_tokens` positions at a time, those of all
    /// sequences together, and more only where one item's longest request needs more.
    ///
    /// Some thousand make passes full. A position takes [`KvCache::bytes`] of a cache of one.
    pub fn new(engine: &'e mut Engine, max_tokens: usize) -> Self {
        Self {
            trunk: Vec::new(),
            trunk_cache: engine.new_cache(0),
            caches: Caches {
                max_positions: max_tokens,
                ..Caches::default()
            },
            engine,
        }
    }

    /// Returns the engine.
    pub fn engine(&mut self) -> &mut Engine {
        self.engine
    }

    /// Scores the requests of each item. Errors count the requests through all items.
    pub fn score(&mut self, items: &[&[Request<'_>]]) -> Result<Vec<Vec<Score>>, ScoreError> {
        let max_len = self.engine.config().context_length;
        let mut index = 0;
        let items = items
            .iter()
            .map(|requests| {
                let requests = requests.iter().map(|request| {
                    let scored = Scored::new(index, request, max_len);
                    index += 1;
                    scored
                });
                Ok(Item::new(requests.collect::<Result<_, _>>()?))
            })
            .collect::<Result<Vec<_>, ScoreError>>()?;

        let mut scores = Vec::with_capacity(items.len());
        let trunks = trunks(&items);
        while scores.len() < items.len() {
            let first = scores.len();
            let mut positions = 0;
            let n = items[first..]
                .iter()
                .take_while(|item| {
                    let before = positions;
                    positions += item.positions();
                    before == 0 || positions <= self.caches.max_positions
                })
                .count();
            let window = first..first + n;
            scores.extend(self.window(&items[window.clone()], &trunks[window])?);
        }
        Ok(scores)
    }

    /// Scores items that are evaluated together. `trunks` are the tokens each has in common with
    /// its neighbours.
    fn window(
        &mut self,
        items: &[Item],
        trunks: &[usize],
    ) -> Result<Vec<Vec<Score>>, ForwardError> {
        let mut scores: Vec<Vec<Score>> = items
            .iter()
            .map(|item| vec![Score::NONE; item.requests.len()])
            .collect();
        let mut caches = Vec::with_capacity(items.len());
        for (item, &trunk) in items.iter().zip(trunks) {
            self.grow_trunk(&item.shared()[..trunk])?;
            // The last request goes on in this cache.
            let last = item.rests().next_back();
            let room = last.map_or(item.shared, |(_, rest)| rest.input().len());
            let mut cache = self.caches.take(self.engine, room);
            cache
                .copy_prefix(&self.trunk_cache, trunk)
                .map_err(ForwardError::Cache)?;
            caches.push(cache);
        }

        let mut rows = Vec::new();
        let mut segments: Vec<_> = Vec::with_capacity(items.len());
        for (index, (item, cache)) in items.iter().zip(&mut caches).enumerate() {
            // A single token may be all that an answer adds: then its logits come from here.
            let wanted = item.first_scored.min(item.shared)..item.shared;
            segments.push(Segment {
                tokens: &item.shared()[cache.len()..],
                wanted: wanted.len(),
                cache,
            });
            rows.extend(wanted.map(|position| (index, position)));
        }
        let tokens = self
            .engine
            .map_logits(&mut segments, |kernel, row, logits| {
                let (index, position) = rows[row];
                let row = Row::new(kernel, logits);
                let of_request = |request: &Scored| request.token(position, &row);
                items[index]
                    .requests
                    .iter()
                    .map(of_request)
                    .collect::<Vec<_>>()
            })?;
        for ((index, _), tokens) in rows.into_iter().zip(tokens) {
            for (score, token) in scores[index].iter_mut().zip(tokens) {
                if let Some(token) = token {
                    score.add(token);
                }
            }
        }

        let mut rests = Vec::new();
        for (index, item) in items.iter().enumerate() {
            rests.extend(item.rests().map(|(request, _)| (index, request)));
        }
        let mut caches: Vec<_> = caches.into_iter().map(Some).collect();
        let mut rests = &rests[..];
        while !rests.is_empty() {
            let done = self.rests(items, &mut caches, rests, &mut scores)?;
            rests = &rests[done..];
        }
        for cache in caches.into_iter().flatten() {
            self.caches.give(cache);
        }
        Ok(scores)
    }

    /// Evaluates what is left of as many requests as the caches have room for; returns how many.
    fn rests(
        &mut self,
        items: &[Item],
        shared: &mut [Option<KvCache>],
        rests: &[(usize, usize)],
        scores: &mut [Vec<Score>],
    ) -> Result<usize, ForwardError> {
        let mut jobs = Vec::new();
        for (place, &(index, request)) in rests.iter().enumerate() {
            let item = &items[index];
            let input = item.requests[request].input();
            let is_last = rests.get(place + 1).is_none_or(|next| next.0 != index);
            let cache = match &mut shared[index] {
                cache @ Some(_) if is_last => cache.take(),
                Some(_) if !jobs.is_empty() && !self.caches.has_room(input.len()) => break,
                Some(from) => {
                    let mut cache = self.caches.take(self.engine, input.len());
                    cache
                        .copy_prefix(from, item.shared)
                        .map_err(ForwardError::Cache)?;
                    Some(cache)
                }
                None => unreachable!("the last request takes the cache"),
            };
            jobs.extend(cache.map(|cache| (cache, index, request)));
        }

        let mut rows = Vec::new();
        let mut segments = Vec::with_capacity(jobs.len());
        for (cache, index, request) in &mut jobs {
            let Scored { first_scored, .. } = items[*index].requests[*request];
            let input = items[*index].requests[*request].input();
            let wanted = first_scored.max(cache.len())..input.len();
            segments.push(Segment {
                tokens: &input[cache.len()..],
                wanted: wanted.len(),
                cache,
            });
            rows.extend(wanted.map(|position| (*index, *request, position)));
        }
        let tokens = self
            .engine
            .map_logits(&mut segments, |kernel, row, logits| {
                let (index, request, position) = rows[row];
                items[index].requests[request].token(position, &Row::new(kernel, logits))
            })?;
        for ((index, request, _), token) in rows.into_iter().zip(tokens) {
            if let Some(token) = token {
                scores[index][request].add(token);
            }
        }
        let done = jobs.len();
        for (cache, ..) in jobs {
            self.caches.give(cache);
        }
        Ok(done)
    }

    /// Makes the trunk these tokens, of which those it begins with already are kept.
    fn grow_trunk(&mut self, tokens: &[u32]) -> Result<(), ForwardError> {
        let kept = common_prefix(&self.trunk, tokens);
        if kept == tokens.len() {
            return Ok(());
        }
        self.trunk.clear();
        if tokens.len() > self.trunk_cache.capacity() {
            let mut cache = self.engine.new_cache(capacity(tokens.len()));
            cache
                .copy_prefix(&self.trunk_cache, kept)
                .map_err(ForwardError::Cache)?;
            self.trunk_cache = cache;
        }
        self.trunk_cache.truncate(kept);
        let rest = &tokens[kept..];
        self.engine
            .forward(&mut self.trunk_cache, rest, Logits::None, &mut Vec::new())?;
        self.trunk.extend_from_slice(tokens);
        Ok(())
    }
}

/// Returns how many tokens of each item are to be shared with its neighbours.
///
/// A run of items takes in the next one as long as that does not lower what is saved.
fn trunks(items: &[Item]) -> Vec<usize> {
    let mut trunks = vec![0; items.len()];
    let mut first = 0;
    while first < items.len() {
        let mut trunk = items[first].unscored();
        let mut n = 1;
        while let Some(next) = items.get(first + n) {
            let common = common_prefix(trunk, next.unscored());
            if common < SHORTEST_TRUNK || n * common < (n - 1) * trunk.len() {
                break;
            }
            trunk = &trunk[..common];
            n += 1;
        }
        if n > 1 {
            trunks[first..first + n].fill(trunk.len());
        }
        first += n;
    }
    trunks
}

fn capacity(positions: usize) -> usize {
    positions.next_multiple_of(GRAIN)
}

/// Caches in use and at hand.
#[derive(Debug, Default)]
struct Caches {
    free: Vec<KvCache>,
    free_positions: usize,
    used_positions: usize,
    max_positions: usize,
}

impl Caches {
    /// Returns whether one more cache of some positions stays within the limit.
    fn has_room(&self, positions: usize) -> bool {
        self.used_positions + capacity(positions) <= self.max_positions
    }

    /// Returns an empty cache with room for some positions.
    fn take(&mut self, engine: &Engine, positions: usize) -> KvCache {
        let needed = capacity(positions);
        let fitting = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, cache)| (needed..=2 * needed).contains(&cache.capacity()))
            .min_by_key(|(_, cache)| cache.capacity())
            .map(|(place, _)| place);
        let cache = match fitting {
            Some(place) => {
                let mut cache = self.free.swap_remove(place);
                self.free_positions -= cache.capacity();
                cache.truncate(0);
                cache
            }
            None => engine.new_cache(needed),
        };
        self.used_positions += cache.capacity();
        while self.used_positions + self.free_positions > self.max_positions
            && let Some(cache) = self.free.pop()
        {
            self.free_positions -= cache.capacity();
        }
        cache
    }

    /// Takes a cache back.
    fn give(&mut self, cache: KvCache) {
        self.used_positions -= cache.capacity();
        if self.used_positions + self.free_positions + cache.capacity() <= self.max_positions {
            self.free_positions += cache.capacity();
            self.free.push(cache);
        }
    }
}

#[cfg(test)]
mod tests;
