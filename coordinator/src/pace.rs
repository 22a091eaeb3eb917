//! How long to gather what is then done together.
//!
//! What is asked of the store costs the same however little is in it. Where many agents ask, a short
//! wait makes one statement and one commit of what would be dozens; where few do, or nobody has asked
//! just now, there is nothing to wait for.

use std::time::Duration;

use tokio::time::Instant;

/// Wait for each agent that is there.
const FOR_EACH: Duration = Duration::from_micros(12);

/// Longest wait.
const MOST: Duration = Duration::from_millis(15);

/// Keeps beginnings apart.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Instant>,
}

impl Pace {
    /// Returns until when to gather before something is begun, with so many agents there; `None` if
    /// the last beginning was long enough ago.
    pub(crate) fn gather_until(&self, n_agents: usize, now: Instant) -> Option<Instant> {
        let n_agents = u32::try_from(n_agents).unwrap_or(u32::MAX);
        let until = self.last? + FOR_EACH.saturating_mul(n_agents).min(MOST);
        (until > now).then_some(until)
    }

    /// Notes that something is begun now.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_apart_the_more_agents_the_longer() {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.gather_until(1_000, now), None);
        pace.begin(now);
        assert_eq!(pace.gather_until(0, now), None);
        assert_eq!(pace.gather_until(1, now), Some(now + FOR_EACH));
        let later = now + FOR_EACH;
        assert_eq!(pace.gather_until(1, later), None);
        assert_eq!(
            pace.gather_until(1_000, later),
            Some(now + FOR_EACH * 1_000)
        );
        assert_eq!(pace.gather_until(usize::MAX, later), Some(now + MOST));
        assert_eq!(pace.gather_until(usize::MAX, now + MOST), None);
    }
}
