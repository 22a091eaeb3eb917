//! Sixteen float lanes of one ISA, over which the dense product and attention are written once.

use half::f16;

use super::{dense, float::LANES};

/// Operations on 16 float lanes. A value of the type proves that the CPU has the ISA.
pub(super) trait Isa: Copy {
    /// Sixteen floats in registers.
    type Lanes: Copy;
    /// Lanes of one register.
    const PART: usize;

    /// Returns zeros.
    fn zero(self) -> Self::Lanes;
    /// Returns `value` in every lane.
    fn splat(self, value: f32) -> Self::Lanes;
    /// Reads 16 floats.
    fn load(self, values: &[f32; LANES]) -> Self::Lanes;
    /// Writes 16 floats.
    fn store(self, lanes: Self::Lanes, values: &mut [f32; LANES]);
    /// Returns `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// Returns `a * b`.
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// Folds the lanes by the tree of [`fold`](super::float::fold).
    fn fold(self, lanes: Self::Lanes) -> f32;
    /// Folds four times 16 lanes, each as [`fold`](Isa::fold) does.
    #[inline(always)]
    fn fold_four(self, lanes: [Self::Lanes; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        for i in 0..4 {
            sums[i] = self.fold(lanes[i]);
        }
        sums
    }
    /// Reads 16 little-endian f32.
    fn load_f32(self, bytes: &[u8; 64]) -> Self::Lanes;
    /// Reads 16 little-endian f16.
    fn load_f16(self, bytes: &[u8; 32]) -> Self::Lanes;
    /// Reads 16 little-endian bf16.
    fn load_bf16(self, bytes: &[u8; 32]) -> Self::Lanes;
    /// Widens one f16, exactly.
    fn half(self, half: f16) -> f32;
    /// Reads 16 int8.
    fn load_i8(self, bytes: &[u8; 16]) -> Self::Lanes;
    /// Reads 16 bytes of two nibbles: the low nibbles − 8, and the high nibbles − 8.
    fn load_nibbles(self, bytes: &[u8; 16]) -> [Self::Lanes; 2];
    /// Adds the products of `R` rows with `T` tokens to their lanes, `(part, R, T, PART)`, or to zeros
    /// where it is the `first` time; both lie as [`dense::tiles`](super::dense::tiles) says.
    fn tile<const R: usize, const T: usize>(
        self,
        rows: &[f32],
        tokens: &[f32],
        first: bool,
        lanes: &mut [f32],
    );
    /// Folds the lanes of a tile, each as [`fold`](Isa::fold) does; returns `(T, R)`.
    #[inline(always)]
    fn fold_tile<const R: usize, const T: usize>(self, lanes: &[f32]) -> [[f32; R]; T] {
        dense::fold_tile(self, lanes)
    }
    /// Asks for the cache line `offset` bytes behind the start of `bytes`; it need not be readable.
    fn prefetch(self, bytes: &[u8], offset: usize);
    /// As [`prefetch`](Isa::prefetch), but not into L1: for what is read after other work.
    fn prefetch_l2(self, bytes: &[u8], offset: usize);
}
