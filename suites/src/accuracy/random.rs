//! Python's `random.Random`, as far as drawing examples needs it.
//!
//! MT19937 (Matsumoto and Nishimura 1998) seeded by `init_by_array`, and `Random.sample` of
//! Python 3.11: the reference harness draws its examples with these, and the same seed has to give
//! the same examples.

use std::collections::HashSet;

const N: usize = 624;
const M: usize = 397;

/// A generator that gives what `random.Random(seed)` gives.
#[derive(Clone, Debug)]
pub struct PythonRandom {
    state: [u32; N],
    next: usize,
}

impl PythonRandom {
    /// Returns the generator of a seed below 2³².
    pub fn new(seed: u32) -> Self {
        let mut state = [0; N];
        state[0] = 19_650_218;
        for i in 1..N {
            state[i] = mixed(state[i - 1])
                .wrapping_mul(1_812_433_253)
                .wrapping_add(i as u32);
        }
        let mut i = 1;
        for _ in 0..N {
            state[i] = (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_664_525)).wrapping_add(seed);
            i = following(&mut state, i);
        }
        for _ in 0..N - 1 {
            state[i] =
                (state[i] ^ mixed(state[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i = following(&mut state, i);
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    /// Returns the next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == N {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Draws `count` different positions out of 0..`n`, in the order drawn; `None` where there are
    /// not so many.
    pub fn sample(&mut self, n: u32, count: u32) -> Option<Vec<u32>> {
        if count > n {
            return None;
        }
        // CPython keeps a list where that is smaller than a set of `count` entries would be.
        let mut set_size: u64 = 21;
        if count > 5 {
            let wanted = 3 * u64::from(count);
            let mut power = 1;
            while power < wanted {
                power *= 4;
            }
            set_size += power;
        }
        Some(if u64::from(n) <= set_size {
            let mut pool: Vec<u32> = (0..n).collect();
            (0..count)
                .map(|i| {
                    let left = n - i;
                    let drawn = self.below(left) as usize;
                    let position = pool[drawn];
                    pool[drawn] = pool[left as usize - 1];
                    position
                })
                .collect()
        } else {
            let mut seen = HashSet::new();
            (0..count)
                .map(|_| {
                    loop {
                        let position = self.below(n);
                        if seen.insert(position) {
                            return position;
                        }
                    }
                })
                .collect()
        })
    }

    /// Returns a number below `n`, which is at least 1.
    fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let drawn = self.next_u32() >> (u32::BITS - bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    fn twist(&mut self) {
        for i in 0..N {
            let joined = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }
}

fn mixed(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// Returns the position after `i`, which wraps to 1 with the last word copied to the first.
fn following(state: &mut [u32; N], i: usize) -> usize {
    if i + 1 < N {
        return i + 1;
    }
    state[0] = state[N - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    // All vectors were printed by CPython 3.11.

    #[test]
    fn the_first_words_are_those_of_cpython() {
        let mut random = PythonRandom::new(1234);
        let words = [(); 3].map(|()| random.next_u32());
        assert_eq!(words, [4_150_886_329, 3_342_196_574, 1_892_932_127]);
    }

    #[test]
    fn one_generator_runs_on_through_the_documents() {
        let mut random = PythonRandom::new(1234);
        // GSM8K: 7473 training items.
        assert_eq!(random.sample(7473, 4).unwrap(), [6374, 3610, 957, 61]);
        assert_eq!(random.sample(7473, 4).unwrap(), [742, 7462, 6610, 4769]);
        let mut random = PythonRandom::new(1234);
        assert_eq!(random.sample(7473, 5).unwrap(), [6374, 3610, 957, 61, 742]);
        assert_eq!(
            random.sample(7473, 5).unwrap(),
            [7462, 6610, 4769, 286, 5501]
        );
    }

    #[test]
    fn many_draws_use_the_larger_set() {
        // CommonsenseQA: 9741 training items, ten shots and a spare.
        let drawn = PythonRandom::new(1234).sample(9741, 11).unwrap();
        assert_eq!(
            drawn,
            [
                7220, 1914, 122, 1485, 9539, 572, 1375, 1612, 5810, 3879, 285
            ]
        );
    }

    #[test]
    fn a_small_pool_is_drawn_from_a_list() {
        let mut random = PythonRandom::new(1234);
        let all = random.sample(21, 21).unwrap();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..21).collect::<Vec<_>>());
        let draw = |n, count| PythonRandom::new(1234).sample(n, count).unwrap();
        assert_eq!(draw(20, 4), [14, 3, 0, 2]);
        // The largest pool that five draws take from a list, and the smallest they do not; so for
        // fourteen.
        assert_eq!(draw(21, 5), [14, 3, 0, 2, 1]);
        assert_eq!(draw(22, 5), [14, 3, 0, 2, 18]);
        assert_eq!(
            draw(85, 14),
            [56, 14, 0, 11, 74, 4, 10, 12, 45, 30, 2, 3, 80, 44]
        );
        assert_eq!(
            draw(86, 14),
            [56, 14, 0, 11, 74, 4, 85, 10, 12, 45, 30, 2, 3, 44]
        );
        assert_eq!(random.sample(3, 4), None);
        assert_eq!(random.sample(0, 0).unwrap(), Vec::<u32>::new());
    }
}
