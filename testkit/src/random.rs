//! Chance that a seed repeats: `SplitMix64` (Steele, Lea and Flood, 2014).

use std::time::Duration;

/// A sequence of numbers that its seed determines.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Returns the sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }

    /// Returns true `per_mille` times in 1000.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// Returns a duration up to and including `longest`, to the microsecond.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }

    /// Returns a sequence of its own, so that what one part draws does not move another's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}

/// Returns a number that depends on all of `parts` and on nothing else.
pub fn hash(parts: &[u64]) -> u64 {
    let mut random = Random(0x7472_6974_6d61_726b);
    for part in parts {
        random = Random(random.next_u64() ^ part);
    }
    random.next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_sequence() {
        // The first numbers of SplitMix64 with seed 0, as in its authors' reference code.
        let mut random = Random::new(0);
        assert_eq!(random.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next_u64(), 0x6e78_9e6a_a1b9_65f4);
        let mut one = Random::new(7);
        let mut fork = one.fork();
        let next = one.next_u64();
        for _ in 0..10 {
            fork.next_u64();
        }
        let mut again = Random::new(7);
        let _ = again.fork();
        assert_eq!(again.next_u64(), next);
    }

    #[test]
    fn chance_is_as_often_as_it_says() {
        let mut random = Random::new(1);
        let n = (0..10_000).filter(|_| random.chance(250)).count();
        assert!((2300..2700).contains(&n), "{n}");
        let longest = Duration::from_millis(3);
        assert!((0..1000).all(|_| random.up_to(longest) <= longest));
        assert_ne!(hash(&[1, 2]), hash(&[2, 1]));
    }
}
