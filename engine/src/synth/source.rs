//! Random weights in every format's bytes.

use half::{bf16, f16};

use super::random::Random;
use crate::{
    format::gguf::TensorType,
    quant::{i2_s, tq1_0, tq2_0},
};

/// Makes a tensor's bytes block by block.
pub(super) struct Source {
    kind: TensorType,
    /// Values to draw from, as bytes; a power of two of them, or none for the ternary types.
    table: Vec<u8>,
    /// All bytes of four codes.
    code_bytes: Vec<u8>,
    /// Scale of the ternary and block types.
    scale: f16,
    /// Bytes behind the last block.
    pub(super) trailer: Vec<u8>,
}

/// Values in [`Source::table`].
const TABLE: usize = 4096;

impl Source {
    /// Values have the standard deviation `spread`, around 1 for a norm's gain and 0 elsewhere.
    pub(super) fn new(kind: TensorType, spread: f32, gain: bool) -> Self {
        // Evenly spread over ±√3 σ.
        let mean = if gain { 1.0 } else { 0.0 };
        let value = |i: usize| {
            let unit = (i as f32 + 0.5) / TABLE as f32 * 2.0 - 1.0;
            mean + unit * spread * 3_f32.sqrt()
        };
        let (mut table, mut trailer) = (Vec::new(), Vec::new());
        let mut scale = f16::ZERO;
        match kind {
            TensorType::F32 => table.extend((0..TABLE).flat_map(|i| value(i).to_le_bytes())),
            TensorType::F16 => {
                table.extend((0..TABLE).flat_map(|i| f16::from_f32(value(i)).to_le_bytes()));
            }
            TensorType::Bf16 => {
                table.extend((0..TABLE).flat_map(|i| bf16::from_f32(value(i)).to_le_bytes()));
            }
            // Quants of −127 to 127 and −7 to 7, each as likely.
            TensorType::Q8_0 => scale = f16::from_f32(spread * 3_f32.sqrt() / 127.0),
            TensorType::Q4_0 => scale = f16::from_f32(spread * 3_f32.sqrt() / 7.5),
            TensorType::Tq1_0 | TensorType::Tq2_0 | TensorType::I2S => {
                // Trits of equal probability have the variance 2/3. Rounded to f16 in every
                // format, so that they agree.
                scale = f16::from_f32(spread * 1.5_f32.sqrt());
            }
        }
        if kind == TensorType::I2S {
            trailer = scale.to_f32().to_le_bytes().to_vec();
            trailer.resize(32, 0);
        }
        let code_bytes = (0..=u8::MAX).filter(|byte| byte & byte >> 1 & 0x55 == 0);
        Self {
            kind,
            table,
            code_bytes: code_bytes.collect(),
            scale,
            trailer,
        }
    }

    /// Bytes of the smallest piece that [`Self::fill`] makes.
    pub(super) fn block_bytes(&self) -> usize {
        match self.kind {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::Q8_0 => 34,
            TensorType::Q4_0 => 18,
            TensorType::Tq1_0 => tq1_0::BLOCK_BYTES,
            TensorType::Tq2_0 => tq2_0::BLOCK_BYTES,
            TensorType::I2S => 64,
        }
    }

    /// Fills whole blocks.
    pub(super) fn fill(&self, random: &mut Random, bytes: &mut [u8]) {
        let d = self.scale.to_le_bytes();
        match self.kind {
            TensorType::F32 => self.draw::<4>(random, bytes),
            TensorType::F16 | TensorType::Bf16 => self.draw::<2>(random, bytes),
            TensorType::Q8_0 => {
                for block in bytes.chunks_exact_mut(34) {
                    block[..2].copy_from_slice(&d);
                    random.fill_below(255, &mut block[2..]);
                    block[2..].iter_mut().for_each(|q| *q = q.wrapping_sub(127));
                }
            }
            TensorType::Q4_0 => {
                for block in bytes.chunks_exact_mut(18) {
                    block[..2].copy_from_slice(&d);
                    random.fill_below(225, &mut block[2..]);
                    for q in &mut block[2..] {
                        *q = (*q / 15 + 1) << 4 | (*q % 15 + 1);
                    }
                }
            }
            TensorType::I2S => self.codes(random, bytes),
            TensorType::Tq2_0 => {
                for block in bytes.chunks_exact_mut(tq2_0::BLOCK_BYTES) {
                    self.codes(random, &mut block[..64]);
                    block[..64].iter_mut().for_each(tq2_0::reverse_codes);
                    block[64..].copy_from_slice(&d);
                }
            }
            TensorType::Tq1_0 => {
                let (mut codes, mut trits) = ([0; 64], [0; 256]);
                for block in bytes.chunks_exact_mut(tq1_0::BLOCK_BYTES) {
                    self.codes(random, &mut codes);
                    i2_s::unpack_row(&codes, &mut trits);
                    tq1_0::pack_block(&trits, self.scale, block);
                }
            }
        }
    }

    /// Draws I2_S bytes: four trits each, all equally likely.
    fn codes(&self, random: &mut Random, bytes: &mut [u8]) {
        random.fill_below(self.code_bytes.len() as u8, bytes);
        for byte in bytes {
            *byte = self.code_bytes[usize::from(*byte)];
        }
    }

    fn draw<const N: usize>(&self, random: &mut Random, bytes: &mut [u8]) {
        let (table, _) = self.table.as_chunks::<N>();
        let (values, _) = bytes.as_chunks_mut::<N>();
        for four in values.chunks_mut(4) {
            let mut bits = random.next();
            for value in four {
                *value = table[bits as usize % TABLE];
                bits >>= 16;
            }
        }
    }
}
