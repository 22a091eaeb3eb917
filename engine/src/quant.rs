//! Codecs of weights: ternary matrices between files' layouts and the run-time one
//! ([`TernaryMatrix`](crate::weights::TernaryMatrix)), ggml's dense blocks, and BitNet's two
//! quantisers.
//!
//! A trit is an `i8` of −1, 0 or 1.

pub mod absmax;
pub mod absmean;
pub mod hf_packed;
pub mod i2_s;
pub mod q4_0;
pub mod q4_k;
pub mod q5_0;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod tq1_0;
pub mod tq2_0;

/// Weights of a TQ1_0 or TQ2_0 block.
pub const TQ_BLOCK: usize = 256;
/// Weights of a Q8_0, Q4_0 or `Q5_0` block.
pub const Q_BLOCK: usize = 32;
/// Weights of a `Q4_K`, `Q5_K` or `Q6_K` block.
pub const K_BLOCK: usize = 256;

/// Returns the two-bit code of a trit.
const fn code(trit: i8) -> u8 {
    (trit + 1).cast_unsigned()
}

/// Returns the trit of a two-bit code.
const fn trit(code: u8) -> i8 {
    code.cast_signed() - 1
}

/// Reads a little-endian f16.
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}
