//! What the ternary products of all SIMD kernels share: walking over rows and tokens.
//!
//! One token streams the packed groups of four rows once. Several tokens have a group unpacked to
//! a byte per weight, some columns at a time, which then meets tiles of tokens: the unpacked panel
//! stays in L1, the tokens of one pass in L2.

use super::{Activations, Columns, activations::SCALE_BLOCK, reference, rescale};
use crate::weights::{
    AlignedBytes, TERNARY_BLOCK, TERNARY_GROUP, TernaryGroup, TernaryMatrix, TernaryScale,
};

/// Packed blocks of four rows.
pub(super) type Group<'a> = &'a [TernaryGroup];
/// One unpacked block of four rows, a byte per weight, in the order the ISA likes.
pub(super) type Panel = [u8; TERNARY_GROUP * TERNARY_BLOCK];
/// A block's int8 values of a token.
pub(super) type Block = [i8; TERNARY_BLOCK];
/// A token's int8 values in blocks of 128.
pub(super) type Token<'a> = &'a [Block];
/// Dot products of four rows.
pub(super) type Dots = [i32; TERNARY_GROUP];

/// The integer work of one ISA. A value of the type proves that the CPU has it.
pub(super) trait TernaryIsa: Copy {
    /// Whether tiles read pairs of tokens, as [`interleave`] lays them: `T` is then even.
    const PAIRED: bool;

    /// Dot products of packed codes and activations; both slices are equally long.
    fn dots(self, group: Group<'_>, token: Token<'_>) -> Dots;
    /// Unpacks blocks to panels; both slices are equally long.
    fn unpack(self, group: Group<'_>, panels: &mut [Panel]);
    /// Dot products of unpacked rows with `T` tokens; all slices are equally long.
    fn tile<const T: usize>(self, panels: &[Panel], tokens: [Token<'_>; T]) -> [Dots; T];
}

#[inline(always)]
fn token(input: &Activations, token: usize) -> Token<'_> {
    input.codes(token).as_chunks().0
}

/// Computes the rows of `out.range()` for every token, in tiles of `T` tokens.
#[inline(always)]
pub(super) fn product<I: TernaryIsa, const T: usize>(
    isa: I,
    weights: &TernaryMatrix,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    match &weights.scale {
        TernaryScale::Tensor(scale) if out.tokens() == 1 => {
            one_token(isa, weights, *scale, input, out);
        }
        TernaryScale::Tensor(scale) => tokens::<I, T>(isa, weights, *scale, input, out),
        TernaryScale::Blocks(scales) => block_scales(isa, weights, scales, input, out),
    }
}

#[inline(always)]
fn one_token<I: TernaryIsa>(
    isa: I,
    weights: &TernaryMatrix,
    weight_scale: f32,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    let range = out.range();
    let x = token(input, 0);
    let (scale, sum) = (input.scale(0), input.sum(0));
    for group in range.start / TERNARY_GROUP..range.end.div_ceil(TERNARY_GROUP) {
        let dots = isa.dots(weights.group(group), x);
        let y = dots.map(|dot| rescale(dot, sum, scale, weight_scale));
        write(out, 0, group, &y);
    }
}

#[inline(always)]
fn tokens<I: TernaryIsa, const T: usize>(
    isa: I,
    weights: &TernaryMatrix,
    weight_scale: f32,
    input: &Activations,
    out: &mut Columns<'_>,
) {
    // Blocks of columns in a panel: 512 bytes each, so that it fits in L1 beside the tokens.
    const PANEL: usize = 28;
    // A quarter of a megabyte of int8 values: half of the smallest L2 in use.
    const PASS_BYTES: usize = 256 << 10;
    // More would not spread the work of unpacking much thinner.
    const PASS: usize = 96;
    let range = out.range();
    let n_tokens = out.tokens();
    let stride = input.stride();
    let n_blocks = stride / TERNARY_BLOCK;
    // Stretches of about equal length.
    let n_stretches = n_blocks.div_ceil(PANEL);
    let stretch = n_blocks.div_ceil(n_stretches);
    let mut panels = AlignedBytes::zeroed(stretch * size_of::<Panel>());
    let panels: &mut [Panel] = bytemuck::cast_slice_mut(panels.as_mut_slice());

    let most = (PASS_BYTES / (stretch * TERNARY_BLOCK)).clamp(T, PASS) / T * T;
    // Passes of about equal length, of whole tiles.
    let n_passes = n_tokens.div_ceil(most);
    let pass = n_tokens.div_ceil(n_passes.max(1)).next_multiple_of(T);
    let mut sums = vec![[0; TERNARY_GROUP]; pass.min(n_tokens)];
    let pairs = if I::PAIRED {
        pass.min(n_tokens).div_ceil(2)
    } else {
        0
    };
    let mut pairs = AlignedBytes::zeroed(pairs * 2 * stride);
    let pairs: &mut [Block] = bytemuck::cast_slice_mut(pairs.as_mut_slice());
    for start in (0..n_tokens).step_by(pass) {
        let end = n_tokens.min(start + pass);
        if I::PAIRED {
            let of_pairs = pairs.chunks_exact_mut(2 * n_blocks);
            for (t, pair) in (start..end).step_by(2).zip(of_pairs) {
                // Behind the last token may come itself once more: what is made of it is dropped.
                interleave(token(input, t), token(input, end.min(t + 2) - 1), pair);
            }
        }
        for group in range.start / TERNARY_GROUP..range.end.div_ceil(TERNARY_GROUP) {
            let packed = weights.group(group);
            for first in (0..n_blocks).step_by(stretch) {
                let blocks = first..n_blocks.min(first + stretch);
                let panels = &mut panels[..blocks.len()];
                isa.unpack(&packed[blocks.clone()], panels);
                let mut place = Place {
                    weight_scale,
                    input,
                    group,
                    first_token: start,
                    sums: &mut sums,
                    begun: first > 0,
                    ends: blocks.end == n_blocks,
                    out: &mut *out,
                };
                let mut t = start;
                while t + T <= end {
                    let mut x = [&[][..]; T];
                    for i in 0..T {
                        x[i] = if I::PAIRED {
                            &pairs[(t + i - start) * n_blocks..][blocks.clone()]
                        } else {
                            &token(input, t + i)[blocks.clone()]
                        };
                    }
                    let dots = isa.tile::<T>(panels, x);
                    for i in 0..T {
                        place.put(t + i, dots[i]);
                    }
                    t += T;
                }
                while t < end {
                    if I::PAIRED {
                        let (x, y) = pairs[(t - start) * n_blocks..].split_at(n_blocks);
                        let x = [&x[blocks.clone()], &y[blocks.clone()]];
                        let dots = isa.tile::<2>(panels, x);
                        for (t, dots) in (t..end).zip(dots) {
                            place.put(t, dots);
                        }
                        t += 2;
                    } else {
                        let [dots] = isa.tile::<1>(panels, [&token(input, t)[blocks.clone()]]);
                        place.put(t, dots);
                        t += 1;
                    }
                }
            }
        }
    }
}

/// Where the dot products of a group of rows go, stretch by stretch.
struct Place<'a, 'b> {
    weight_scale: f32,
    input: &'a Activations,
    group: usize,
    /// Token of the first of `sums`.
    first_token: usize,
    /// What earlier stretches have yielded.
    sums: &'a mut [Dots],
    begun: bool,
    /// Whether this is the last stretch.
    ends: bool,
    out: &'a mut Columns<'b>,
}

impl Place<'_, '_> {
    /// Adds a token's dot products; after the last stretch they are rescaled and written.
    #[inline(always)]
    fn put(&mut self, token: usize, mut dots: Dots) {
        if !(self.begun || self.ends) {
            self.sums[token - self.first_token] = dots;
            return;
        }
        if self.begun {
            let sums = &mut self.sums[token - self.first_token];
            for r in 0..TERNARY_GROUP {
                dots[r] += sums[r];
            }
            if !self.ends {
                *sums = dots;
                return;
            }
        }
        let (scale, sum) = (self.input.scale(token), self.input.sum(token));
        let y = dots.map(|dot| rescale(dot, sum, scale, self.weight_scale));
        write(self.out, token, self.group, &y);
    }
}

/// Lays two tokens as tiles of pairs read them: eight values of one, then of the other, in turn.
///
/// Of each block the first token's place then holds the first 64 values of both, and the second's
/// the last 64, so that a stretch of columns is the same stretch of either.
fn interleave(first: Token<'_>, second: Token<'_>, pair: &mut [Block]) {
    let (low, high) = pair.split_at_mut(first.len());
    for (((a, b), low), high) in first.iter().zip(second).zip(low).zip(high) {
        let both = [low, high]
            .into_iter()
            .flat_map(|x| x.as_chunks_mut::<16>().0);
        let eights = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
        for (both, (a, b)) in both.zip(eights) {
            both[..8].copy_from_slice(a);
            both[8..].copy_from_slice(b);
        }
    }
}

/// Writes the results of a group's rows that lie within the output.
#[inline(always)]
fn write(out: &mut Columns<'_>, token: usize, group: usize, y: &[f32; TERNARY_GROUP]) {
    let range = out.range();
    let first = group * TERNARY_GROUP;
    let out = out.token(token);
    if first >= range.start && first + TERNARY_GROUP <= range.end {
        out[first - range.start..][..TERNARY_GROUP].copy_from_slice(y);
    } else {
        for (r, &y) in y.iter().enumerate() {
            if range.contains(&(first + r)) {
                out[first + r - range.start] = y;
            }
        }
    }
}

/// Blocks with scales of their own: an exact sum each, combined in f32 as the reference does.
#[inline(always)]
fn block_scales<I: TernaryIsa>(
    isa: I,
    weights: &TernaryMatrix,
    scales: &[f32],
    input: &Activations,
    out: &mut Columns<'_>,
) {
    const PACKED: usize = SCALE_BLOCK / TERNARY_BLOCK;
    let range = out.range();
    let n_blocks = weights.cols.div_ceil(SCALE_BLOCK);
    let mut dots = vec![[0; TERNARY_GROUP]; n_blocks];
    for group in range.start / TERNARY_GROUP..range.end.div_ceil(TERNARY_GROUP) {
        let packed = weights.group(group);
        for t in 0..out.tokens() {
            let blocks = packed.chunks(PACKED).zip(token(input, t).chunks(PACKED));
            for (dots, (w, x)) in dots.iter_mut().zip(blocks) {
                *dots = isa.dots(w, x);
            }
            for r in 0..TERNARY_GROUP {
                let row = group * TERNARY_GROUP + r;
                if range.contains(&row) {
                    let scales = &scales[row * n_blocks..][..n_blocks];
                    let of_row = dots.iter().map(|dots| dots[r]);
                    let y = reference::blocks(of_row, input.block_sums(t), scales, input.scale(t));
                    out.set(t, row, y);
                }
            }
        }
    }
}
