//! Float steps that all kernels share: one piece of code, compiled once per ISA.
//!
//! Nothing here calls a library's `exp`, whose last bit differs between systems.

use super::{QuantizedRow, activations::SCALE_BLOCK};

/// Lanes of a float reduction.
pub(crate) const LANES: usize = 16;

/// Folds the 16 partial sums: lane `j` with lane `j + half`, until one is left.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for j in 0..half {
            lanes[j] += lanes[j + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Copies up to 16 values, the rest zero.
#[inline(always)]
pub(crate) fn padded(values: &[f32]) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

/// Returns `e^x` with a relative error below 2.5e-7 (the test measures it against f64).
///
/// Cephes' `expf`: `x = n ln 2 + r` with `|r| <= ln 2 / 2`, a polynomial of degree 7 in `r`, times
/// 2^n in two steps so that results below the normal range round once.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, half to even, and leaves it in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-LN2_HIGH, x);
    let r = n.mul_add(-LN2_LOW, r);
    let p = 1.987_569_1e-4_f32;
    let p = p.mul_add(r, 1.398_2e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 0.166_666_65);
    let p = p.mul_add(r, 0.5);
    let p = p.mul_add(r * r, r) + 1.0;
    let n = shifted
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .cast_signed();
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n - half)
}

/// Returns 2^n for `-126 <= n <= 127`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n + 127).cast_unsigned() << 23)
}

/// Returns the sum of squares, in the order of a dot product.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = chunk[j].mul_add(chunk[j], lanes[j]);
        }
    }
    if !tail.is_empty() {
        let chunk = padded(tail);
        for j in 0..LANES {
            lanes[j] = chunk[j].mul_add(chunk[j], lanes[j]);
        }
    }
    fold(lanes)
}

/// Computes `out = input * (1 / sqrt(mean(input²) + eps)) * gain`, the products left to right.
#[inline(always)]
pub(crate) fn rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_of_squares(input) / input.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(input).zip(gain) {
        *out = x * inverse * gain;
    }
}

/// Computes `out += input * (1 / sqrt(mean(input²) + eps)) * gain`, the sum last.
#[inline(always)]
pub(crate) fn add_rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let mean = sum_of_squares(input) / input.len() as f32;
    let inverse = 1.0 / (mean + eps).sqrt();
    for ((out, x), gain) in out.iter_mut().zip(input).zip(gain) {
        *out += x * inverse * gain;
    }
}

/// Quantizes one token: `scale = 127 / max(absmax, 1e-5)`, `code = round(x * scale)`.
///
/// Rounds half to even and clamps to −128…127; a value that is not a number becomes −128.
#[inline(always)]
pub(crate) fn quantize(input: &[f32], out: QuantizedRow<'_>) {
    let mut lanes = [1e-5_f32; LANES];
    let (chunks, tail) = input.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            let magnitude = chunk[j].abs();
            lanes[j] = if magnitude > lanes[j] {
                magnitude
            } else {
                lanes[j]
            };
        }
    }
    let mut absmax = 1e-5_f32;
    for magnitude in lanes.into_iter().chain(tail.iter().map(|x| x.abs())) {
        absmax = if magnitude > absmax {
            magnitude
        } else {
            absmax
        };
    }
    let scale = 127.0 / absmax;
    let (codes, padding) = out.codes.split_at_mut(input.len());
    let mut sum = 0;
    for ((codes, input), block_sum) in codes
        .chunks_mut(SCALE_BLOCK)
        .zip(input.chunks(SCALE_BLOCK))
        .zip(out.block_sums)
    {
        *block_sum = round_to_codes(input, scale, codes);
        sum += *block_sum;
    }
    padding.fill(0);
    *out.scale = scale;
    *out.sum = sum;
}

/// Writes the codes of values that share a block sum, and returns it.
///
/// Two plain loops: as one, in lanes, compilers take the codes out of the registers byte by byte.
#[inline(always)]
fn round_to_codes(input: &[f32], scale: f32, codes: &mut [i8]) -> i32 {
    // Its low byte is 0, so that of a sum is the integer's.
    const MAGIC: f32 = 12_582_912.0;
    for (code, x) in codes.iter_mut().zip(input) {
        let x = x * scale;
        let x = if x > 127.0 { 127.0 } else { x };
        let x = if x >= -128.0 { x } else { -128.0 };
        // Integers in this range round alike before and after the clamp.
        *code = (x + MAGIC).to_bits() as i8;
    }
    let mut sum = 0;
    for &code in &*codes {
        sum += i32::from(code);
    }
    sum
}

/// Turns scores into `e^(score − max)` and returns their sum (lanes as in a dot product).
#[inline(always)]
pub(crate) fn exp_scores(scores: &mut [f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            lanes[j] = if chunk[j] > lanes[j] {
                chunk[j]
            } else {
                lanes[j]
            };
        }
    }
    let mut max = f32::NEG_INFINITY;
    for score in lanes.into_iter().chain(tail.iter().copied()) {
        max = if score > max { score } else { max };
    }
    let mut lanes = [0.0_f32; LANES];
    let (chunks, tail) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for j in 0..LANES {
            chunk[j] = exp(chunk[j] - max);
            lanes[j] += chunk[j];
        }
    }
    for (score, lane) in tail.iter_mut().zip(&mut lanes) {
        *score = exp(*score - max);
        *lane += *score;
    }
    fold(lanes)
}

/// Computes `gate = max(0, gate)² * up`.
#[inline(always)]
pub(crate) fn relu_squared_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        let relu = if *gate > 0.0 { *gate } else { 0.0 };
        *gate = relu * relu * up;
    }
}

/// Computes `gate = gate / (1 + e^−gate) * up`.
#[inline(always)]
pub(crate) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

/// Computes `gate = gate/2 * (1 + tanh(√(2/π) (gate + 0.044715 gate³))) * up`.
///
/// As `(1 + tanh(t/2)) / 2 = 1 / (1 + e^−t)`, it is `gate / (1 + e^−t) * up` with
/// `t = gate * fma(gate², 0.044715 √(8/π), √(8/π))`.
#[inline(always)]
pub(crate) fn gelu_mul(gate: &mut [f32], up: &[f32]) {
    const LINEAR: f32 = 1.595_769;
    const CUBIC: f32 = 0.071_354_816;
    for (gate, up) in gate.iter_mut().zip(up) {
        let t = *gate * (*gate * *gate).mul_add(CUBIC, LINEAR);
        *gate = *gate / (1.0 + exp(-t)) * up;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::float_cmp, reason = "these results are exact")]

    use super::*;

    #[test]
    fn exp_is_within_its_stated_error() {
        let mut worst = 0.0_f64;
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let exact = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.5e-7, "relative error {worst:e}");
    }

    #[test]
    fn exp_ends_at_zero_and_infinity() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(88.73), f32::INFINITY);
        assert!(exp(88.72).is_finite());
        assert!(exp(f32::NAN).is_nan());
        let tiny = exp(-100.0);
        assert!((f64::from(tiny) - libm::exp(-100.0)).abs() < 1e-45);
    }

    #[test]
    fn lanes_fold_as_a_tree() {
        let mut lanes = [0.0_f32; LANES];
        lanes[0] = 1.0;
        lanes[8] = 1e8;
        lanes[4] = -1e8;
        // Lane 0 meets lane 8 first (1 is lost), and only then lane 4.
        assert_eq!(fold(lanes), 0.0);
    }
}
