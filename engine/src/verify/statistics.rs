//! How far two engines' outputs lie apart, and how far they may.
//!
//! Rounding activations to int8 is discontinuous: two right engines differ by 1e-7 until one value
//! near a half rounds the other way, and the logits then differ by some 1e-2. A ternary model's
//! limits are therefore statistical. They are what right engines were measured to reach, and tight
//! enough to catch a wrong epsilon, a scale that is 1 % off or one negated row. Full-precision
//! models have no such cliff.

use serde::Serialize;

use crate::{kv_cache::KvType, score};

/// The most that two right engines differ by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limits {
    /// Full precision: nothing rounds to int8.
    Exact {
        /// Of the last logits of a prompt.
        max_logit_difference: f32,
    },
    /// Ternary: activations round to int8.
    Statistical {
        /// Median over the prompts of the divergence of the next token's distribution.
        median_kl: f64,
        /// Its worst.
        worst_kl: f64,
        /// Median difference of the log-probability of each token of the prompts.
        p50: f64,
        /// Its 99 % quantile.
        p99: f64,
        /// Its largest.
        max: f64,
    },
}

impl Limits {
    /// Returns the limits of a ternary model against a reference in f32.
    pub const fn ternary(kv: KvType) -> Self {
        match kv {
            KvType::F32 => Self::Statistical {
                median_kl: 2e-5,
                worst_kl: 3e-4,
                p50: 0.005,
                p99: 0.035,
                max: 0.2,
            },
            KvType::F16 => Self::Statistical {
                median_kl: 6e-5,
                worst_kl: 3e-4,
                p50: 0.006,
                p99: 0.045,
                max: 0.2,
            },
        }
    }

    /// Returns the limits of a full-precision model against a reference in f32.
    pub const fn dense(kv: KvType) -> Self {
        Self::Exact {
            max_logit_difference: match kv {
                KvType::F32 => 1e-4,
                KvType::F16 => 3e-3,
            },
        }
    }

    /// Returns the difference of the two best logits below which either may be taken for the best.
    pub const fn near_tie(self) -> f64 {
        match self {
            Self::Exact { .. } => 1e-3,
            Self::Statistical { .. } => 0.2,
        }
    }
}

/// What was seen over all prompts.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    // By prompt, of the last logits.
    kl: Vec<f64>,
    max_abs: Vec<f32>,
    // Of every token's log-probability.
    logprob: Vec<f64>,
    other_arg_max: Vec<OtherArgMax>,
}

/// A prompt whose most likely next tokens differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OtherArgMax {
    /// The prompt.
    pub prompt: String,
    /// By how much the reference prefers its own to the second best, logits.
    pub margin: f64,
}

impl Differences {
    /// Takes in a prompt's last logits and its tokens' log-probabilities, the reference's first.
    ///
    /// # Panics
    /// If the lengths differ, or there are no logits.
    pub fn add(&mut self, prompt: &str, logits: (&[f32], &[f32]), logprobs: (&[f32], &[f64])) {
        let (reference, ours) = logits;
        assert_eq!(reference.len(), ours.len(), "{prompt}");
        self.kl.push(kl(reference, ours));
        self.max_abs.push(max_abs(reference, ours));
        if score::argmax(reference) != score::argmax(ours) {
            self.other_arg_max.push(OtherArgMax {
                prompt: prompt.to_owned(),
                margin: margin(reference),
            });
        }
        let (reference, ours) = logprobs;
        assert_eq!(reference.len(), ours.len(), "{prompt}");
        let differences = reference.iter().zip(ours);
        self.logprob
            .extend(differences.map(|(&a, &b)| (f64::from(a) - b).abs()));
    }

    /// Returns what was seen, in figures.
    pub fn summary(&self) -> Summary {
        let Self {
            kl,
            max_abs,
            logprob,
            other_arg_max,
        } = self;
        let max_abs: Vec<f64> = max_abs.iter().map(|&x| x.into()).collect();
        let [kl, max_abs, logprob] = [kl, &max_abs, logprob].map(|values| {
            let mut sorted = values.clone();
            sorted.sort_unstable_by(f64::total_cmp);
            sorted
        });
        Summary {
            n_prompts: kl.len(),
            n_tokens: logprob.len(),
            median_max_abs: quantile(&max_abs, 0.5),
            p99_max_abs: quantile(&max_abs, 0.99),
            worst_max_abs: quantile(&max_abs, 1.0),
            median_kl: quantile(&kl, 0.5),
            worst_kl: quantile(&kl, 1.0),
            logprob_p50: quantile(&logprob, 0.5),
            logprob_p99: quantile(&logprob, 0.99),
            logprob_max: quantile(&logprob, 1.0),
            other_arg_max: other_arg_max.clone(),
        }
    }
}

/// What was seen over all prompts, in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Prompts compared.
    pub n_prompts: usize,
    /// Tokens whose log-probabilities were compared.
    pub n_tokens: usize,
    /// Median over the prompts of the largest difference of a last logit.
    pub median_max_abs: f64,
    /// Its 99 % quantile.
    pub p99_max_abs: f64,
    /// Its worst.
    pub worst_max_abs: f64,
    /// Median over the prompts of the divergence of the next token's distribution, nats.
    pub median_kl: f64,
    /// Its worst.
    pub worst_kl: f64,
    /// Median difference of a token's log-probability.
    pub logprob_p50: f64,
    /// Its 99 % quantile.
    pub logprob_p99: f64,
    /// Its largest.
    pub logprob_max: f64,
    /// Prompts whose most likely next tokens differ.
    pub other_arg_max: Vec<OtherArgMax>,
}

/// A figure and the most it may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measure {
    /// What was measured.
    pub name: &'static str,
    /// How much it was.
    pub value: f64,
    /// The most it may be; None where the limits say nothing of it.
    pub limit: Option<f64>,
}

impl Measure {
    /// Returns whether the figure is within its limit; what is no number is not.
    pub fn holds(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }
}

impl Summary {
    /// Returns every figure beside its limit.
    pub fn measures(&self, limits: Limits) -> Vec<Measure> {
        let (worst_max_abs, statistical, logprob_max) = match limits {
            Limits::Exact {
                max_logit_difference,
            } => {
                let limit = f64::from(max_logit_difference);
                // A log-probability is a logit less the log-sum of all.
                (Some(limit), [None; 4], 2.0 * limit)
            }
            Limits::Statistical {
                median_kl,
                worst_kl,
                p50,
                p99,
                max,
            } => (None, [median_kl, worst_kl, p50, p99].map(Some), max),
        };
        let [median_kl, worst_kl, p50, p99] = statistical;
        let others = self.sure_arg_max_differences(limits) as f64;
        [
            ("logits, max difference, median", self.median_max_abs, None),
            ("logits, max difference, p99", self.p99_max_abs, None),
            (
                "logits, max difference, worst",
                self.worst_max_abs,
                worst_max_abs,
            ),
            ("KL, median", self.median_kl, median_kl),
            ("KL, worst", self.worst_kl, worst_kl),
            ("token log p, p50", self.logprob_p50, p50),
            ("token log p, p99", self.logprob_p99, p99),
            ("token log p, max", self.logprob_max, Some(logprob_max)),
            ("prompts with another arg max", others, Some(0.0)),
        ]
        .map(|(name, value, limit)| Measure { name, value, limit })
        .to_vec()
    }

    /// Returns how many prompts have another most likely token although the reference was sure of
    /// its own.
    pub fn sure_arg_max_differences(&self, limits: Limits) -> usize {
        let sure = |other: &&OtherArgMax| other.margin > limits.near_tie();
        self.other_arg_max.iter().filter(sure).count()
    }
}

/// Returns a quantile of sorted values by linear interpolation (numpy's default); 0 of none.
#[expect(clippy::cast_sign_loss, reason = "a place in a list, from 0")]
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = q * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Returns `ln p` of every token.
pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits
        .iter()
        .map(|&l| (f64::from(l) - greatest).exp())
        .sum();
    let log_sum = greatest + sum.ln();
    logits.iter().map(|&l| f64::from(l) - log_sum).collect()
}

/// Returns the Kullback-Leibler divergence of our next token's distribution from the reference's,
/// nats.
pub fn kl(reference: &[f32], ours: &[f32]) -> f64 {
    let (p, q) = (log_softmax(reference), log_softmax(ours));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

/// Returns the largest difference of two logits; NaN if there is one.
///
/// # Panics
/// If the lengths differ.
pub fn max_abs(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, x| if x.is_nan() { x } else { x.max(max) })
}

/// Returns by how much the best logit exceeds the second best.
fn margin(logits: &[f32]) -> f64 {
    let (mut best, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &logit in logits {
        if logit > best {
            (best, second) = (logit, best);
        } else {
            second = second.max(logit);
        }
    }
    f64::from(best) - f64::from(second)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 1.0), 8.0);
    }

    #[test]
    fn a_logit_that_is_no_number_is_within_no_limit() {
        let mut differences = Differences::default();
        differences.add("p", (&[1.0, 2.0], &[f32::NAN, 2.0]), (&[], &[]));
        differences.add("q", (&[1.0, 2.0], &[1.0, 2.0]), (&[], &[]));
        let summary = differences.summary();
        for limits in [Limits::ternary(KvType::F32), Limits::dense(KvType::F32)] {
            let measures = summary.measures(limits);
            assert!(
                measures.iter().any(|measure| !measure.holds()),
                "{limits:?}"
            );
        }
    }

    #[test]
    fn only_an_arg_max_the_reference_is_sure_of_counts() {
        let mut differences = Differences::default();
        differences.add("near", (&[1.0, 1.1], &[1.1, 1.0]), (&[], &[]));
        differences.add("far", (&[1.0, 3.0], &[3.0, 1.0]), (&[], &[]));
        let summary = differences.summary();
        assert_eq!(summary.other_arg_max.len(), 2);
        assert_eq!(
            summary.sure_arg_max_differences(Limits::ternary(KvType::F32)),
            1
        );
        assert_eq!(
            summary.sure_arg_max_differences(Limits::dense(KvType::F32)),
            2
        );
    }

    #[test]
    fn a_divergence_is_that_of_the_distributions() {
        // p = (1/2, 1/2), q = (1/3, 2/3): (ln(3/2) + ln(3/4)) / 2.
        let divergence = kl(&[0.0, 0.0], &[0.0, 2.0_f32.ln()]);
        assert!((divergence - 0.5 * (9.0_f64 / 8.0).ln()).abs() < 1e-7);
    }
}
