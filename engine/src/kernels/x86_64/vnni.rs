//! What the kernels with `vpdpbusd` share: it multiplies unsigned by signed bytes and adds four
//! products to an i32, so that no sum is ever narrow.
//!
//! AVX-512 VNNI and AVX-VNNI encode it differently; on 256 bits it is the same instruction.

use std::arch::x86_64::__m256i;

pub(super) mod bounds;
mod rounded;

/// An ISA with `vpdpbusd` on 256 bits. A value of the type proves that the CPU has it, and AVX2, FMA
/// and F16C.
pub(super) trait Vnni: Copy {
    /// Adds to each lane the products of four unsigned codes and four signed values.
    fn add_products(self, sums: __m256i, codes: __m256i, values: __m256i) -> __m256i;
}
