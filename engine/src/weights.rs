//! The weights of a model as the forward pass reads them.
//!
//! Every ternary format is brought on load into one run-time layout, the blocks of bitnet.cpp's
//! I2_S with four rows interleaved ([`TernaryMatrix`]). A kernel that looks up sums instead of
//! multiplying has it packed once more ([`LookupMatrix`]). Dense matrices keep their file's type and
//! are used where they are mapped.

use std::{fmt, ops::Deref, sync::Arc, thread};

use memmap2::{Advice, Mmap, MmapMut};

use crate::{
    lookup::LookupMatrix,
    mmap,
    pages::Piece,
    quant::{K_BLOCK, Q_BLOCK, i2_s, q4_0, q4_k, q5_0, q5_k, q6_k, q8_0},
};

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

impl Bytes {
    /// Lets the system take the pages of `len` mapped bytes from this process; reading them again
    /// is slower, nothing else.
    ///
    /// # Panics
    /// If there are no such bytes.
    pub(crate) fn release(&self, first: usize, len: usize) {
        assert!(first + len <= self.len(), "bytes of this part");
        if let Self::Mapped { map, offset, .. } = self {
            mmap::release(map, *offset + first, len);
        }
    }
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
///
/// A large one lies in huge pages where the system gives them: a stream of weights then needs one
/// entry of the TLB for every 2 MiB of it. Weights lie side by side in regions.
pub struct AlignedBytes {
    memory: Memory,
    len: usize,
}

enum Memory {
    // Chunks rather than bytes: their alignment is the buffer's.
    Heap(Vec<Chunk>),
    // Starts at a page.
    Map(MmapMut),
    Region(Piece),
}

#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Chunk([u8; 64]);

impl AlignedBytes {
    /// From this size on a buffer is a map of its own.
    const LARGE: usize = 4 << 20;
    /// From this size on weights are a piece of a region.
    const LARGE_WEIGHTS: usize = 64 << 10;

    /// Returns no bytes.
    pub(crate) const fn new() -> Self {
        Self {
            memory: Memory::Heap(Vec::new()),
            len: 0,
        }
    }

    /// Returns `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        if len >= Self::LARGE
            && let Ok(map) = MmapMut::map_anon(len)
        {
            // Without huge pages the buffer is only slower.
            let _ = map.advise(Advice::HugePage);
            return Self {
                memory: Memory::Map(map),
                len,
            };
        }
        Self {
            memory: Memory::Heap(vec![Chunk([0; 64]); len.div_ceil(64)]),
            len,
        }
    }

    /// Returns `len` zero bytes that lie behind those of the last call: for what is kept as long as
    /// the model and read in the order in which it is made.
    pub fn for_weights(len: usize) -> Self {
        match (len >= Self::LARGE_WEIGHTS).then(|| Piece::zeroed(len)) {
            Some(Some(piece)) => Self {
                memory: Memory::Region(piece),
                len,
            },
            _ => Self::zeroed(len),
        }
    }

    /// Returns the bytes for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = match &mut self.memory {
            Memory::Heap(chunks) => bytemuck::cast_slice_mut(chunks),
            Memory::Map(map) => &mut map[..],
            Memory::Region(piece) => piece.as_mut_slice(),
        };
        &mut bytes[..self.len]
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBytes")
            .field("len", &self.len)
            .finish_non_exhaustive()
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
        let bytes = match &self.memory {
            Memory::Heap(chunks) => bytemuck::cast_slice(chunks),
            Memory::Map(map) => &map[..],
            Memory::Region(piece) => piece.as_slice(),
        };
        &bytes[..self.len]
    }
}

/// Weights per I2_S block, and the bytes they make.
pub const TERNARY_BLOCK: usize = 128;
/// Bytes per I2_S block.
pub const TERNARY_BLOCK_BYTES: usize = 32;

/// Rows that lie interleaved.
pub const TERNARY_GROUP: usize = 4;

/// One block of each of four rows: what a kernel reads at a time.
pub type TernaryGroup = [[u8; TERNARY_BLOCK_BYTES]; TERNARY_GROUP];

/// A `(rows, cols)` matrix of trits in 2 bits each.
///
/// The blocks are those of I2_S (bitnet.cpp, `ggml-bitnet-mad.cpp`). Code of a weight: 0 = −1,
/// 1 = 0, 2 = +1. Each row is `cols` codes padded with code 1 to a multiple of 128; byte `p` (0..32)
/// of a block holds `w[p] << 6 | w[32 + p] << 4 | w[64 + p] << 2 | w[96 + p]`.
///
/// Their order is `(rows / 4, cols / 128, 4)`: first the first blocks of rows 0, 1, 2 and 3, then
/// their second ones. A product with one token thus reads a single stream; with one stream for each
/// of four rows it reached two thirds of that speed (Zen 3). The number of rows is padded with rows
/// of code 1 to a multiple of four.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `bytes(rows, cols)` bytes.
    pub codes: Bytes,
    /// What a trit of 1 is worth.
    pub scale: TernaryScale,
}

/// Four codes of zero.
pub(crate) const ZERO_CODES: u8 = 0b01_01_01_01;

impl TernaryMatrix {
    /// Returns the bytes of one row of `cols` weights.
    pub const fn row_bytes(cols: usize) -> usize {
        cols.div_ceil(TERNARY_BLOCK) * TERNARY_BLOCK_BYTES
    }

    /// Returns the bytes of a matrix, the padding rows included.
    pub const fn bytes(rows: usize, cols: usize) -> usize {
        rows.next_multiple_of(TERNARY_GROUP) * Self::row_bytes(cols)
    }

    /// Makes a matrix of I2_S rows, each beginning with a block, on all CPUs.
    ///
    /// # Panics
    /// If `codes` are not `rows` rows of `cols` columns.
    pub fn from_i2_s_rows(rows: usize, cols: usize, codes: &[u8], scale: TernaryScale) -> Self {
        let matrix = Self::from_rows(rows, cols, codes, scale, |_| None);
        matrix.unwrap_or_else(|_| unreachable!("nothing is refused"))
    }

    /// Does the same for rows of a file; returns where the first byte with a code 3 is, if there is
    /// one.
    ///
    /// # Panics
    /// As [`from_i2_s_rows`](Self::from_i2_s_rows).
    pub(crate) fn from_untrusted_i2_s_rows(
        rows: usize,
        cols: usize,
        codes: &[u8],
        scale: TernaryScale,
    ) -> Result<Self, usize> {
        Self::from_rows(rows, cols, codes, scale, i2_s::find_invalid)
    }

    /// Takes rows in which `fault` finds none; returns where it found the first one otherwise.
    fn from_rows(
        rows: usize,
        cols: usize,
        codes: &[u8],
        scale: TernaryScale,
        fault: impl Fn(&[u8]) -> Option<usize> + Sync,
    ) -> Result<Self, usize> {
        // What one thread takes over at least.
        const STRETCH: usize = 1 << 20;
        let row_bytes = Self::row_bytes(cols);
        assert_eq!(codes.len(), rows * row_bytes, "whole rows");
        let mut out = AlignedBytes::for_weights(Self::bytes(rows, cols));
        let group_bytes = TERNARY_GROUP * row_bytes;
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let threads = cpus.min(codes.len() / STRETCH).max(1);
        let groups = rows.div_ceil(TERNARY_GROUP).div_ceil(threads).max(1);
        let part_bytes = groups * group_bytes;
        // A group at a time, so that it is read from memory once.
        let take = |first: usize, rows: &[u8], out: &mut [u8]| {
            let groups = rows.chunks(group_bytes).zip(out.chunks_mut(group_bytes));
            for (nth, (rows, out)) in groups.enumerate() {
                if let Some(at) = fault(rows) {
                    return Some(first + nth * group_bytes + at);
                }
                interleave(rows, row_bytes, out);
            }
            None
        };
        let first_fault = thread::scope(|scope| {
            let mut parts = codes
                .chunks(part_bytes)
                .zip(out.as_mut_slice().chunks_mut(part_bytes))
                .zip((0..).step_by(part_bytes));
            let own = parts.next();
            let take = &take;
            let others: Vec<_> = parts
                .map(|((rows, out), first)| scope.spawn(move || take(first, rows, out)))
                .collect();
            let own = own.and_then(|((rows, out), first)| take(first, rows, out));
            let others = others.into_iter().filter_map(|other| {
                other
                    .join()
                    .unwrap_or_else(|e| std::panic::resume_unwind(e))
            });
            own.into_iter().chain(others).min()
        });
        match first_fault {
            Some(at) => Err(at),
            None => Ok(Self {
                rows,
                cols,
                codes: Bytes::Owned(Arc::new(out)),
                scale,
            }),
        }
    }

    /// Returns the blocks of four rows, `(cols / 128)` groups; the last rows may be padding.
    ///
    /// # Panics
    /// If there are no such rows.
    #[inline]
    pub fn group(&self, nth: usize) -> &[TernaryGroup] {
        let bytes = TERNARY_GROUP * Self::row_bytes(self.cols);
        bytemuck::cast_slice(&self.codes[nth * bytes..][..bytes])
    }

    /// Returns the blocks of one row in I2_S's order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &[u8; TERNARY_BLOCK_BYTES]> {
        assert!(row < self.rows, "a row of the matrix");
        let blocks = self.group(row / TERNARY_GROUP).iter();
        blocks.map(move |group| &group[row % TERNARY_GROUP])
    }

    /// Returns all rows as I2_S has them, one behind the other.
    pub fn i2_s_rows(&self) -> Vec<u8> {
        let rows = (0..self.rows).flat_map(|row| self.row(row));
        rows.flatten().copied().collect()
    }

    /// Returns whether every weight is zero.
    pub fn is_all_zero(&self) -> bool {
        self.codes.iter().all(|&byte| byte == ZERO_CODES)
    }
}

/// Interleaves whole rows, four at a time; rows that are missing become zeros.
fn interleave(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let out: &mut [TernaryGroup] = bytemuck::cast_slice_mut(out);
    let mut rows = rows.chunks_exact(row_bytes);
    for nth in 0..TERNARY_GROUP {
        match rows.next() {
            Some(row) => {
                let (blocks, _) = row.as_chunks::<TERNARY_BLOCK_BYTES>();
                for (group, block) in out.iter_mut().zip(blocks) {
                    group[nth] = *block;
                }
            }
            None => out
                .iter_mut()
                .for_each(|group| group[nth] = [ZERO_CODES; TERNARY_BLOCK_BYTES]),
        }
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
    /// ggml `Q5_0`: blocks of 32, 22 bytes ([`q5_0`]).
    Q5_0,
    /// ggml `Q4_K`: blocks of 256, 144 bytes ([`q4_k`]).
    Q4K,
    /// ggml `Q5_K`: blocks of 256, 176 bytes ([`q5_k`]).
    Q5K,
    /// ggml `Q6_K`: blocks of 256, 210 bytes ([`q6_k`]).
    Q6K,
}

impl DenseType {
    /// All types.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Returns the type's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Returns the weights of a block, which lie in one row, and its bytes.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (Q_BLOCK, q8_0::BLOCK_BYTES),
            Self::Q4_0 => (Q_BLOCK, q4_0::BLOCK_BYTES),
            Self::Q5_0 => (Q_BLOCK, q5_0::BLOCK_BYTES),
            Self::Q4K => (K_BLOCK, q4_k::BLOCK_BYTES),
            Self::Q5K => (K_BLOCK, q5_k::BLOCK_BYTES),
            Self::Q6K => (K_BLOCK, q6_k::BLOCK_BYTES),
        }
    }

    /// Returns whether the values are plain floats rather than codes in blocks.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Returns the bytes of one row of `cols` weights, which are whole blocks.
    pub const fn row_bytes(self, cols: usize) -> usize {
        let (weights, bytes) = self.block();
        cols / weights * bytes
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

impl DenseMatrix {
    /// Returns the bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&self, row: usize) -> &[u8] {
        let bytes = self.dtype.row_bytes(self.cols);
        &self.data[row * bytes..][..bytes]
    }
}

/// Either kind of matrix.
#[derive(Clone, Debug)]
pub enum Matrix {
    /// W1.58A8: the input is quantised to int8 per token first.
    Ternary(TernaryMatrix),
    /// The same, packed for look-up tables.
    Lookup(LookupMatrix),
    /// Full precision: the input stays f32.
    Dense(DenseMatrix),
}

impl Matrix {
    /// Returns the outputs.
    pub fn rows(&self) -> usize {
        match self {
            Self::Ternary(matrix) => matrix.rows,
            Self::Lookup(matrix) => matrix.rows,
            Self::Dense(matrix) => matrix.rows,
        }
    }

    /// Returns the inputs.
    pub fn cols(&self) -> usize {
        match self {
            Self::Ternary(matrix) => matrix.cols,
            Self::Lookup(matrix) => matrix.cols,
            Self::Dense(matrix) => matrix.cols,
        }
    }

    /// Returns the bytes in memory, scales included.
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::Ternary(matrix) => {
                let scales = match &matrix.scale {
                    TernaryScale::Tensor(_) => 1,
                    TernaryScale::Blocks(scales) => scales.len(),
                };
                matrix.codes.len() + 4 * scales
            }
            Self::Lookup(matrix) => matrix.bytes(),
            Self::Dense(matrix) => matrix.data.len(),
        };
        bytes as u64
    }

    /// Returns the name of the layout in memory: `i2_s`, `tl1`, `bf16`.
    pub fn format(&self) -> &'static str {
        match self {
            Self::Ternary(_) => "i2_s",
            Self::Lookup(matrix) => matrix.packing.name(),
            Self::Dense(matrix) => matrix.dtype.name(),
        }
    }
}

/// A linear layer, `y = W x + b`, and what an adapter adds to it.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `W`, `(outputs, inputs)`.
    pub matrix: Matrix,
    /// `b`, `(outputs)`.
    pub bias: Option<Vec<f32>>,
    /// What is added to `y`.
    pub adapter: Option<Adapter>,
}

/// A branch of low rank beside a linear layer, `y += B (s (A x))` (LoRA, arXiv 2106.09685).
///
/// `W + s B A` would not be ternary, nor a block format's; so no kind of matrix is merged with it.
/// The branch reads the input in f32, as dense matrices do.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `A`, `(rank, inputs)`.
    pub a: DenseMatrix,
    /// `B`, `(outputs, rank)`.
    pub b: DenseMatrix,
    /// `s`.
    pub scale: f32,
}

impl Adapter {
    /// Returns the rows of `A`, and columns of `B`.
    pub fn rank(&self) -> usize {
        self.a.rows
    }

    /// Returns the weights of both matrices.
    pub fn n_params(&self) -> usize {
        self.rank() * (self.a.cols + self.b.rows)
    }

    /// Returns the bytes in memory.
    pub fn bytes(&self) -> u64 {
        (self.a.data.len() + self.b.data.len()) as u64
    }
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
    /// Gemma 3: gain of the norm of each query head, `(head_dim)`.
    pub q_norm: Option<Vec<f32>>,
    /// Gemma 3: gain of the norm of each key head, `(head_dim)`.
    pub k_norm: Option<Vec<f32>>,
    /// BitNet: gain of the norm before `o`, `(n_heads * head_dim)`.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// `(hidden_size, n_heads * head_dim)`.
    pub o: Linear,
    /// Gemma 3: gain of the norm behind attention.
    pub attn_post_norm: Option<Vec<f32>>,
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
    /// Gemma 3: gain of the norm behind the feed-forward block.
    pub ffn_post_norm: Option<Vec<f32>>,
}

impl Layer {
    /// Returns the linear layers.
    pub fn linears(&self) -> [&Linear; 7] {
        let Self {
            q,
            k,
            v,
            o,
            gate,
            up,
            down,
            ..
        } = self;
        [q, k, v, o, gate, up, down]
    }

    /// Returns the linear layers, to be changed.
    pub fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let Self {
            q,
            k,
            v,
            o,
            gate,
            up,
            down,
            ..
        } = self;
        [q, k, v, o, gate, up, down]
    }
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

impl Weights {
    /// Returns the output head, which may be the embedding.
    pub fn head(&self) -> &DenseMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_rows_share_a_stretch_and_missing_ones_are_zeros() {
        let row = |code: u8| [vec![code; 32], vec![code + 1; 32]].concat();
        let codes: Vec<u8> = (0..5).flat_map(|nth| row(10 * nth)).collect();
        let matrix = TernaryMatrix::from_i2_s_rows(5, 256, &codes, TernaryScale::Tensor(1.0));
        assert_eq!(
            matrix.group(0),
            [
                [[0; 32], [10; 32], [20; 32], [30; 32]],
                [[1; 32], [11; 32], [21; 32], [31; 32]]
            ]
        );
        let zeros = [ZERO_CODES; 32];
        assert_eq!(
            matrix.group(1),
            [
                [[40; 32], zeros, zeros, zeros],
                [[41; 32], zeros, zeros, zeros]
            ]
        );
        assert!(!matrix.is_all_zero());
        assert_eq!(matrix.row(3).count(), 2);
    }

    #[test]
    fn a_matrix_that_several_threads_interleave_reads_back() {
        let (rows, cols) = (4_099, 4_096);
        let codes: Vec<u8> = (0..rows * TernaryMatrix::row_bytes(cols))
            .map(|i| (i * 7 / 3) as u8)
            .collect();
        let matrix = TernaryMatrix::from_i2_s_rows(rows, cols, &codes, TernaryScale::Tensor(1.0));
        assert!(matrix.i2_s_rows() == codes);
    }

    #[test]
    fn large_buffers_are_zero_and_aligned() {
        for len in [0, 1, 64, AlignedBytes::LARGE - 1, AlignedBytes::LARGE + 3] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            assert!(bytes.iter().all(|&byte| byte == 0));
            assert!(bytes.as_ptr().addr().is_multiple_of(64));
            bytes.as_mut_slice().fill(7);
            assert!(bytes.iter().all(|&byte| byte == 7));
        }
    }

    proptest! {
        #[test]
        fn rows_read_back(rows in 1_usize..20, cols in 1_usize..600, seed: u8) {
            let codes: Vec<u8> = (0..rows * TernaryMatrix::row_bytes(cols))
                .map(|i| (i as u8).wrapping_mul(seed | 1))
                .collect();
            let scale = TernaryScale::Tensor(1.0);
            let matrix = TernaryMatrix::from_i2_s_rows(rows, cols, &codes, scale);
            prop_assert_eq!(matrix.i2_s_rows(), codes);
        }
    }
}
