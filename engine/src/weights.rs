//! The weights of a model as the forward pass reads them.
//!
//! Ternary matrices have one run-time layout, bitnet.cpp's I2_S with blocks of 128
//! ([`TernaryMatrix`]); a file that stores it is used where it is mapped, every other ternary
//! format is converted on load. Dense matrices keep their file's type.

use std::{ops::Deref, sync::Arc};

use memmap2::Mmap;

/// Bytes of a tensor, mapped from a file or owned. Cloning is cheap.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// A part of a mapped file.
    Mapped {
        /// The whole map.
        map: Arc<Mmap>,
        /// First byte.
        offset: usize,
        /// Number of bytes; `offset + len` is within the map.
        len: usize,
    },
    /// Converted or read weights, 64-byte aligned from `offset` on.
    Owned(Arc<AlignedBytes>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped { map, offset, len } => &map[*offset..*offset + *len],
            Self::Owned(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(Arc::new(AlignedBytes::from(bytes.as_slice())))
    }
}

/// An owned buffer whose bytes start at a multiple of 64.
#[derive(Debug)]
pub struct AlignedBytes {
    // Chunks rather than bytes: their alignment is the buffer's.
    chunks: Vec<Chunk>,
    len: usize,
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Chunk([u8; 64]);

impl AlignedBytes {
    /// Returns `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self {
            chunks: vec![Chunk([0; 64]); len.div_ceil(64)],
            len,
        }
    }

    /// Returns the bytes for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.chunks)[..self.len]
    }
}

impl From<&[u8]> for AlignedBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut aligned = Self::zeroed(bytes.len());
        aligned.as_mut_slice().copy_from_slice(bytes);
        aligned
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.chunks)[..self.len]
    }
}

/// Weights per I2_S block, and the bytes they make.
pub const TERNARY_BLOCK: usize = 128;
/// Bytes per I2_S block.
pub const TERNARY_BLOCK_BYTES: usize = 32;

/// A `(rows, cols)` matrix of trits in the I2_S layout (bitnet.cpp, `ggml-bitnet-mad.cpp`).
///
/// Code of a weight: 0 = −1, 1 = 0, 2 = +1. Each row is `cols` codes padded with code 1 to a
/// multiple of 128; byte `p` (0..32) of a block holds
/// `w[p] << 6 | w[32 + p] << 4 | w[64 + p] << 2 | w[96 + p]`.
/// A padded position meets a zero activation, so that it adds nothing to either sum.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * row_bytes(cols)` bytes.
    pub codes: Bytes,
    /// What a trit of 1 is worth.
    pub scale: TernaryScale,
}

impl TernaryMatrix {
    /// Returns the bytes of one row of `cols` weights.
    pub const fn row_bytes(cols: usize) -> usize {
        cols.div_ceil(TERNARY_BLOCK) * TERNARY_BLOCK_BYTES
    }
}

/// What a trit of 1 is worth: `value = scale * trit`.
#[derive(Clone, Debug, PartialEq)]
pub enum TernaryScale {
    /// One scale for the matrix.
    Tensor(f32),
    /// One scale for each 256 weights of a row, `(rows, ceil(cols / 256))` row-major
    /// (TQ1_0 and TQ2_0 files whose blocks differ).
    Blocks(Vec<f32>),
}

/// Element types of a dense matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenseType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml Q8_0: blocks of 32, an f16 scale and 32 int8 (34 bytes).
    Q8_0,
    /// ggml Q4_0: blocks of 32, an f16 scale and 16 bytes of nibbles (18 bytes), value = d * (q − 8);
    /// byte `j` holds weight `j` low and weight `j + 16` high.
    Q4_0,
}

impl DenseType {
    /// Returns the bytes of one row of `cols` weights; `cols` is a multiple of 32 for the block types.
    pub const fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::F32 => cols * 4,
            Self::F16 | Self::Bf16 => cols * 2,
            Self::Q8_0 => cols / 32 * 34,
            Self::Q4_0 => cols / 32 * 18,
        }
    }
}

/// A `(rows, cols)` matrix of real numbers, rows contiguous without padding, little endian.
#[derive(Clone, Debug)]
pub struct DenseMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Element type.
    pub dtype: DenseType,
    /// `rows * dtype.row_bytes(cols)` bytes; not necessarily aligned to the element.
    pub data: Bytes,
}

/// Either kind of matrix.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// W1.58A8: the input is quantised to int8 per token first.
    Ternary(TernaryMatrix),
    /// Full precision: the input stays f32.
    Dense(DenseMatrix),
}

/// A linear layer, `y = W x + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `W`, `(outputs, inputs)`.
    pub matrix: Matrix,
    /// `b`, `(outputs)`.
    pub bias: Option<Vec<f32>>,
}

/// One decoder layer. Norm gains are `(hidden_size)` unless said otherwise.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Gain of the norm before attention.
    pub attn_norm: Vec<f32>,
    /// `(n_heads * head_dim, hidden_size)`.
    pub q: Linear,
    /// `(n_kv_heads * head_dim, hidden_size)`.
    pub k: Linear,
    /// `(n_kv_heads * head_dim, hidden_size)`.
    pub v: Linear,
    /// BitNet: gain of the norm before `o`, `(n_heads * head_dim)`.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// `(hidden_size, n_heads * head_dim)`.
    pub o: Linear,
    /// Gain of the norm before the feed-forward block.
    pub ffn_norm: Vec<f32>,
    /// `(ffn_size, hidden_size)`.
    pub gate: Linear,
    /// `(ffn_size, hidden_size)`.
    pub up: Linear,
    /// BitNet: gain of the norm before `down`, `(ffn_size)`.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// `(hidden_size, ffn_size)`.
    pub down: Linear,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `(vocab_size, hidden_size)`.
    pub embedding: DenseMatrix,
    /// In order of evaluation.
    pub layers: Vec<Layer>,
    /// Gain of the last norm.
    pub output_norm: Vec<f32>,
    /// `(vocab_size, hidden_size)`; `None` where the head is tied to the embedding.
    pub head: Option<DenseMatrix>,
}
