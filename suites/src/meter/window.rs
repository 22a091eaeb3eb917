//! Energy of a stretch of work, and of a stretch of rest.
//!
//! A [window](Meter::window) begins and ends where a counter moves, so that the edges cost no part of
//! an update interval (about 1 ms). Windows that [follow one another](Meter::watch) do not wait for
//! that: what one edge takes from a window, it gives to the next. Meanwhile a second thread reads the
//! counters now and then: often enough that no wrap is missed, seldom enough to cost nothing.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
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
/// Half of the shortest round of a counter, 65.5 kJ at 1 kW.
const WATCH_POLL: Duration = Duration::from_secs(30);
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

/// The counters of a meter's domains; one that failed keeps its reason.
type Counters = Vec<Result<Counter, Unreadable>>;

/// Counters that are watched while work goes on, in windows without gaps between them.
pub struct Watch<'w> {
    meter: &'w Meter<'w>,
    counters: &'w Mutex<Counters>,
    /// Where the open window began, and what the counters had then.
    start_ns: u64,
    start_uj: Vec<u64>,
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

    /// Leaves out the domains whose counter moves too seldom for a window of `at_most`; returns them,
    /// with why.
    pub fn leave_out_slow(&mut self, at_most: Duration) -> Vec<(String, String)> {
        let at_most_ns = at_most.as_nanos() as u64;
        let is_slow = |(_, interval_ns): &mut (Domain, u64)| *interval_ns * MIN_STEPS > at_most_ns;
        let slow = self.domains.extract_if(.., is_slow);
        slow.map(|(domain, interval_ns)| {
            let reason = format!(
                "the counter moves every {:.0} ms, too seldom for windows of {} s",
                interval_ns as f64 * 1e-6,
                at_most.as_secs_f64()
            );
            (domain.source, reason)
        })
        .collect()
    }

    /// Does `work`, which decides where one window ends and the next begins; the first begins here.
    pub fn watch<T>(&self, work: impl FnOnce(Watch<'_>) -> T) -> T {
        let counters = Mutex::new(self.counters());
        polled(self.tree, &counters, WATCH_POLL, || {
            work(Watch {
                meter: self,
                counters: &counters,
                start_ns: self.clock.now_ns(),
                start_uj: vec![0; self.domains.len()],
            })
        })
    }

    fn counters(&self) -> Counters {
        let domains = self.domains.iter();
        domains
            .map(|(domain, _)| domain.counter(self.tree))
            .collect()
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
        let counters = Mutex::new(self.counters());
        let start_ns = self.clock.now_ns();
        polled(self.tree, &counters, POLL, || {
            loop {
                work()?;
                if self.clock.now_ns() - start_ns >= at_least_ns {
                    return Ok(());
                }
            }
        })?;
        self.wait_for_edge();
        let mut counters = counters
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let elapsed_ns = self.clock.now_ns() - start_ns;
        update_all(self.tree, &mut counters);
        let joules = self
            .domains
            .iter()
            .zip(&counters)
            .map(|((domain, interval_ns), counter)| {
                (
                    domain.source.clone(),
                    joules(counter, 0, elapsed_ns, *interval_ns),
                )
            })
            .collect();
        Ok(Window { elapsed_ns, joules })
    }

    /// Rests for `time` and returns each domain's draw in watts, ten times a second.
    pub fn idle_w(&self, time: Duration) -> Vec<Vec<f64>> {
        let mut draws = vec![Vec::new(); self.domains.len()];
        let mut counters = self.counters();
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

impl Watch<'_> {
    /// Closes the open window where it has lasted `at_least`, and [`MIN_STEPS`] updates of every
    /// counter; the next one begins where it ends. The counters are read only then.
    pub fn close(&mut self, at_least: Duration) -> Option<Window> {
        let intervals_ns = self
            .meter
            .domains
            .iter()
            .map(|(_, interval_ns)| *interval_ns);
        let steps_ns = MIN_STEPS * intervals_ns.max().unwrap_or_default();
        let elapsed_ns = self.meter.clock.now_ns() - self.start_ns;
        if elapsed_ns < steps_ns.max(at_least.as_nanos() as u64) {
            return None;
        }
        let mut counters = lock(self.counters);
        update_all(self.meter.tree, &mut counters);
        let joules = self
            .meter
            .domains
            .iter()
            .zip(&*counters)
            .zip(&self.start_uj)
            .map(|(((domain, interval_ns), counter), start_uj)| {
                (
                    domain.source.clone(),
                    joules(counter, *start_uj, elapsed_ns, *interval_ns),
                )
            })
            .collect();
        self.start_uj = counters.iter().map(total_uj).collect();
        self.start_ns += elapsed_ns;
        Some(Window { elapsed_ns, joules })
    }

    /// Does `work` and leaves its time and energy out of the open window.
    pub fn without<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (before_uj, before_ns) = self.now();
        let done = work();
        let (after_uj, after_ns) = self.now();
        for ((start, before), after) in self.start_uj.iter_mut().zip(before_uj).zip(after_uj) {
            // A counter that has failed has no total any more.
            *start += after.saturating_sub(before);
        }
        self.start_ns += after_ns - before_ns;
        done
    }

    fn now(&self) -> (Vec<u64>, u64) {
        let mut counters = lock(self.counters);
        update_all(self.meter.tree, &mut counters);
        let totals = counters.iter().map(total_uj).collect();
        (totals, self.meter.clock.now_ns())
    }
}

/// Does `work` while another thread updates the counters.
fn polled<T>(
    tree: &dyn Tree,
    counters: &Mutex<Counters>,
    every: Duration,
    work: impl FnOnce() -> T,
) -> T {
    let done = (Mutex::new(false), Condvar::new());
    thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || poll(tree, counters, every, done));
        let _stop = Stop(done);
        work()
    })
}

fn poll(
    tree: &dyn Tree,
    counters: &Mutex<Counters>,
    every: Duration,
    (done, signal): &(Mutex<bool>, Condvar),
) {
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    while !*done {
        (done, _) = signal
            .wait_timeout(done, every)
            .unwrap_or_else(PoisonError::into_inner);
        if !*done {
            update_all(tree, &mut lock(counters));
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

fn lock(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    counters.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Returns what a counter has gained since it had `start_uj`.
fn joules(
    counter: &Result<Counter, Unreadable>,
    start_uj: u64,
    elapsed_ns: u64,
    interval_ns: u64,
) -> Result<f64, String> {
    let counter = counter.as_ref().map_err(ToString::to_string)?;
    let steps = elapsed_ns / interval_ns.max(1);
    if steps < MIN_STEPS {
        return Err(format!(
            "the window of {:.3} s has {steps} updates of the counter, {MIN_STEPS} are needed",
            elapsed_ns as f64 * 1e-9
        ));
    }
    match counter.total_uj() - start_uj {
        0 => Err("the counter did not move in the window".to_owned()),
        gained_uj => Ok(gained_uj as f64 * 1e-6),
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

    /// Watches a counter that grows by 5 mJ at every read with a clock whose every look takes 1 ms.
    fn watched(tree: &FakeTree, work: impl FnOnce(Watch<'_>)) {
        let clock = FakeClock::new(1_000_000);
        let (meter, still) = Meter::new(tree, &clock, discover(tree).unwrap().readable);
        assert_eq!(still, []);
        meter.watch(work);
    }

    #[test]
    fn windows_that_follow_one_another_leave_nothing_out_and_share_nothing() {
        let tree = counting(5000);
        watched(&tree, |mut watch| {
            let reads = tree.reads();
            let at_least = Duration::from_millis(250);
            let mut windows = Vec::new();
            for _ in 0..60_000 {
                windows.extend(watch.close(at_least));
            }
            // Each is as long as it must be, and the counter was read but where one ended. It wraps
            // after 200 reads.
            assert_eq!(windows.len(), 240);
            assert_eq!(tree.reads() - reads, 240);
            for window in windows {
                assert_eq!(window.elapsed_ns, 250_000_000);
                assert_eq!(window.joules[0].1, Ok(0.005));
            }
        });
    }

    #[test]
    fn a_watched_window_is_not_closed_before_its_counter_has_moved_often_enough() {
        let tree = counting(5000);
        watched(&tree, |mut watch| {
            let n_looks = (1..1000).find(|_| watch.close(Duration::ZERO).is_some());
            assert_eq!(n_looks, Some(MIN_STEPS));
        });
    }

    #[test]
    fn what_is_left_out_takes_neither_time_nor_energy_of_the_window() {
        let tree = counting(5000);
        watched(&tree, |mut watch| {
            let n_looks = |watch: &mut Watch<'_>| {
                (1..1000).find_map(|n| Some((n, watch.close(Duration::ZERO)?)))
            };
            let (n, window) = n_looks(&mut watch).unwrap();
            assert_eq!((n, window.joules[0].1.clone()), (100, Ok(0.005)));
            // The read before it is the window's; those meanwhile and the one after it are not.
            watch.without(|| {
                for _ in 0..10 {
                    tree.read(std::path::Path::new(ENERGY)).unwrap();
                }
            });
            let (n, window) = n_looks(&mut watch).unwrap();
            assert_eq!(window.joules[0].1, Ok(0.01));
            assert_eq!((n, window.elapsed_ns), (99, 100_000_000));
        });
    }

    #[test]
    fn a_watched_counter_that_vanishes_has_a_reason_from_then_on() {
        let tree = counting(5000);
        watched(&tree, |mut watch| {
            tree.remove(ENERGY);
            watch.without(|| ());
            for _ in 0..2 {
                let window = (0..200).find_map(|_| watch.close(Duration::ZERO)).unwrap();
                let reason = window.joules[0].1.clone().unwrap_err();
                assert_eq!(reason, format!("/{ENERGY} has vanished"));
            }
        });
    }

    #[test]
    fn slow_counters_are_left_out() {
        let tree = counting(5000);
        // Every look takes 30 ms, and the counter moves at every look.
        let clock = FakeClock::new(30_000_000);
        let (mut meter, _) = Meter::new(&tree, &clock, discover(&tree).unwrap().readable);
        assert_eq!(meter.leave_out_slow(Duration::from_secs(3)), []);
        let expected = (
            "powercap:package-0".to_owned(),
            "the counter moves every 30 ms, too seldom for windows of 2 s".to_owned(),
        );
        assert_eq!(meter.leave_out_slow(Duration::from_secs(2)), [expected]);
        assert!(meter.sources().is_empty());
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
