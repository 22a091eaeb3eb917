//! Whether a difference is small enough: two one-sided tests against a margin.

use serde::Serialize;

use super::{distributions::student_tail, mean, standard_error};

/// How two models stand within a margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Equivalence {
    /// P value of "the candidate is worse by the margin or more": small means it is not.
    pub worse_p: f64,
    /// P value of "the candidate is better by the margin or more".
    pub better_p: f64,
    /// Standard error the tests rest on.
    pub stderr: f64,
}

impl Equivalence {
    /// Returns the p value of both together: small means that the difference lies within the margin.
    pub fn p(&self) -> f64 {
        self.worse_p.max(self.better_p)
    }
}

/// Tests paired differences, candidate less baseline, against ±`margin` by two one-sided t tests
/// (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987), or returns `None` of fewer than two
/// differences or a margin that is not positive.
///
/// With `clusters`, which name each difference's cluster, the standard error is clustered and the
/// clusters less one are the degrees of freedom.
///
/// Where all differences are equal their spread says nothing. Then the share of items that may yet
/// differ is at most 1 − p^(1/n) with probability 1 − p (the rule of three): p is (1 − margin)^n
/// where the difference itself is within the margin.
pub fn equivalence(
    differences: &[f64],
    clusters: Option<&[usize]>,
    margin: f64,
) -> Option<Equivalence> {
    if differences.len() < 2 || margin.is_nan() || margin <= 0.0 {
        return None;
    }
    let centre = mean(differences)?;
    let n = differences.len() as f64;
    let clustered = clusters.and_then(|clusters| clustered_stderr(differences, clusters));
    let (stderr, freedom) = match clustered {
        Some((stderr, n_clusters)) if stderr > 0.0 => (stderr, n_clusters as f64 - 1.0),
        _ => (standard_error(differences)?, n - 1.0),
    };
    if stderr <= 0.0 {
        let never = |distance: f64| {
            if distance > 0.0 {
                (1.0 - distance.min(1.0)).powf(n)
            } else {
                1.0
            }
        };
        return Some(Equivalence {
            worse_p: never(margin + centre),
            better_p: never(margin - centre),
            stderr: 0.0,
        });
    }
    Some(Equivalence {
        worse_p: student_tail((centre + margin) / stderr, freedom),
        better_p: student_tail((margin - centre) / stderr, freedom),
        stderr,
    })
}

/// Returns the standard error of a mean whose values come in clusters, and how many clusters there
/// are, or `None` of fewer than two clusters.
///
/// It is the cluster-robust error of a regression on a constant (Liang and Zeger, Biometrika 73,
/// 1986) with the factor G / (G − 1) for G clusters, as statsmodels has it.
///
/// # Panics
///
/// Panics where there are not as many names of clusters as values.
pub fn clustered_stderr(values: &[f64], clusters: &[usize]) -> Option<(f64, usize)> {
    assert_eq!(values.len(), clusters.len(), "a cluster for each value");
    let centre = mean(values)?;
    let mut sums: std::collections::BTreeMap<usize, f64> = std::collections::BTreeMap::new();
    for (value, cluster) in values.iter().zip(clusters) {
        *sums.entry(*cluster).or_default() += value - centre;
    }
    let n_clusters = sums.len();
    if n_clusters < 2 {
        return None;
    }
    let squares: f64 = sums.values().map(|sum| sum * sum).sum();
    let factor = n_clusters as f64 / (n_clusters - 1) as f64;
    Some(((factor * squares).sqrt() / values.len() as f64, n_clusters))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(left: f64, right: f64) {
        assert!(
            (left - right).abs() <= 1e-9 * right,
            "{left} is not {right}"
        );
    }

    // statsmodels 0.15.0, `ttost_paired(x, y, -margin, margin)`.
    #[test]
    fn two_one_sided_tests_are_statsmodels() {
        let differences: Vec<f64> = (0..40)
            .map(|i| {
                let x = (i * 31) % 17;
                let y = (i * 31 + 5 * (i % 3)) % 17;
                f64::from(x - y) / 16.0
            })
            .collect();
        let found = equivalence(&differences, None, 0.1).unwrap();
        near(found.stderr, 0.062_747_905_777_700_5);
        near(found.worse_p, 0.085_534_675_261_741_5);
        near(found.better_p, 0.040_374_697_898_277_23);
        near(found.p(), 0.085_534_675_261_741_5);

        let mut answers = vec![0.0; 380];
        answers.extend([1.0; 15]);
        answers.extend([-1.0; 5]);
        let found = equivalence(&answers, None, 0.05).unwrap();
        near(found.worse_p, 2.745_021_002_477_739e-11);
        near(found.better_p, 0.012_581_342_279_971_656);
    }

    #[test]
    fn clusters_are_statsmodels() {
        // statsmodels 0.15.0, OLS on a constant with cov_type="cluster".
        let values: Vec<f64> = (0..60)
            .map(|i| f64::from((i * 13) % 7) / 7.0 + f64::from(i / 10) * 0.05)
            .collect();
        let clusters: Vec<usize> = (0..60).map(|i| i / 10).collect();
        let (found, n_clusters) = clustered_stderr(&values, &clusters).unwrap();
        near(found, 0.047_119_402_534_816_78);
        assert_eq!(n_clusters, 6);
        assert_eq!(clustered_stderr(&values, &[0; 60]), None);
        // Values that are alike within clusters are fewer than they seem.
        let found = equivalence(&values, Some(&clusters), 0.1).unwrap();
        near(found.stderr, 0.047_119_402_534_816_78);
        assert!(found.stderr > equivalence(&values, None, 0.1).unwrap().stderr);
    }

    #[test]
    fn models_that_never_differ_are_equivalent_by_the_rule_of_three() {
        // 300 items and a margin of one point: 0.99^300 = 0.049.
        let found = equivalence(&[0.0; 300], None, 0.01).unwrap();
        near(found.p(), 0.99_f64.powi(300));
        assert!(found.p() < 0.05);
        assert!(equivalence(&[0.0; 100], None, 0.01).unwrap().p() > 0.05);
        // Always worse by one: nothing within a margin of a half.
        assert!(equivalence(&[-1.0; 50], None, 0.5).unwrap().worse_p > 0.999);
    }

    #[test]
    fn no_margin_is_no_test() {
        assert_eq!(equivalence(&[0.0, 1.0], None, 0.0), None);
        assert_eq!(equivalence(&[0.0, 1.0], None, f64::NAN), None);
        assert_eq!(equivalence(&[1.0], None, 0.1), None);
    }

    proptest! {
        #[test]
        fn a_wider_margin_is_easier(
            values in prop::collection::vec(-1.0..1.0_f64, 2..60),
            margin in 0.01..0.5_f64,
        ) {
            let narrow = equivalence(&values, None, margin).unwrap();
            let wide = equivalence(&values, None, 2.0 * margin).unwrap();
            prop_assert!(wide.worse_p <= narrow.worse_p && wide.better_p <= narrow.better_p);
            prop_assert!((0.0..=1.0).contains(&narrow.p()));
        }
    }
}
