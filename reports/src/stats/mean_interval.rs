//! Bootstrap intervals over items: of a mean by `BCa`, of any other statistic by percentiles.

use super::{
    Interval, RESAMPLES,
    bootstrap::{CONFIDENCE, SplitMix64, interval},
    distributions::{normal_cdf, normal_quantile},
    mean, quantile_of_sorted,
};

/// Fewest items an interval is given for.
const MIN_ITEMS: usize = 3;

/// Returns the 95 % interval of the mean of paired differences, items resampled, or `None` of fewer
/// than three.
///
/// The method is `BCa`, bias-corrected and accelerated (Efron and Tibshirani, *An Introduction to the
/// Bootstrap*, 1993, section 14.3), which few discordant items do not push to one side as they do
/// percentiles.
pub fn mean_interval(values: &[f64], seed: u64) -> Option<Interval> {
    if values.len() < MIN_ITEMS {
        return None;
    }
    let centre = mean(values)?;
    let n = values.len();
    let mut random = SplitMix64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| values[random.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);

    // Resamples equal to the mean itself count half; rounding must not tell them from it.
    let slack = 1e-12 * values.iter().map(|value| value.abs()).fold(0.0, f64::max);
    let below = means.partition_point(|value| *value < centre - slack);
    let up_to = means.partition_point(|value| *value <= centre + slack);
    let share = (below + up_to) as f64 / 2.0 / RESAMPLES as f64;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    if share <= 0.0 || share >= 1.0 || squares <= 0.0 {
        return interval(means);
    }
    let bias = normal_quantile(share);
    let cubes: f64 = values.iter().map(|value| (value - centre).powi(3)).sum();
    let acceleration = cubes / (6.0 * squares.powf(1.5));
    let end = |p: f64| {
        let z = bias + normal_quantile(p);
        let p = normal_cdf(bias + z / (1.0 - acceleration * z));
        quantile_of_sorted(&means, p.clamp(0.0, 1.0))
    };
    let tail = (1.0 - CONFIDENCE) / 2.0;
    let (low, high) = (end(tail)?, end(1.0 - tail)?);
    Some(Interval {
        low: low.min(high),
        high: high.max(low),
    })
}

/// A statistic of resampled items, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub struct Resampled(Vec<f64>);

impl Resampled {
    /// Resamples `n` items and takes a statistic of each sample, which gets the positions of the
    /// items drawn; `None` of fewer than three items or where a sample has no statistic.
    pub fn new(n: usize, seed: u64, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Self> {
        if n < MIN_ITEMS {
            return None;
        }
        let mut random = SplitMix64(seed);
        let mut drawn = vec![0; n];
        let statistics: Option<Vec<f64>> = (0..RESAMPLES)
            .map(|_| {
                drawn.fill_with(|| random.below(n));
                statistic(&drawn)
            })
            .collect();
        let mut statistics = statistics?;
        statistics.sort_by(f64::total_cmp);
        Some(Self(statistics))
    }

    /// Returns the 95 % percentile interval.
    pub fn interval(&self) -> Option<Interval> {
        interval(self.0.clone())
    }

    /// Returns the bootstrap p value of "the statistic is `value` or more"; never 0, since the next
    /// sample might have been one.
    pub fn p_at_least(&self, value: f64) -> f64 {
        let below = self.0.partition_point(|statistic| *statistic < value);
        (self.0.len() - below + 1) as f64 / (self.0.len() + 1) as f64
    }

    /// Returns the bootstrap p value of "the statistic is `value` or less".
    pub fn p_at_most(&self, value: f64) -> f64 {
        let up_to = self.0.partition_point(|statistic| *statistic <= value);
        (up_to + 1) as f64 / (self.0.len() + 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(found: Option<Interval>, low: f64, high: f64, tolerance: f64) {
        let found = found.unwrap();
        assert!(
            (found.low - low).abs() < tolerance && (found.high - high).abs() < tolerance,
            "{found:?} is not {low}..{high}"
        );
    }

    #[test]
    fn intervals_of_means_are_scipys() {
        // scipy 1.17.1, `bootstrap((v,), mean, n_resamples=200000)` with BCa: 1.2208 to 1.9737; by
        // percentiles 1.2048 to 1.9535. The standard error is 0.19, so that 4000 resamples give
        // either end to about 0.01.
        let skewed: Vec<f64> = (0..60)
            .map(|i| f64::from((i * 29) % 23).powi(2) / 100.0)
            .collect();
        check(mean_interval(&skewed, 3), 1.2208, 1.9737, 0.02);
        let resampled = Resampled::new(60, 3, |drawn| {
            let drawn: Vec<f64> = drawn.iter().map(|at| skewed[*at]).collect();
            mean(&drawn)
        })
        .unwrap();
        check(resampled.interval(), 1.2048, 1.9535, 0.02);
        // About one in forty lies beyond either end.
        assert!((resampled.p_at_least(1.9535) - 0.025).abs() < 0.008);
        assert!((resampled.p_at_most(1.2048) - 0.025).abs() < 0.008);
        assert!(resampled.p_at_least(99.0) > 0.0);
        // 15 items only one model got right, 5 only the other, 80 alike: 0.02 to 0.19.
        let mut discordant = vec![0.0; 80];
        discordant.extend([1.0; 15]);
        discordant.extend([-1.0; 5]);
        check(mean_interval(&discordant, 3), 0.02, 0.19, 0.011);
    }

    #[test]
    fn equal_differences_have_a_point() {
        let found = mean_interval(&[0.0; 9], 1).unwrap();
        assert_eq!((found.low, found.high), (0.0, 0.0));
        assert_eq!(mean_interval(&[1.0, 0.0], 1), None);
        assert_eq!(Resampled::new(2, 1, |_| Some(0.0)), None);
        assert_eq!(Resampled::new(9, 1, |_| None), None);
    }

    #[test]
    fn about_nineteen_in_twenty_intervals_cover_the_true_mean() {
        let mut random = SplitMix64(5);
        let mut covered = 0;
        for set in 0..200 {
            // −1, 0, 0, 0, 1, 1 are equally likely: the mean is 1/6.
            let values: Vec<f64> = (0..80)
                .map(|_| [-1.0, 0.0, 0.0, 0.0, 1.0, 1.0][random.below(6)])
                .collect();
            let interval = mean_interval(&values, set).unwrap();
            covered += u32::from(interval.low <= 1.0 / 6.0 && 1.0 / 6.0 <= interval.high);
        }
        assert!((182..=198).contains(&covered), "{covered} of 200");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn an_interval_lies_inside_its_values(
            values in prop::collection::vec(-1.0..1.0_f64, 3..30),
            seed: u64,
        ) {
            let interval = mean_interval(&values, seed).unwrap();
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(min - 1e-12 <= interval.low && interval.low <= interval.high);
            prop_assert!(interval.high <= max + 1e-12);
        }
    }
}
