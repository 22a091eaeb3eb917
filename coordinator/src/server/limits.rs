//! How much one peer may ask for. Pure: the time comes from outside.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Limits of a coordinator that others can reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Connections of everybody together.
    pub connections: usize,
    /// Connections from one address; many agents may be behind one.
    pub connections_per_address: usize,
    /// Connections of one identity.
    pub connections_per_identity: usize,
    /// TLS handshakes under way.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub handshake_within: Duration,
    /// How long a connection may take to make its first request.
    pub first_request_within: Duration,
    /// How long a request that is one message may take to arrive.
    pub request_within: Duration,
    /// Calls one identity may make.
    pub calls: Rate,
    /// Tries to enroll from one address, where nobody is known yet.
    pub enrollments: Rate,
    /// Bytes a second that one connection may send.
    pub bytes_per_s: u64,
    /// Calls that may be open on one connection.
    pub streams: u32,
    /// How often a silent connection is asked whether it is there.
    pub keepalive: Duration,
    /// How long it may take to answer that.
    pub keepalive_within: Duration,
    /// Refusals that are logged; those beyond are counted.
    pub logged_refusals: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 512,
            connections_per_identity: 8,
            handshakes: 256,
            handshake_within: Duration::from_secs(10),
            first_request_within: Duration::from_secs(20),
            request_within: Duration::from_secs(30),
            calls: Rate::new(20.0, 100.0),
            enrollments: Rate::new(0.5, 20.0),
            bytes_per_s: 64 << 20,
            streams: 64,
            keepalive: Duration::from_secs(20),
            keepalive_within: Duration::from_secs(20),
            logged_refusals: Rate::new(5.0, 50.0),
        }
    }
}

/// A token bucket's measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// What flows in.
    pub per_s: f64,
    /// What it holds.
    pub burst: f64,
}

impl Rate {
    /// Returns a rate with a burst.
    pub const fn new(per_s: f64, burst: f64) -> Self {
        Self { per_s, burst }
    }
}

/// A token bucket, full at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self {
            level: rate.burst,
            at: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * rate.per_s).min(rate.burst);
        self.at = now;
    }

    /// Takes one, if it is there.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.fill(rate, now);
        let is_there = self.level >= 1.0;
        if is_there {
            self.level -= 1.0;
        }
        is_there
    }

    /// Takes what was used already and returns how long to wait until the bucket is not in debt.
    pub(super) fn owe(&mut self, n: f64, rate: Rate, now: Instant) -> Option<Duration> {
        self.fill(rate, now);
        self.level -= n;
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / rate.per_s))
    }

    fn is_full(&self, rate: Rate, now: Instant) -> bool {
        let mut filled = *self;
        filled.fill(rate, now);
        filled.level >= rate.burst
    }
}

/// Most buckets that are kept, so that the limiter itself cannot be made to eat memory.
const MAX_BUCKETS: usize = 1 << 16;

/// One bucket a key.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    rate: Rate,
    buckets: HashMap<K, Bucket>,
}

impl<K: Hash + Eq> Buckets<K> {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            buckets: HashMap::new(),
        }
    }

    /// Takes one from the key's bucket, if it is there.
    pub(super) fn take(&mut self, key: K, now: Instant) -> bool {
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            // A full bucket says no more than none does.
            self.buckets
                .retain(|_, bucket| !bucket.is_full(self.rate, now));
            if self.buckets.len() >= MAX_BUCKETS {
                return false;
            }
        }
        self.buckets
            .entry(key)
            .or_insert_with(|| Bucket::new(self.rate, now))
            .take(self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(Rate::new(2.0, 3.0));
        let mut take = |after_ms| buckets.take("a", start + Duration::from_millis(after_ms));
        assert_eq!([0, 0, 0, 0].map(&mut take), [true, true, true, false]);
        assert_eq!(
            [400, 500, 600, 1000].map(&mut take),
            [false, true, false, true]
        );
        // However long nothing is taken, no more than the burst gathers.
        assert_eq!([60_000; 4].map(&mut take), [true, true, true, false]);
        assert!(buckets.take("b", start));
    }

    #[test]
    fn what_was_used_beyond_the_rate_is_waited_for() {
        let start = Instant::now();
        let rate = Rate::new(100.0, 50.0);
        let mut bucket = Bucket::new(rate, start);
        assert_eq!(bucket.owe(50.0, rate, start), None);
        assert_eq!(bucket.owe(200.0, rate, start), Some(Duration::from_secs(2)));
        let later = start + Duration::from_secs(2);
        assert_eq!(bucket.owe(0.0, rate, later), None);
    }
}
