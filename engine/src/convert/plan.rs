//! What a converted file is going to hold, found out before its first byte is written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    ConvertError, Format, Options, Report, WriteError, describe,
    encode::{self, BlockScale, RowOrder, Sink},
    vocabulary,
};
use crate::{
    config::{Architecture, RopePairs},
    format::gguf::{Gguf, Layout, TensorType},
    load::{
        I2sLayout,
        open::{LINEARS, NORMS, Open, Part, ROPE_FREQS, gguf_part, gguf_scales},
    },
    ops::rope,
    quant::TQ_BLOCK,
    weights::{Bytes, DenseMatrix, DenseType, Matrix, TernaryMatrix, TernaryScale},
};

/// Layout of the file, and where its tensors come from.
pub(super) struct Plan<'a> {
    input: &'a Path,
    source: &'a Open,
    options: &'a Options,
    layout: Layout,
    contents: Vec<Content>,
    report: Report,
}

/// Where a tensor's bytes come from.
enum Content {
    /// The source's bytes.
    Copy(Bytes),
    /// A few floats.
    Floats(Vec<f32>),
    /// A ternary linear.
    Ternary {
        layer: usize,
        part: Part,
        order: RowOrder,
        block_scale: BlockScale,
    },
    /// A matrix as floats of another type.
    Dense(DenseMatrix, Format, RowOrder),
    /// A matrix as it is stored, rows in another order.
    Reordered(DenseMatrix, RowOrder),
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        input: &'a Path,
        source: &'a Open,
        options: &'a Options,
    ) -> Result<Self, ConvertError> {
        let mut warnings = Vec::new();
        let architecture = describe::architecture(
            input,
            source,
            options.architecture.as_deref(),
            &mut warnings,
        )?;
        let mut metadata = match &source.gguf {
            Some(gguf) => describe::carried_over(gguf, &architecture, options.format),
            None => describe::of_config(input, source, &architecture, options.format)?,
        };
        if source.gguf.is_none() && !options.without_vocabulary {
            vocabulary::add(input, source, &mut metadata)?;
        }
        let mut plan = Self {
            input,
            source,
            options,
            layout: Layout::new(metadata),
            contents: Vec::new(),
            report: Report {
                architecture,
                warnings,
                ..Report::default()
            },
        };
        match &source.gguf {
            Some(gguf) => plan.of_gguf(gguf)?,
            None => plan.of_folder()?,
        }
        Ok(plan)
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn report(&self) -> Report {
        self.report.clone()
    }

    /// Writes the bytes of the `nth` tensor.
    pub(super) fn encode(&self, nth: usize, sink: Sink<'_>) -> Result<(), WriteError> {
        match &self.contents[nth] {
            Content::Copy(bytes) => {
                for (nth, chunk) in bytes.chunks(encode::CHUNK).enumerate() {
                    sink(chunk)?;
                    // Read once: the file's pages need not stay resident.
                    bytes.release(nth * encode::CHUNK, chunk.len());
                }
            }
            Content::Floats(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                sink(&bytes)?;
            }
            Content::Ternary {
                layer,
                part,
                order,
                block_scale,
            } => {
                let Matrix::Ternary(matrix) = self.source.linear(*layer, *part)? else {
                    unreachable!("it was ternary when the plan was made");
                };
                encode::ternary(&matrix, self.options.format, *order, *block_scale, sink)?;
            }
            Content::Dense(matrix, format, order) => encode::dense(matrix, *format, *order, sink)?,
            Content::Reordered(matrix, order) => encode::reordered(matrix, *order, sink)?,
        }
        Ok(())
    }

    /// All tensors in the file's order, but separate scales, which become part of their linears.
    fn of_gguf(&mut self, gguf: &Gguf) -> Result<(), ConvertError> {
        let mut linears = BTreeMap::new();
        let mut scales = BTreeSet::new();
        for layer in 0..self.source.config.n_layers {
            for part in LINEARS {
                let stem = gguf_part(layer, part);
                scales.extend(gguf_scales(&stem));
                linears.insert(format!("{stem}.weight"), (layer, part));
            }
        }
        for info in &gguf.tensors {
            let name = info.name.as_str();
            if let Some(&(layer, part)) = linears.get(name) {
                let stem = gguf_part(layer, part);
                let has_scale = gguf_scales(&stem).any(|scale| gguf.tensor(&scale).is_some());
                let canonical = info.kind != TensorType::I2S
                    || self.options.load.i2_s_layout == I2sLayout::Blocks128;
                let (stored, _) = self
                    .source
                    .stored(layer, part)
                    .expect("the file lists this tensor");
                if info.kind == self.options.format.tensor_type() && !has_scale && canonical {
                    // Read all the same, so that a file with faults is refused.
                    self.source.linear(layer, part)?;
                    self.add(name, &info.dims, info.kind, Content::Copy(stored))?;
                } else {
                    self.linear(layer, part, RowOrder::Same)?;
                }
            } else if scales.contains(name) {
                // Taken with its linear.
            } else if name == "token_embd.weight" || name == "output.weight" {
                let matrix = match name {
                    "output.weight" => self.source.head()?,
                    _ => Some(self.source.embedding()?),
                };
                if let Some(matrix) = matrix {
                    self.embedding(name, name, matrix)?;
                }
            } else if let (ROPE_FREQS, Some(factors)) =
                (name, &self.source.config.rope_freq_factors)
            {
                self.floats(name, factors.clone())?;
            } else {
                let bytes = self.source.bytes(name).expect("the file lists this tensor");
                self.add(name, &info.dims, info.kind, Content::Copy(bytes))?;
            }
        }
        Ok(())
    }

    fn of_folder(&mut self) -> Result<(), ConvertError> {
        let source = self.source;
        let config = &source.config;
        let embedding = "model.embed_tokens.weight";
        self.embedding("token_embd.weight", embedding, source.embedding()?)?;
        if let Some(factors) = rope::llama3_factors(config) {
            self.floats(ROPE_FREQS, factors)?;
        }
        for layer in 0..config.n_layers {
            for part in NORMS {
                if let Some(gain) = source.norm(layer, part)? {
                    self.floats(&format!("{}.weight", gguf_part(layer, part)), gain)?;
                }
            }
            for part in LINEARS {
                let order = match part {
                    // Converters permute Llama's q and k, and readers expect it.
                    Part::Q | Part::K
                        if matches!(
                            config.architecture,
                            Architecture::Llama | Architecture::Minicpm
                        ) && config.rope_pairs == RopePairs::Halves =>
                    {
                        RowOrder::Interleaved(config.head_dim)
                    }
                    _ => RowOrder::Same,
                };
                self.linear(layer, part, order)?;
                if let Some(bias) = source.bias(layer, part)? {
                    let bias = (0..bias.len()).map(|row| bias[order.source(row)]);
                    let bias = bias.collect();
                    self.floats(&format!("{}.bias", gguf_part(layer, part)), bias)?;
                }
            }
        }
        self.floats("output_norm.weight", source.output_norm()?)?;
        if let Some(head) = source.head()? {
            self.embedding("output.weight", "lm_head.weight", head)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        dims: &[u64],
        kind: TensorType,
        content: Content,
    ) -> Result<(), ConvertError> {
        self.layout
            .add(name, dims, kind)
            .map_err(|source| ConvertError::Layout {
                path: self.input.to_owned(),
                format: self.options.format.name(),
                source,
            })?;
        match content {
            Content::Copy(_) => self.report.n_copied += 1,
            _ => self.report.n_converted += 1,
        }
        self.contents.push(content);
        Ok(())
    }

    fn floats(&mut self, name: &str, values: Vec<f32>) -> Result<(), ConvertError> {
        let dims = [values.len() as u64];
        self.add(name, &dims, TensorType::F32, Content::Floats(values))
    }

    fn loss(&self, tensor: &str, format: Format, reason: String) -> ConvertError {
        ConvertError::Loss {
            path: self.input.to_owned(),
            tensor: tensor.to_owned(),
            format: format.name(),
            reason,
        }
    }

    /// The embedding or the head.
    fn embedding(
        &mut self,
        name: &str,
        source_name: &str,
        matrix: DenseMatrix,
    ) -> Result<(), ConvertError> {
        if let Some(format) = self.options.embedding {
            return self.dense(name, source_name, matrix, format, RowOrder::Same);
        }
        let dims = [matrix.cols as u64, matrix.rows as u64];
        let kind = tensor_type(matrix.dtype);
        self.add(name, &dims, kind, Content::Copy(matrix.data))
    }

    fn dense(
        &mut self,
        name: &str,
        source_name: &str,
        matrix: DenseMatrix,
        format: Format,
        order: RowOrder,
    ) -> Result<(), ConvertError> {
        let kind = matrix.dtype.name();
        if !matches!(format, Format::F32 | Format::F16 | Format::Bf16) {
            let reason = format!("it is {kind}, and not ternary");
            return Err(self.loss(source_name, format, reason));
        }
        if let Some(x) = encode::first_lost(&matrix, format) {
            let reason = format!("it is {kind}, and holds {x:e}");
            return Err(self.loss(source_name, format, reason));
        }
        let dims = [matrix.cols as u64, matrix.rows as u64];
        let content = if matrix.dtype != encode::dtype(format) {
            Content::Dense(matrix, format, order)
        } else if order == RowOrder::Same {
            Content::Copy(matrix.data)
        } else {
            Content::Reordered(matrix, order)
        };
        self.add(name, &dims, format.tensor_type(), content)
    }

    fn linear(&mut self, layer: usize, part: Part, order: RowOrder) -> Result<(), ConvertError> {
        let format = self.options.format;
        let stem = gguf_part(layer, part);
        let name = format!("{stem}.weight");
        let source_name = format!("{}.weight", self.source.name(layer, part));
        let matrix = match self.source.linear(layer, part)? {
            Matrix::Dense(matrix) => {
                return self.dense(&name, &source_name, matrix, format, order);
            }
            Matrix::Ternary(matrix) => matrix,
            Matrix::Lookup(_) => unreachable!("only an engine packs for look-up tables"),
        };
        if let (true, Some((bytes, Some(dtype)))) = (
            matches!(format, Format::F32 | Format::F16 | Format::Bf16),
            self.source.stored(layer, part),
        ) && dtype == encode::dtype(format)
            && order == RowOrder::Same
            && self.source.gguf.is_none()
        {
            // Master weights: quantised by whoever loads them.
            self.check_floats_stay_ternary(&source_name)?;
            let dims = [matrix.cols as u64, matrix.rows as u64];
            return self.add(&name, &dims, format.tensor_type(), Content::Copy(bytes));
        }
        let block_scale = self.check_ternary(&source_name, &matrix)?;
        let dims = [matrix.cols as u64, matrix.rows as u64];
        let content = Content::Ternary {
            layer,
            part,
            order,
            block_scale,
        };
        self.add(&name, &dims, format.tensor_type(), content)?;
        if block_scale == BlockScale::Beside {
            let TernaryScale::Tensor(scale) = matrix.scale else {
                unreachable!("scales that differ stay in their blocks");
            };
            self.report.n_scale_tensors += 1;
            self.floats(&format!("{stem}.scale"), vec![scale])?;
        }
        Ok(())
    }

    /// Only under BitNet's names are floats trits.
    fn check_floats_stay_ternary(&self, tensor: &str) -> Result<(), ConvertError> {
        if self.source.config.architecture == Architecture::Bitnet {
            return Ok(());
        }
        let reason = format!(
            "`{}` files have no word for ternary floats, so that activations would not be quantised",
            self.report.architecture
        );
        Err(self.loss(tensor, self.options.format, reason))
    }

    /// Finds out whether the format holds trits and scales, and where the scale goes.
    fn check_ternary(
        &self,
        tensor: &str,
        matrix: &TernaryMatrix,
    ) -> Result<BlockScale, ConvertError> {
        let format = self.options.format;
        match (&matrix.scale, format) {
            (TernaryScale::Tensor(_), Format::I2S) => Ok(BlockScale::Inside),
            (TernaryScale::Tensor(scale), Format::Tq1_0 | Format::Tq2_0) => {
                if encode::holds(Format::F16, *scale) {
                    return Ok(BlockScale::Inside);
                }
                if self.options.scale_tensors {
                    return Ok(BlockScale::Beside);
                }
                let reason = format!(
                    "its scale {scale:e} is no f16, which the blocks have; with --scale-tensors it \
                     is kept in a `.scale` tensor beside blocks of scale 1, as llama.cpp reads it"
                );
                Err(self.loss(tensor, format, reason))
            }
            (TernaryScale::Tensor(scale), Format::F32 | Format::F16 | Format::Bf16) => {
                self.check_floats_stay_ternary(tensor)?;
                if encode::holds(format, *scale) {
                    return Ok(BlockScale::Inside);
                }
                Err(self.loss(tensor, format, format!("it holds the scale {scale:e}")))
            }
            (TernaryScale::Blocks(scales), _) => {
                if format.has_f16_scales() {
                    let lost = scales.iter().find(|&&x| !encode::holds(Format::F16, x));
                    return match lost {
                        None => Ok(BlockScale::Inside),
                        Some(x) => {
                            let reason = format!("a block's scale {x:e} is no f16");
                            Err(self.loss(tensor, format, reason))
                        }
                    };
                }
                let first = scales.first().copied().unwrap_or_default();
                let other = scales.iter().position(|x| x.to_bits() != first.to_bits());
                let other = other.unwrap_or_default();
                let per_row = matrix.cols.div_ceil(TQ_BLOCK);
                let reason = format!(
                    "its blocks have scales of their own ({first:e}, but {:e} in row {}, block {}), \
                     and {} has one for the matrix",
                    scales.get(other).copied().unwrap_or_default(),
                    other / per_row,
                    other % per_row,
                    format.name()
                );
                Err(self.loss(tensor, format, reason))
            }
        }
    }
}

fn tensor_type(dtype: DenseType) -> TensorType {
    match dtype {
        DenseType::F32 => TensorType::F32,
        DenseType::F16 => TensorType::F16,
        DenseType::Bf16 => TensorType::Bf16,
        DenseType::Q8_0 => TensorType::Q8_0,
        DenseType::Q4_0 => TensorType::Q4_0,
        DenseType::Q5_0 => TensorType::Q5_0,
        DenseType::Q4K => TensorType::Q4K,
        DenseType::Q5K => TensorType::Q5K,
        DenseType::Q6K => TensorType::Q6K,
    }
}
