//! Kernels for x86-64: AVX2 with FMA and F16C, the same with AVX-VNNI, and AVX-512 with VNNI.

use std::fmt;

use super::{
    Activations, AttentionHead, Columns, Kernel, RoundedInput, Tables, TablesRow, attention, dense,
    lookup,
};
use crate::{
    lookup::LookupMatrix,
    screen::{Bounds, Screen, ScreenInput, ScreenRows},
    weights::{DenseMatrix, TernaryMatrix},
};

/// Implements the steps of [`Kernel`](super::Kernel) that are one piece of code, compiled with a
/// kernel's CPU features.
macro_rules! float_steps {
    ($features:literal) => {
        float_steps! {
            $features:
            log_sum::exp_sum(logits: &[f32], out: &mut $crate::kernels::ExpSum),
            float::quantize(input: &[f32], out: $crate::kernels::QuantizedRow<'_>),
            float::rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]),
            float::add_rms_norm(input: &[f32], gain: &[f32], eps: f32, out: &mut [f32]),
            float::relu_squared_mul(gate: &mut [f32], up: &[f32]),
            float::silu_mul(gate: &mut [f32], up: &[f32]),
            float::gelu_mul(gate: &mut [f32], up: &[f32]),
            rounded::round(input: &[f32], out: &mut [$crate::kernels::RoundedGroup]),
        }
    };
    ($features:literal: $($module:ident::$step:ident($($arg:ident: $type:ty),+),)+) => {
        $(
            fn $step(&self, $($arg: $type),+) {
                #[target_feature(enable = $features)]
                fn run($($arg: $type),+) {
                    $crate::kernels::$module::$step($($arg),+);
                }
                // SAFETY: `self` can only come from `detect`.
                unsafe { run($($arg),+) }
            }
        )+
    };
}

mod avx2;
mod avx512vnni;
mod avxvnni;
mod peak;
mod rounded;
mod vnni;

use avx2::{Avx2, tile};
use avxvnni::AvxVnni;

pub(super) use avx512vnni::Avx512Vnni;

/// AVX2 with FMA and F16C alone: Intel Haswell to Comet Lake, AMD Zen to Zen 3.
pub(super) type Avx2Kernel = Vex<Avx2>;
/// With `vpdpbusd` in AVX's encoding: Intel Alder Lake and Sierra Forest.
pub(super) type AvxVnniKernel = Vex<AvxVnni>;

/// The int8 products of one level of the instruction set.
pub(super) trait Level: Copy + fmt::Debug + Send + Sync {
    /// The kernel's name.
    const NAME: &'static str;

    /// Returns the level if this CPU has it.
    fn detect() -> Option<Self>;

    /// Multiplies ternary weights; see [`Kernel::ternary`].
    fn ternary(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>);

    /// Multiplies by rounded inputs; see [`Kernel::dense_rounded`].
    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>);

    /// Bounds logits; see [`Kernel::screen`].
    fn screen(self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>);

    /// Sums the lower bits of codes; see [`Kernel::screen_low`].
    fn screen_low(self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]);

    /// Multiplies and adds for some turns; see [`Kernel::int8_peak`].
    fn int8_peak(self, turns: u64) -> u64;
}

/// A kernel of 16 registers of 256 bits: AVX2 for floats and look-ups, and a level for int8.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vex<L> {
    isa: Avx2,
    level: L,
}

impl<L: Level> Vex<L> {
    /// Returns the kernel if this CPU can run it.
    pub(super) fn detect() -> Option<Self> {
        Some(Self {
            isa: Avx2::detect()?,
            level: L::detect()?,
        })
    }
}

impl Vex<AvxVnni> {
    /// Returns the kernel where the CPU lacks no more than what is emulated from then on.
    #[cfg(all(test, target_os = "linux", target_env = "gnu"))]
    pub(super) fn emulated() -> Option<Self> {
        Some(Self {
            isa: Avx2::detect()?,
            level: AvxVnni::emulated()?,
        })
    }
}

impl<L: Level> Kernel for Vex<L> {
    fn name(&self) -> &'static str {
        L::NAME
    }

    fn ternary(&self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        self.level.ternary(weights, input, out);
    }

    fn make_tables(&self, input: &Activations, row: TablesRow<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(input: &Activations, row: TablesRow<'_>) {
            lookup::make(input, row);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(input, row) }
    }

    fn look_up(&self, weights: &LookupMatrix, tables: &Tables, out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &LookupMatrix, tables: &Tables, out: &mut Columns<'_>) {
            lookup::product(isa, weights, tables, out);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, weights, tables, out) }
    }

    fn dense(&self, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &DenseMatrix, input: &[f32], out: &mut Columns<'_>) {
            // 12 sums, 3 tokens and a row: the 16 registers.
            dense::product::<_, { tile::ROWS }, { tile::TOKENS }>(isa, weights, input, out);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, weights, input, out) }
    }

    fn dense_rows(&self, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, weights: &DenseMatrix, rows: &[u32], input: &[f32], out: &mut [f32]) {
            dense::some_rows(isa, weights, rows, input, out);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, weights, rows, input, out) }
    }

    fn dense_rounded(&self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        self.level.dense_rounded(weights, input, out);
    }

    fn screen_rows(&self, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, head: &DenseMatrix, first: usize, out: &mut ScreenRows<'_>) {
            dense::screen_rows(isa, head, first, out);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, head, first, out) }
    }

    fn screen(&self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        self.level.screen(screen, input, bounds);
    }

    fn screen_low(&self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        self.level.screen_low(screen, input, rows, sums);
    }

    fn attend(&self, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, head: &AttentionHead<'_>, scores: &mut [f32], out: &mut [f32]) {
            attention::attend(isa, head, scores, out);
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, head, scores, out) }
    }

    float_steps!("avx2,fma,f16c");

    fn read(&self, bytes: &[u8]) -> u64 {
        #[target_feature(enable = "avx2")]
        fn run(bytes: &[u8]) -> u64 {
            super::peak::read(bytes)
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(bytes) }
    }

    fn int8_peak(&self, turns: u64) -> u64 {
        self.level.int8_peak(turns)
    }

    fn f32_peak(&self, turns: u64) -> u64 {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run(isa: Avx2, turns: u64) -> u64 {
            // 12 of the 16 registers.
            super::peak::f32_by::<_, 6>(isa, turns)
        }
        // SAFETY: `isa` can only come from `detect`.
        unsafe { run(self.isa, turns) }
    }
}
