//! Kernels for 64-bit ARM: NEON, and the int8 dot products of `dotprod` (ARMv8.2) and `i8mm`
//! (ARMv8.6).
//!
//! The three differ in their products of int8, ternary and rounded; their float work is NEON's, which every 64-bit
//! ARM CPU has and which is compiled into all code for it.

use std::fmt;

use super::{
    Activations, AttentionHead, Columns, Kernel, QuantizedRow, RoundedInput, attention, dense,
    float, peak as peak_in_loops, ternary::TernaryIsa,
};
use crate::{
    screen::{Bounds, Screen, ScreenInput, ScreenRows},
    weights::{DenseMatrix, TernaryMatrix},
};

mod bounds;
mod codes;
mod dotprod;
mod i8mm;
mod lanes;
mod neon;
mod peak;
mod rounded;

use lanes::Neon;

/// NEON alone: Cortex-A53, A57, A72 and A73 (Raspberry Pi 3 and 4, AWS Graviton 1).
pub(super) type NeonKernel = Arm<Neon>;
/// With `sdot`: Cortex-A55, A75, A76 and Neoverse N1 (Raspberry Pi 5, AWS Graviton 2), Apple M1.
pub(super) type DotprodKernel = Arm<dotprod::Dotprod>;
/// With `smmla`: Cortex-A510, A710, Neoverse N2, V1 and V2 (AWS Graviton 3 and 4), Apple M2.
pub(super) type I8mmKernel = Arm<i8mm::I8mm>;

/// The products of one level of the instruction set in which int8 meets int8.
pub(super) trait Level: TernaryIsa + fmt::Debug + Send + Sync {
    /// The kernel's name.
    const NAME: &'static str;

    /// Returns the level if this CPU has it.
    fn detect() -> Option<Self>;

    /// Computes `out = W x`, in the tiles that suit the level.
    fn product(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>);

    /// Multiplies by rounded inputs; see [`Kernel::dense_rounded`].
    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>);

    /// Multiplies and adds for some turns as the tiles do; see [`Kernel::int8_peak`].
    fn int8_peak(self, turns: u64) -> u64;
}

/// A kernel: NEON's lanes for floats, and a level for int8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arm<L> {
    lanes: Neon,
    level: L,
}

impl<L: Level> Arm<L> {
    /// Returns the kernel if this CPU can run it.
    pub(super) fn detect() -> Option<Self> {
        Some(Self {
            lanes: Neon::detect()?,
            level: L::detect()?,
        })
    }
}

impl<L: Level> Kernel for Arm<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        self.level.product(weights, input, out);
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        // 24 sums, 6 tokens and a row: 31 of 32 registers.
        dense::product::<_, 4, 6>(self.lanes, weights, input, out);
    }

    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
        dense::some_rows(self.lanes, weights, rows, input, out);
    }

    fn dense_rounded(&self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        self.level.dense_rounded(weights, input, out);
    }

    fn screen_rows(&self, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
        dense::screen_rows(self.lanes, head, first, out);
    }

    fn screen(&self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        // SAFETY: `lanes` can only come from `detect`.
        unsafe { bounds::of_rows(screen, input, bounds) }
    }

    fn screen_low(&self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        // SAFETY: `lanes` can only come from `detect`.
        unsafe { bounds::low_of_rows(screen, input, rows, sums) }
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        attention::attend(self.lanes, head, scores, out);
    }

    fn quantize(&self, input: &[f32], out: QuantizedRow<'_>) {
        float::quantize(input, out);
    }

    fn rms_norm(&self, input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
        float::rms_norm(input, gain, eps, out);
    }

    fn relu_squared_mul(&self, gate: &mut [f32], up: &[f32]) {
        float::relu_squared_mul(gate, up);
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) {
        float::silu_mul(gate, up);
    }

    fn int8_peak(&self, turns: u64) -> u64 {
        self.level.int8_peak(turns)
    }

    fn f32_peak(&self, turns: u64) -> u64 {
        // 24 of the 32 registers, as the dense product has them.
        peak_in_loops::f32_by::<_, 6>(self.lanes, turns)
    }
}
