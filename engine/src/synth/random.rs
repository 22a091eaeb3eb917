//! Random numbers: xoshiro256++ seeded by splitmix64 (Blackman, Vigna, `prng.di.unimi.it`).

/// A stream of its own for each tensor, so that a tensor does not depend on those before it.
pub(super) struct Random([u64; 4]);

impl Random {
    /// Returns the stream of a name under a seed.
    pub(super) fn of(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(splitmix64(&mut seed.clone()) ^ hash)
    }

    fn new(mut seed: u64) -> Self {
        Self(std::array::from_fn(|_| splitmix64(&mut seed)))
    }

    /// Returns 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Fills with random bytes.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            let random = self.next().to_le_bytes();
            eight.copy_from_slice(&random[..eight.len()]);
        }
    }

    /// Fills with numbers below `limit`, evenly within 1 part in 2^16 / `limit`.
    pub(super) fn fill_below(&mut self, limit: u8, bytes: &mut [u8]) {
        for four in bytes.chunks_mut(4) {
            let mut bits = self.next();
            for byte in four {
                *byte = (((bits & 0xffff) * u64::from(limit)) >> 16) as u8;
                bits >>= 16;
            }
        }
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_are_those_of_their_authors() {
        // splitmix64 from 1234567: the published reference values.
        let mut state = 1_234_567;
        assert_eq!(splitmix64(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(splitmix64(&mut state), 3_203_168_211_198_807_973);
        // xoshiro256++ from the state 1, 2, 3, 4.
        let mut random = Random([1, 2, 3, 4]);
        assert_eq!(random.next(), 41_943_041);
        assert_eq!(random.next(), 58_720_359);
    }

    #[test]
    fn numbers_below_a_limit_are_even() {
        let mut bytes = vec![0; 81 * 1000];
        Random::of(1, "w").fill_below(81, &mut bytes);
        let mut counts = [0; 81];
        for byte in bytes {
            counts[usize::from(byte)] += 1;
        }
        assert!(
            counts.iter().all(|&n| (800..1200).contains(&n)),
            "{counts:?}"
        );
    }
}
