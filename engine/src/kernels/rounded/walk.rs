//! How SIMD kernels walk over blocks, tokens and rows.
//!
//! One token reads rows one after the other, a single stream: with four abreast a product of `Q4_0`
//! reached two thirds of that speed (AVX2, Zen 3). Several tokens meet four rows at a time, of which
//! each group is unpacked once.

use super::{
    super::Columns,
    RoundedGroup, RoundedInput,
    formats::{Format, Q4_0, Q4K, Q5_0, Q5K, Q6K, Q8_0},
};
use crate::weights::{DenseMatrix, DenseType};

/// Rows of a tile.
pub(in super::super) const ABREAST: usize = 4;

/// Tokens whose lanes stay in L1.
const PASS: usize = 64;

/// The products of one ISA. A value of the type proves that the CPU has it.
pub(in super::super) trait RoundedIsa: Copy {
    /// Eight lanes.
    type Lanes: Copy;
    /// Eight blocks of a row, as one token meets them.
    type Unpacked: Copy;
    /// Eight blocks of a row, as several tokens meet them.
    type Tiled: Copy;

    /// Returns zeros.
    fn zero(self) -> Self::Lanes;
    /// Folds the lanes: 8 → 4 → 2 → 1, lane `j` with lane `j + half`.
    fn fold(self, lanes: Self::Lanes) -> f32;
    /// Asks for the memory behind a group that is read in a stream.
    fn prefetch(self, group: &[u8]);

    /// Unpacks a group for one token.
    fn unpack<F: Format>(self, group: &F::Group) -> Self::Unpacked;
    /// Adds the products with one token's group.
    fn add<F: Format>(
        self,
        lanes: Self::Lanes,
        weights: &Self::Unpacked,
        x: &RoundedGroup,
    ) -> Self::Lanes;

    /// Brings the codes of some tokens' groups into the order in which tiles read them.
    fn lay_out(self, groups: &mut [RoundedGroup]);
    /// Unpacks a group for several tokens.
    fn unpack_tiled<F: Format>(self, group: &F::Group) -> Self::Tiled;
    /// Adds the products of `R` rows with several tokens; `lanes` is `(tokens, R)`.
    fn add_tiled<F: Format, const R: usize>(
        self,
        lanes: &mut [[Self::Lanes; R]],
        weights: &[Self::Tiled; R],
        x: &[RoundedGroup],
    );
}

/// Computes the rows of `out.range()` for every token.
///
/// # Panics
/// If the matrix is of plain floats.
#[inline(always)]
pub(in super::super) fn product<I: RoundedIsa>(
    isa: I,
    weights: &DenseMatrix,
    input: &RoundedInput,
    out: &mut Columns<'_>,
) {
    match weights.dtype {
        DenseType::Q8_0 => rows::<I, Q8_0>(isa, weights, input, out),
        DenseType::Q4_0 => rows::<I, Q4_0>(isa, weights, input, out),
        DenseType::Q5_0 => rows::<I, Q5_0>(isa, weights, input, out),
        DenseType::Q4K => rows::<I, Q4K>(isa, weights, input, out),
        DenseType::Q5K => rows::<I, Q5K>(isa, weights, input, out),
        DenseType::Q6K => rows::<I, Q6K>(isa, weights, input, out),
        DenseType::F32 | DenseType::F16 | DenseType::Bf16 => {
            unreachable!("plain floats meet inputs that are not rounded")
        }
    }
}

#[inline(always)]
fn rows<I: RoundedIsa, F: Format>(
    isa: I,
    weights: &DenseMatrix,
    input: &RoundedInput,
    out: &mut Columns<'_>,
) {
    if out.tokens() == 0 {
        return;
    }
    if out.tokens() == 1 {
        let x = input.token(0);
        let rows = out.range();
        for (out, row) in out.token(0).iter_mut().zip(rows) {
            *out = dot::<I, F>(isa, weights.row(row), x);
        }
        return;
    }
    let range = out.range();
    let n_groups = input.token(0).len();
    // (groups, tokens)
    let mut laid_out = Vec::with_capacity(n_groups * PASS.min(out.tokens()));
    for start in (0..out.tokens()).step_by(PASS) {
        let tokens = start..out.tokens().min(start + PASS);
        laid_out.clear();
        for g in 0..n_groups {
            laid_out.extend(tokens.clone().map(|t| input.token(t)[g]));
        }
        for groups in laid_out.chunks_exact_mut(tokens.len()) {
            isa.lay_out(groups);
        }
        let mut row = range.start;
        while row + ABREAST <= range.end {
            let mut rows = [&[][..]; ABREAST];
            for r in 0..ABREAST {
                rows[r] = weights.row(row + r);
            }
            tile::<I, F, ABREAST>(isa, rows, &laid_out, tokens.len(), |r, t, y| {
                out.set(start + t, row + r, y);
            });
            row += ABREAST;
        }
        while row < range.end {
            let rows = [weights.row(row)];
            tile::<I, F, 1>(isa, rows, &laid_out, tokens.len(), |_, t, y| {
                out.set(start + t, row, y);
            });
            row += 1;
        }
    }
}

/// The dot product of a row with one token.
#[inline(always)]
fn dot<I: RoundedIsa, F: Format>(isa: I, row: &[u8], x: &[RoundedGroup]) -> f32 {
    let (groups, rest) = F::groups(row);
    let mut lanes = isa.zero();
    let (whole, last) = x.split_at(groups.len());
    for (group, x) in groups.iter().zip(whole) {
        isa.prefetch(group.as_ref());
        lanes = isa.add::<F>(lanes, &isa.unpack::<F>(group), x);
    }
    if let [x] = last {
        lanes = isa.add::<F>(lanes, &isa.unpack::<F>(&F::padded(rest)), x);
    }
    isa.fold(lanes)
}

/// Dot products of `R` rows with the tokens of a pass, `(groups, tokens)` as laid out; each is told
/// of its row and token.
#[inline(always)]
fn tile<I: RoundedIsa, F: Format, const R: usize>(
    isa: I,
    rows: [&[u8]; R],
    x: &[RoundedGroup],
    n_tokens: usize,
    mut each: impl FnMut(usize, usize, f32),
) {
    let mut split = [(&[][..], &[][..]); R];
    for r in 0..R {
        split[r] = F::groups(rows[r]);
    }
    let mut lanes = [[isa.zero(); R]; PASS];
    let lanes = &mut lanes[..n_tokens];
    for (g, x) in x.chunks_exact(n_tokens).enumerate() {
        let mut unpacked = [unpack_nth::<I, F>(isa, split[0], g); R];
        for r in 1..R {
            unpacked[r] = unpack_nth::<I, F>(isa, split[r], g);
        }
        isa.add_tiled::<F, R>(lanes, &unpacked, x);
    }
    for (t, lanes) in lanes.iter().enumerate() {
        for r in 0..R {
            each(r, t, isa.fold(lanes[r]));
        }
    }
}

/// Unpacks a group for several tokens, one that is not whole filled up with zeros.
#[inline(always)]
fn unpack_nth<I: RoundedIsa, F: Format>(
    isa: I,
    (groups, rest): (&[F::Group], &[u8]),
    nth: usize,
) -> I::Tiled {
    let last;
    let group = if let Some(group) = groups.get(nth) {
        group
    } else {
        last = F::padded(rest);
        &last
    };
    isa.unpack_tiled::<F>(group)
}
