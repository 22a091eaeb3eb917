//! From logits to the next token: the most likely one, or one drawn by temperature, top-k and
//! top-p. Equal seeds and logits give equal tokens on every machine.

use std::{cmp::Ordering, num::NonZeroUsize};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// The most likely token.
    #[default]
    Greedy,
    /// A token drawn at random. First the logits are divided by `temperature`, then all but the
    /// `top_k` most likely tokens are dropped, then all but the fewest of these whose
    /// probabilities (among the `top_k`) reach `top_p`.
    Random {
        /// Above 0; below 1 sharpens. At 0 the most likely token is taken.
        temperature: f32,
        /// Tokens to keep, or 0 to keep all.
        top_k: u32,
        /// Probability to keep, 0 to 1; at 1 all are kept.
        top_p: f32,
        /// Begins the sequence of random numbers.
        seed: u64,
    },
}

/// Why there is no next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The model's arithmetic broke down.
    #[error("the logit of token {id} is not a number")]
    NotANumber {
        /// First such token.
        id: u32,
    },
    /// There is nothing to choose from.
    #[error("there are no logits")]
    Empty,
}

/// Chooses tokens one after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    /// Room for the tokens in the running.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// Starts a sequence of choices.
    pub fn new(sampling: Sampling) -> Self {
        let seed = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random { seed, .. } => seed,
        };
        Self {
            sampling,
            random: SplitMix64(seed),
            candidates: Vec::new(),
        }
    }

    /// Returns how many of the greatest logits a choice needs; `None` where it needs all.
    pub fn wants(&self) -> Option<NonZeroUsize> {
        match self.sampling {
            Sampling::Random {
                temperature, top_k, ..
            } if temperature > 0.0 => NonZeroUsize::new(top_k as usize),
            _ => Some(NonZeroUsize::MIN),
        }
    }

    /// Chooses the next token by its logits, `(vocab_size)`. Of equally likely ones the one with
    /// the lowest id stands first.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SampleError> {
        let wanted = self.wants().map_or(logits.len(), usize::from);
        let mut candidates = std::mem::take(&mut self.candidates);
        greatest(logits, wanted, &mut candidates);
        let token = self.choose(&candidates);
        self.candidates = candidates;
        token
    }

    /// Chooses the next token of the tokens with the greatest logits, as many as
    /// [`wants`](Self::wants) says, as [`greatest`] leaves them.
    pub fn choose(&mut self, greatest: &[(u32, f32)]) -> Result<u32, SampleError> {
        let &(best, logit) = greatest.first().ok_or(SampleError::Empty)?;
        if logit.is_nan() {
            return Err(SampleError::NotANumber { id: best });
        }
        match self.sampling {
            Sampling::Random {
                temperature, top_p, ..
            } if temperature > 0.0 && logit.is_finite() => {
                Ok(self.draw(greatest, temperature, top_p))
            }
            // Infinities have no differences.
            _ => Ok(best),
        }
    }

    fn draw(&mut self, candidates: &[(u32, f32)], temperature: f32, top_p: f32) -> u32 {
        let greatest = candidates[0].1;
        // exp in software, so that every machine draws from the same numbers
        let weight = |logit: f32| {
            libm::exp((f64::from(logit) - f64::from(greatest)) / f64::from(temperature))
        };
        let total: f64 = candidates.iter().map(|&(_, logit)| weight(logit)).sum();
        let limit = f64::from(top_p.clamp(0.0, 1.0)) * total;
        let mut kept = 0.0;
        let mut n_kept = 0;
        for &(_, logit) in candidates {
            kept += weight(logit);
            n_kept += 1;
            if top_p < 1.0 && kept >= limit {
                break;
            }
        }

        let target = self.random.unit() * kept;
        let mut passed = 0.0;
        for &(id, logit) in &candidates[..n_kept] {
            passed += weight(logit);
            if target < passed {
                return id;
            }
        }
        candidates[n_kept - 1].0
    }
}

/// Fills `out` with the `k` tokens of the greatest logits, the greatest first and of equal ones the
/// lowest id; or with the first token whose logit is not a number, if there is one.
pub fn greatest(logits: &[f32], k: usize, out: &mut Vec<(u32, f32)>) {
    out.clear();
    match greedy(logits) {
        Err(SampleError::Empty) => {}
        Err(SampleError::NotANumber { id }) => out.push((id, logits[id as usize])),
        Ok(best) if k == 1 => out.push((best, logits[best as usize])),
        Ok(_) => {
            out.extend((0..).zip(logits.iter().copied()));
            keep_greatest(k, out);
        }
    }
}

/// Keeps the `k` tokens with the greatest logits, in [`greatest`]'s order.
pub(crate) fn keep_greatest(k: usize, candidates: &mut Vec<(u32, f32)>) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, likelier);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(likelier);
}

/// Returns the most likely token, the lowest of several.
pub fn greedy(logits: &[f32]) -> Result<u32, SampleError> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return Err(SampleError::NotANumber { id });
        }
        if best.is_none_or(|(_, greatest)| logit > greatest) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id).ok_or(SampleError::Empty)
}

/// Orders the likelier token first, and of equally likely ones the lower.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "a comparison's signature"
)]
fn likelier(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    // −0 equals 0 here, and there is no NaN.
    b.1.partial_cmp(&a.1)
        .unwrap_or(Ordering::Equal)
        .then(a.0.cmp(&b.0))
}

/// `SplitMix64` (Steele, Lea and Flood 2014): a full period, and any seed is a good one.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to below 1, a multiple of 2⁻⁵³.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(temperature: f32, top_k: u32, top_p: f32, seed: u64) -> Sampler {
        Sampler::new(Sampling::Random {
            temperature,
            top_k,
            top_p,
            seed,
        })
    }

    /// Draws often and counts.
    fn counts(mut sampler: Sampler, logits: &[f32]) -> Vec<u32> {
        let mut counts = vec![0; logits.len()];
        for _ in 0..20_000 {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_lowest_of_equally_likely_tokens_is_taken() {
        assert_eq!(greedy(&[1.0, 3.0, 3.0, -1.0]), Ok(1));
        assert_eq!(greedy(&[-0.0, 0.0]), Ok(0));
        assert_eq!(greedy(&[f32::NEG_INFINITY; 3]), Ok(0));
        assert_eq!(
            greedy(&[0.0, f32::NAN]),
            Err(SampleError::NotANumber { id: 1 })
        );
        assert_eq!(greedy(&[]), Err(SampleError::Empty));
        let mut cold = random(0.0, 5, 0.9, 1);
        assert_eq!(cold.sample(&[1.0, 3.0, 3.0]), Ok(1));
        assert_eq!(random(1.0, 1, 1.0, 1).sample(&[1.0, 3.0, 3.0]), Ok(1));
    }

    #[test]
    fn tokens_are_drawn_as_often_as_their_probability_says() {
        // ln of 1, 2, 3 and 4 tenths.
        let logits = [0.1_f32, 0.2, 0.3, 0.4].map(f32::ln);
        let near = |counts: Vec<u32>, expected: [f64; 4]| {
            for (count, expected) in counts.into_iter().zip(expected) {
                assert!(
                    (f64::from(count) / 20_000.0 - expected).abs() < 0.015,
                    "{count} {expected}"
                );
            }
        };
        near(
            counts(random(1.0, 0, 1.0, 7), &logits),
            [0.1, 0.2, 0.3, 0.4],
        );
        // Halving the temperature squares: 1, 4, 9 and 16 thirtieths.
        near(
            counts(random(0.5, 0, 1.0, 7), &logits),
            [1.0, 4.0, 9.0, 16.0].map(|x| x / 30.0),
        );
        near(
            counts(random(1.0, 2, 1.0, 7), &logits),
            [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0],
        );
        // 0.4 and 0.3 reach 0.65.
        near(
            counts(random(1.0, 0, 0.65, 7), &logits),
            [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0],
        );
        // Among the best three 0.4 is 0.44 and 0.3 a third more.
        near(
            counts(random(1.0, 3, 0.5, 7), &logits),
            [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0],
        );
        near(
            counts(random(1.0, 0, 0.0, 7), &logits),
            [0.0, 0.0, 0.0, 1.0],
        );
    }

    #[test]
    fn a_seed_always_gives_the_same_tokens() {
        // The numbers are part of what a recorded run can be repeated from.
        let logits: Vec<f32> = (0..1000_u16).map(|i| f32::from(i % 37) * 0.1).collect();
        let draws = |seed| {
            let mut sampler = random(0.8, 50, 0.95, seed);
            (0..8)
                .map(|_| sampler.sample(&logits).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        assert_eq!(SplitMix64(1_234_567).next(), 6_457_827_717_110_365_317);
    }

    proptest! {
        #[test]
        fn any_logits_give_a_token_that_the_limits_allow(
            logits in proptest::collection::vec(prop_oneof![
                -50f32..50.0, Just(f32::NEG_INFINITY), Just(0.0)
            ], 1..60),
            temperature in 0f32..3.0,
            top_k in 0u32..70,
            top_p in 0f32..1.2,
            seed: u64,
        ) {
            let id = random(temperature, top_k, top_p, seed).sample(&logits).unwrap();
            let likelier = logits.iter().filter(|&&l| l > logits[id as usize]).count();
            prop_assert!(top_k == 0 || likelier < top_k as usize);
        }
    }
}
