//! Products by look-up tables (see [`lookup`](crate::lookup)): the specification.

use super::Columns;
use crate::lookup::LookupMatrix;

mod tables;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod walk;

pub(super) use tables::make;
#[cfg(target_arch = "x86_64")]
pub(super) use tables::{ENTRIES, table_bytes};
pub use tables::{Tables, TablesRow};
#[cfg(target_arch = "x86_64")]
pub(super) use walk::{LookupIsa, Sums, product};

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
