//! A range of columns of a row-major matrix, so that threads can write disjoint outputs.

use std::{marker::PhantomData, ops::Range, slice};

/// Exclusive access to the columns `range` of a `(tokens, stride)` matrix.
#[derive(Debug)]
pub struct Columns<'a> {
    // First value of the matrix; only the columns `range` of it are touched.
    base: *mut f32,
    tokens: usize,
    stride: usize,
    range: Range<usize>,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Columns` is an exclusive borrow of its own floats, as `&mut [f32]` is.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Splits a `(tokens, stride)` matrix at the column numbers `ends`.
    ///
    /// Part `i` holds the columns from `ends[i - 1]` (0 for the first) to `ends[i]`.
    ///
    /// # Panics
    /// If `ends` is not ascending, exceeds `stride`, or the matrix has not whole rows.
    pub fn split(
        matrix: &'a mut [f32],
        stride: usize,
        ends: impl IntoIterator<Item = usize>,
    ) -> impl Iterator<Item = Self> {
        assert!(stride > 0, "a matrix has columns");
        assert!(matrix.len().is_multiple_of(stride), "whole rows");
        let tokens = matrix.len() / stride;
        let base = matrix.as_mut_ptr();
        let mut start = 0;
        ends.into_iter().map(move |end| {
            assert!(start <= end && end <= stride, "columns ascend");
            let range = start..end;
            start = end;
            Self {
                base,
                tokens,
                stride,
                range,
                matrix: PhantomData,
            }
        })
    }

    /// Returns all columns of a `(tokens, stride)` matrix.
    ///
    /// # Panics
    /// If the matrix has not whole rows.
    pub fn whole(matrix: &'a mut [f32], stride: usize) -> Self {
        Self::split(matrix, stride, [stride])
            .next()
            .expect("one end makes one part")
    }

    /// Returns the column numbers.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Returns the number of rows.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns this part of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.tokens, "a row of the matrix");
        let offset = token * self.stride + self.range.start;
        // SAFETY: `split` checked that the range lies within a row of the borrowed matrix.
        let first = unsafe { self.base.add(offset) };
        // SAFETY: no other `Columns` holds these floats, since the ranges of a split are disjoint.
        unsafe { slice::from_raw_parts_mut(first, self.range.len()) }
    }

    /// Writes one value; `column` counts from the start of the whole matrix.
    ///
    /// # Panics
    /// If it lies outside this part.
    #[inline(always)]
    pub fn set(&mut self, token: usize, column: usize, value: f32) {
        let start = self.range.start;
        self.token(token)[column - start] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_matrix_write_their_own_columns() {
        let mut matrix = vec![0.0; 6];
        for (i, mut part) in Columns::split(&mut matrix, 3, [1, 1, 3]).enumerate() {
            for token in 0..part.tokens() {
                part.token(token).fill(i as f32 + 1.0);
            }
        }
        assert_eq!(matrix, [1.0, 3.0, 3.0, 1.0, 3.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "columns ascend")]
    fn overlapping_parts_are_refused() {
        let mut matrix = vec![0.0; 6];
        let _: Vec<_> = Columns::split(&mut matrix, 3, [2, 1]).collect();
    }
}
