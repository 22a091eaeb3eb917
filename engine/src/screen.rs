//! The screened head: the greatest logits of a large vocabulary, exactly, from fewer bytes.
//!
//! Beside the head `W` stands a copy in int8, `w = s q + e` for each row, which gives every logit up
//! to a proven bound. It lies in two planes, the upper six bits of the codes and the lower two. The
//! upper plane is read for all rows; the lower one only for those whose bound reaches the k-th
//! greatest; and only the rows whose narrower bound then still reaches it are evaluated with the full
//! head. Their logits are the full head's, bit for bit, and no other row can be among the `k`
//! greatest: the result is that of the full head, whatever the weights and inputs.
//!
//! # The codes
//! `c = q + 128 = 4 h + l` with `h` of six bits and `l` of two. Without its lower bits a code counts
//! for the middle of what it may be, `q' = 4 h + 1.5 − 128`, and `w = s q' + e'`.
//!
//! # The bound
//! Let `x = t u + d` be the input with integers `u`, and `I = q·u`, which is summed exactly. Then
//! `w·x = s t I + s q·d + e·x`, so that by Cauchy and Schwarz
//! `|w·x − s t I| ≤ ‖s q‖ ‖d‖ + ‖e‖ ‖x‖`. The full head's own rounding (`n / 16 + 5` roundings of
//! at most `2^-24` each on the way of any product) adds at most `γ ‖w‖ ‖x‖`, and the few float
//! steps from `I` to the bound at most `2^-20 ‖s q‖ ‖t u‖`. Norms are rounded upwards. The same
//! holds for `q'` and `e'`, where `‖s q'‖ ≤ ‖s q‖ + ‖e‖ + ‖e'‖`.

use crate::{
    kernels::Kernel,
    threads::{self, ThreadPool},
    weights::{AlignedBytes, DenseMatrix},
};

/// Columns of a block of codes, to a multiple of which a row is padded.
pub(crate) const PADDING: usize = 128;
/// A block's upper bits: byte `j` holds `h[j]`, `h[32 + j]` and `h[64 + j]`, in each third of the
/// block, with two bits of `h[96 + j]` above, the lowest two first.
pub(crate) type High = [u8; 96];
/// A block's lower bits: byte `j` holds `l[j]`, `l[32 + j]`, `l[64 + j]` and `l[96 + j]`, from the
/// lowest bit on.
pub(crate) type Low = [u8; 32];

/// What `q` is less than `c`.
const OFFSET: f64 = 128.0;
/// What the lower bits count for where they are not read.
const MIDDLE: f64 = 1.5;

/// Inputs, scales and norms are below this, so that no bound and no logit overflows.
const LARGEST: f32 = 1e15;

/// An int8 copy of a head, with what bounds its error.
#[derive(Debug)]
pub struct Screen {
    cols: usize,
    stride: usize,
    // (rows, stride / 128) High
    high: AlignedBytes,
    // (rows, stride / 128) Low
    low: AlignedBytes,
    // (rows): s
    scales: Vec<f32>,
    // (rows): at least ‖e‖
    errors: Vec<f32>,
    // (rows): at least ‖e'‖
    coarse_errors: Vec<f32>,
    // (rows): at least ‖s q‖
    norms: Vec<f32>,
}

/// Some rows of a [`Screen`], for writing.
#[derive(Debug)]
pub struct ScreenRows<'a> {
    /// `(rows, stride / 128)` blocks.
    pub high: &'a mut [High],
    /// `(rows, stride / 128)` blocks.
    pub low: &'a mut [Low],
    /// `s`.
    pub scales: &'a mut [f32],
    /// At least ‖w − s q‖.
    pub errors: &'a mut [f32],
    /// At least ‖w − s q'‖.
    pub coarse_errors: &'a mut [f32],
    /// At least ‖s q‖.
    pub norms: &'a mut [f32],
}

impl ScreenRows<'_> {
    /// Splits the rows into pieces of `rows`, each row `blocks` long.
    fn chunks(&mut self, rows: usize, blocks: usize) -> impl Iterator<Item = ScreenRows<'_>> {
        self.high
            .chunks_mut(rows * blocks)
            .zip(self.low.chunks_mut(rows * blocks))
            .zip(self.scales.chunks_mut(rows))
            .zip(self.errors.chunks_mut(rows))
            .zip(self.coarse_errors.chunks_mut(rows))
            .zip(self.norms.chunks_mut(rows))
            .map(
                |(((((high, low), scales), errors), coarse_errors), norms)| ScreenRows {
                    high,
                    low,
                    scales,
                    errors,
                    coarse_errors,
                    norms,
                },
            )
    }
}

/// An input in integers, with what bounds its error.
#[derive(Debug, Default)]
pub struct ScreenInput {
    /// `u`, padded with zeros to a row's stride.
    pub codes: Vec<i16>,
    /// The digits of `u`, `(stride)` each: `u = 128 a + b` with `a` first, and `|b| ≤ 64`.
    pub digits: [Vec<i8>; 2],
    // The sum of `u`
    sum: f64,
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
    /// `h·u`.
    pub sums: &'a mut [i32],
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
        let blocks = stride / PADDING;
        let mut screen = Self {
            cols: head.cols,
            stride,
            high: AlignedBytes::for_weights(head.rows * blocks * size_of::<High>()),
            low: AlignedBytes::for_weights(head.rows * blocks * size_of::<Low>()),
            scales: vec![0.0; head.rows],
            errors: vec![0.0; head.rows],
            coarse_errors: vec![0.0; head.rows],
            norms: vec![0.0; head.rows],
        };
        let per_part = head.rows.div_ceil(pool.threads()).max(1);
        let mut all = ScreenRows {
            high: bytemuck::cast_slice_mut(screen.high.as_mut_slice()),
            low: bytemuck::cast_slice_mut(screen.low.as_mut_slice()),
            scales: &mut screen.scales,
            errors: &mut screen.errors,
            coarse_errors: &mut screen.coarse_errors,
            norms: &mut screen.norms,
        };
        let mut parts: Vec<_> = all.chunks(per_part, blocks).collect();
        let row_bytes = head.dtype.row_bytes(head.cols);
        pool.run(&mut parts, |nth, part| {
            let mut first = nth * per_part;
            for mut rows in part.chunks(ROWS, blocks) {
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
        let all_bounded = bounded(&screen.scales)
            && bounded(&screen.errors)
            && bounded(&screen.coarse_errors)
            && bounded(&screen.norms);
        all_bounded.then_some(screen)
    }

    /// Returns the bytes of the copy and its bounds.
    pub fn bytes(&self) -> usize {
        self.high.len() + self.low.len() + 4 * 4 * self.scales.len()
    }

    /// Returns the bytes that are read for every input; the lower bits of the rows that these leave
    /// come on top.
    pub fn streamed_bytes(&self) -> usize {
        self.bytes() - self.low.len()
    }

    /// Returns the upper bits of a row's codes.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn high(&self, row: usize) -> &[High] {
        let blocks = self.stride / PADDING;
        &bytemuck::cast_slice(&self.high)[row * blocks..][..blocks]
    }

    /// Returns the lower bits of a row's codes.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(crate) fn low(&self, row: usize) -> &[Low] {
        let blocks = self.stride / PADDING;
        &bytemuck::cast_slice(&self.low)[row * blocks..][..blocks]
    }

    /// Bounds logits by `h·u`.
    #[expect(clippy::inline_always, reason = "compiled for the ISA of each kernel")]
    #[inline(always)]
    pub(crate) fn bound(&self, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        let n = bounds.sums.len();
        let rows = bounds.first..bounds.first + n;
        let scales = &self.scales[rows.clone()];
        let errors = &self.errors[rows.clone()];
        let coarse_errors = &self.coarse_errors[rows.clone()];
        let norms = &self.norms[rows];
        let (lower, upper) = (&mut bounds.lower[..n], &mut bounds.upper[..n]);
        let constant = (OFFSET - MIDDLE) * input.sum;
        for i in 0..n {
            let sum = 4.0 * f64::from(bounds.sums[i]) - constant;
            let value = sum as f32 * input.unit * scales[i];
            let norm = norms[i] + (errors[i] + coarse_errors[i]);
            let error = coarse_errors[i] * input.error_weight + norm * input.norm_weight;
            lower[i] = value - error;
            upper[i] = value + error;
        }
    }

    /// Returns the bounds of a row's logit, given `h·u` and `l·u`.
    fn narrow_bounds(&self, row: usize, sums: [i32; 2], input: &ScreenInput) -> (f32, f32) {
        let [high, low] = sums.map(f64::from);
        let sum = 4.0 * high + low - OFFSET * input.sum;
        let value = sum as f32 * input.unit * self.scales[row];
        let error = self.errors[row] * input.error_weight + self.norms[row] * input.norm_weight;
        (value - error, value + error)
    }
}

/// Returns the greatest magnitude of an input's integer that keeps every sum of `stride` products
/// with six bits in i32, and its digits in int8.
fn largest_code(stride: usize) -> i32 {
    const OF_DIGITS: i32 = 127 * 128;
    let largest = i32::MAX as usize / (63 * stride.max(1));
    i32::try_from(largest).map_or(0, |largest| largest.min(OF_DIGITS))
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
        let (mut norm, mut rest, mut sum) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (code, &x) in self.codes.iter_mut().zip(x) {
            let rounded = (x / self.unit).round_ties_even().clamp(-largest, largest);
            *code = rounded as i16;
            let (x, unit) = (f64::from(x), f64::from(self.unit));
            norm += x * x;
            rest += (x - unit * f64::from(rounded)).powi(2);
            sum += f64::from(rounded);
        }
        self.sum = sum;
        let upper = |code: i16| (code + 64) >> 7;
        let codes = self.codes.iter();
        let [a, b] = &mut self.digits;
        a.clear();
        a.extend(codes.clone().map(|&code| upper(code) as i8));
        b.clear();
        b.extend(codes.map(|&code| (code - (upper(code) << 7)) as i8));
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
    // (rows): h·u
    sums: Vec<i32>,
    // (rows)
    lower: Vec<f32>,
    // (rows)
    upper: Vec<f32>,
    // One for each thread: its greatest lower bounds, ascending.
    greatest: Vec<Vec<f32>>,
    // Of the rows that the upper bits leave: l·u, and the narrower bounds.
    low_sums: Vec<i32>,
    narrow: Vec<(f32, f32)>,
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
        debug_assert_eq!(x.len(), screen.cols);
        self.input.set(screen, x)?;
        self.greatest.resize_with(pool.threads(), Vec::new);
        self.bound_all(screen, kernel, pool, k);
        let least = self.kth_greatest(k);
        self.rows.clear();
        let reaching = self
            .upper
            .iter()
            .zip(0..)
            .filter(|(upper, _)| **upper >= least);
        self.rows.extend(reaching.map(|(_, row)| row));
        self.bound_narrowly(screen, kernel, pool, k);
        let least = self.kth_greatest(k);
        let mut narrow = self.narrow.iter();
        self.rows
            .retain(|_| narrow.next().is_some_and(|(_, upper)| *upper >= least));
        Some(())
    }

    /// Bounds all logits by the upper bits.
    fn bound_all(&mut self, screen: &Screen, kernel: &dyn Kernel, pool: &mut ThreadPool, k: usize) {
        struct Part<'a> {
            bounds: Bounds<'a>,
            greatest: &'a mut Vec<f32>,
        }
        let n_rows = screen.scales.len();
        self.sums.resize(n_rows, 0);
        self.lower.resize(n_rows, 0.0);
        self.upper.resize(n_rows, 0.0);
        let ends = threads::ends(n_rows, pool.threads(), 16);
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(pool.threads());
        let mut sums = &mut self.sums[..];
        let (mut lower, mut upper, mut first) = (&mut self.lower[..], &mut self.upper[..], 0);
        for (end, greatest) in ends.zip(&mut self.greatest) {
            let n = end - first;
            let bounds = Bounds {
                first,
                sums: sums.split_off_mut(..n).expect("a sum for each row"),
                lower: lower.split_off_mut(..n).expect("a bound for each row"),
                upper: upper.split_off_mut(..n).expect("a bound for each row"),
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
    }

    /// Bounds the logits of `rows` by all bits.
    fn bound_narrowly(
        &mut self,
        screen: &Screen,
        kernel: &dyn Kernel,
        pool: &mut ThreadPool,
        k: usize,
    ) {
        struct Part<'a> {
            rows: &'a [u32],
            low_sums: &'a mut [i32],
            narrow: &'a mut [(f32, f32)],
            greatest: &'a mut Vec<f32>,
        }
        let n_rows = self.rows.len();
        self.low_sums.clear();
        self.low_sums.resize(n_rows, 0);
        self.narrow.clear();
        self.narrow.resize(n_rows, (0.0, 0.0));
        self.greatest.iter_mut().for_each(Vec::clear);
        let each = n_rows.div_ceil(pool.threads()).max(1);
        let mut parts: Vec<Part<'_>> = self
            .rows
            .chunks(each)
            .zip(self.low_sums.chunks_mut(each))
            .zip(self.narrow.chunks_mut(each))
            .zip(&mut self.greatest)
            .map(|(((rows, low_sums), narrow), greatest)| Part {
                rows,
                low_sums,
                narrow,
                greatest,
            })
            .collect();
        let (input, sums) = (&self.input, &self.sums);
        pool.run(&mut parts, |_, part| {
            kernel.screen_low(screen, input, part.rows, part.low_sums);
            let low_sums = part.rows.iter().zip(&*part.low_sums);
            for ((&row, &low), bounds) in low_sums.zip(&mut *part.narrow) {
                let row = row as usize;
                *bounds = screen.narrow_bounds(row, [sums[row], low], input);
                keep_greatest(part.greatest, bounds.0, k);
            }
        });
    }

    /// Returns the `k`th greatest of the lower bounds that were seen.
    fn kth_greatest(&self, k: usize) -> f32 {
        let mut all: Vec<f32> = self.greatest.concat();
        all.sort_unstable_by(|a, b| b.total_cmp(a));
        all.get(k - 1).copied().unwrap_or(f32::NEG_INFINITY)
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
