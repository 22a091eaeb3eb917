//! How likely texts are, by word and by byte: lm-evaluation-harness's rolling log-likelihoods.

use std::ops::Add;

/// How likely a text is, and how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likelihood {
    /// Sum of natural log p of its tokens.
    pub loglikelihood: f64,
    /// Words of the original text.
    pub words: u64,
    /// UTF-8 bytes of the original text.
    pub bytes: u64,
}

impl Add for Likelihood {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            loglikelihood: self.loglikelihood + other.loglikelihood,
            words: self.words + other.words,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Likelihood {
    /// Returns exp(−log-likelihood / words), or `None` of no words.
    pub fn word_perplexity(self) -> Option<f64> {
        (self.words > 0).then(|| (-self.loglikelihood / self.words as f64).exp())
    }

    /// Returns exp(−log-likelihood / bytes), or `None` of no bytes.
    pub fn byte_perplexity(self) -> Option<f64> {
        (self.bytes > 0).then(|| (-self.loglikelihood / self.bytes as f64).exp())
    }

    /// Returns −log-likelihood / (bytes · ln 2), or `None` of no bytes.
    pub fn bits_per_byte(self) -> Option<f64> {
        (self.bytes > 0).then(|| -self.loglikelihood / (self.bytes as f64 * std::f64::consts::LN_2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_uniform_guess_among_256_bytes_is_eight_bits() {
        // Four words in twenty bytes, each byte one of 256.
        let uniform = Likelihood {
            loglikelihood: -20.0 * 256.0_f64.ln(),
            words: 4,
            bytes: 20,
        };
        assert!((uniform.bits_per_byte().unwrap() - 8.0).abs() < 1e-12);
        assert!((uniform.byte_perplexity().unwrap() - 256.0).abs() < 1e-9);
        assert!((uniform.word_perplexity().unwrap() / 256.0_f64.powi(5) - 1.0).abs() < 1e-9);
        assert_eq!(Likelihood::default().word_perplexity(), None);
        assert_eq!(Likelihood::default().bits_per_byte(), None);
    }

    proptest! {
        #[test]
        fn the_three_say_the_same(per_word in 0.0..60.0_f64, words in 1..5000_u64, more in 0..40_000_u64) {
            let loglikelihood = -per_word * words as f64;
            let one = Likelihood { loglikelihood, words, bytes: words + more };
            let bits = one.bits_per_byte().unwrap();
            prop_assert!((one.byte_perplexity().unwrap().log2() - bits).abs() <= 1e-9 * bits.max(1.0));
            let per_word = bits * one.bytes as f64 / words as f64;
            let found = one.word_perplexity().unwrap();
            prop_assert!((found.log2() - per_word).abs() <= 1e-9 * per_word.max(1.0));
        }
    }
}
