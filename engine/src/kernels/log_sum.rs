//! What a log-softmax needs of a row of logits, in f64.
//!
//! As in `float`, one piece of code is compiled once per ISA, and nothing calls a library's `exp`.

/// Lanes of a reduction in f64: a register of AVX-512, two of AVX2.
const LANES: usize = 8;

/// The greatest logit of a row, and how much all of them weigh beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpSum {
    /// The greatest logit; −∞ where none is a number.
    pub max: f32,
    /// Sum of `e^(logit − max)`; not a number if a logit is none.
    pub sum: f64,
}

impl ExpSum {
    /// Of no logits.
    pub(crate) const NONE: Self = Self {
        max: f32::NEG_INFINITY,
        sum: 0.0,
    };
}

/// Sums `e^(logit − max)` in eight lanes; lane `j` then joins lane `j + half`, until one is left.
#[inline(always)]
pub(crate) fn exp_sum(logits: &[f32], out: &mut ExpSum) {
    let max = greatest(logits);
    let wide_max = f64::from(max);
    let mut lanes = [0.0; LANES];
    let (chunks, tail) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] += exp(f64::from(chunk[j]) - wide_max);
        }
    }
    for (lane, &logit) in lanes.iter_mut().zip(tail) {
        *lane += exp(f64::from(logit) - wide_max);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    *out = ExpSum { max, sum: lanes[0] };
}

#[inline(always)]
fn greatest(logits: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, tail) = logits.as_chunks::<16>();
    for chunk in chunks {
        for j in 0..16 {
            lanes[j] = greater(chunk[j], lanes[j]);
        }
    }
    let tail = tail.iter().copied();
    lanes
        .into_iter()
        .chain(tail)
        .fold(f32::NEG_INFINITY, |max, logit| greater(logit, max))
}

/// Returns `e^x` for `x <= 0` with a relative error below 1e-15 (the test measures it), 0 or next to
/// it below −700.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the series of `e^r` up to degree 13, times 2^n.
#[inline(always)]
fn exp(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits.
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    // fdlibm's two parts of ln 2: the first has 32 zero bits at its end.
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    // 1 / 13!, 1 / 12!, … 1 / 2!.
    const SERIES: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let x = if x < -700.0 { -700.0 } else { x };
    let shifted = x.mul_add(std::f64::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let mut p = SERIES[0];
    for coefficient in &SERIES[1..] {
        p = p.mul_add(r, *coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    let n = shifted.to_bits().wrapping_sub(MAGIC.to_bits());
    p * f64::from_bits(n.wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these results are exact")]

    use super::*;

    fn of(logits: &[f32]) -> ExpSum {
        let mut sum = ExpSum::NONE;
        exp_sum(logits, &mut sum);
        sum
    }

    #[test]
    fn exp_is_within_its_stated_error() {
        let mut worst = 0.0_f64;
        for i in 0..=7_000_000 {
            let x = -f64::from(i) * 1e-4;
            let exact = libm::exp(x);
            worst = worst.max((exp(x) - exact).abs() / exact);
        }
        assert!(worst < 1e-15, "relative error {worst:e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f64::NEG_INFINITY) < 1e-300);
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn every_length_sums_all_its_logits() {
        for n in 1..70 {
            let mut logits = vec![2.5; n];
            assert_eq!(
                of(&logits),
                ExpSum {
                    max: 2.5,
                    sum: n as f64
                }
            );
            logits[n - 1] = 1000.0;
            assert_eq!(of(&logits).max, 1000.0);
            assert!((of(&logits).sum - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn what_is_no_number_makes_the_sum_none() {
        for n in [1, 5, 8, 40] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut logits = vec![0.5; n];
                logits[n / 2] = bad;
                assert!(of(&logits).sum.is_nan());
            }
        }
        assert_eq!(of(&[f32::NEG_INFINITY, 1.0]).max, 1.0);
    }
}
