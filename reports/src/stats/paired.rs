//! Two models' answers to the same items: the difference of two shares and `McNemar`'s test.

use serde::Serialize;

use super::{mean, standard_error};

/// A difference of two means over the same items, candidate less baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Candidate less baseline; of shares, 0.01 is one point.
    pub value: f64,
    /// Its standard error; `None` of fewer than two items.
    pub stderr: Option<f64>,
    /// Items the difference rests on.
    pub n: usize,
    /// Items where the candidate's score is the higher one: those only it got right, where answers
    /// are right or wrong.
    pub only_candidate: u64,
    /// Items where the baseline's score is the higher one.
    pub only_baseline: u64,
    /// Whether every score is 0 or 1.
    pub is_binary: bool,
    /// Mean of the squared differences; where answers are right or wrong, the discordant share.
    pub mean_square: f64,
}

/// Returns the difference over items both models answered, its standard error taken from the
/// per-item differences, or `None` of no items.
///
/// `scores` holds (candidate's score, baseline's score).
#[expect(clippy::float_cmp, reason = "right and wrong are exactly 1 and 0")]
pub fn paired_difference(scores: &[(f64, f64)]) -> Option<Difference> {
    let differences: Vec<f64> = scores
        .iter()
        .map(|(candidate, baseline)| candidate - baseline)
        .collect();
    let squares: Vec<f64> = differences.iter().map(|value| value * value).collect();
    let count =
        |wanted: fn(f64) -> bool| differences.iter().filter(|value| wanted(**value)).count() as u64;
    let is_decided = |value: f64| value == 0.0 || value == 1.0;
    Some(Difference {
        value: mean(&differences)?,
        stderr: standard_error(&differences),
        n: scores.len(),
        only_candidate: count(|value| value > 0.0),
        only_baseline: count(|value| value < 0.0),
        is_binary: scores
            .iter()
            .all(|(candidate, baseline)| is_decided(*candidate) && is_decided(*baseline)),
        mean_square: mean(&squares)?,
    })
}

/// Returns the p value of `McNemar`'s exact two-sided test: twice the smaller tail of
/// Binomial(b + c, 1/2), at most 1; 1 where no item is discordant.
pub fn exact_mcnemar(only_candidate: u64, only_baseline: u64) -> f64 {
    let n = only_candidate + only_baseline;
    let smaller = only_candidate.min(only_baseline);
    // ln C(n, k) − n ln 2, from k = 0 upwards: no factorial overflows.
    let mut ln_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = ln_term.exp();
    for k in 0..smaller {
        ln_term += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
        tail += ln_term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Fewest discordant items that are assumed, as a share: two models that agreed on few items by
/// chance are not known to differ so little.
const MIN_DISCORDANT: f64 = 0.1;

/// Returns the smallest difference that a paired comparison finds with 80 % power at α = 0.05,
/// 2.8 · sqrt(d / n), or `None` where it cannot be told.
///
/// d is the mean squared difference: where answers are right or wrong, the discordant share, taken
/// for at least one in ten. 2.8 is 1.96 + 0.84, the normal quantiles of α / 2 and of the power.
pub fn min_detectable(difference: &Difference) -> Option<f64> {
    let squares = if difference.is_binary {
        difference.mean_square.max(MIN_DISCORDANT)
    } else {
        difference.mean_square
    };
    (difference.n > 0 && squares > 0.0).then(|| 2.8 * (squares / difference.n as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(both: usize, candidate: usize, baseline: usize, none: usize) -> Vec<(f64, f64)> {
        let mut answers = vec![(1.0, 1.0); both];
        answers.extend(vec![(1.0, 0.0); candidate]);
        answers.extend(vec![(0.0, 1.0); baseline]);
        answers.extend(vec![(0.0, 0.0); none]);
        answers
    }

    #[test]
    fn mcnemar_agrees_with_exact_rational_arithmetic() {
        // min(1, 2 · Σ C(n, k) / 2^n) in Python 3's `fractions`, turned into a float at the end.
        // 86 and 150 are the approval ratings of Agresti, Categorical Data Analysis, table 10.1.
        for (left, right, expected) in [
            (1, 9, 0.021_484_375),
            (3, 1, 0.625),
            (5, 12, 0.143_463_134_765_625),
            (86, 150, 3.715_936_139_571_442e-5),
            (500, 560, 0.069_909_559_469_259_33),
            (4000, 4200, 0.027_972_423_571_324_383),
            (0, 0, 1.0),
            (6, 6, 1.0),
        ] {
            let found = exact_mcnemar(left, right);
            assert!(
                (found - expected).abs() <= 1e-9 * expected,
                "{left} {right}: {found} is not {expected}"
            );
        }
    }

    #[test]
    fn a_paired_difference_has_its_closed_form() {
        // b = 15, c = 5, n = 100: d = 0.1, variance of the differences (20 − 100 · 0.01) / 99.
        let difference = paired_difference(&answers(40, 15, 5, 40)).unwrap();
        assert!((difference.value - 0.1).abs() < 1e-15);
        let expected = (19.0_f64 / 99.0 / 100.0).sqrt();
        assert!((difference.stderr.unwrap() - expected).abs() < 1e-15);
        assert_eq!(
            (difference.only_candidate, difference.only_baseline),
            (15, 5)
        );
        assert_eq!((difference.n, difference.is_binary), (100, true));
        assert!((difference.mean_square - 0.2).abs() < 1e-15);
    }

    #[test]
    fn no_items_have_no_difference() {
        assert_eq!(paired_difference(&[]), None);
        assert_eq!(paired_difference(&[(1.0, 0.0)]).unwrap().stderr, None);
    }

    #[test]
    fn detectable_differences_are_those_of_the_rules() {
        // ARC-Challenge 1172 items: 2.6 points; BoolQ 3270: 1.5; HellaSwag 10042: 0.9.
        for (n, points) in [(1172, 2.6), (3270, 1.5), (10042, 0.9)] {
            let difference = paired_difference(&answers(n, 0, 0, 0)).unwrap();
            let found = 100.0 * min_detectable(&difference).unwrap();
            assert!((found - points).abs() < 0.05, "{n}: {found}");
        }
        // HumanEval+ 164 items, 15 % discordant: 8.5 points.
        let difference = paired_difference(&answers(80, 13, 12, 59)).unwrap();
        assert!((100.0 * min_detectable(&difference).unwrap() - 8.5).abs() < 0.06);
    }

    #[test]
    fn scores_between_right_and_wrong_are_told_apart() {
        let difference = paired_difference(&[(0.5, 0.25), (1.0, 1.0), (0.0, 0.5)]).unwrap();
        assert!(!difference.is_binary);
        assert_eq!(
            (difference.only_candidate, difference.only_baseline),
            (1, 1)
        );
        assert!((difference.mean_square - (0.0625 + 0.25) / 3.0).abs() < 1e-15);
        let least = 2.8 * (0.3125_f64 / 9.0).sqrt();
        assert!((min_detectable(&difference).unwrap() - least).abs() < 1e-15);
        let same = paired_difference(&[(0.5, 0.5)]).unwrap();
        assert_eq!(min_detectable(&same), None);
    }

    proptest! {
        #[test]
        fn mcnemar_is_a_probability_and_symmetric(left in 0..3000_u64, right in 0..3000_u64) {
            let p = exact_mcnemar(left, right);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p.to_bits(), exact_mcnemar(right, left).to_bits());
        }

        #[test]
        fn more_imbalance_is_never_less_surprising(n in 1..400_u64, smaller in 0..200_u64) {
            let smaller = smaller.min(n / 2);
            prop_assume!(smaller > 0);
            prop_assert!(
                exact_mcnemar(smaller - 1, n - smaller + 1) <= exact_mcnemar(smaller, n - smaller)
            );
        }

        #[test]
        fn pairing_never_leaves_the_range(
            both in 0..50_usize, candidate in 0..50_usize, baseline in 0..50_usize, none in 1..50_usize,
        ) {
            let n = both + candidate + baseline + none;
            let paired = paired_difference(&answers(both, candidate, baseline, none)).unwrap();
            let shares = ((both + candidate) as f64 / n as f64, (both + baseline) as f64 / n as f64);
            prop_assert!((paired.value - (shares.0 - shares.1)).abs() < 1e-12);
        }
    }
}
