//! Kernels for x86-64: AVX2 with FMA and F16C, and AVX-512 with VNNI.

mod avx2;
mod avx512vnni;
mod peak;
mod rounded;

pub(super) use avx2::Avx2;
pub(super) use avx512vnni::Avx512Vnni;
