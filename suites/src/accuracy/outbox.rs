//! Items on their way to the records: in order, wherever they come from, and each with its energy.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use tritmark_proto::record::{Item, ItemEnergy, RecordBody};

use super::{
    Prompt,
    cache::Kept,
    energy::{Ended, Shares},
};
use crate::{Sink, SuiteError, clock::Clock};

/// Takes items and hands them on.
pub(super) struct Outbox<'a> {
    sink: &'a mut dyn Sink,
    clock: &'a dyn Clock,
    kept: Option<Kept>,
    /// `None` where energy is not measured.
    shares: Option<Shares<'a>>,
    /// Items from the cache that stand behind all that have been taken.
    found: BTreeMap<u32, Item>,
    /// Items whose turn has come, from the first on whose energy is not known yet.
    waiting: VecDeque<Item>,
    n_done: u64,
    n_items: u64,
}

impl<'a> Outbox<'a> {
    /// Returns an empty one; `n_done` of `n_items` are recorded already.
    pub(super) fn new(
        sink: &'a mut dyn Sink,
        clock: &'a dyn Clock,
        kept: Option<Kept>,
        shares: Option<Shares<'a>>,
        n_done: u64,
        n_items: u64,
    ) -> Self {
        Self {
            sink,
            clock,
            kept,
            shares,
            found: BTreeMap::new(),
            waiting: VecDeque::new(),
            n_done,
            n_items,
        }
    }

    /// Takes a prompt's item from the cache; returns whether it is there.
    pub(super) fn find(&mut self, prompt: &Prompt) -> bool {
        let found = self.kept.as_mut().and_then(|kept| kept.get(prompt));
        let is_found = found.is_some();
        self.found.extend(found.map(|item| (prompt.index, item)));
        is_found
    }

    /// Returns how many items from the cache are at hand.
    pub(super) fn n_found(&self) -> usize {
        self.found.len()
    }

    /// Returns the time.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// Takes note of items that have been evaluated just now, before they are [taken](Self::take).
    pub(super) fn end(&mut self, items: impl IntoIterator<Item = Ended>) -> Result<(), SuiteError> {
        if let Some(shares) = &mut self.shares {
            shares.end(items, self.sink).map_err(SuiteError::Sink)?;
        }
        self.hand_on().map_err(SuiteError::Sink)
    }

    /// Does `work`, which is no evaluation, and gives what it takes to no item.
    pub(super) fn without<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match &mut self.shares {
            Some(shares) => shares.without(work),
            None => work(),
        }
    }

    /// Takes an item; they come in order.
    pub(super) fn take(&mut self, item: Item) -> Result<(), SuiteError> {
        while let Some(before) = self.found.first_entry()
            && *before.key() < item.index
        {
            self.waiting.push_back(before.remove());
        }
        if let Some(kept) = &mut self.kept {
            kept.put(&item);
        }
        self.waiting.push_back(item);
        self.hand_on().map_err(SuiteError::Sink)
    }

    /// Ends a batch: all its items have been taken.
    pub(super) fn end_batch(&mut self) -> io::Result<()> {
        self.waiting
            .extend(std::mem::take(&mut self.found).into_values());
        self.hand_on()?;
        match &mut self.kept {
            Some(kept) => kept.tell_problems(self.sink),
            None => Ok(()),
        }
    }

    /// Hands on all that waits: what ended in a window that never became long enough has no energy.
    pub(super) fn close(&mut self) -> io::Result<()> {
        while let Some(item) = self.waiting.pop_front() {
            let energy = self.energy(&item).unwrap_or_default();
            self.record(item, energy)?;
        }
        Ok(())
    }

    /// Hands items on, up to the first whose energy is not known yet.
    fn hand_on(&mut self) -> io::Result<()> {
        while let Some(item) = self.waiting.pop_front() {
            let Some(energy) = self.energy(&item) else {
                self.waiting.push_front(item);
                break;
            };
            self.record(item, energy)?;
        }
        Ok(())
    }

    /// Takes what an item took, nothing where that is not measured; `None` while its window is open.
    fn energy(&mut self, item: &Item) -> Option<Vec<ItemEnergy>> {
        match &mut self.shares {
            Some(shares) if item.from_cache.is_none() => shares.take(item.index),
            _ => Some(Vec::new()),
        }
    }

    fn record(&mut self, item: Item, energy: Vec<ItemEnergy>) -> io::Result<()> {
        self.sink.progress("items", self.n_done, self.n_items)?;
        self.n_done += 1;
        self.sink.record(RecordBody::Item(Item { energy, ..item }))
    }
}
