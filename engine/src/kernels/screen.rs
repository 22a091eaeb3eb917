//! A screened head's copy and its bounds, in plain float steps and loops.

use super::widen;
use crate::{
    screen::{Bounds, High, Low, PADDING, Screen, ScreenInput, ScreenRows},
    weights::DenseMatrix,
};

/// Makes a row of the copy, the `nth`, from its values, `(stride)`, in plain float steps; `codes` is
/// scratch, as long as the row.
///
/// ‖e‖ is summed in f32: each square is off by at most `2^-22` of itself and a sum of `n` of them by
/// `n 2^-24`, which the last factor covers up to 100,000 columns.
#[inline(always)]
pub(super) fn quantize_row(row: &[f32], nth: usize, codes: &mut [u8], out: &mut ScreenRows<'_>) {
    const LANES: usize = 16;
    const UPWARDS: f32 = 1.01;
    // Adding and taking away 1.5 · 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
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
    let mut coarse_errors = [0.0_f32; LANES];
    let mut squares = [0.0_f32; LANES];
    for (chunk, codes) in chunks.iter().zip(codes.as_chunks_mut::<LANES>().0) {
        for j in 0..LANES {
            let code = (chunk[j] * inverse + ROUND) - ROUND;
            let code = code.clamp(-127.0, 127.0);
            codes[j] = (code as i8).cast_unsigned() ^ 128;
            let error = code.mul_add(-scale, chunk[j]);
            errors[j] = error.mul_add(error, errors[j]);
            // Of quarters less 3/8 the nearest integer is the one below.
            let high = (code * 0.25 - 0.375 + ROUND) - ROUND;
            let error = (high * 4.0 + 1.5).mul_add(-scale, chunk[j]);
            coarse_errors[j] = error.mul_add(error, coarse_errors[j]);
            squares[j] = code.mul_add(code, squares[j]);
        }
    }
    let blocks = row.len() / PADDING;
    let (codes, _) = codes.as_chunks::<PADDING>();
    let high = &mut out.high[nth * blocks..][..blocks];
    let low = &mut out.low[nth * blocks..][..blocks];
    for ((codes, high), low) in codes.iter().zip(high).zip(low) {
        pack(codes, high, low);
    }
    let total = |lanes: [f32; LANES]| lanes.into_iter().sum::<f32>();
    // Denormal squares may vanish: a floor far above what they could add up to.
    let floor = absmax * 1e-9 + 1e-18 + total(sum) * 0.0;
    out.errors[nth] = total(errors).sqrt() * UPWARDS + floor;
    out.coarse_errors[nth] = total(coarse_errors).sqrt() * UPWARDS + floor;
    out.norms[nth] = total(squares).sqrt() * scale * UPWARDS + 1e-18;
    out.scales[nth] = scale;
}

/// Packs the codes of a block.
#[inline(always)]
fn pack(codes: &[u8; PADDING], high: &mut High, low: &mut Low) {
    const N: usize = PADDING / 4;
    let (quarters, _) = codes.as_chunks::<N>();
    for j in 0..N {
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|i| quarters[i][j]);
        let split = fourth >> 2;
        high[j] = first >> 2 | split << 6;
        high[N + j] = second >> 2 | split >> 2 << 6;
        high[2 * N + j] = third >> 2 | split >> 4 << 6;
        low[j] = first & 3 | (second & 3) << 2 | (third & 3) << 4 | fourth << 6;
    }
}

/// Unpacks the upper bits of a block.
fn unpack_high(high: &High) -> [u8; PADDING] {
    const N: usize = PADDING / 4;
    let mut out = [0; PADDING];
    for j in 0..N {
        let [first, second, third] = [0, 1, 2].map(|i| high[i * N + j]);
        out[j] = first & 63;
        out[N + j] = second & 63;
        out[2 * N + j] = third & 63;
        out[3 * N + j] = first >> 6 | second >> 6 << 2 | third >> 6 << 4;
    }
    out
}

/// Unpacks the lower bits of a block.
fn unpack_low(low: &Low) -> [u8; PADDING] {
    let mut out = [0; PADDING];
    for (nth, code) in out.iter_mut().enumerate() {
        *code = low[nth % low.len()] >> (nth / low.len() * 2) & 3;
    }
    out
}

fn dot(codes: &[u8; PADDING], input: &[i16]) -> i32 {
    let products = codes.iter().zip(input);
    products.map(|(&c, &u)| i32::from(c) * i32::from(u)).sum()
}

/// The plain form of [`Kernel::screen`].
pub(super) fn screen_in_order(screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
    for (row, sum) in (bounds.first..).zip(&mut *bounds.sums) {
        let blocks = screen.high(row).iter().zip(input.codes.chunks(PADDING));
        *sum = blocks.map(|(high, u)| dot(&unpack_high(high), u)).sum();
    }
    screen.bound(input, bounds);
}

/// The plain form of [`Kernel::screen_low`].
pub(super) fn low_in_order(screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
    for (&row, sum) in rows.iter().zip(sums) {
        let blocks = screen.low(row as usize).iter();
        let blocks = blocks.zip(input.codes.chunks(PADDING));
        *sum = blocks.map(|(low, u)| dot(&unpack_low(low), u)).sum();
    }
}

/// The plain form of [`Kernel::screen_rows`].
pub(super) fn quantize_rows_in_order(head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
    let mut row = vec![0.0; head.cols.next_multiple_of(PADDING)];
    let mut codes = vec![0; row.len()];
    for nth in 0..out.scales.len() {
        widen(head, first + nth, &mut row[..head.cols]);
        quantize_row(&row, nth, &mut codes, out);
    }
}
