//! Time comes in from outside, so that tests can make it.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where time comes from.
pub trait Clock {
    /// Returns nanoseconds since some fixed moment; never goes back.
    fn now_ns(&self) -> u64;

    /// Lets time pass.
    fn sleep(&self, time: Duration);

    /// Returns nanoseconds since 1970.
    fn unix_ns(&self) -> i64;
}

/// Names the clock in records.
pub const SOURCE: &str = "clock:monotonic";

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    /// A clock that starts now.
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn unix_ns(&self) -> i64 {
        // A clock before 1970 is a machine without a battery: 0 is the honest answer.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i64)
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A clock whose every look costs the same time.

    use std::cell::Cell;

    use super::{Clock, Duration};

    /// Moves on by `step_ns` after every look.
    pub(crate) struct FakeClock {
        now_ns: Cell<u64>,
        step_ns: u64,
    }

    impl FakeClock {
        pub(crate) fn new(step_ns: u64) -> Self {
            Self {
                now_ns: Cell::new(0),
                step_ns,
            }
        }
    }

    impl Clock for FakeClock {
        fn now_ns(&self) -> u64 {
            let now = self.now_ns.get();
            self.now_ns.set(now + self.step_ns);
            now
        }

        fn sleep(&self, time: Duration) {
            self.now_ns.set(self.now_ns.get() + time.as_nanos() as u64);
        }

        fn unix_ns(&self) -> i64 {
            1_700_000_000_000_000_000 + self.now_ns.get().cast_signed()
        }
    }
}
