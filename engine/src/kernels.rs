//! The inner loops: ternary and dense products, attention, and the element-wise steps between them.
//!
//! # One result on every machine
//! Every kernel gives bit-equal results, whatever its ISA, the number of threads, the number of
//! tokens in a pass and how a prompt was cut into passes. That holds because:
//! - ternary products are exact integers in `i32`, rescaled by `rescale` in one order, whether they
//!   were multiplied or looked up in tables of exact sums;
//! - a float dot product is summed by 16 lanes: lane `j` takes the elements `j, j + 16, …` in turn
//!   with fused multiply-add, the tail padded with zeros to a multiple of 16, and the lanes are
//!   folded by the tree 16 → 8 → 4 → 2 → 1 (lane `j` with lane `j + half`);
//! - weighted sums of values (attention) take the keys in order, with fused multiply-add;
//! - every other float step is one piece of code (`kernels/float.rs`) compiled once per ISA. Rust
//!   neither reorders nor contracts float operations, so the compiler may only change its speed.
//!
//! With [`Numerics::Fast`](crate::engine::Numerics) products of block formats have an order of their
//! own (`kernels/rounded.rs`), which is that of every kernel, too.
//!
//! Kernels that look up rounded sums (their names end with `-int8`) are the one exception: they are
//! bit-equal among themselves.
//!
//! `kernels/reference.rs` is the specification in plain loops; the tests hold every other kernel
//! to it.
#![expect(
    unsafe_code,
    reason = "SIMD loads, and calls of functions whose CPU features a kernel's existence proves"
)]
#![expect(
    clippy::inline_always,
    reason = "the shared loops must be compiled inside each ISA's entry points"
)]
#![expect(
    clippy::needless_range_loop,
    reason = "tiles are unrolled by index; a closure would lack the ISA's features and be called"
)]

use std::fmt;

use crate::{
    lookup::LookupMatrix,
    screen::{Bounds, Screen, ScreenInput, ScreenRows},
    weights::{DenseMatrix, TernaryMatrix},
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod activations;
mod attention;
#[cfg(test)]
mod bench;
mod columns;
mod dense;
pub(crate) mod float;
mod isa;
mod log_sum;
mod lookup;
mod names;
mod peak;
mod reference;
pub(crate) mod rounded;
mod screen;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod ternary;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub(crate) use activations::SCALE_BLOCK;
pub use activations::{Activations, QuantizedRow};
pub use attention::AttentionHead;
pub use columns::Columns;
pub use log_sum::ExpSum;
pub use lookup::{Tables, TablesRow};
pub use names::{KernelChoice, KernelError, names};
pub(crate) use reference::widen;
pub use rounded::{RoundedGroup, RoundedInput};

/// The numeric work of a forward pass, for one ISA.
///
/// Matrices of activations are `(tokens, width)`, row-major. No method allocates for one token.
pub trait Kernel: fmt::Debug + Send + Sync {
    /// Returns the kernel's name, `{arch}-{feature}` or `reference`.
    fn name(&self) -> &'static str;

    /// Computes `out = W x` for the rows in `out.range()` and every token of `input`.
    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>);

    /// Makes the tables of one token of `input`.
    fn make_tables(&self, input: &Activations, row: TablesRow<'_>) {
        lookup::make(input, row);
    }

    /// Computes `out = W x` for the rows in `out.range()` and every token that has tables.
    ///
    /// # Panics
    /// If the weights are packed for other tables.
    fn look_up(&self, weights: &LookupMatrix, tables: &Tables, out: &mut Columns<'_>) {
        lookup::product_in_order(weights, tables, out);
    }

    /// Computes `out = W x` for the rows in `out.range()`; `input` is `(tokens, cols)`.
    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>);

    /// Computes `out[i] = W[rows[i]] x`, as [`dense`](Self::dense) does; `input` is `(cols)`.
    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]);

    /// Rounds one token to int8, each 32 values by their absolute maximum, for
    /// [`dense_rounded`](Self::dense_rounded).
    fn round(&self, input: &[f32], out: &mut [RoundedGroup]) {
        rounded::round(input, out);
    }

    /// Computes `out = W x` for the rows in `out.range()` and every token of a rounded input.
    ///
    /// # Panics
    /// If the matrix is of plain floats.
    fn dense_rounded(&self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        rounded::product_in_order(weights, input, out);
    }

    /// Makes rows of a screened head's int8 copy, from row `first` of `head` on.
    fn screen_rows(&self, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
        screen::quantize_rows_in_order(head, first, out);
    }

    /// Bounds the logits of some rows of a screened head by the upper bits of its codes.
    fn screen(&self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        screen::screen_in_order(screen, input, bounds);
    }

    /// Computes `l·u` of some rows of a screened head.
    fn screen_low(&self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        screen::low_in_order(screen, input, rows, sums);
    }

    /// Computes softmax attention of one token's query heads over one key/value head.
    ///
    /// `scores` is scratch, `(group, n_keys)`; `out` is `(group, head_dim)`.
    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]);

    /// Quantizes one token to int8 by its absolute maximum.
    fn quantize(&self, input: &[f32], out: QuantizedRow<'_>);

    /// Computes `out = input / sqrt(mean(input²) + eps) * gain`.
    fn rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]);

    /// Computes `out += input / sqrt(mean(input²) + eps) * gain`.
    fn add_rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        float::add_rms_norm(input, gain, eps, out);
    }

    /// Computes `gate = max(0, gate)² * up`.
    fn relu_squared_mul(&self, gate: &mut [f32], up: &[f32]);

    /// Computes `gate = silu(gate) * up`.
    fn silu_mul(&self, gate: &mut [f32], up: &[f32]);

    /// Computes `gate = gelu(gate) * up`, GELU in its tanh form.
    fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        float::gelu_mul(gate, up);
    }

    /// Finds the greatest logit and sums `e^(logit − max)` of all.
    fn exp_sum(&self, logits: &[f32], out: &mut ExpSum) {
        log_sum::exp_sum(logits, out);
    }

    /// Reads memory and returns the sum of its 8-byte words: a measure of bandwidth.
    fn read(&self, bytes: &[u8]) -> u64 {
        peak::read(bytes)
    }

    /// Multiplies and adds int8 values for some turns, as fast as the instructions of the ternary
    /// product can; returns how many multiply-adds that were.
    fn int8_peak(&self, turns: u64) -> u64 {
        peak::int8(turns)
    }

    /// Multiplies and adds f32 values for some turns, as fast as the instructions of the dense product
    /// can; returns how many multiply-adds that were.
    fn f32_peak(&self, turns: u64) -> u64 {
        peak::f32(turns)
    }
}

/// Rescales an exact ternary product: `((dot − sum) / act_scale) * weight_scale`, in this order.
///
/// `dot` is the sum of code × activation and `sum` that of the activations, as codes are trits + 1.
#[inline(always)]
pub(crate) fn rescale(dot: i32, sum: i32, act_scale: f32, weight_scale: f32) -> f32 {
    (dot - sum) as f32 / act_scale * weight_scale
}

/// Returns every kernel this machine can run, best first; the last is the reference.
pub fn available() -> Vec<Box<dyn Kernel>> {
    fn boxed(kernel: impl Kernel + 'static) -> Box<dyn Kernel> {
        Box::new(kernel)
    }
    [
        #[cfg(target_arch = "x86_64")]
        x86_64::Avx512Vnni::detect().map(boxed),
        #[cfg(target_arch = "x86_64")]
        x86_64::AvxVnniKernel::detect().map(boxed),
        #[cfg(target_arch = "x86_64")]
        x86_64::Avx2Kernel::detect().map(boxed),
        #[cfg(target_arch = "aarch64")]
        aarch64::I8mmKernel::detect().map(boxed),
        #[cfg(target_arch = "aarch64")]
        aarch64::DotprodKernel::detect().map(boxed),
        #[cfg(target_arch = "aarch64")]
        aarch64::NeonKernel::detect().map(boxed),
        Some(boxed(reference::Reference)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the kernels that tests hold to the reference: all of this machine, itself among them to
/// check the checks; or the one alone that `TRITMARK_EXPECT_KERNEL` names.
///
/// # Panics
/// If this machine lacks the kernel named.
#[cfg(test)]
pub(crate) fn tested() -> Vec<Box<dyn Kernel>> {
    expected().map_or_else(available, |kernel| vec![kernel])
}

/// As [`tested`], with a kernel whose instruction this CPU lacks and tests emulate. An engine cannot
/// be had with it.
///
/// # Panics
/// If this machine lacks the kernel named.
#[cfg(test)]
pub(crate) fn tested_or_emulated() -> Vec<Box<dyn Kernel>> {
    let all = || available().into_iter().chain(emulated()).collect();
    expected().map_or_else(all, |kernel| vec![kernel])
}

/// Returns the kernel that `TRITMARK_EXPECT_KERNEL` names.
#[cfg(test)]
fn expected() -> Option<Box<dyn Kernel>> {
    let name = std::env::var("TRITMARK_EXPECT_KERNEL").ok()?;
    let choice: KernelChoice = name.parse().expect("the expected kernel exists");
    Some(choice.kernel().expect("the expected kernel is here"))
}

#[cfg(test)]
fn emulated() -> Option<Box<dyn Kernel>> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]
    if x86_64::AvxVnniKernel::detect().is_none() {
        return Some(Box::new(x86_64::AvxVnniKernel::emulated()?));
    }
    None
}
