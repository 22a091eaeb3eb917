//! Seeded percentile bootstrap intervals of a median and of a ratio of medians.
//!
//! Values come in clusters: one cluster a process, its repetitions inside. With one cluster its
//! values are resampled, and the interval holds within that process run. With several, clusters are
//! drawn first and values inside each drawn cluster second, so that the interval also holds the
//! differences between processes.

use serde::Serialize;

use super::quantile_of_sorted;

/// Resamples of an interval.
pub const RESAMPLES: usize = 4000;

/// Fewest values on a side.
const MIN_VALUES: usize = 3;

pub(super) const CONFIDENCE: f64 = 0.95;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Returns the 95 % interval of the median of all values, or `None` of fewer than three.
pub fn median_interval(clusters: &[Vec<f64>], seed: u64) -> Option<Interval> {
    let mut random = SplitMix64(seed);
    let mut side = Side::new(clusters)?;
    let medians: Option<Vec<f64>> = (0..RESAMPLES).map(|_| side.median(&mut random)).collect();
    interval(medians?)
}

/// Returns the 95 % interval of median(numerator) / median(denominator), both sides resampled
/// independently, or `None` where a side has fewer than three values or a denominator is not
/// positive.
pub fn ratio_interval(
    numerator: &[Vec<f64>],
    denominator: &[Vec<f64>],
    seed: u64,
) -> Option<Interval> {
    let mut random = SplitMix64(seed);
    let mut above = Side::new(numerator)?;
    let mut below = Side::new(denominator)?;
    let mut ratios = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let numerator = above.median(&mut random)?;
        let denominator = below.median(&mut random)?;
        if denominator <= 0.0 {
            return None;
        }
        ratios.push(numerator / denominator);
    }
    interval(ratios)
}

pub(super) fn interval(mut statistics: Vec<f64>) -> Option<Interval> {
    statistics.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some(Interval {
        low: quantile_of_sorted(&statistics, tail)?,
        high: quantile_of_sorted(&statistics, 1.0 - tail)?,
    })
}

/// One side of a comparison and room to resample it.
struct Side<'a> {
    clusters: Vec<&'a [f64]>,
    drawn: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(clusters: &'a [Vec<f64>]) -> Option<Self> {
        let clusters: Vec<&[f64]> = clusters
            .iter()
            .map(Vec::as_slice)
            .filter(|values| !values.is_empty())
            .collect();
        let n: usize = clusters.iter().map(|values| values.len()).sum();
        (n >= MIN_VALUES).then(|| Self {
            clusters,
            drawn: Vec::with_capacity(n),
        })
    }

    /// Returns the median of one resample.
    fn median(&mut self, random: &mut SplitMix64) -> Option<f64> {
        self.drawn.clear();
        for _ in 0..self.clusters.len() {
            let cluster = self.clusters[random.below(self.clusters.len())];
            for _ in 0..cluster.len() {
                self.drawn.push(cluster[random.below(cluster.len())]);
            }
        }
        let middle = self.drawn.len() / 2;
        let is_even = self.drawn.len().is_multiple_of(2);
        let (lower, upper, _) = self.drawn.select_nth_unstable_by(middle, f64::total_cmp);
        let upper = *upper;
        if !is_even {
            return Some(upper);
        }
        let lower = lower.iter().copied().max_by(f64::total_cmp)?;
        Some(f64::midpoint(lower, upper))
    }
}

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): small, seeded, the same everywhere.
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`; the bias of the multiplication is below n / 2^64.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::median;

    #[test]
    fn splitmix64_gives_its_published_numbers() {
        // Seed 1234567, as listed with Vigna's splitmix64.c and on Rosetta Code.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
        assert_eq!(random.next(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn an_interval_of_equal_values_is_a_point() {
        let values = [vec![2.5; 8]];
        let interval = median_interval(&values, 1).unwrap();
        assert_eq!((interval.low, interval.high), (2.5, 2.5));
    }

    #[test]
    fn two_values_have_no_interval() {
        assert_eq!(median_interval(&[vec![1.0, 2.0]], 1), None);
        assert_eq!(ratio_interval(&[vec![1.0; 9]], &[vec![1.0]], 1), None);
    }

    #[test]
    fn a_seed_decides_the_interval() {
        let above = [(0..40)
            .map(|i| 1.0 + f64::from(i * i % 37))
            .collect::<Vec<_>>()];
        let below = [(1..30).map(|i| f64::from(i).sqrt()).collect::<Vec<_>>()];
        let interval = |seed| ratio_interval(&above, &below, seed);
        assert_eq!(interval(7), interval(7));
        assert_ne!(interval(7), interval(8));
    }

    #[test]
    fn the_interval_of_a_median_is_that_of_its_resampling_distribution() {
        // Of 1..=n with n odd, P(resampled median <= k) = P(Binomial(n, k/n) >= (n + 1) / 2). For
        // n = 101, exact rational arithmetic gives its 2.5 % and 97.5 % points as 41 and 61.
        let values = [(1..=101).map(f64::from).collect::<Vec<_>>()];
        let interval = median_interval(&values, 3).unwrap();
        assert!((interval.low - 41.0).abs() <= 1.0, "{interval:?}");
        assert!((interval.high - 61.0).abs() <= 1.0, "{interval:?}");
    }

    #[test]
    fn about_nineteen_in_twenty_intervals_cover_the_true_median() {
        // 300 sets of 25 uniform values; coverage of the percentile interval is near nominal.
        let mut random = SplitMix64(11);
        let mut covered = 0;
        for set in 0..300 {
            let values: Vec<f64> = (0..25)
                .map(|_| random.next() as f64 / u64::MAX as f64)
                .collect();
            let interval = median_interval(&[values], set).unwrap();
            covered += u32::from(interval.low <= 0.5 && 0.5 <= interval.high);
        }
        assert!((270..=296).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn processes_that_differ_widen_the_interval() {
        let tight = |centre: f64| (0..10).map(|i| centre + f64::from(i) * 1e-3).collect();
        let clusters: Vec<Vec<f64>> = [10.0, 11.0, 12.0, 13.0].map(tight).to_vec();
        let pooled = [clusters.concat()];
        let by_process = median_interval(&clusters, 5).unwrap();
        let as_if_independent = median_interval(&pooled, 5).unwrap();
        assert!(
            by_process.high - by_process.low > as_if_independent.high - as_if_independent.low,
            "{by_process:?} {as_if_independent:?}"
        );
    }

    #[test]
    fn a_ratio_over_nothing_has_no_interval() {
        assert_eq!(
            ratio_interval(&[vec![1.0; 5]], &[vec![0.0, 0.0, 1.0]], 1),
            None
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn an_interval_lies_inside_its_values(
            values in prop::collection::vec(0.1..1e6_f64, 3..20),
            seed: u64,
        ) {
            let interval = median_interval(std::slice::from_ref(&values), seed).unwrap();
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            prop_assert!(min <= interval.low && interval.low <= interval.high);
            prop_assert!(interval.high <= max);
        }

        #[test]
        fn a_scaled_numerator_scales_the_ratio(
            values in prop::collection::vec(0.1..1e3_f64, 3..20),
            seed: u64,
        ) {
            let numerator = [values.iter().map(|value| value * 4.0).collect::<Vec<_>>()];
            let denominator = [vec![median(&values).unwrap(); 3]];
            let of_four = ratio_interval(&numerator, &denominator, seed).unwrap();
            let of_one = ratio_interval(&[values], &denominator, seed).unwrap();
            prop_assert!((of_four.low - 4.0 * of_one.low).abs() <= 1e-9 * of_four.low);
            prop_assert!((of_four.high - 4.0 * of_one.high).abs() <= 1e-9 * of_four.high);
        }
    }
}
