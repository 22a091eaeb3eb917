//! The bytes of one tensor in its new format, piece by piece.

use std::io;

use half::{bf16, f16};

use crate::{
    config::RopePairs,
    kernels,
    quant::{TQ_BLOCK, i2_s, tq1_0, tq2_0},
    weights::{
        DenseMatrix, DenseType, TERNARY_BLOCK, TERNARY_BLOCK_BYTES, TernaryMatrix, TernaryScale,
    },
};

use super::Format;

/// Takes the next bytes.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

/// Bytes that are copied at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Which row of the source stands in a row of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// As it is.
    Same,
    /// Heads of this size with their halves interleaved: GGUF's order of Llama's q and k.
    Interleaved(usize),
}

impl RowOrder {
    /// Returns the source's row for a row of the file.
    pub(super) fn source(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Interleaved(head_dim) => RopePairs::interleaved_row(row, head_dim),
        }
    }
}

/// What becomes of a scale in TQ blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum BlockScale {
    /// It stands in the blocks.
    Inside,
    /// It stands in a tensor of its own, and blocks have a scale of 1.
    Beside,
}

/// Writes a ternary matrix, which was found to fit the format.
pub(super) fn ternary(
    matrix: &TernaryMatrix,
    format: Format,
    order: RowOrder,
    block_scale: BlockScale,
    sink: Sink<'_>,
) -> io::Result<()> {
    let (rows, cols) = (matrix.rows, matrix.cols);
    let mut codes = Vec::with_capacity(TernaryMatrix::row_bytes(cols));
    let mut trits = vec![0; cols];
    let mut out = Vec::new();
    let mut run = Run::default();
    for row in 0..rows {
        let source = order.source(row);
        codes.clear();
        matrix.row(source).for_each(|block| codes.extend(block));
        out.clear();
        match format {
            Format::I2S if cols.is_multiple_of(TERNARY_BLOCK) => out.extend(&codes),
            Format::I2S => {
                i2_s::unpack_row(&codes, &mut trits);
                run.add(&trits, &mut out);
            }
            Format::Tq1_0 | Format::Tq2_0 => {
                i2_s::unpack_row(&codes, &mut trits);
                for (nth, trits) in trits.chunks_exact(TQ_BLOCK).enumerate() {
                    let scale = match block_scale {
                        BlockScale::Inside => f16::from_f32(scale_at(matrix, source, nth)),
                        BlockScale::Beside => f16::ONE,
                    };
                    if format == Format::Tq1_0 {
                        let mut block = [0; tq1_0::BLOCK_BYTES];
                        tq1_0::pack_block(trits, scale, &mut block);
                        out.extend(block);
                    } else {
                        let mut block = [0; tq2_0::BLOCK_BYTES];
                        tq2_0::pack_block(trits, scale, &mut block);
                        out.extend(block);
                    }
                }
            }
            Format::F32 | Format::F16 | Format::Bf16 => {
                i2_s::unpack_row(&codes, &mut trits);
                for (nth, trits) in trits.chunks(TQ_BLOCK).enumerate() {
                    let scale = scale_at(matrix, source, nth);
                    trits
                        .iter()
                        // A zero has no sign.
                        .map(|&trit| {
                            if trit == 0 {
                                0.0
                            } else {
                                f32::from(trit) * scale
                            }
                        })
                        .for_each(|x| put_float(format, x, &mut out));
                }
            }
        }
        sink(&out)?;
    }
    if format == Format::I2S {
        let mut trailer = [0; 32];
        trailer[..4].copy_from_slice(&scale_at(matrix, 0, 0).to_le_bytes());
        sink(&trailer)?;
    }
    Ok(())
}

/// Returns the scale of a row's block of 256.
fn scale_at(matrix: &TernaryMatrix, row: usize, block: usize) -> f32 {
    match &matrix.scale {
        TernaryScale::Tensor(scale) => *scale,
        TernaryScale::Blocks(scales) => scales[row * matrix.cols.div_ceil(TQ_BLOCK) + block],
    }
}

/// A run of blocks over rows that are not whole ones.
#[derive(Default)]
struct Run {
    rest: Vec<i8>,
}

impl Run {
    fn add(&mut self, trits: &[i8], out: &mut Vec<u8>) {
        self.rest.extend(trits);
        let (blocks, rest) = self.rest.as_chunks::<TERNARY_BLOCK>();
        for block in blocks {
            let mut bytes = [0; TERNARY_BLOCK_BYTES];
            i2_s::pack_row(block, &mut bytes);
            out.extend(bytes);
        }
        self.rest = rest.to_vec();
    }
}

/// Writes a dense matrix as floats, which were found to hold it.
pub(super) fn dense(
    matrix: &DenseMatrix,
    format: Format,
    order: RowOrder,
    sink: Sink<'_>,
) -> io::Result<()> {
    let mut row = vec![0.0; matrix.cols];
    let mut out = Vec::new();
    for r in 0..matrix.rows {
        kernels::widen(matrix, order.source(r), &mut row);
        out.clear();
        for &x in &row {
            put_float(format, x, &mut out);
        }
        sink(&out)?;
    }
    Ok(())
}

/// Writes the rows of a matrix as they are stored, in another order.
pub(super) fn reordered(matrix: &DenseMatrix, order: RowOrder, sink: Sink<'_>) -> io::Result<()> {
    for row in 0..matrix.rows {
        sink(matrix.row(order.source(row)))?;
    }
    Ok(())
}

fn put_float(format: Format, x: f32, out: &mut Vec<u8>) {
    match format {
        Format::F16 => out.extend(f16::from_f32(x).to_le_bytes()),
        Format::Bf16 => out.extend(bf16::from_f32(x).to_le_bytes()),
        _ => out.extend(x.to_le_bytes()),
    }
}

/// Returns whether a float format holds a value to the bit.
pub(super) fn holds(format: Format, x: f32) -> bool {
    match format {
        Format::F16 => f16::from_f32(x).to_f32().to_bits() == x.to_bits(),
        Format::Bf16 => bf16::from_f32(x).to_f32().to_bits() == x.to_bits(),
        _ => true,
    }
}

/// Returns the first value of a matrix that a float format does not hold.
pub(super) fn first_lost(matrix: &DenseMatrix, format: Format) -> Option<f32> {
    let narrow = matches!(format, Format::F16 | Format::Bf16);
    if !narrow || dtype(format) == matrix.dtype {
        return None;
    }
    let mut row = vec![0.0; matrix.cols];
    (0..matrix.rows).find_map(|r| {
        kernels::widen(matrix, r, &mut row);
        row.iter().copied().find(|&x| !holds(format, x))
    })
}

/// Returns the element type of a float format.
///
/// # Panics
/// If the format is ternary.
pub(super) fn dtype(format: Format) -> DenseType {
    match format {
        Format::F32 => DenseType::F32,
        Format::F16 => DenseType::F16,
        Format::Bf16 => DenseType::Bf16,
        Format::I2S | Format::Tq1_0 | Format::Tq2_0 => unreachable!("floats only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_alternate_between_the_halves_of_their_head() {
        let order = RowOrder::Interleaved(6);
        let rows: Vec<usize> = (0..12).map(|row| order.source(row)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(RowOrder::Same.source(7), 7);
    }

    #[test]
    fn floats_hold_what_their_bits_hold() {
        assert!(
            holds(Format::F16, 0.5)
                && holds(Format::Bf16, 2_f32.powi(100))
                && holds(Format::F32, 0.1)
        );
        assert!(
            !holds(Format::F16, 1e30) && !holds(Format::Bf16, 0.1) && !holds(Format::F16, 1e-9)
        );
    }
}
