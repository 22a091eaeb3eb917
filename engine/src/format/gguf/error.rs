//! What can be wrong with a GGUF file.

use super::TensorType;

/// A fault of a GGUF file's structure. Offsets are bytes from the file's start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GgufError {
    /// The first four bytes differ from `GGUF`.
    #[error("not a GGUF file: it begins with {found:02x?}")]
    Magic {
        /// What it begins with, at most four bytes.
        found: Vec<u8>,
    },
    /// The version is that of a big-endian file.
    #[error("a big-endian GGUF file (version {version}); only little endian is supported")]
    BigEndian {
        /// Version after swapping its bytes.
        version: u32,
    },
    /// Neither version 2 nor 3.
    #[error("GGUF version {version} is not supported (2 and 3 are)")]
    Version {
        /// Version in the file.
        version: u32,
    },
    /// The file ends within something.
    #[error("the file ends within {what} at offset {offset}: {needed} bytes needed, {left} left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins.
        offset: u64,
        /// Its size, bytes.
        needed: u64,
        /// Bytes from there to the file's end.
        left: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error("{count} {what} at offset {offset} cannot fit into the {left} bytes that are left")]
    Count {
        /// What is counted.
        what: String,
        /// The count in the file.
        count: u64,
        /// Where it stands.
        offset: u64,
        /// Bytes after it.
        left: u64,
    },
    /// A string that is not UTF-8.
    #[error("{what} at offset {offset} is not UTF-8")]
    Utf8 {
        /// Which string.
        what: String,
        /// Where its bytes begin.
        offset: u64,
    },
    /// An unknown type of a metadata value.
    #[error("key `{key}` at offset {offset} has the unknown value type {id}")]
    ValueType {
        /// Key.
        key: String,
        /// Type in the file.
        id: u32,
        /// Where the type stands.
        offset: u64,
    },
    /// A bool that is neither 0 nor 1.
    #[error("key `{key}` at offset {offset} has the bool {value}, neither 0 nor 1")]
    Bool {
        /// Key.
        key: String,
        /// The byte.
        value: u8,
        /// Where it stands.
        offset: u64,
    },
    /// Arrays within arrays, too deep.
    #[error("key `{key}` nests arrays deeper than {limit}")]
    Nesting {
        /// Key.
        key: String,
        /// Deepest nesting allowed.
        limit: usize,
    },
    /// The same key twice.
    #[error("key `{key}` occurs twice")]
    DuplicateKey {
        /// Key.
        key: String,
    },
    /// A key of another type than its meaning asks for.
    #[error("key `{key}` is {found}, not {expected}")]
    KeyType {
        /// Key.
        key: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A key that has to be there and is not.
    #[error("key `{key}` is missing")]
    MissingKey {
        /// Key.
        key: String,
    },
    /// An alignment that is no power of two or absurdly large.
    #[error("key `general.alignment` is {alignment}, not a power of two up to 1048576")]
    Alignment {
        /// Alignment in the file.
        alignment: u64,
    },
    /// The same tensor twice.
    #[error("tensor `{tensor}` occurs twice")]
    DuplicateTensor {
        /// Tensor.
        tensor: String,
    },
    /// No dimension or more than four.
    #[error("tensor `{tensor}` has {n_dims} dimensions, not 1 to 4")]
    Dimensions {
        /// Tensor.
        tensor: String,
        /// Number in the file.
        n_dims: u32,
    },
    /// A dimension of 0, or a size beyond 64 bits.
    #[error("tensor `{tensor}` has the impossible shape {dims:?}")]
    Shape {
        /// Tensor.
        tensor: String,
        /// Dimensions, the fastest first.
        dims: Vec<u64>,
    },
    /// A type that this program does not read.
    #[error(
        "tensor `{tensor}` has type {id}{}, which is not supported (supported: {})",
        super::tensors::foreign_name(*id),
        super::tensors::supported_names()
    )]
    TensorType {
        /// Tensor.
        tensor: String,
        /// ggml's number.
        id: u32,
    },
    /// Rows that are not a whole number of blocks.
    #[error(
        "tensor `{tensor}` of shape {dims:?} cannot be {}: {unit} is not a multiple of {block}",
        kind.name()
    )]
    Block {
        /// Tensor.
        tensor: String,
        /// Dimensions, the fastest first.
        dims: Vec<u64>,
        /// Type.
        kind: TensorType,
        /// What is divided into blocks.
        unit: &'static str,
        /// Weights of a block.
        block: u64,
    },
    /// An offset off the alignment.
    #[error("tensor `{tensor}` at offset {offset} of the data is not aligned to {alignment} bytes")]
    Misaligned {
        /// Tensor.
        tensor: String,
        /// Offset from the data's start.
        offset: u64,
        /// Alignment, bytes.
        alignment: u64,
    },
    /// A range beyond the file's end.
    #[error(
        "tensor `{tensor}` takes {len} bytes at offset {offset} of a file of {file_bytes} bytes"
    )]
    OutOfFile {
        /// Tensor.
        tensor: String,
        /// Where it begins.
        offset: u64,
        /// Its size, bytes.
        len: u64,
        /// The file's size.
        file_bytes: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensors `{first}` and `{second}` overlap at offset {offset}")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The one that begins within it.
        second: String,
        /// Where the second begins.
        offset: u64,
    },
}
