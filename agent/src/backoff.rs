//! How long to wait before the next try to reach the coordinator.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(30);

/// Waits that double from 100 ms to 30 s, each shortened at random by up to a half, so that a fleet
/// does not come back all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// Returns the next wait; `random` is from 0 to 1.
    pub(crate) fn wait(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0);
        self.next = (self.next * 2).min(LAST);
        wait
    }
}

/// Returns a number from 0 to 1, good enough to spread agents out.
pub(crate) fn random() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id()) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.wait(0.0).as_millis()).collect();
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn chance_shortens_a_wait_by_at_most_a_half() {
        assert_eq!(Backoff::default().wait(1.0), FIRST / 2);
        for _ in 0..100 {
            assert!((0.0..=1.0).contains(&random()));
        }
        assert_ne!(random().to_bits(), random().to_bits());
    }
}
