//! The screened head: the greatest logits of a large vocabulary, exactly, from half of the bytes.
//!
//! Beside the head `W` stands a copy in int8, `w = s q + e` for each row. It gives every logit up to
//! a proven bound; only the rows whose bound reaches the k-th greatest are evaluated with the full
//! head. Their logits are the full head's, bit for bit, and no other row can be among the `k`
//! greatest: the result is that of the full head, whatever the weights and inputs.
//!
//! # The bound
//! Let `x = t u + d` be the input with integers `u`, and `I = q·u`, which is summed exactly. Then
//! `w·x = s t I + s q·d + e·x`, so that by Cauchy and Schwarz
//! `|w·x − s t I| ≤ ‖s q‖ ‖d‖ + ‖e‖ ‖x‖`. The full head's own rounding (`n / 16 + 5` roundings of
//! at most `2^-24` each on the way of any product) adds at most `γ ‖w‖ ‖x‖`, and the few float
//! steps from `I` to the bound at most `2^-20 ‖s q‖ ‖t u‖`. Norms are rounded upwards.

use crate::{
    kernels::Kernel,
    threads::{self, ThreadPool},
    weights::{AlignedBytes, DenseMatrix},
};

/// A row of the copy is padded with zeros to a multiple of this.
pub(crate) const PADDING: usize = 32;

/// Inputs, scales and norms are below this, so that no bound and no logit overflows.
const LARGEST: f32 = 1e15;

/// An int8 copy of a head, with what bounds its error.
#[derive(Debug)]
pub struct Screen {
    cols: usize,
    stride: usize,
    // (rows, stride) int8, the padding zero
    codes: AlignedBytes,
    // (rows): s
    scales: Vec<f32>,
    // (rows): at least ‖e‖
    errors: Vec<f32>,
    // (rows): at least ‖s q‖
    norms: Vec<f32>,
}

/// Some rows of a [`Screen`], for writing.
#[derive(Debug)]
pub struct ScreenRows<'a> {
    /// `(rows, stride)` int8.
    pub codes: &'a mut [i8],
    /// `s`.
    pub scales: &'a mut [f32],
    /// At least ‖w − s q‖.
    pub errors: &'a mut [f32],
    /// At least ‖s q‖.
    pub norms: &'a mut [f32],
}

impl ScreenRows<'_> {
    /// Splits the rows into pieces of `rows`, each row `stride` long.
    fn chunks(&mut self, rows: usize, stride: usize) -> impl Iterator<Item = ScreenRows<'_>> {
        self.codes
            .chunks_mut(rows * stride)
            .zip(self.scales.chunks_mut(rows))
            .zip(self.errors.chunks_mut(rows))
            .zip(self.norms.chunks_mut(rows))
            .map(|(((codes, scales), errors), norms)| ScreenRows {
                codes,
                scales,
                errors,
                norms,
            })
    }
}

/// An input in integers, with what bounds its error.
#[derive(Debug, Default)]
pub struct ScreenInput {
    /// `u`, padded with zeros to a row's stride.
    pub codes: Vec<i16>,
    /// `t`.
    pub unit: f32,
    /// What a row's ‖e‖ counts for: ‖x‖ and the roundings.
    error_weight: f32,
    /// What a row's ‖s q‖ counts for: ‖d‖ and the roundings.
    norm_weight: f32,
}

/// Bounds of the logits of some rows.
#[derive(Debug)]
pub struct Bounds<'a> {
    /// The first row.
    pub first: usize,
    /// At most the logits.
    pub lower: &'a mut [f32],
    /// At least the logits.
    pub upper: &'a mut [f32],
}

impl Screen {
    /// Makes the copy of a head, or `None` where it would not pay or cannot be bounded: a head of a
    /// byte a weight or less, one with values that are not finite, or one with very long rows.
    pub(crate) fn new(
        head: &DenseMatrix,
        kernel: &dyn Kernel,
        pool: &mut ThreadPool,
    ) -> Option<Self> {
        // Some megabytes of the head: what is resident of it at a time.
        const ROWS: usize = 1024;
        if !head.dtype.is_float() {
            return None;
        }
        let stride = head.cols.next_multiple_of(PADDING);
        if largest_code(stride) < 127 {
            return None;
        }
        let mut screen = Self {
            cols: head.cols,
            stride,
            codes: AlignedBytes::for_weights(head.rows * stride),
            scales: vec![0.0; head.rows],
            errors: vec![0.0; head.rows],
            norms: vec![0.0; head.rows],
        };
        let Self {
            codes,
            scales,
            errors,
            norms,
            ..
        } = &mut screen;
        let per_part = head.rows.div_ceil(pool.threads()).max(1);
        let codes: &mut [i8] = bytemuck::cast_slice_mut(codes.as_mut_slice());
        let mut all = ScreenRows {
            codes,
            scales,
            errors,
            norms,
        };
        let mut parts: Vec<_> = all.chunks(per_part, stride).collect();
        let row_bytes = head.dtype.row_bytes(head.cols);
        pool.run(&mut parts, |nth, part| {
            let mut first = nth * per_part;
            for mut rows in part.chunks(ROWS, stride) {
                let n = rows.scales.len();
                kernel.screen_rows(head, first, &mut rows);
                // The file's pages were read once; from now on few rows of it will be.
                head.data.release(first * row_bytes, n * row_bytes);
                first += n;
            }
        });
        drop(parts);
        // False of what is not a number, too.
        let bounded = |values: &[f32]| values.iter().all(|&x| x < LARGEST);
        (bounded(&screen.scales) && bounded(&screen.errors) && bounded(&screen.norms))
            .then_some(screen)
    }

    /// Returns the bytes of the copy and its bounds.
    pub fn bytes(&self) -> usize {
        self.codes.len() + 4 * (self.scales.len() + self.errors.len() + self.norms.len())
    }

    /// Returns the int8 values of a row, padded with zeros to a multiple of 32.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn codes(&self, row: usize) -> &[i8] {
        bytemuck::cast_slice(&self.codes[row * self.stride..][..self.stride])
    }

    /// Returns the bounds of a row's logit, given the sum of the products of the codes.
    ///
    /// The sum may be off by `2^-21` of the product of the codes' norms.
    #[inline]
    pub(crate) fn bounds(&self, row: usize, sum: f32, input: &ScreenInput) -> (f32, f32) {
        let value = sum * input.unit * self.scales[row];
        let error = self.errors[row] * input.error_weight + self.norms[row] * input.norm_weight;
        (value - error, value + error)
    }
}

/// Returns the greatest magnitude of an input's integer that keeps every sum of `stride / 8`
/// products with int8 values in i32: what a lane of the narrowest kernel adds up.
fn largest_code(stride: usize) -> i32 {
    let products = stride.div_ceil(8).max(1);
    let largest = i32::MAX as usize / (127 * products);
    i32::try_from(largest).map_or(0, |largest| largest.min(i32::from(i16::MAX)))
}

impl ScreenInput {
    /// Brings an input into integers. Returns `None` if its values are not finite or so large that
    /// a product might not be.
    pub(crate) fn set(&mut self, screen: &Screen, x: &[f32]) -> Option<()> {
        // 2^-24, and what a chain of roundings grows to.
        const UNIT: f64 = 1.0 / 16_777_216.0;
        let absmax = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        if !x.iter().all(|x| x.abs() < LARGEST) {
            return None;
        }
        let largest = largest_code(screen.stride) as f32;
        // A floor keeps the unit a normal number.
        self.unit = (absmax / largest).max(1e-30);
        self.codes.clear();
        self.codes.resize(screen.stride, 0);
        let (mut norm, mut rest) = (0.0_f64, 0.0_f64);
        for (code, &x) in self.codes.iter_mut().zip(x) {
            let rounded = (x / self.unit).round_ties_even().clamp(-largest, largest);
            *code = rounded as i16;
            let (x, unit) = (f64::from(x), f64::from(self.unit));
            norm += x * x;
            rest += (x - unit * f64::from(rounded)).powi(2);
        }
        let (norm, rest) = (norm.sqrt(), rest.sqrt());
        let roundings = (x.len() / 16 + 5) as f64 * UNIT;
        let gamma = roundings / (1.0 - roundings) + 16.0 * UNIT;
        let rounding = gamma * (norm + rest);
        // What is left of a rounding below the normal numbers is far below this.
        let upwards = |value: f64| (value * 1.000_01 + 1e-30) as f32;
        self.error_weight = upwards(norm + rounding);
        self.norm_weight = upwards(rest + rounding);
        Some(())
    }
}

/// Finds the rows that may hold one of the `k` greatest logits.
#[derive(Debug, Default)]
pub(crate) struct Screening {
    input: ScreenInput,
    // (rows)
    lower: Vec<f32>,
    // (rows)
    upper: Vec<f32>,
    // One for each thread: its greatest lower bounds, ascending.
    greatest: Vec<Vec<f32>>,
    /// The rows found, ascending.
    pub(crate) rows: Vec<u32>,
}

impl Screening {
    /// Fills `rows`; returns `None` where nothing can be said of the input `x`, `(cols)`.
    pub(crate) fn run(
        &mut self,
        screen: &Screen,
        kernel: &dyn Kernel,
        pool: &mut ThreadPool,
        x: &[f32],
        k: usize,
    ) -> Option<()> {
        struct Part<'a> {
            bounds: Bounds<'a>,
            greatest: &'a mut Vec<f32>,
        }
        debug_assert_eq!(x.len(), screen.cols);
        self.input.set(screen, x)?;
        let n_rows = screen.scales.len();
        self.lower.resize(n_rows, 0.0);
        self.upper.resize(n_rows, 0.0);
        self.greatest.resize_with(pool.threads(), Vec::new);
        let ends = threads::ends(n_rows, pool.threads(), 16);
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(pool.threads());
        let (mut lower, mut upper, mut first) = (&mut self.lower[..], &mut self.upper[..], 0);
        for (end, greatest) in ends.zip(&mut self.greatest) {
            let (own_lower, rest_lower) = lower.split_at_mut(end - first);
            let (own_upper, rest_upper) = upper.split_at_mut(end - first);
            (lower, upper) = (rest_lower, rest_upper);
            let bounds = Bounds {
                first,
                lower: own_lower,
                upper: own_upper,
            };
            parts.push(Part { bounds, greatest });
            first = end;
        }
        let input = &self.input;
        pool.run(&mut parts, |_, Part { bounds, greatest }| {
            kernel.screen(screen, input, bounds);
            greatest.clear();
            for &lower in &*bounds.lower {
                keep_greatest(greatest, lower, k);
            }
        });
        let mut all: Vec<f32> = self.greatest.concat();
        all.sort_unstable_by(|a, b| b.total_cmp(a));
        let least = all.get(k - 1).copied().unwrap_or(f32::NEG_INFINITY);
        self.rows.clear();
        let reaching = self
            .upper
            .iter()
            .zip(0..)
            .filter(|(upper, _)| **upper >= least);
        self.rows.extend(reaching.map(|(_, row)| row));
        Some(())
    }
}

/// Keeps the `k` greatest of the values seen, ascending.
fn keep_greatest(greatest: &mut Vec<f32>, value: f32, k: usize) {
    if greatest.len() == k {
        if value <= greatest[0] {
            return;
        }
        greatest.remove(0);
    }
    let at = greatest.partition_point(|&held| held < value);
    greatest.insert(at, value);
}

#[cfg(test)]
mod tests;
