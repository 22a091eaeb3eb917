//! Energy of items: what counters say of windows, divided among the items that ended in them.
//!
//! Items end together where their batch does, and one by one where they are generated; that is where
//! a window may end, and where counters are read. It lasts until it is a second long and its counters
//! have moved a hundred times. Its joules are divided among the items that ended in it, in proportion
//! to their `elapsed_ns`. These add up to the time of the evaluation, so every joule is given once:
//! also those of answers that decode together, each of which has what was drawn since another one
//! ended. Counters are of the whole machine; what is given is gross.
//!
//! An item waits for the end of its window, so that a second's work, two at most, is lost with the
//! process. The last window of a job may be too short; its items have no energy.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use tritmark_proto::record::{ItemEnergy, Measurement, Metric, Outcome, RecordBody};

use crate::{
    Sink,
    clock::Clock,
    meter::{
        Tree,
        rapl::{self, Unreadable},
        window::{Meter, Watch, Window},
    },
};

/// Shortest window.
const WINDOW: Duration = Duration::from_secs(1);

/// A counter that needs longer windows is not measured with, as items wait for their end.
const MAX_WINDOW: Duration = Duration::from_secs(2);

/// Returns what energy is measured with; `None` where nothing can be. A machine without counters, as
/// most virtual ones, is no news; a counter that is there and cannot be used is recorded with why.
pub(super) fn meter<'a>(
    tree: &'a dyn Tree,
    clock: &'a dyn Clock,
    sink: &mut dyn Sink,
) -> io::Result<Option<Meter<'a>>> {
    let domains = match rapl::discover(tree) {
        Ok(domains) => domains,
        Err(Unreadable::NoPowercap | Unreadable::NoDomain) => return Ok(None),
        Err(reason) => {
            sink.record(unmeasurable(reason.to_string()))?;
            return Ok(None);
        }
    };
    let (mut meter, still) = Meter::new(tree, clock, domains.readable);
    let unreadable = domains.unreadable.into_iter();
    let unreadable = unreadable.map(|(source, reason)| (source, reason.to_string()));
    let slow = meter.leave_out_slow(MAX_WINDOW);
    for (source, reason) in unreadable.chain(still).chain(slow) {
        sink.record(unmeasurable(format!("{source}: {reason}")))?;
    }
    Ok(Some(meter).filter(|meter| !meter.sources().is_empty()))
}

/// Records why a job's energy is not known.
fn unmeasurable(reason: String) -> RecordBody {
    RecordBody::Measurement(Measurement {
        suite: "accuracy".to_owned(),
        metric: Metric::EnergyJ,
        workload: None,
        phase: None,
        repetition: None,
        outcome: Outcome::Skipped { reason },
    })
}

/// An item that was evaluated just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Its position in the data set.
    pub(super) index: u32,
    /// Its time.
    pub(super) elapsed_ns: u64,
}

/// Divides windows among the items that end in them.
pub(super) struct Shares<'w> {
    watch: Watch<'w>,
    /// Items that have ended since the open window began.
    open: Vec<Ended>,
    /// What items of closed windows took.
    known: BTreeMap<u32, Vec<ItemEnergy>>,
    /// Sources that have failed, of which nothing more is said.
    failed: BTreeSet<String>,
}

impl<'w> Shares<'w> {
    /// Divides what `watch` sees from now on.
    pub(super) fn new(watch: Watch<'w>) -> Self {
        Self {
            watch,
            open: Vec::new(),
            known: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Takes note of items that end now, and closes their window where it is long enough. A source
    /// that fails is told of once.
    pub(super) fn end(
        &mut self,
        items: impl IntoIterator<Item = Ended>,
        sink: &mut dyn Sink,
    ) -> io::Result<()> {
        self.open.extend(items);
        if self.open.is_empty() {
            return Ok(());
        }
        let Some(window) = self.watch.close(WINDOW) else {
            return Ok(());
        };
        let items = std::mem::take(&mut self.open);
        for (item, energy) in items.iter().zip(divided(&window, &items)) {
            self.known.insert(item.index, energy);
        }
        for (source, joules) in window.joules {
            if let Err(reason) = joules
                && self.failed.insert(source.clone())
            {
                sink.record(unmeasurable(format!("{source}: {reason}")))?;
            }
        }
        Ok(())
    }

    /// Takes what an item took; `None` while its window is open.
    pub(super) fn take(&mut self, index: u32) -> Option<Vec<ItemEnergy>> {
        self.known.remove(&index)
    }

    /// Does `work`, which is no evaluation, and gives what it takes to no item.
    pub(super) fn without<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.watch.without(work)
    }
}

/// Returns each item's share of a window: of every source that is known.
fn divided(window: &Window, items: &[Ended]) -> Vec<Vec<ItemEnergy>> {
    let total_ns: u64 = items.iter().map(|item| item.elapsed_ns).sum();
    let share = |item: &Ended| match total_ns {
        // None took a time that the clock can tell.
        0 => 1.0 / items.len() as f64,
        _ => item.elapsed_ns as f64 / total_ns as f64,
    };
    let of_item = |item: &Ended| {
        let sources = window.joules.iter();
        sources
            .filter_map(|(source, joules)| {
                Some(ItemEnergy {
                    source: source.clone(),
                    joules: joules.as_ref().ok()? * share(item),
                })
            })
            .collect()
    };
    items.iter().map(of_item).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(times_ns: &[u64]) -> Vec<Ended> {
        let ended = |(index, elapsed_ns): (u32, &u64)| Ended {
            index,
            elapsed_ns: *elapsed_ns,
        };
        (0..).zip(times_ns).map(ended).collect()
    }

    fn window(joules: Vec<(&str, Result<f64, String>)>) -> Window {
        let joules = joules.into_iter();
        Window {
            elapsed_ns: 1,
            joules: joules
                .map(|(source, joules)| (source.to_owned(), joules))
                .collect(),
        }
    }

    fn shares(times_ns: &[u64], joules: f64) -> Vec<f64> {
        let window = window(vec![("a", Ok(joules))]);
        divided(&window, &ended(times_ns))
            .iter()
            .map(|energy| energy[0].joules)
            .collect()
    }

    #[test]
    fn an_item_s_share_of_the_energy_is_its_share_of_the_time() {
        assert_eq!(shares(&[100, 300, 0, 400], 16.0), [2.0, 6.0, 0.0, 8.0]);
        // Too short for the clock.
        assert_eq!(shares(&[0, 0], 16.0), [8.0, 8.0]);
    }

    #[test]
    fn sources_stay_apart_and_one_that_failed_is_left_out() {
        let window = window(vec![
            ("a", Ok(4.0)),
            ("b", Err("gone".to_owned())),
            ("c", Ok(2.0)),
        ]);
        let energy = |source: &str, joules| ItemEnergy {
            source: source.to_owned(),
            joules,
        };
        assert_eq!(
            divided(&window, &ended(&[1, 3])),
            [
                [energy("a", 1.0), energy("c", 0.5)],
                [energy("a", 3.0), energy("c", 1.5)]
            ]
        );
    }

    proptest! {
        #[test]
        fn shares_add_up_to_the_window(
            times_ns in proptest::collection::vec(0..1_u64 << 40, 1..200),
            joules in 1e-6..1e9,
        ) {
            let shares = shares(&times_ns, joules);
            prop_assert!(shares.iter().all(|share| *share >= 0.0));
            prop_assert!((shares.iter().sum::<f64>() / joules - 1.0).abs() < 1e-12);
        }
    }
}
