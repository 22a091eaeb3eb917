//! Energy of a stretch of work, and of a stretch of rest.
//!
//! A window begins and ends where a counter moves, so that the edges cost no part of an update
//! interval (about 1 ms). While it is open a second thread reads the counters once a second: often
//! enough that no wrap is missed, seldom enough to cost nothing.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{
    Tree,
    rapl::{Counter, Domain, Unreadable},
};
use crate::clock::Clock;

/// Fewest updates of a counter that a window must span for its edges not to matter.
pub const MIN_STEPS: u64 = 100;

const POLL: Duration = Duration::from_secs(1);
const IDLE_INTERVAL: Duration = Duration::from_millis(100);
/// A counter that has not moved for so long does not count.
const STILL_NS: u64 = 1_000_000_000;
/// Updates that the interval between updates is taken from.
const CALIBRATION_STEPS: u32 = 8;

/// Counters that move, ready to measure with.
pub struct Meter<'a> {
    tree: &'a dyn Tree,
    clock: &'a dyn Clock,
    domains: Vec<(Domain, u64)>,
}

/// What a window took.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// From edge to edge.
    pub elapsed_ns: u64,
    /// Joules of each domain, or why they are not known.
    pub joules: Vec<(String, Result<f64, String>)>,
}

impl<'a> Meter<'a> {
    /// Watches each domain until it has moved a few times; returns what can be measured with, and
    /// why the others cannot.
    pub fn new(
        tree: &'a dyn Tree,
        clock: &'a dyn Clock,
        domains: Vec<Domain>,
    ) -> (Self, Vec<(String, String)>) {
        let mut moving = Vec::new();
        let mut still = Vec::new();
        for domain in domains {
            match interval_ns(tree, clock, &domain) {
                Ok(interval) => moving.push((domain, interval)),
                Err(reason) => still.push((domain.source, reason)),
            }
        }
        let meter = Self {
            tree,
            clock,
            domains: moving,
        };
        (meter, still)
    }

    /// Returns the domains' names, in the order of every result.
    pub fn sources(&self) -> Vec<String> {
        let domains = self.domains.iter();
        domains.map(|(domain, _)| domain.source.clone()).collect()
    }

    /// Repeats `work` until `at_least` has passed, and returns what that took.
    ///
    /// # Errors
    /// Those of `work`. A counter that fails meanwhile is told of in the window.
    pub fn window<E>(
        &self,
        at_least: Duration,
        mut work: impl FnMut() -> Result<(), E>,
    ) -> Result<Window, E> {
        let at_least_ns = at_least.as_nanos() as u64;
        self.wait_for_edge();
        let counters: Vec<Result<Counter, Unreadable>> = self
            .domains
            .iter()
            .map(|(domain, _)| domain.counter(self.tree))
            .collect();
        let start_ns = self.clock.now_ns();
        let counters = Mutex::new(counters);
        let done = (Mutex::new(false), Condvar::new());
        let worked = thread::scope(|scope| {
            let tree = self.tree;
            let (counters, done) = (&counters, &done);
            scope.spawn(move || poll(tree, counters, done));
            let _stop = Stop(done);
            loop {
                work()?;
                if self.clock.now_ns() - start_ns >= at_least_ns {
                    return Ok(());
                }
            }
        });
        worked?;
        self.wait_for_edge();
        let mut counters = counters
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let elapsed_ns = self.clock.now_ns() - start_ns;
        update_all(self.tree, &mut counters);
        let joules = self
            .domains
            .iter()
            .zip(counters)
            .map(|((domain, interval_ns), counter)| {
                (
                    domain.source.clone(),
                    joules(counter, elapsed_ns, *interval_ns),
                )
            })
            .collect();
        Ok(Window { elapsed_ns, joules })
    }

    /// Rests for `time` and returns each domain's draw in watts, ten times a second.
    pub fn idle_w(&self, time: Duration) -> Vec<Vec<f64>> {
        let mut draws = vec![Vec::new(); self.domains.len()];
        let mut counters: Vec<Result<Counter, Unreadable>> = self
            .domains
            .iter()
            .map(|(domain, _)| domain.counter(self.tree))
            .collect();
        let mut before_ns = self.clock.now_ns();
        let end_ns = before_ns + time.as_nanos() as u64;
        while before_ns < end_ns {
            let left = Duration::from_nanos(end_ns - before_ns);
            self.clock.sleep(IDLE_INTERVAL.min(left));
            let totals: Vec<u64> = counters.iter().map(total_uj).collect();
            let now_ns = self.clock.now_ns();
            update_all(self.tree, &mut counters);
            for ((draws, counter), before_uj) in draws.iter_mut().zip(&counters).zip(totals) {
                if counter.is_ok() && now_ns > before_ns {
                    // 1 µJ / ns = 1000 W.
                    let gained_uj = total_uj(counter) - before_uj;
                    draws.push(1000.0 * gained_uj as f64 / (now_ns - before_ns) as f64);
                }
            }
            before_ns = now_ns;
        }
        draws
    }

    /// Spins until the first counter moves.
    fn wait_for_edge(&self) {
        let Some((domain, _)) = self.domains.first() else {
            return;
        };
        let Ok(mut counter) = domain.counter(self.tree) else {
            return;
        };
        let start_ns = self.clock.now_ns();
        while matches!(counter.update(self.tree), Ok(false))
            && self.clock.now_ns() - start_ns < STILL_NS
        {}
    }
}

fn poll(
    tree: &dyn Tree,
    counters: &Mutex<Vec<Result<Counter, Unreadable>>>,
    (done, signal): &(Mutex<bool>, Condvar),
) {
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    while !*done {
        (done, _) = signal
            .wait_timeout(done, POLL)
            .unwrap_or_else(PoisonError::into_inner);
        if !*done {
            let mut counters = counters.lock().unwrap_or_else(PoisonError::into_inner);
            update_all(tree, &mut counters);
        }
    }
}

/// Ends the polling thread however the work ended.
struct Stop<'a>(&'a (Mutex<bool>, Condvar));

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        let Self((done, signal)) = self;
        *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        signal.notify_all();
    }
}

fn update_all(tree: &dyn Tree, counters: &mut [Result<Counter, Unreadable>]) {
    for slot in counters {
        if let Ok(counter) = slot
            && let Err(reason) = counter.update(tree)
        {
            *slot = Err(reason);
        }
    }
}

fn total_uj(counter: &Result<Counter, Unreadable>) -> u64 {
    counter.as_ref().map_or(0, Counter::total_uj)
}

fn joules(
    counter: Result<Counter, Unreadable>,
    elapsed_ns: u64,
    interval_ns: u64,
) -> Result<f64, String> {
    let counter = counter.map_err(|reason| reason.to_string())?;
    let steps = elapsed_ns / interval_ns.max(1);
    if steps < MIN_STEPS {
        return Err(format!(
            "the window of {:.3} s has {steps} updates of the counter, {MIN_STEPS} are needed",
            elapsed_ns as f64 * 1e-9
        ));
    }
    match counter.total_uj() {
        0 => Err("the counter did not move in the window".to_owned()),
        total_uj => Ok(total_uj as f64 * 1e-6),
    }
}

/// Returns the mean time between two updates of a counter.
fn interval_ns(tree: &dyn Tree, clock: &dyn Clock, domain: &Domain) -> Result<u64, String> {
    let mut counter = domain.counter(tree).map_err(|reason| reason.to_string())?;
    let mut edges = 0;
    let mut first_ns = 0;
    let mut last_ns = clock.now_ns();
    loop {
        let moved = counter.update(tree).map_err(|reason| reason.to_string())?;
        let now_ns = clock.now_ns();
        if moved {
            if edges == 0 {
                first_ns = now_ns;
            }
            if edges == CALIBRATION_STEPS {
                return Ok((now_ns - first_ns) / u64::from(CALIBRATION_STEPS));
            }
            edges += 1;
            last_ns = now_ns;
        } else if now_ns - last_ns > STILL_NS {
            return Err("the counter does not move".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{
        clock::fake::FakeClock,
        meter::{
            rapl::discover,
            tree::fake::{FakeFile, FakeTree},
        },
    };

    const ENERGY: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

    fn counting(step: u64) -> FakeTree {
        let counter = FakeFile::Counter {
            value: 0,
            step,
            range: 1_000_000,
        };
        FakeTree::default().zone("intel-rapl:0", "package-0", counter)
    }

    fn window(tree: &FakeTree, ms: u64, mut work: impl FnMut(&FakeTree)) -> Window {
        // Every look at the clock takes 1 ms.
        let clock = FakeClock::new(1_000_000);
        let domains = discover(tree).unwrap().readable;
        let (meter, still) = Meter::new(tree, &clock, domains);
        assert_eq!(still, []);
        let worked = meter.window(Duration::from_millis(ms), || {
            work(tree);
            Ok::<(), Infallible>(())
        });
        let Ok(window) = worked;
        window
    }

    #[test]
    fn a_window_has_the_energy_between_its_edges() {
        // A read, and so a step of 5 mJ, per edge search and per look; the work takes no reads.
        let tree = counting(5000);
        let before = tree.reads();
        let window = window(&tree, 300, |_| ());
        assert!(tree.reads() > before);
        let joules = window.joules[0].1.clone().unwrap();
        assert_eq!(window.joules[0].0, "powercap:package-0");
        // Base, search for the last edge (two reads), last reading: three steps.
        assert!((joules - 0.015).abs() < 1e-12, "{window:?}");
        assert!(window.elapsed_ns >= 300_000_000);
    }

    #[test]
    fn a_window_with_few_updates_is_refused() {
        let window = window(&counting(5000), 20, |_| ());
        let reason = window.joules[0].1.clone().unwrap_err();
        assert!(reason.contains("100 are needed"), "{reason}");
    }

    #[test]
    fn a_counter_that_vanishes_in_the_window_leaves_a_reason() {
        let window = window(&counting(5000), 300, |tree| tree.remove(ENERGY));
        let reason = window.joules[0].1.clone().unwrap_err();
        assert_eq!(reason, format!("/{ENERGY} has vanished"));
    }

    #[test]
    fn a_counter_that_stands_still_is_not_measured_with() {
        let tree = FakeTree::default().zone("intel-rapl:0", "package-0", FakeFile::Values(vec![9]));
        let clock = FakeClock::new(1_000_000);
        let (meter, still) = Meter::new(&tree, &clock, discover(&tree).unwrap().readable);
        assert!(meter.sources().is_empty());
        let expected = (
            "powercap:package-0".to_owned(),
            "the counter does not move".to_owned(),
        );
        assert_eq!(still, [expected]);
    }

    #[test]
    fn the_work_s_error_ends_the_window() {
        let tree = counting(5000);
        let clock = FakeClock::new(1_000_000);
        let (meter, _) = Meter::new(&tree, &clock, discover(&tree).unwrap().readable);
        let mut runs = 0;
        let result = meter.window(Duration::from_secs(1), || {
            runs += 1;
            if runs == 3 { Err("broken") } else { Ok(()) }
        });
        assert_eq!(result, Err("broken"));
    }

    #[test]
    fn rest_is_read_ten_times_a_second() {
        let tree = counting(100_000);
        let clock = FakeClock::new(0);
        let domains = discover(&tree).unwrap().readable;
        let meter = Meter {
            tree: &tree,
            clock: &clock,
            domains: domains.into_iter().map(|domain| (domain, 1)).collect(),
        };
        let draws = meter.idle_w(Duration::from_millis(1050));
        // 0.1 J in 0.1 s, and in the last 0.05 s.
        assert_eq!(draws[0].len(), 11);
        assert!(
            draws[0][..10].iter().all(|w| (w - 1.0).abs() < 1e-9),
            "{draws:?}"
        );
        assert!((draws[0][10] - 2.0).abs() < 1e-9, "{draws:?}");
    }
}
