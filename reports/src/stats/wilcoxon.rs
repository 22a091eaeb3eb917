//! Wilcoxon's signed-rank test of paired values, as `scipy.stats.wilcoxon` does it by default.
//!
//! Differences of 0 are dropped (Wilcoxon's own way). At most 50 differences without ties have the
//! exact distribution, at most 13 with ties or zeros that of all signs; everything else the normal
//! approximation with the correction for ties, without continuity correction.

use serde::Serialize;

use super::distributions::normal_cdf;

/// Most differences the exact distribution is taken for.
const MAX_EXACT: usize = 50;
/// Most differences all signs are tried for, where some are equal or 0.
const MAX_SIGNS: usize = 13;

/// What the test found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SignedRank {
    /// Sum of the ranks of positive differences.
    pub positive: f64,
    /// Sum of the ranks of negative differences.
    pub negative: f64,
    /// Differences that are not 0.
    pub n: usize,
    /// Two-sided p value; 1 where all differences are 0.
    pub p: f64,
}

/// Tests whether differences lie around 0, or returns `None` where there are none or one is no
/// number.
pub fn signed_rank(differences: &[f64]) -> Option<SignedRank> {
    if differences.is_empty() || differences.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sizes: Vec<(f64, bool)> = differences
        .iter()
        .filter(|value| **value != 0.0)
        .map(|value| (value.abs(), *value > 0.0))
        .collect();
    sizes.sort_by(|left, right| left.0.total_cmp(&right.0));
    let n = sizes.len();
    // Twice the mean rank of equals is a whole number.
    let mut doubled_ranks = vec![0_usize; n];
    let mut tie_correction = 0.0;
    let mut has_ties = false;
    let mut start = 0;
    while start < n {
        let equals = sizes[start..]
            .iter()
            .take_while(|(size, _)| size.total_cmp(&sizes[start].0).is_eq())
            .count();
        let end = start + equals;
        doubled_ranks[start..end].fill(start + 1 + end);
        has_ties |= equals > 1;
        let equals = equals as f64;
        tie_correction += equals.powi(3) - equals;
        start = end;
    }
    let doubled_positive: usize = sizes
        .iter()
        .zip(&doubled_ranks)
        .filter(|((_, is_positive), _)| *is_positive)
        .map(|(_, rank)| rank)
        .sum();
    let positive = doubled_positive as f64 / 2.0;
    let total = n as f64 * (n as f64 + 1.0) / 2.0;
    let is_plain = !has_ties && n == differences.len();
    let p = if n == 0 {
        1.0
    } else if is_plain && n <= MAX_EXACT || differences.len() <= MAX_SIGNS {
        exact_p(&doubled_ranks, doubled_positive)
    } else {
        let count = n as f64;
        let squares = count * (count + 1.0) * (2.0 * count + 1.0) - tie_correction / 2.0;
        let z = (positive - total / 2.0) / (squares / 24.0).sqrt();
        2.0 * normal_cdf(-z.abs())
    };
    Some(SignedRank {
        positive,
        negative: total - positive,
        n,
        p: p.min(1.0),
    })
}

/// Returns twice the smaller tail of the sum of ranks when each sign is as likely as the other.
fn exact_p(doubled_ranks: &[usize], observed: usize) -> f64 {
    let total: usize = doubled_ranks.iter().sum();
    // Probability of each doubled sum, one rank after the other.
    let mut chance = vec![0.0_f64; total + 1];
    chance[0] = 1.0;
    let mut reached = 0;
    for rank in doubled_ranks {
        reached += rank;
        for sum in (0..=reached).rev() {
            let with = if sum >= *rank {
                chance[sum - rank]
            } else {
                0.0
            };
            chance[sum] = 0.5 * (chance[sum] + with);
        }
    }
    let below: f64 = chance[..=observed].iter().sum();
    let above: f64 = chance[observed..].iter().sum();
    2.0 * below.min(above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(differences: &[f64], statistic: f64, p: f64) {
        let found = signed_rank(differences).unwrap();
        assert!((found.positive.min(found.negative) - statistic).abs() < 1e-9);
        assert!((found.p - p).abs() <= 1e-11 * p, "{} is not {p}", found.p);
    }

    #[test]
    fn darwins_plants_are_those_of_scipys_manual() {
        // The example of scipy.stats.wilcoxon: heights of cross- and self-fertilised corn.
        let heights = [
            6.0, 8.0, 14.0, 16.0, 23.0, 24.0, 28.0, 29.0, 41.0, -48.0, 49.0, 56.0, 60.0, -67.0,
            75.0,
        ];
        check(&heights, 24.0, 0.041_259_765_625);
    }

    #[test]
    fn ties_zeros_and_sizes_are_scipys() {
        // scipy 1.17.1, `wilcoxon(d)`.
        check(
            &[0.5, -0.25, 0.5, 0.0, 1.25, -0.5, 0.75, 0.0, 2.0],
            4.0,
            0.125,
        );
        let tied: Vec<f64> = (0..40)
            .map(|i| f64::from((i * 7919) % 41 - 18) / 4.0)
            .collect();
        check(&tied, 331.5, 0.414_193_443_434_122_8);
        let many: Vec<f64> = (0..300)
            .map(|i| f64::from((i * 7919) % 1009 - 480) / 16.0 + 0.001 * f64::from(i))
            .collect();
        check(&many, 20178.0, 0.110_932_560_313_960_26);
        let fifty: Vec<f64> = (0..50)
            .map(|i| f64::from(i * 37 % 50 + 1) * if i % 3 == 0 { -1.0 } else { 1.0 })
            .collect();
        check(&fifty, 413.0, 0.029_727_315_082_014_982);
        check(&[0.0, 0.0, 1.0], 0.0, 1.0);
    }

    #[test]
    fn no_differences_say_nothing() {
        assert_eq!(signed_rank(&[]), None);
        assert_eq!(signed_rank(&[1.0, f64::NAN]), None);
        assert!(signed_rank(&[0.0; 20]).unwrap().p > 0.999);
    }

    proptest! {
        #[test]
        fn p_is_a_probability_and_symmetric(
            differences in prop::collection::vec(-8..8_i32, 1..70),
        ) {
            let values: Vec<f64> = differences.iter().map(|value| f64::from(*value)).collect();
            let turned: Vec<f64> = values.iter().map(|value| -value).collect();
            let found = signed_rank(&values).unwrap();
            let mirrored = signed_rank(&turned).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.p));
            prop_assert!((found.p - mirrored.p).abs() < 1e-12);
            prop_assert!((found.positive - mirrored.negative).abs() < 1e-12);
        }

        #[test]
        fn the_exact_test_and_the_approximation_are_near(seed in 0..500_u32) {
            // Fifty differences of distinct size, each sign from the seed.
            let values: Vec<f64> = (0..50_u32)
                .map(|i| {
                    let sign = (seed.wrapping_mul(2_654_435_761).wrapping_add(i * i * 7919)) >> 13 & 1;
                    f64::from(i + 1) * if sign == 0 { -1.0 } else { 1.0 }
                })
                .collect();
            let exact = signed_rank(&values).unwrap();
            let z = (exact.positive - 637.5) / (50.0 * 51.0 * 101.0 / 24.0_f64).sqrt();
            prop_assert!((exact.p - 2.0 * normal_cdf(-z.abs())).abs() < 0.02);
        }
    }
}
