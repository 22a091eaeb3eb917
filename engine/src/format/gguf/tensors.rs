//! Tensor descriptions: names, shapes, types and ranges.

use std::collections::HashSet;

use serde::Serialize;

use super::{GgufError, header::Reader};

/// Most dimensions ggml has.
const MAX_DIMS: u32 = 4;
/// Bytes of the smallest description: an empty name, one dimension, type and offset.
const MIN_INFO_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

/// Element types that are read, with ggml's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorType {
    /// 0: IEEE single.
    F32,
    /// 1: IEEE half.
    F16,
    /// 2: blocks of 32, an f16 scale and 16 bytes of nibbles.
    Q4_0,
    /// 6: blocks of 32, an f16 scale and codes of 5 bits.
    Q5_0,
    /// 8: blocks of 32, an f16 scale and 32 int8.
    Q8_0,
    /// 12: blocks of 256, codes of 4 bits, scales and mins of 6.
    #[serde(rename = "q4_k")]
    Q4K,
    /// 13: blocks of 256, codes of 5 bits, scales and mins of 6.
    #[serde(rename = "q5_k")]
    Q5K,
    /// 14: blocks of 256, codes of 6 bits, scales of 8.
    #[serde(rename = "q6_k")]
    Q6K,
    /// 30: bfloat16.
    Bf16,
    /// 34: blocks of 256 trits, five a byte, and an f16 scale.
    Tq1_0,
    /// 35: blocks of 256 trits, four a byte, and an f16 scale.
    Tq2_0,
    /// 36 in bitnet.cpp's fork: 2-bit codes of the whole tensor, then 32 bytes with an f32 scale.
    #[serde(rename = "i2_s")]
    I2S,
}

impl TensorType {
    /// All types that are read.
    pub const ALL: [Self; 12] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Bf16,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::I2S,
    ];

    /// Returns ggml's number.
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q5_0 => 6,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Tq1_0 => 34,
            Self::Tq2_0 => 35,
            Self::I2S => 36,
        }
    }

    /// Returns the type of a number, or None of one that is not read.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// Returns the name used in reports and errors.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
            Self::Bf16 => "bf16",
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::I2S => "i2_s",
        }
    }

    /// Weights of a block and its bytes.
    const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q5_0 => (32, 22),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Tq1_0 => (256, 54),
            Self::Tq2_0 => (256, 66),
            Self::I2S => (128, 32),
        }
    }

    /// Returns a tensor's bytes. `dims` has the fastest dimension first.
    pub fn tensor_bytes(self, name: &str, dims: &[u64]) -> Result<u64, GgufError> {
        let impossible = || GgufError::Shape {
            tensor: name.to_owned(),
            dims: dims.to_vec(),
        };
        let n_weights = dims
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim))
            .filter(|&n| n > 0)
            .ok_or_else(impossible)?;
        let (block, block_bytes) = self.block();
        // ggml's blocks lie within a row; I2_S is one run over all rows.
        let (unit, divided) = match self {
            Self::I2S => ("the number of weights", n_weights),
            _ => ("the row", dims[0]),
        };
        if !divided.is_multiple_of(block) {
            return Err(GgufError::Block {
                tensor: name.to_owned(),
                dims: dims.to_vec(),
                kind: self,
                unit,
                block,
            });
        }
        let trailer = if self == Self::I2S { 32 } else { 0 };
        (n_weights / block)
            .checked_mul(block_bytes)
            .and_then(|bytes| bytes.checked_add(trailer))
            .ok_or_else(impossible)
    }
}

pub(super) fn supported_names() -> String {
    TensorType::ALL.map(TensorType::name).join(", ")
}

/// Returns a bracketed name of a ggml type that is not read, for errors.
pub(super) fn foreign_name(id: u32) -> &'static str {
    match id {
        3 => " (q4_1)",
        7 => " (q5_1)",
        9 => " (q8_1)",
        10 => " (q2_k)",
        11 => " (q3_k)",
        15 => " (q8_k)",
        16..=23 | 29 => " (an iq type)",
        24..=27 => " (an integer type)",
        28 => " (f64)",
        37 => " (bitnet.cpp's i8_s)",
        38 => " (bitnet.cpp's tl1)",
        // Both programs gave these numbers away.
        39 => " (bitnet.cpp's tl2 or llama.cpp's mxfp4)",
        40 => " (llama.cpp's nvfp4)",
        41 => " (llama.cpp's q1_0)",
        42 => " (llama.cpp's q2_0)",
        134 | 135 | 335 => " (an iq_bn type of ik_llama.cpp)",
        _ => "",
    }
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Unique name.
    pub name: String,
    /// Dimensions, the fastest first: `[inputs, outputs]` of a linear.
    pub dims: Vec<u64>,
    /// Element type.
    pub kind: TensorType,
    /// First byte, from the file's start.
    pub offset: u64,
    /// Bytes; `offset + len` is within the file.
    pub len: u64,
}

impl TensorInfo {
    /// Returns the number of weights.
    pub fn n_weights(&self) -> u64 {
        // Checked for overflow when the bytes were computed.
        self.dims.iter().product()
    }
}

/// Reads the descriptions; offsets are still relative to the data's start.
pub(super) fn read(reader: &mut Reader<'_>, n_tensors: u64) -> Result<Vec<TensorInfo>, GgufError> {
    reader.check_count(n_tensors, MIN_INFO_BYTES, || "tensors".into())?;
    let mut infos = Vec::new();
    let mut names = HashSet::new();
    for nth in 0..n_tensors {
        let name = reader.string(|| format!("the name of tensor {nth}"))?;
        if !names.insert(name) {
            return Err(GgufError::DuplicateTensor {
                tensor: name.to_owned(),
            });
        }
        infos.push(read_info(reader, name)?);
    }
    Ok(infos)
}

fn read_info(reader: &mut Reader<'_>, name: &str) -> Result<TensorInfo, GgufError> {
    let what = || format!("the description of tensor `{name}`");
    let n_dims = reader.u32(what)?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(GgufError::Dimensions {
            tensor: name.to_owned(),
            n_dims,
        });
    }
    let dims = (0..n_dims)
        .map(|_| reader.u64(what))
        .collect::<Result<Vec<_>, _>>()?;
    let id = reader.u32(what)?;
    let kind = TensorType::from_id(id).ok_or_else(|| GgufError::TensorType {
        tensor: name.to_owned(),
        id,
    })?;
    let offset = reader.u64(what)?;
    let len = kind.tensor_bytes(name, &dims)?;
    Ok(TensorInfo {
        name: name.to_owned(),
        dims,
        kind,
        offset,
        len,
    })
}

/// Makes offsets absolute; checks alignment, bounds and overlap.
pub(super) fn place(
    mut infos: Vec<TensorInfo>,
    data_offset: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<Vec<TensorInfo>, GgufError> {
    for info in &mut infos {
        if !info.offset.is_multiple_of(alignment) {
            return Err(GgufError::Misaligned {
                tensor: info.name.clone(),
                offset: info.offset,
                alignment,
            });
        }
        let start = data_offset.checked_add(info.offset);
        let end = start.and_then(|start| start.checked_add(info.len));
        if end.is_none_or(|end| end > file_bytes) {
            return Err(GgufError::OutOfFile {
                tensor: info.name.clone(),
                offset: data_offset.saturating_add(info.offset),
                len: info.len,
                file_bytes,
            });
        }
        info.offset += data_offset;
    }
    let mut order: Vec<&TensorInfo> = infos.iter().collect();
    order.sort_by_key(|info| info.offset);
    for pair in order.windows(2) {
        let [first, second] = [pair[0], pair[1]];
        if first.offset + first.len > second.offset {
            return Err(GgufError::Overlap {
                first: first.name.clone(),
                second: second.name.clone(),
                offset: second.offset,
            });
        }
    }
    Ok(infos)
}
