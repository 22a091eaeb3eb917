//! Random weights in every format's bytes.

use half::{bf16, f16};

use super::random::Random;
use crate::{
    format::gguf::TensorType,
    quant::{i2_s, q4_0, q4_k, q5_0, q5_k, q6_k, q8_0, tq1_0, tq2_0},
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
            // Of every code there is, each as likely, times the blocks' own scales.
            TensorType::Q5_0 => scale = f16::from_f32(spread / deviation(32)),
            TensorType::Q4K => scale = f16::from_f32(spread / deviation(16) / 32.0),
            TensorType::Q5K => scale = f16::from_f32(spread / deviation(32) / 32.0),
            TensorType::Q6K => scale = f16::from_f32(spread / deviation(64) / 16.0),
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
            TensorType::Q8_0 => q8_0::BLOCK_BYTES,
            TensorType::Q4_0 => q4_0::BLOCK_BYTES,
            TensorType::Q5_0 => q5_0::BLOCK_BYTES,
            TensorType::Q4K => q4_k::BLOCK_BYTES,
            TensorType::Q5K => q5_k::BLOCK_BYTES,
            TensorType::Q6K => q6_k::BLOCK_BYTES,
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
            TensorType::Q5_0 => {
                for block in bytes.chunks_exact_mut(q5_0::BLOCK_BYTES) {
                    random.fill(block);
                    // Of either sign: the codes' mean is −1/2.
                    let sign = block[1] & 0x80;
                    block[..2].copy_from_slice(&d);
                    block[1] ^= sign;
                }
            }
            // Scales of 32, and mins that take away the mean code: 4 · 60 = 32 · 7.5.
            TensorType::Q4K => self.k_blocks(random, bytes, q4_k::BLOCK_BYTES, 4.0, 60),
            // 8 · 62 = 32 · 15.5.
            TensorType::Q5K => self.k_blocks(random, bytes, q5_k::BLOCK_BYTES, 8.0, 62),
            TensorType::Q6K => {
                for block in bytes.chunks_exact_mut(q6_k::BLOCK_BYTES) {
                    random.fill(block);
                    for scale in block[192..208].chunks_exact_mut(2) {
                        // Of either sign, as for Q5_0.
                        scale.copy_from_slice(&[16, 16_u8.wrapping_neg()]);
                    }
                    block[208..].copy_from_slice(&d);
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

    /// Draws `Q4_K` or `Q5_K` blocks with scales of 32, and mins of `min` times `less` times the scale.
    fn k_blocks(
        &self,
        random: &mut Random,
        bytes: &mut [u8],
        block_bytes: usize,
        less: f32,
        min: u8,
    ) {
        const SCALE: u8 = 32;
        let dmin = f16::from_f32(self.scale.to_f32() * less);
        for block in bytes.chunks_exact_mut(block_bytes) {
            random.fill(block);
            block[..2].copy_from_slice(&self.scale.to_le_bytes());
            block[2..4].copy_from_slice(&dmin.to_le_bytes());
            block[4..8].fill(SCALE | SCALE >> 4 << 6);
            block[8..12].fill(min | min >> 4 << 6);
            block[12..16].fill(SCALE & 15 | min << 4);
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

/// Returns the standard deviation of a number from 0 to `n − 1`, each as likely.
fn deviation(n: u16) -> f32 {
    let n = f32::from(n);
    ((n * n - 1.0) / 12.0).sqrt()
}
