//! Kernels for x86-64: AVX2 with FMA and F16C.

mod avx2;
mod ternary;

pub(super) use avx2::Avx2;
