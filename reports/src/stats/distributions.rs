//! The normal distribution and Student's t: what p values and intervals are read from.

/// Returns P(Z ≤ z) of the standard normal distribution.
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Returns the z with P(Z ≤ z) = `p` of the standard normal distribution.
///
/// The start is 26.2.23 of Abramowitz and Stegun, *Handbook of Mathematical Functions* (1964), good
/// to 4.5e-4; Newton's steps on the distribution function do the rest.
///
/// # Panics
///
/// Panics where `p` does not lie between 0 and 1.
pub(super) fn normal_quantile(p: f64) -> f64 {
    assert!(p > 0.0 && p < 1.0, "a quantile lies between 0 and 1");
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    let t = (-2.0 * p.ln()).sqrt();
    let above = (0.010_328 * t + 0.802_853) * t + 2.515_517;
    let below = ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0;
    let mut z = above / below - t;
    for _ in 0..4 {
        let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        z -= (normal_cdf(z) - p) / density;
    }
    z
}

/// Returns P(T > t) of Student's t with `freedom` degrees of freedom.
///
/// # Panics
///
/// Panics where `freedom` is not positive.
pub(super) fn student_tail(t: f64, freedom: f64) -> f64 {
    assert!(freedom > 0.0, "degrees of freedom are positive");
    if t.is_infinite() {
        return if t > 0.0 { 0.0 } else { 1.0 };
    }
    let tail = 0.5 * incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t));
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// Keeps a denominator of the continued fraction from being 0.
const TINY: f64 = 1e-300;

/// Returns the regularised incomplete beta function `I_x(p, q)` by its continued fraction
/// (*NIST Handbook of Mathematical Functions*, 8.17.22), evaluated by Lentz's method.
fn incomplete_beta(p: f64, q: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast on this side of the mean; the other side is the complement.
    if x > (p + 1.0) / (p + q + 2.0) {
        return 1.0 - incomplete_beta(q, p, 1.0 - x);
    }
    let ln_front =
        libm::lgamma(p + q) - libm::lgamma(p) - libm::lgamma(q) + p * x.ln() + q * libm::log1p(-x);
    let away_from_0 = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut above = 1.0;
    let mut below = 1.0 / away_from_0(1.0 - (p + q) * x / (p + 1.0));
    let mut fraction = below;
    for step in 1..500 {
        let m = f64::from(step);
        let even = m * (q - m) * x / ((p + 2.0 * m - 1.0) * (p + 2.0 * m));
        let odd = -(p + m) * (p + q + m) * x / ((p + 2.0 * m) * (p + 2.0 * m + 1.0));
        let mut last = 1.0;
        for term in [even, odd] {
            below = 1.0 / away_from_0(1.0 + term * below);
            above = away_from_0(1.0 + term / above);
            last = above * below;
            fraction *= last;
        }
        if (last - 1.0_f64).abs() < 1e-16 {
            break;
        }
    }
    ln_front.exp() * fraction / p
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(left: f64, right: f64, tolerance: f64) {
        assert!(
            (left - right).abs() <= tolerance * right.abs(),
            "{left} is not {right}"
        );
    }

    // scipy 1.17.1: stats.norm.cdf, stats.norm.ppf, stats.t.sf.
    #[test]
    fn the_normal_distribution_is_scipys() {
        for (z, p) in [
            (-8.0, 6.220_960_574_271_74e-16),
            (-2.5, 0.006_209_665_325_776_132),
            (-0.1, 0.460_172_162_722_971),
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (3.3, 0.999_516_575_857_616_2),
        ] {
            near(normal_cdf(z), p, 1e-13);
        }
        for (p, z) in [
            (1e-10, -6.361_340_902_404_056),
            (0.001, -3.090_232_306_167_813),
            (0.025, -1.959_963_984_540_054_5),
            (0.3, -0.524_400_512_708_040_9),
            (0.975, 1.959_963_984_540_054),
            (0.9999, 3.719_016_485_455_709),
        ] {
            near(normal_quantile(p), z, 1e-12);
        }
        assert!(normal_quantile(0.5).abs() < 1e-15);
    }

    #[test]
    fn students_tail_is_scipys() {
        for (freedom, t, tail) in [
            (1.0, 1.0, 0.250_000_000_000_000_06),
            (5.0, 2.0, 0.050_969_739_414_929_174),
            (39.0, -1.3, 0.899_383_990_320_747),
            (1171.0, 1.96, 0.025_116_332_057_531_863),
            (2.5, 0.1, 0.463_903_272_031_244_9),
        ] {
            near(student_tail(t, freedom), tail, 1e-11);
        }
        near(student_tail(f64::INFINITY, 3.0), 0.0, 0.0);
    }

    proptest! {
        #[test]
        fn quantiles_undo_the_distribution(p in 1e-12..1.0_f64) {
            prop_assume!(p < 1.0 - 1e-12);
            prop_assert!((normal_cdf(normal_quantile(p)) - p).abs() <= 1e-12 * p.max(1e-3));
        }

        #[test]
        fn a_tail_is_a_probability_and_falls(t in -50.0..50.0_f64, freedom in 0.5..1e5_f64) {
            let tail = student_tail(t, freedom);
            prop_assert!((0.0..=1.0).contains(&tail));
            prop_assert!(student_tail(t + 0.5, freedom) <= tail + 1e-12);
            prop_assert!((tail + student_tail(-t, freedom) - 1.0).abs() < 1e-12);
        }
    }
}
