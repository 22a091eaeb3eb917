//! Products with rounded inputs by `vpdpbusd`. Signed codes get an offset of 128, so that there are
//! unsigned ones alone; it is taken away from the sums as those of other formats are.

use std::arch::x86_64::{__m256i, _mm256_setzero_si256};

use super::{
    super::{
        super::rounded::{Format, Kind, LANES, RoundedGroup},
        rounded::{Multiply, Products, Unpacked, kind, load_codes, of_blocks},
    },
    Vnni,
};

impl<V: Vnni> Multiply for V {
    const SIGNED: Kind = Kind::Offset(7);

    #[inline(always)]
    fn products<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products {
        let zero = zero(self);
        let mut products = [[zero; LANES / 2]; 2];
        for i in 0..LANES / 2 {
            let [first, last] = weights.codes[i];
            let [x_first, x_last] = [load(self, &x.codes[i][0]), load(self, &x.codes[i][1])];
            products[0][i] = self.add_products(zero, first, x_first);
            if is_halved::<V, F>() {
                products[1][i] = self.add_products(zero, last, x_last);
            } else {
                products[0][i] = self.add_products(products[0][i], last, x_last);
            }
        }
        // SAFETY: `self` proves AVX2.
        let first = unsafe { of_blocks(products[0]) };
        if !is_halved::<V, F>() {
            return [first, zero];
        }
        // SAFETY: `self` proves AVX2.
        [first, unsafe { of_blocks(products[1]) }]
    }

    #[inline(always)]
    fn products_by_fours<F: Format>(self, weights: &Unpacked, x: &RoundedGroup) -> Products {
        let (codes, x) = (weights.codes.as_flattened(), x.codes.as_flattened());
        let mut halves = [zero(self); 2];
        for i in 0..LANES {
            let half = if is_halved::<V, F>() { i / 4 } else { 0 };
            halves[half] = self.add_products(halves[half], codes[i], load(self, &x[i]));
        }
        halves
    }
}

/// Returns whether the halves of blocks have scales of their own.
const fn is_halved<V: Vnni, F: Format>() -> bool {
    matches!(kind::<V, F>(), Kind::Halves)
}

#[inline(always)]
fn zero(_: impl Vnni) -> __m256i {
    // SAFETY: the argument proves AVX2.
    unsafe { _mm256_setzero_si256() }
}

#[inline(always)]
fn load(_: impl Vnni, codes: &[[i8; 16]; 2]) -> __m256i {
    // SAFETY: the argument proves AVX2.
    unsafe { load_codes(codes) }
}
