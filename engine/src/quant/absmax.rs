//! The activation quantiser of BitNet b1.58 (arXiv 2402.17764; transformers' `ActQuant`): int8 with
//! one scale a token, `s = 127 / max(1e-5, max|x|)`, `q = clamp(round(x · s), −128, 127)`, halves to
//! even. The kernels have their own, faster forms; this one is the specification.

/// Quantises one token's activations into `out` and returns `s`; a value is about `q / s`.
///
/// # Panics
/// If the lengths differ.
pub fn quantise(values: &[f32], out: &mut [i8]) -> f32 {
    assert_eq!(values.len(), out.len());
    let largest = values.iter().fold(0_f32, |max, x| max.max(x.abs()));
    let scale = 127.0 / largest.max(1e-5);
    for (q, x) in out.iter_mut().zip(values) {
        // The cast saturates at −128 and 127.
        *q = (x * scale).round_ties_even() as i8;
    }
    scale
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the scales are exact by definition")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_value_becomes_127_and_halves_round_to_even() {
        let mut out = [0; 5];
        assert_eq!(quantise(&[254.0, -254.0, 1.0, 3.0, 0.0], &mut out), 0.5);
        assert_eq!(out, [127, -127, 0, 2, 0]);
    }

    #[test]
    fn zeros_stay_zeros() {
        let mut out = [1; 2];
        assert_eq!(quantise(&[0.0, -0.0], &mut out), 127.0 / 1e-5);
        assert_eq!(out, [0, 0]);
    }

    proptest! {
        #[test]
        fn values_come_back_within_half_a_step(values in proptest::collection::vec(-50_f32..50.0, 1..64)) {
            let mut out = vec![0; values.len()];
            let scale = quantise(&values, &mut out);
            for (x, q) in values.iter().zip(out) {
                prop_assert!((x - f32::from(q) / scale).abs() <= 0.501 / scale);
            }
        }
    }
}
