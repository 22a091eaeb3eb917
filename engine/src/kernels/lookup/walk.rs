//! How SIMD kernels walk over blocks, tokens and rows. AVX2's is the only one so far.

use super::{super::Columns, Tables, table_bytes};
use crate::lookup::{Lookup, LookupMatrix, TILE};

/// Sums of a tile's rows.
pub(in super::super) type Sums = [i32; TILE];

/// The look-ups of one ISA. A value of the type proves that the CPU has it.
pub(in super::super) trait LookupIsa: Copy {
    /// Adds to the sums what a block's units look up in the block's tables.
    ///
    /// An entry that is to be subtracted is complemented: as `!e` is `−e − 1`, what is added is too
    /// small by the number of such entries.
    fn add(self, lookup: Lookup, units: &[u8], tables: &[u8], sums: &mut Sums);
}

/// Tiles that have sums at a time: 16 KiB of them.
const STRETCH: usize = 128;
/// Tokens that have sums at a time: what remains are 8 tiles, whose indexes of a block are in L1
/// for all tokens.
const PASS: usize = 16;

/// Computes the rows of `out.range()` for every token that has tables.
#[inline(always)]
pub(in super::super) fn product<I: LookupIsa>(
    isa: I,
    weights: &LookupMatrix,
    tables: &Tables,
    out: &mut Columns<'_>,
) {
    let packing = weights.packing;
    let lookup = tables.lookup();
    let range = out.range();
    let tiles = range.start / TILE..range.end.div_ceil(TILE);
    let table_block = packing.block_units() * packing.unit_groups() * table_bytes(lookup.entries);
    let mut sums = [[0; TILE]; STRETCH];
    for first in (0..tables.tokens()).step_by(PASS) {
        let tokens = first..tables.tokens().min(first + PASS);
        let stretch = STRETCH / tokens.len();
        for start in tiles.clone().step_by(stretch) {
            let tiles = start..tiles.end.min(start + stretch);
            let sums = &mut sums[..tokens.len() * tiles.len()];
            sums.fill([0; TILE]);
            for block in 0..weights.blocks() {
                for (token, sums) in tokens.clone().zip(sums.chunks_exact_mut(tiles.len())) {
                    let tables = &tables.token(token)[block * table_block..];
                    for (tile, sums) in tiles.clone().zip(sums) {
                        isa.add(lookup, weights.block(block, tile), tables, sums);
                    }
                }
            }
            for (token, sums) in tokens.clone().zip(sums.chunks_exact(tiles.len())) {
                let sums = sums.as_flattened();
                let rows = (start * TILE).max(range.start)..(tiles.end * TILE).min(range.end);
                let out = out.token(tables.first() + token);
                for (row, y) in rows.clone().zip(&mut out[rows.start - range.start..]) {
                    let sum = sums[row - start * TILE] + weights.negatives(row);
                    *y = tables.value(token, sum, weights.scale);
                }
            }
        }
    }
}
