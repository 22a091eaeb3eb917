//! Tokens quantized to int8, as BitLinear reads them (absmax, arXiv 2402.17764 section 2).

use crate::weights::{AlignedBytes, TERNARY_BLOCK};

/// Weights that share a scale in [`TernaryScale::Blocks`](crate::weights::TernaryScale::Blocks).
pub(crate) const SCALE_BLOCK: usize = 256;

/// `(tokens, cols)` activations in int8, with the scale and the sums the ternary product needs.
#[derive(Debug)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    // (tokens, stride) int8; the padding behind `cols` is zero.
    codes: AlignedBytes,
    // (tokens)
    scales: Vec<f32>,
    // (tokens)
    sums: Vec<i32>,
    // (tokens, ceil(cols / 256))
    block_sums: Vec<i32>,
}

/// Where the quantized form of one token goes.
#[derive(Debug)]
pub struct QuantizedRow<'a> {
    /// int8 values, padded with zeros to a multiple of 128.
    pub codes: &'a mut [i8],
    /// 127 / max(absmax, 1e-5).
    pub scale: &'a mut f32,
    /// Sum of the codes.
    pub sum: &'a mut i32,
    /// Sums of 256 codes each.
    pub block_sums: &'a mut [i32],
}

impl Default for Activations {
    fn default() -> Self {
        Self {
            tokens: 0,
            cols: 0,
            codes: AlignedBytes::zeroed(0),
            scales: Vec::new(),
            sums: Vec::new(),
            block_sums: Vec::new(),
        }
    }
}

impl Activations {
    /// Makes room for `(tokens, cols)`; what was held is forgotten.
    pub fn reshape(&mut self, tokens: usize, cols: usize) {
        self.tokens = tokens;
        self.cols = cols;
        let bytes = tokens * self.stride();
        if self.codes.len() < bytes {
            self.codes = AlignedBytes::zeroed(bytes);
        }
        self.scales.resize(tokens, 0.0);
        self.sums.resize(tokens, 0);
        self.block_sums
            .resize(tokens * cols.div_ceil(SCALE_BLOCK), 0);
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Returns the values of a token.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Returns the bytes of a token: `cols` rounded up to 128.
    pub fn stride(&self) -> usize {
        self.cols.next_multiple_of(TERNARY_BLOCK)
    }

    /// Returns the tokens' places in order, for writing.
    pub fn rows_mut(&mut self) -> impl Iterator<Item = QuantizedRow<'_>> {
        let stride = self.stride().max(1);
        let blocks = self.cols.div_ceil(SCALE_BLOCK).max(1);
        let codes: &mut [i8] =
            bytemuck::cast_slice_mut(&mut self.codes.as_mut_slice()[..self.tokens * stride]);
        codes
            .chunks_exact_mut(stride)
            .zip(&mut self.scales)
            .zip(&mut self.sums)
            .zip(self.block_sums.chunks_exact_mut(blocks))
            .map(|(((codes, scale), sum), block_sums)| QuantizedRow {
                codes,
                scale,
                sum,
                block_sums,
            })
    }

    /// Returns the int8 values of a token, padded with zeros to a multiple of 128.
    #[inline(always)]
    pub fn codes(&self, token: usize) -> &[i8] {
        let stride = self.stride();
        bytemuck::cast_slice(&self.codes[token * stride..][..stride])
    }

    /// Returns 127 / max(absmax, 1e-5) of a token.
    pub fn scale(&self, token: usize) -> f32 {
        self.scales[token]
    }

    /// Returns the sum of a token's values.
    pub fn sum(&self, token: usize) -> i32 {
        self.sums[token]
    }

    /// Returns the sums of 256 values each of a token.
    pub fn block_sums(&self, token: usize) -> &[i32] {
        let blocks = self.cols.div_ceil(SCALE_BLOCK);
        &self.block_sums[token * blocks..][..blocks]
    }
}
