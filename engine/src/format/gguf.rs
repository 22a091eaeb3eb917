//! GGUF, versions 2 and 3 (ggml's `docs/gguf.md`): little endian, a header, typed metadata, tensor
//! descriptions, then the tensors' bytes.
//!
//! The reader takes a slice and trusts nothing in it: counts are held against the bytes that are
//! left before anything is allocated, sizes are computed with overflow checks, and ranges must lie
//! within the file without overlap.

mod error;
mod header;
mod metadata;
mod tensors;
mod writer;

pub use error::GgufError;
pub use metadata::{Array, Metadata, Value};
pub use tensors::{TensorInfo, TensorType};
pub use writer::{Layout, TensorWriter};

use header::Reader;

/// First bytes of the file.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment of tensors where `general.alignment` is missing, bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Everything of a GGUF file but the tensors' bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// Keys and values in the file's order.
    pub metadata: Metadata,
    /// Tensors in the file's order; each range is within the file.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of tensor offsets, bytes; a power of two.
    pub alignment: u64,
    /// Where the tensors' bytes begin in the file.
    pub data_offset: u64,
}

impl Gguf {
    /// Reads the description of a whole GGUF file given as bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut reader = Reader::new(bytes);
        let header = header::read(&mut reader)?;
        let metadata = metadata::read(&mut reader, header.n_keys)?;
        let alignment = alignment(&metadata)?;
        let infos = tensors::read(&mut reader, header.n_tensors)?;
        // Aligned past the end where a file has no tensors at all.
        let data_offset = reader.position().next_multiple_of(alignment);
        let tensors = tensors::place(infos, data_offset, alignment, bytes.len() as u64)?;
        Ok(Self {
            version: header.version,
            metadata,
            tensors,
            alignment,
            data_offset,
        })
    }

    /// Returns the tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    let alignment = metadata
        .u64("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    // 2^20 is far above any real one and keeps every sum below far from overflow.
    if alignment.is_power_of_two() && alignment <= 1 << 20 {
        Ok(alignment)
    } else {
        Err(GgufError::Alignment { alignment })
    }
}

#[cfg(test)]
mod tests;
