//! AVX-VNNI: `vpdpbusd` of 256 bits without AVX-512, in Intel's PCs since Alder Lake (2021) and
//! servers of small cores since Sierra Forest (2024). CPUs that have both run AVX-512.
//!
//! No CPU that has it was at hand: tests run it where the CPU lacks the instruction, which
//! [`emulator`] then executes. How fast it is has not been measured.

use std::arch::x86_64::{__m256i, _mm256_dpbusd_avx_epi32};

use super::{
    super::{Activations, Columns, RoundedInput, rounded, ternary},
    Level,
    avx2::Avx2,
    peak,
    vnni::{Vnni, bounds},
};
use crate::{
    screen::{Bounds, Screen, ScreenInput},
    weights::{DenseMatrix, TernaryMatrix},
};

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod emulator;
mod trits;

/// The level AVX-VNNI; exists only where `detect` saw it and AVX2.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AvxVnni {
    avx2: Avx2,
}

impl AvxVnni {
    /// Returns the level where the CPU has all but `vpdpbusd`, which is emulated from then on.
    #[cfg(all(test, target_os = "linux", target_env = "gnu"))]
    pub(super) fn emulated() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        emulator::install();
        Some(Self { avx2 })
    }
}

impl Level for AvxVnni {
    const NAME: &'static str = "x86_64-avxvnni";

    fn detect() -> Option<Self> {
        let avx2 = Avx2::detect()?;
        is_x86_feature_detected!("avxvnni").then_some(Self { avx2 })
    }

    fn ternary(self, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        fn run(isa: AvxVnni, weights: &TernaryMatrix, input: &Activations, out: &mut Columns<'_>) {
            // 12 sums, 3 tokens and a row: the 16 registers.
            ternary::product::<_, 3>(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn dense_rounded(self, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        fn run(isa: AvxVnni, weights: &DenseMatrix, input: &RoundedInput, out: &mut Columns<'_>) {
            rounded::product(isa, weights, input, out);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, weights, input, out) }
    }

    fn screen(self, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        fn run(isa: AvxVnni, screen: &Screen, input: &ScreenInput, bounds: &mut Bounds<'_>) {
            bounds::of_rows(isa, screen, input, bounds);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, screen, input, bounds) }
    }

    fn screen_low(self, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
        #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
        fn run(isa: AvxVnni, screen: &Screen, input: &ScreenInput, rows: &[u32], sums: &mut [i32]) {
            bounds::low_of_rows(isa, screen, input, rows, sums);
        }
        // SAFETY: `self` can only come from `detect`.
        unsafe { run(self, screen, input, rows, sums) }
    }

    fn int8_peak(self, turns: u64) -> u64 {
        // SAFETY: `self` can only come from `detect`.
        unsafe { peak::avxvnni(turns) }
    }
}

impl Vnni for AvxVnni {
    #[inline(always)]
    fn add_products(self, sums: __m256i, codes: __m256i, values: __m256i) -> __m256i {
        // SAFETY: `self` can only come from `detect`.
        unsafe { _mm256_dpbusd_avx_epi32(sums, codes, values) }
    }
}
