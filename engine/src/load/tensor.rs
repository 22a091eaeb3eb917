//! One tensor of a file, and what it can become.

use std::{path::Path, sync::Arc};

use half::{bf16, f16};

use super::{I2sLayout, LoadError};
use crate::{
    quant::{TQ_BLOCK, absmean, hf_packed, i2_s, tq1_0, tq2_0},
    weights::{AlignedBytes, Bytes, DenseMatrix, DenseType, TernaryMatrix, TernaryScale},
};

/// How a file stores a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Dense(DenseType),
    Tq1_0,
    Tq2_0,
    I2S(I2sLayout),
    /// Hugging Face's two bits a weight, four rows a byte.
    Packed,
    /// Some other element type, by its name.
    Other(&'static str),
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dense(dtype) => dtype.name(),
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::I2S(_) => "i2_s",
            Self::Packed => "packed",
            Self::Other(name) => name,
        }
    }

    /// Whether the values are plain floats.
    pub(super) fn is_float(self) -> bool {
        matches!(self, Self::Dense(dtype) if dtype.is_float())
    }
}

/// A tensor as it lies in its file.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    pub(super) path: Arc<Path>,
    /// Slowest dimension first.
    pub(super) dims: Vec<usize>,
    pub(super) encoding: Encoding,
    pub(super) bytes: Bytes,
}

/// What to do with floats where trits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FromFloats {
    /// absmean, as online quantisation does.
    Absmean,
    /// The trits that are there if the values are −s, 0 and s, absmean otherwise.
    ExactOrAbsmean,
}

impl Tensor {
    pub(super) fn check_shape(&self, expected: &[usize]) -> Result<(), LoadError> {
        let significant = |dims: &[usize]| {
            let ones = dims.iter().take_while(|&&dim| dim == 1).count();
            dims[ones..].to_vec()
        };
        if significant(&self.dims) == significant(expected) {
            return Ok(());
        }
        Err(LoadError::Shape {
            path: self.path.to_path_buf(),
            tensor: self.name.clone(),
            found: self.dims.clone(),
            expected: expected.to_vec(),
        })
    }

    fn wrong_type(&self, role: &'static str) -> LoadError {
        LoadError::TensorType {
            path: self.path.to_path_buf(),
            tensor: self.name.clone(),
            found: self.encoding.name().to_owned(),
            role,
        }
    }

    pub(super) fn fault(&self, fault: impl Into<String>) -> LoadError {
        LoadError::Value {
            path: self.path.to_path_buf(),
            tensor: self.name.clone(),
            fault: fault.into(),
        }
    }

    /// Returns `len` finite floats.
    pub(super) fn vector(&self, len: usize) -> Result<Vec<f32>, LoadError> {
        let Encoding::Dense(dtype) = self.encoding else {
            return Err(self.wrong_type("a vector"));
        };
        if !self.encoding.is_float() {
            return Err(self.wrong_type("a vector"));
        }
        self.check_shape(&[len])?;
        let mut values = vec![0.0; len];
        widen(dtype, &self.bytes, &mut values);
        match values.iter().position(|x| !x.is_finite()) {
            None => Ok(values),
            Some(at) => Err(self.fault(format!("is not finite at element {at}"))),
        }
    }

    /// Returns a scale: one finite float.
    pub(super) fn scalar(&self) -> Result<f32, LoadError> {
        Ok(self.vector(1)?[0])
    }

    pub(super) fn dense(&self, rows: usize, cols: usize) -> Result<DenseMatrix, LoadError> {
        let Encoding::Dense(dtype) = self.encoding else {
            return Err(self.wrong_type("a dense matrix"));
        };
        self.check_shape(&[rows, cols])?;
        Ok(DenseMatrix {
            rows,
            cols,
            dtype,
            data: self.bytes.clone(),
        })
    }

    /// Returns a ternary matrix whose scale is the one stored within the tensor, or 1 for
    /// [`Encoding::Packed`], times `factor`.
    pub(super) fn ternary(
        &self,
        rows: usize,
        cols: usize,
        factor: f32,
        from_floats: FromFloats,
    ) -> Result<TernaryMatrix, LoadError> {
        let stored_rows = if self.encoding == Encoding::Packed {
            if !rows.is_multiple_of(4) {
                return Err(self.fault(format!(
                    "cannot be packed: {rows} outputs are not a multiple of 4"
                )));
            }
            rows / 4
        } else {
            rows
        };
        self.check_shape(&[stored_rows, cols])?;
        if self.encoding == Encoding::I2S(I2sLayout::RowsInFours) && !rows.is_multiple_of(4) {
            return Err(self.fault(format!(
                "cannot be I2_S with rows in fours: {rows} outputs are not a multiple of 4"
            )));
        }
        let (codes, mut scale) = match self.encoding {
            Encoding::I2S(layout) => self.i2_s_codes(rows, cols, layout),
            Encoding::Tq2_0 => self.tq_codes(tq2_0::BLOCK_BYTES, tq2_0::block_to_i2_s),
            Encoding::Tq1_0 => self.tq_codes(tq1_0::BLOCK_BYTES, tq1_0::block_to_i2_s),
            Encoding::Packed => {
                let codes = filled(rows, cols, |out| hf_packed::to_i2_s(&self.bytes, cols, out));
                (codes, TernaryScale::Tensor(1.0))
            }
            Encoding::Dense(dtype) if self.encoding.is_float() => {
                self.quantise(rows, cols, dtype, from_floats)?
            }
            _ => return Err(self.wrong_type("a ternary matrix")),
        };
        match &mut scale {
            TernaryScale::Tensor(scale) => *scale *= factor,
            TernaryScale::Blocks(scales) => scales.iter_mut().for_each(|scale| *scale *= factor),
        }
        let finite = match &scale {
            TernaryScale::Tensor(scale) => scale.is_finite(),
            TernaryScale::Blocks(scales) => scales.iter().all(|scale| scale.is_finite()),
        };
        if !finite {
            return Err(self.fault("has a scale that is not finite"));
        }
        let matrix = TernaryMatrix::from_untrusted_i2_s_rows(rows, cols, &codes, scale);
        let matrix = matrix.map_err(|at| {
            self.fault(format!(
                "holds the code 3, which no trit has (byte {at} in I2_S order)"
            ))
        })?;
        // The file's pages have been read once and will not be again: they need not stay resident.
        self.bytes.release(0, self.bytes.len());
        Ok(matrix)
    }

    fn i2_s_codes(&self, rows: usize, cols: usize, layout: I2sLayout) -> (Bytes, TernaryScale) {
        let run_bytes = rows * cols / 4;
        let run = &self.bytes[..run_bytes];
        let scale = f32::from_le_bytes(
            *self.bytes[run_bytes..]
                .first_chunk()
                .expect("the reader counted the 32 bytes behind the codes"),
        );
        let codes = match layout {
            I2sLayout::Blocks128 if cols.is_multiple_of(128) => part(&self.bytes, run_bytes),
            I2sLayout::Blocks128 => {
                filled(rows, cols, |out| i2_s::run_to_rows(run, rows, cols, out))
            }
            I2sLayout::Blocks64 => filled(rows, cols, |out| {
                i2_s::narrow_block_to_rows(run, rows, cols, out);
            }),
            I2sLayout::RowsInFours => filled(rows, cols, |out| {
                i2_s::fours_to_rows(run, rows, cols, out);
            }),
        };
        (codes, TernaryScale::Tensor(scale))
    }

    /// Blocks of 256 never cross a row, so that the matrix is one sequence of them.
    fn tq_codes(
        &self,
        block_bytes: usize,
        convert: fn(&[u8], &mut [u8]) -> f32,
    ) -> (Bytes, TernaryScale) {
        let blocks = self.bytes.chunks_exact(block_bytes);
        let mut scales = Vec::with_capacity(blocks.len());
        // What a block without a 1 or −1 says of its scale does not count.
        let mut common: Option<f32> = None;
        let mut same = true;
        let codes = filled(blocks.len(), TQ_BLOCK, |out| {
            for (block, codes) in blocks.zip(out.chunks_exact_mut(64)) {
                let scale = convert(block, codes);
                scales.push(scale);
                if !i2_s::is_all_zero(codes) {
                    same &= common.get_or_insert(scale).to_bits() == scale.to_bits();
                }
            }
        });
        let scale = if same {
            TernaryScale::Tensor(common.or(scales.first().copied()).unwrap_or(0.0))
        } else {
            TernaryScale::Blocks(scales)
        };
        (codes, scale)
    }

    fn quantise(
        &self,
        rows: usize,
        cols: usize,
        dtype: DenseType,
        from_floats: FromFloats,
    ) -> Result<(Bytes, TernaryScale), LoadError> {
        let mut row = vec![0.0; cols];
        let stored_rows = || self.bytes.chunks_exact(dtype.row_bytes(cols));
        let mut mean = absmean::MeanMagnitude::default();
        let mut exact = ExactTernary::default();
        for (nth, bytes) in stored_rows().enumerate() {
            widen(dtype, bytes, &mut row);
            mean.add(&row);
            exact.add(&row);
            if !mean.is_finite() {
                return Err(self.fault(format!("is not finite in row {nth}")));
            }
        }
        let exact = exact
            .scale()
            .filter(|_| from_floats == FromFloats::ExactOrAbsmean);
        let scale = exact.unwrap_or_else(|| mean.scale());
        let mut trits = vec![0; cols];
        let codes = filled(rows, cols, |out| {
            let codes = out.chunks_exact_mut(TernaryMatrix::row_bytes(cols));
            for (bytes, codes) in stored_rows().zip(codes) {
                widen(dtype, bytes, &mut row);
                for (trit, &x) in trits.iter_mut().zip(&row) {
                    *trit = match exact {
                        Some(_) => i8::from(x > 0.0) - i8::from(x < 0.0),
                        None => absmean::trit(x, scale),
                    };
                }
                i2_s::pack_row(&trits, codes);
            }
        });
        Ok((codes, TernaryScale::Tensor(scale)))
    }
}

/// Finds out whether all values are −s, 0 or s.
#[derive(Default)]
struct ExactTernary {
    magnitude: f32,
    broken: bool,
}

impl ExactTernary {
    fn add(&mut self, values: &[f32]) {
        if self.broken {
            return;
        }
        if self.magnitude == 0.0 {
            self.magnitude = values.iter().find(|&&x| x != 0.0).map_or(0.0, |x| x.abs());
        }
        self.broken = !values
            .iter()
            .all(|&x| x == 0.0 || x.abs().to_bits() == self.magnitude.to_bits());
    }

    fn scale(&self) -> Option<f32> {
        (!self.broken).then_some(self.magnitude)
    }
}

/// Widens little-endian floats; the block types are not for this.
fn widen(dtype: DenseType, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        DenseType::F32 => {
            for (x, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = f32::from_le_bytes(*bytes);
            }
        }
        DenseType::F16 => {
            for (x, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        DenseType::Bf16 => {
            for (x, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *x = bf16::from_le_bytes(*bytes).to_f32();
            }
        }
        _ => unreachable!("callers ask is_float first"),
    }
}

/// Returns I2_S rows written by `fill`. The size is bounded by the file's, since a tensor of this
/// shape was found in it.
fn filled(rows: usize, cols: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
    let mut codes = AlignedBytes::zeroed(rows * TernaryMatrix::row_bytes(cols));
    fill(codes.as_mut_slice());
    Bytes::Owned(Arc::new(codes))
}

/// Returns the first `len` bytes without copying.
fn part(bytes: &Bytes, len: usize) -> Bytes {
    match bytes {
        Bytes::Mapped { map, offset, .. } => Bytes::Mapped {
            map: Arc::clone(map),
            offset: *offset,
            len,
        },
        Bytes::Owned(owned) => Bytes::from(owned[..len].to_vec()),
    }
}
