//! Many tests at once.

/// Returns p values adjusted by Benjamini and Hochberg (J. R. Stat. Soc. B 57, 1995): where those
/// below α are called differences, at most a share α of the calls is false on average.
///
/// The order is kept. It holds for tests that are independent or positively dependent, which tests
/// of two models on several tasks are.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|left, right| p[*right].total_cmp(&p[*left]));
    let n = p.len() as f64;
    let mut adjusted = vec![0.0; p.len()];
    let mut least = 1.0_f64;
    for (above, at) in order.into_iter().enumerate() {
        let rank = n - above as f64;
        least = least.min(p[at] * n / rank);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn adjusted_values_are_scipys() {
        // scipy 1.17.1, `false_discovery_control`; statsmodels 0.15.0, `multipletests(fdr_bh)`.
        let p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.9];
        let expected = [0.03, 0.06, 0.06, 0.03, 0.24, 0.9];
        for (found, expected) in benjamini_hochberg(&p).into_iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-15,
                "{found} is not {expected}"
            );
        }
        assert_eq!(benjamini_hochberg(&[]), Vec::<f64>::new());
    }

    #[test]
    fn the_first_example_of_the_paper_rejects_its_four() {
        // Benjamini and Hochberg (1995), section 3.2: fifteen p values, of which the four smallest
        // are rejected at 0.05.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0,
        ];
        let rejected = benjamini_hochberg(&p)
            .into_iter()
            .filter(|q| *q <= 0.05)
            .count();
        assert_eq!(rejected, 4);
    }

    proptest! {
        #[test]
        fn adjusting_keeps_the_order_and_never_helps(
            p in prop::collection::vec(0.0..=1.0_f64, 1..40),
        ) {
            let q = benjamini_hochberg(&p);
            for (left, p_left) in p.iter().enumerate() {
                prop_assert!(q[left] >= *p_left - 1e-15 && q[left] <= 1.0);
                for (right, p_right) in p.iter().enumerate() {
                    prop_assert!(p_left > p_right || q[left] <= q[right]);
                }
            }
        }
    }
}
