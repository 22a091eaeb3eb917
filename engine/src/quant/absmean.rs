//! The weight quantiser of BitNet b1.58 (arXiv 2402.17764, eq. 1–3): `RoundClip(W / γ, −1, 1)` with
//! `γ = mean|W|` over the whole matrix.
//!
//! As transformers computes it: `γ` is at least 1e-5, `1 / γ` is rounded to f32, a weight times it
//! is rounded half to even.

/// Smallest scale, as in transformers.
const FLOOR: f32 = 1e-5;

/// The mean magnitude of values given piece by piece.
///
/// Summed in f64, in eight interleaved sums that begin anew with each piece, and rounded once to
/// f32: the order of the additions is far below what that rounding keeps.
#[derive(Clone, Debug, Default)]
pub struct MeanMagnitude {
    sum: f64,
    count: u64,
}

impl MeanMagnitude {
    /// Adds values.
    pub fn add(&mut self, values: &[f32]) {
        let (eights, rest) = values.as_chunks::<8>();
        let mut sums = [0_f64; 8];
        for eight in eights {
            for (sum, x) in sums.iter_mut().zip(eight) {
                *sum += f64::from(x.abs());
            }
        }
        self.sum += sums.iter().sum::<f64>();
        self.sum += rest.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        self.count += values.len() as u64;
    }

    /// Returns whether no value was infinite or NaN.
    pub fn is_finite(&self) -> bool {
        self.sum.is_finite()
    }

    /// Returns `γ`; its floor where nothing was added.
    pub fn scale(&self) -> f32 {
        if self.count == 0 {
            return FLOOR;
        }
        ((self.sum / self.count as f64) as f32).max(FLOOR)
    }
}

/// Returns the trit of a value under a scale.
pub fn trit(value: f32, scale: f32) -> i8 {
    // A NaN becomes 0.
    (value * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0) as i8
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the scales are exact by definition")]
mod tests {
    use super::*;

    fn scale(values: &[f32]) -> f32 {
        let mut mean = MeanMagnitude::default();
        mean.add(values);
        mean.scale()
    }

    #[test]
    fn the_scale_is_the_mean_magnitude_and_never_zero() {
        assert_eq!(scale(&[1.0, -2.0, 0.0, 5.0]), 2.0);
        assert_eq!(scale(&[-3.0; 21]), 3.0);
        assert_eq!(scale(&[0.0; 4]), 1e-5);
        assert_eq!(scale(&[]), 1e-5);
    }

    #[test]
    fn halves_round_to_even() {
        let trits = [-9.0, -1.01, -1.0, -0.5, 1.0, 1.01, 2.0, 100.0].map(|x| trit(x, 2.0));
        assert_eq!(trits, [-1, -1, 0, 0, 0, 1, 1, 1]);
    }
}
