//! A screened head's copy and its bounds, in plain float steps and loops.

use std::ops::Range;

use super::widen;
use crate::{
    screen::{Bounds, PADDING, Screen, ScreenInput, ScreenRows},
    weights::DenseMatrix,
};

/// Makes a row of the copy, `codes` and the `nth` of the numbers, from its values, `(stride)`, in
/// plain float steps.
///
/// ‖e‖ is summed in f32: each square is off by at most `2^-22` of itself and a sum of `n` of them by
/// `n 2^-24`, which the last factor covers up to 100,000 columns.
#[inline(always)]
pub(super) fn quantize_row(row: &[f32], nth: usize, out: &mut ScreenRows<'_>) {
    const LANES: usize = 16;
    const UPWARDS: f32 = 1.01;
    let (chunks, _) = row.as_chunks::<LANES>();
    let mut largest = [0.0_f32; LANES];
    // A sum is not finite if any of its values is not.
    let mut sum = [0.0_f32; LANES];
    for chunk in chunks {
        for j in 0..LANES {
            let magnitude = chunk[j].abs();
            largest[j] = if magnitude > largest[j] {
                magnitude
            } else {
                largest[j]
            };
            sum[j] += magnitude;
        }
    }
    let absmax = largest.into_iter().fold(0.0, f32::max);
    let scale = (absmax / 127.0).max(1e-30);
    let inverse = 1.0 / scale;
    let mut errors = [0.0_f32; LANES];
    let mut squares = [0.0_f32; LANES];
    let codes = &mut out.codes[nth * row.len()..][..row.len()];
    for (chunk, codes) in chunks.iter().zip(codes.as_chunks_mut::<LANES>().0) {
        for j in 0..LANES {
            // Adding and taking away 1.5 · 2^23 rounds to an integer.
            let code = (chunk[j] * inverse + 12_582_912.0) - 12_582_912.0;
            let code = code.clamp(-127.0, 127.0);
            codes[j] = code as i8;
            let error = code.mul_add(-scale, chunk[j]);
            errors[j] = error.mul_add(error, errors[j]);
            squares[j] = code.mul_add(code, squares[j]);
        }
    }
    let total = |lanes: [f32; LANES]| lanes.into_iter().sum::<f32>();
    // Denormal squares may vanish: a floor far above what they could add up to.
    out.errors[nth] = total(errors).sqrt() * UPWARDS + absmax * 1e-9 + 1e-18 + total(sum) * 0.0;
    out.norms[nth] = total(squares).sqrt() * scale * UPWARDS + 1e-18;
    out.scales[nth] = scale;
}

/// The plain form of [`Kernel::screen`].
pub(super) fn screen_in_order(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    let rows: Range<usize> = bounds.first..bounds.first + bounds.lower.len();
    for (nth, row) in rows.enumerate() {
        let products = screen.codes(row).iter().zip(&input.codes);
        let sum: i64 = products.map(|(&q, &u)| i64::from(q) * i64::from(u)).sum();
        (bounds.lower[nth], bounds.upper[nth]) = screen.bounds(row, sum as f32, input);
    }
}

/// The plain form of [`Kernel::screen_rows`].
pub(super) fn quantize_rows_in_order(head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
    let mut row = vec![0.0; head.cols.next_multiple_of(PADDING)];
    for nth in 0..out.scales.len() {
        widen(head, first + nth, &mut row[..head.cols]);
        quantize_row(&row, nth, out);
    }
}
