//! Two models' answers to the same items: the difference of two shares and `McNemar`'s test.

use serde::Serialize;

use super::{mean, standard_error};

/// A difference of two shares, candidate less baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Candidate less baseline, as a share (0.01 is one point).
    pub value: f64,
    /// Its standard error; `None` of fewer than two items.
    pub stderr: Option<f64>,
    /// Items the difference rests on.
    pub n: usize,
    /// Items only the candidate got right.
    pub only_candidate: u64,
    /// Items only the baseline got right.
    pub only_baseline: u64,
}

/// Returns the difference over items both models answered, its standard error taken from the
/// per-item differences (−1, 0, 1), or `None` of no items.
///
/// `answers` holds (candidate is right, baseline is right).
pub fn paired_difference(answers: &[(bool, bool)]) -> Option<Difference> {
    let differences: Vec<f64> = answers
        .iter()
        .map(|(candidate, baseline)| f64::from(*candidate) - f64::from(*baseline))
        .collect();
    let count = |wanted| answers.iter().filter(|answer| **answer == wanted).count() as u64;
    Some(Difference {
        value: mean(&differences)?,
        stderr: standard_error(&differences),
        n: answers.len(),
        only_candidate: count((true, false)),
        only_baseline: count((false, true)),
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

/// Returns the smallest difference that a paired comparison of `n` items finds with 80 % power at
/// α = 0.05, 2.8 · sqrt(d / n), where d is the observed discordant share, at least one in ten.
pub fn min_detectable(n: usize, discordant: u64) -> Option<f64> {
    (n > 0).then(|| {
        let share = (discordant as f64 / n as f64).max(0.1);
        2.8 * (share / n as f64).sqrt()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answers(both: usize, candidate: usize, baseline: usize, none: usize) -> Vec<(bool, bool)> {
        let mut answers = vec![(true, true); both];
        answers.extend(vec![(true, false); candidate]);
        answers.extend(vec![(false, true); baseline]);
        answers.extend(vec![(false, false); none]);
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
        assert_eq!(difference.n, 100);
    }

    #[test]
    fn no_items_have_no_difference() {
        assert_eq!(paired_difference(&[]), None);
        assert_eq!(paired_difference(&[(true, false)]).unwrap().stderr, None);
    }

    #[test]
    fn detectable_differences_are_those_of_the_rules() {
        // ARC-Challenge 1172 items: 2.6 points; BoolQ 3270: 1.5; HellaSwag 10042: 0.9.
        for (n, points) in [(1172, 2.6), (3270, 1.5), (10042, 0.9)] {
            let found = 100.0 * min_detectable(n, 0).unwrap();
            assert!((found - points).abs() < 0.05, "{n}: {found}");
        }
        assert!(min_detectable(100, 40).unwrap() > min_detectable(100, 10).unwrap());
        assert_eq!(min_detectable(0, 0), None);
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
