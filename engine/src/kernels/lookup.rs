//! Products by look-up tables (see [`lookup`](crate::lookup)): the specification, and how all SIMD
//! kernels walk over blocks, tokens and rows.

use super::Columns;
use crate::lookup::{Lookup, LookupMatrix, TILE};

mod tables;
#[cfg(test)]
mod tests;

pub(crate) use tables::{ENTRIES, make, table_bytes};
pub use tables::{Tables, TablesRow};

/// Sums of a tile's rows.
pub(super) type Sums = [i32; TILE];

/// The specification: entry by entry, row by row.
pub(super) fn product_in_order(weights: &LookupMatrix, tables: &Tables, out: &mut Columns<'_>) {
    let packing = weights.packing;
    let planes = packing.planes();
    for row in out.range() {
        for token in 0..tables.tokens() {
            let entries = (0..packing.groups(weights.cols) * planes).map(|nth| {
                let (index, negative) = weights.index(row, nth);
                let entry = tables.entry(token, nth / planes, index);
                if negative { -entry } else { entry }
            });
            let value = tables.value(token, entries.sum(), weights.scale);
            out.set(tables.first() + token, row, value);
        }
    }
}

/// The look-ups of one ISA. A value of the type proves that the CPU has it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) trait LookupIsa: Copy {
    /// Adds to the sums what a block's units look up in the block's tables.
    ///
    /// An entry that is to be subtracted is complemented: as `!e` is `−e − 1`, what is added is too
    /// small by the number of such entries.
    fn add(self, lookup: Lookup, units: &[u8], tables: &[u8], sums: &mut Sums);
}

/// Tiles that have sums at a time: 16 KiB of them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const STRETCH: usize = 128;
/// Tokens that have sums at a time: what remains are 8 tiles, whose indexes of a block are in L1
/// for all tokens.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const PASS: usize = 16;

/// Computes the rows of `out.range()` for every token that has tables.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn product<I: LookupIsa>(
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
