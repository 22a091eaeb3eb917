//! Statistics on slices: pure functions, no I/O, no clock, a seed for everything random.
//!
//! Quantiles follow Hyndman and Fan's type 7 (linear between order statistics, position
//! `p · (n − 1)`), the default of `NumPy` and R. Intervals of medians are percentile bootstraps
//! (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Repetitions made in
//! one process are not independent samples: an interval over them describes that process.

mod bootstrap;
mod distributions;
mod equivalence;
mod mean_interval;
mod multiple;
mod paired;
mod perplexity;
mod wilcoxon;

pub use bootstrap::{Interval, RESAMPLES, median_interval, ratio_interval};
pub use equivalence::{Equivalence, clustered_stderr, equivalence};
pub use mean_interval::{Resampled, mean_interval};
pub use multiple::benjamini_hochberg;
pub use paired::{Difference, exact_mcnemar, min_detectable, paired_difference};
pub use perplexity::Likelihood;
pub use wilcoxon::{SignedRank, signed_rank};

/// Fewest values a 99th percentile is given for: below it, fewer than ten values lie above.
pub const MIN_FOR_P99: usize = 1000;

/// Fewest values a median has a 95 % interval for at all: the range of n values covers the median
/// with probability 1 − 2^(1 − n), which passes 0.95 at six.
pub const MIN_FOR_FULL_COVERAGE: usize = 6;

/// Fewer values than a statistic needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("n too small: {n} of {needed}")]
pub struct TooFew {
    /// How many there are.
    pub n: usize,
    /// How many it takes.
    pub needed: usize,
}

/// Returns the arithmetic mean, or `None` of no values.
pub fn mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let rough = values.iter().sum::<f64>() / n;
    // The second pass removes most of the first one's rounding.
    Some(rough + values.iter().map(|value| value - rough).sum::<f64>() / n)
}

/// Returns the sample standard deviation (n − 1), or `None` of fewer than two values.
pub fn sample_sd(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Returns the standard error of the mean, or `None` of fewer than two values.
///
/// It takes the values for independent, which repetitions inside one process are not.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    Some(sample_sd(values)? / (values.len() as f64).sqrt())
}

/// Returns the quantile of type 7, or `None` of no values.
///
/// # Panics
///
/// Panics where `p` lies outside 0..=1.
pub fn quantile(values: &[f64], p: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, p)
}

/// Returns the quantile of type 7 of values in ascending order, or `None` of no values.
///
/// # Panics
///
/// Panics where `p` lies outside 0..=1.
pub fn quantile_of_sorted(sorted: &[f64], p: f64) -> Option<f64> {
    assert!((0.0..=1.0).contains(&p), "a quantile lies in 0..=1");
    let last = sorted.len().checked_sub(1)?;
    let position = p * last as f64;
    #[expect(clippy::cast_sign_loss, reason = "p and last are not negative")]
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (sorted[below], sorted[above]);
    let between = low + (position - below as f64) * (high - low);
    Some(between.clamp(low, high))
}

/// Returns the median, or `None` of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Returns the median absolute deviation from the median, unscaled, or `None` of no values.
pub fn median_abs_dev(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let deviations: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    median(&deviations)
}

/// Returns the 99th percentile.
///
/// # Errors
///
/// Fails with fewer than [`MIN_FOR_P99`] values.
pub fn p99(values: &[f64]) -> Result<f64, TooFew> {
    let too_few = TooFew {
        n: values.len(),
        needed: MIN_FOR_P99,
    };
    if values.len() < MIN_FOR_P99 {
        return Err(too_few);
    }
    quantile(values, 0.99).ok_or(too_few)
}

/// Returns the standard error of the mean of parts taken together, each part's own mean left in: of
/// (standard error, n) a part, lm-evaluation-harness's `pooled_sample_stderr`, or `None` where a
/// part has none.
pub fn pooled_stderr(parts: &[(Option<f64>, usize)]) -> Option<f64> {
    let n: usize = parts.iter().map(|(_, n)| n).sum();
    let squares = parts
        .iter()
        .map(|(stderr, n)| {
            let n = *n as f64;
            stderr.map(|stderr| (n - 1.0) * stderr * stderr * n)
        })
        .sum::<Option<f64>>()?;
    (n > parts.len()).then(|| (squares / (n - parts.len()) as f64 / n as f64).sqrt())
}

/// Returns the standard error of a share of `n` items, sqrt(p(1 − p) / (n − 1)), or `None` of fewer
/// than two items. This is lm-evaluation-harness's `acc_stderr`.
pub fn binomial_stderr(share: f64, n: usize) -> Option<f64> {
    (n >= 2).then(|| (share * (1.0 - share)).max(0.0).sqrt() / ((n - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(left: Option<f64>, right: f64, tolerance: f64) {
        let left = left.expect("a value");
        assert!(
            (left - right).abs() <= tolerance * right.abs().max(1.0),
            "{left} is not {right}"
        );
    }

    /// Ten made-up times; the expected figures are those of Python 3's `statistics` module:
    /// `mean`, `stdev`, `median`, `quantiles(n=100, method="inclusive")`.
    const TIMES: [f64; 10] = [9.1, 9.4, 9.2, 10.7, 9.3, 9.0, 9.5, 14.2, 9.3, 9.6];

    #[test]
    fn summaries_agree_with_pythons_statistics_module() {
        near(mean(&TIMES), 9.93, 1e-15);
        near(sample_sd(&TIMES), 1.573_425_138_564_484, 1e-14);
        near(median(&TIMES), 9.35, 1e-15);
        near(median_abs_dev(&TIMES), 0.2, 1e-14);
        near(quantile(&TIMES, 0.05), 9.045, 1e-14);
        near(quantile(&TIMES, 0.95), 12.625, 1e-14);
        near(quantile(&TIMES, 0.99), 13.885, 1e-14);
        near(
            standard_error(&TIMES),
            1.573_425_138_564_484 / 10.0_f64.sqrt(),
            1e-14,
        );
    }

    #[test]
    fn nists_certified_values_are_met() {
        // NIST Statistical Reference Datasets, univariate: NumAcc1 and NumAcc2.
        let num_acc1 = [10_000_001.0, 10_000_003.0, 10_000_002.0];
        near(mean(&num_acc1), 10_000_002.0, 1e-15);
        near(sample_sd(&num_acc1), 1.0, 1e-15);
        let mut num_acc2 = vec![1.2];
        for _ in 0..500 {
            num_acc2.extend([1.1, 1.3]);
        }
        near(mean(&num_acc2), 1.2, 1e-15);
        near(sample_sd(&num_acc2), 0.1, 1e-12);
    }

    #[test]
    fn quantiles_are_linear_between_order_statistics() {
        let values = [4.0, 1.0, 3.0, 2.0];
        near(quantile(&values, 0.25), 1.75, 0.0);
        near(quantile(&values, 0.5), 2.5, 0.0);
        near(quantile(&values, 0.0), 1.0, 0.0);
        near(quantile(&values, 1.0), 4.0, 0.0);
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert_eq!(mean(&[]), None);
        assert_eq!(median(&[]), None);
        assert_eq!(median_abs_dev(&[]), None);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(sample_sd(&[1.0]), None);
        assert_eq!(standard_error(&[1.0]), None);
        assert_eq!(binomial_stderr(1.0, 1), None);
    }

    #[test]
    fn p99_asks_for_a_thousand_values() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        near(p99(&values).ok(), 989.01, 1e-12);
        let error = p99(&values[..999]).unwrap_err();
        assert_eq!(error.to_string(), "n too small: 999 of 1000");
    }

    #[test]
    fn the_standard_error_of_a_share_is_lm_evals() {
        // ARC-Challenge of arXiv 2504.12285, table 1: 49.91 % of 1172 items, 1.46 points.
        near(binomial_stderr(0.4991, 1172), 0.014_611, 1e-5);
        // lm-eval's `acc_stderr` is the sample deviation of zeros and ones over sqrt(n).
        let ones = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        near(
            binomial_stderr(0.6, 10),
            standard_error(&ones).expect("a value"),
            1e-15,
        );
        assert_eq!(binomial_stderr(0.0, 50), Some(0.0));
    }

    #[test]
    fn parts_are_pooled_as_lm_eval_does() {
        // Two subjects of 3 and 5 items: variances 1/3 and 0.3; (2/3 + 4 · 0.3) / 6 / 8.
        let first = standard_error(&[1.0, 0.0, 1.0]);
        let second = standard_error(&[1.0, 0.0, 0.0, 1.0, 0.0]);
        let expected = ((2.0 / 3.0 + 1.2) / 6.0 / 8.0_f64).sqrt();
        near(pooled_stderr(&[(first, 3), (second, 5)]), expected, 1e-14);
        assert_eq!(pooled_stderr(&[(None, 1), (second, 5)]), None);
        assert_eq!(pooled_stderr(&[]), None);
    }

    proptest! {
        #[test]
        fn quantiles_rise_and_stay_inside(
            values in prop::collection::vec(-1e12..1e12_f64, 1..60),
            p in 0.0..=1.0_f64,
            q in 0.0..=1.0_f64,
        ) {
            let (low, high) = (p.min(q), p.max(q));
            let at_low = quantile(&values, low).unwrap();
            let at_high = quantile(&values, high).unwrap();
            prop_assert!(at_low <= at_high);
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(min <= at_low && at_high <= max);
        }

        #[test]
        fn order_does_not_matter(mut values in prop::collection::vec(-1e6..1e6_f64, 1..40)) {
            let before = (median(&values), median_abs_dev(&values), quantile(&values, 0.95));
            values.reverse();
            let after = (median(&values), median_abs_dev(&values), quantile(&values, 0.95));
            prop_assert_eq!(before, after);
        }

        #[test]
        fn a_shift_moves_the_mean_and_not_the_spread(
            values in prop::collection::vec(-1e3..1e3_f64, 2..40),
            shift in -1e3..1e3_f64,
        ) {
            let moved: Vec<f64> = values.iter().map(|value| value + shift).collect();
            let sd = sample_sd(&values).unwrap();
            prop_assert!((mean(&moved).unwrap() - mean(&values).unwrap() - shift).abs() < 1e-9);
            prop_assert!((sample_sd(&moved).unwrap() - sd).abs() < 1e-9);
        }
    }
}
