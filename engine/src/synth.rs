//! Models of any size with random weights, for measuring speed: in the kernels here, as in those
//! of the programs to compare with, speed does not depend on the weights' values.
//!
//! Shapes are those of the bitnet.cpp paper's dummy models and of BitNet b1.58 2B4T. The same seed
//! gives the same file; the ternary formats of one seed hold the same trits and scales, so that
//! they must give the same logits. Scales are such that every linear keeps the size of its input:
//! logits are finite and differ.

mod random;
mod shapes;
mod source;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    format::gguf::{GgufError, Layout, Metadata, TensorInfo, TensorType, TensorWriter, Value},
    whole_file::write_whole,
};

pub use shapes::{Shape, shape, shapes};

use random::Random;
use source::Source;

/// Bytes made before they are written: a whole number of every format's blocks.
const CHUNK_BLOCKS: usize = 4096;
/// RMSNorm's epsilon in every file.
const RMS_NORM_EPS: f32 = 1e-5;

/// Format of the block linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Ternary, bitnet.cpp's 2 bits a weight; a `bitnet-b1.58` file as the official one.
    I2S,
    /// Ternary, 2.0625 bits a weight.
    Tq2_0,
    /// Ternary, 1.6875 bits a weight.
    Tq1_0,
    /// The dense twin, a `llama` of the same shape without sub-norms.
    F32,
    /// Dense twin in f16.
    F16,
    /// Dense twin in bfloat16.
    Bf16,
    /// Dense twin, 8.5 bits a weight.
    Q8_0,
    /// Dense twin, 4.5 bits a weight.
    Q4_0,
    /// Dense twin, 5.5 bits a weight.
    Q5_0,
    /// Dense twin, 4.5 bits a weight.
    Q4K,
    /// Dense twin, 5.5 bits a weight.
    Q5K,
    /// Dense twin, 6.5625 bits a weight.
    Q6K,
    /// As [`Self::I2S`], with embedding and head in `Q6_K`, as bitnet.cpp quantises them.
    I2SQ6K,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 13] = [
        Self::I2S,
        Self::Tq2_0,
        Self::Tq1_0,
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q5_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::I2SQ6K,
    ];

    /// Returns the format of a name as in plans: `i2_s`, `f16`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Returns the name as in plans.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I2SQ6K => "i2_s+q6_k",
            _ => self.tensor_type().name(),
        }
    }

    /// Returns whether the linears are ternary.
    pub const fn is_ternary(self) -> bool {
        matches!(self, Self::I2S | Self::Tq2_0 | Self::Tq1_0 | Self::I2SQ6K)
    }

    const fn tensor_type(self) -> TensorType {
        match self {
            Self::I2S | Self::I2SQ6K => TensorType::I2S,
            Self::Tq2_0 => TensorType::Tq2_0,
            Self::Tq1_0 => TensorType::Tq1_0,
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
            Self::Q5_0 => TensorType::Q5_0,
            Self::Q4K => TensorType::Q4K,
            Self::Q5K => TensorType::Q5K,
            Self::Q6K => TensorType::Q6K,
        }
    }

    /// Type of the embedding, which is the head too: f16 as in the official file wherever the
    /// linears are not wider, so that twins differ in their linears alone.
    const fn embedding_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::Bf16 => TensorType::Bf16,
            Self::I2SQ6K => TensorType::Q6K,
            _ => TensorType::F16,
        }
    }

    /// llama.cpp's and bitnet.cpp's `general.file_type`.
    const fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q4K => 14,
            Self::Q5K => 16,
            Self::Q6K => 18,
            Self::Bf16 => 32,
            Self::Tq1_0 => 36,
            Self::Tq2_0 => 37,
            Self::I2S | Self::I2SQ6K => 40,
        }
    }
}

/// A file that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// A shape that the format cannot hold.
    #[error("shape `{shape}` cannot be written as {}", format.name())]
    Layout {
        /// Shape.
        shape: String,
        /// Format.
        format: Format,
        /// Why.
        #[source]
        source: GgufError,
    },
    /// A vocabulary that the shape's embedding does not fit.
    #[error(
        "the vocabulary has {} tokens in `tokenizer.ggml.tokens`, shape `{shape}` has {rows}",
        n_tokens.map_or("no".to_owned(), |n| n.to_string())
    )]
    Vocabulary {
        /// Shape.
        shape: String,
        /// Rows of its embedding.
        rows: usize,
        /// Tokens of the vocabulary, if there is a list of them.
        n_tokens: Option<usize>,
    },
    /// The file system said no.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Returns the size of the file that [`write()`] makes, bytes.
pub fn file_bytes(shape: &Shape, format: Format) -> Result<u64, SynthError> {
    let layout = layout(shape, format, metadata(shape, format, 0))?;
    let mut counter = Counter(0);
    layout
        .begin(&mut counter)
        .map_err(|source| SynthError::Write {
            path: PathBuf::new(),
            source,
        })?;
    Ok(counter.0 + layout.data_bytes())
}

/// Writes a model whose weights depend on `seed` alone, in bounded memory. The file appears whole
/// or not at all. `progress` is told the bytes of weights written so far and in all.
pub fn write(
    shape: &Shape,
    format: Format,
    seed: u64,
    path: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<(), SynthError> {
    let metadata = metadata(shape, format, seed);
    write_under(metadata, shape, format, seed, path, progress)
}

/// As [`write()`], with the `tokenizer.*` keys of another GGUF file, so that the model can be asked
/// questions: what it answers means nothing, how long it takes does.
///
/// # Errors
/// [`SynthError::Vocabulary`] unless there are as many tokens as the shape's embedding has rows.
pub fn write_with_vocabulary(
    shape: &Shape,
    format: Format,
    seed: u64,
    vocabulary: &Metadata,
    path: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<(), SynthError> {
    let tokens = vocabulary.strings("tokenizer.ggml.tokens");
    let n_tokens = tokens.ok().flatten().map(<[String]>::len);
    if n_tokens != Some(shape.vocab_size) {
        return Err(SynthError::Vocabulary {
            shape: shape.name.to_owned(),
            rows: shape.vocab_size,
            n_tokens,
        });
    }
    let mut metadata = metadata(shape, format, seed);
    for (key, value) in vocabulary.iter() {
        if key.starts_with("tokenizer.") {
            metadata.set(key, value.clone());
        }
    }
    write_under(metadata, shape, format, seed, path, progress)
}

fn write_under(
    metadata: Metadata,
    shape: &Shape,
    format: Format,
    seed: u64,
    path: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), SynthError> {
    let layout = layout(shape, format, metadata)?;
    write_whole(path, |file| {
        write_tensors(&layout, shape, seed, file, &mut progress)
    })
    .map_err(|source| SynthError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_tensors(
    layout: &Layout,
    shape: &Shape,
    seed: u64,
    file: &File,
    progress: &mut impl FnMut(u64, u64),
) -> io::Result<()> {
    let total = layout.data_bytes();
    let mut writer = layout.begin(file)?;
    let mut done = 0;
    progress(0, total);
    for tensor in layout.tensors() {
        write_tensor(&mut writer, tensor, shape, seed, &mut |bytes| {
            done += bytes;
            progress(done, total);
        })?;
    }
    progress(total, total);
    writer.finish();
    Ok(())
}

struct Counter(u64);

impl Write for &mut Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Names and shapes as in the official 2B4T file.
fn layout(shape: &Shape, format: Format, metadata: Metadata) -> Result<Layout, SynthError> {
    let mut layout = Layout::new(metadata);
    let (hidden, ffn) = (shape.hidden_size as u64, shape.ffn_size as u64);
    let q_size = (shape.n_heads * shape.head_dim) as u64;
    let kv_size = (shape.n_kv_heads * shape.head_dim) as u64;
    let linear = format.tensor_type();
    let mut add = |name: String, dims: &[u64], kind| {
        layout
            .add(name, dims, kind)
            .map_err(|source| SynthError::Layout {
                shape: shape.name.to_owned(),
                format,
                source,
            })
    };
    let norm = TensorType::F32;
    let vocab = shape.vocab_size as u64;
    add(
        "token_embd.weight".into(),
        &[hidden, vocab],
        format.embedding_type(),
    )?;
    for nth in 0..shape.n_layers {
        let name = |part: &str| format!("blk.{nth}.{part}.weight");
        add(name("attn_norm"), &[hidden], norm)?;
        add(name("attn_q"), &[hidden, q_size], linear)?;
        add(name("attn_k"), &[hidden, kv_size], linear)?;
        add(name("attn_v"), &[hidden, kv_size], linear)?;
        if format.is_ternary() {
            add(name("attn_sub_norm"), &[q_size], norm)?;
        }
        add(name("attn_output"), &[q_size, hidden], linear)?;
        add(name("ffn_norm"), &[hidden], norm)?;
        add(name("ffn_gate"), &[hidden, ffn], linear)?;
        add(name("ffn_up"), &[hidden, ffn], linear)?;
        if format.is_ternary() {
            add(name("ffn_sub_norm"), &[ffn], norm)?;
        }
        add(name("ffn_down"), &[ffn, hidden], linear)?;
    }
    add("output_norm.weight".into(), &[hidden], norm)?;
    Ok(layout)
}

/// Keys as in the official 2B4T file, without a vocabulary.
fn metadata(shape: &Shape, format: Format, seed: u64) -> Metadata {
    let arch = if format.is_ternary() {
        "bitnet-b1.58"
    } else {
        "llama"
    };
    let mut metadata = Metadata::default();
    let name = format!("tritmark synthetic {} {}", shape.name, format.name());
    metadata.set("general.architecture", Value::String(arch.into()));
    metadata.set("general.name", Value::String(name));
    metadata.set("general.file_type", Value::U32(format.file_type()));
    metadata.set("general.quantization_version", Value::U32(2));
    metadata.set("tritmark.synth.seed", Value::U64(seed));
    let sizes = [
        ("vocab_size", shape.vocab_size),
        ("context_length", shape.context_length),
        ("embedding_length", shape.hidden_size),
        ("block_count", shape.n_layers),
        ("feed_forward_length", shape.ffn_size),
        ("rope.dimension_count", shape.head_dim),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("attention.head_count", shape.n_heads),
        ("attention.head_count_kv", shape.n_kv_heads),
    ];
    for (key, size) in sizes {
        metadata.set(format!("{arch}.{key}"), Value::U32(size as u32));
    }
    metadata.set(
        format!("{arch}.attention.layer_norm_rms_epsilon"),
        Value::F32(RMS_NORM_EPS),
    );
    metadata.set(
        format!("{arch}.rope.freq_base"),
        Value::F32(shape.rope_theta),
    );
    metadata
}

fn write_tensor(
    writer: &mut TensorWriter<'_, &File>,
    tensor: &TensorInfo,
    shape: &Shape,
    seed: u64,
    wrote: &mut impl FnMut(u64),
) -> io::Result<()> {
    let mut random = Random::of(seed, &tensor.name);
    let inputs = tensor.dims[0] as f32;
    let spread = if tensor.dims.len() == 1 {
        0.1
    } else if tensor.name == "token_embd.weight" {
        // The head's output on a normed vector has this standard deviation times √inputs: 3.5, as
        // trained models' logits.
        3.5 / inputs.sqrt()
    } else if tensor.name.contains("attn_output") || tensor.name.contains("ffn_down") {
        // 2 · n_layers of these are added up.
        1.0 / (inputs * 2.0 * shape.n_layers as f32).sqrt()
    } else {
        1.0 / inputs.sqrt()
    };
    let source = Source::new(tensor.kind, spread, tensor.dims.len() == 1);
    let mut left = tensor.len - source.trailer.len() as u64;
    let mut chunk = vec![0; CHUNK_BLOCKS * source.block_bytes()];
    while left > 0 {
        let len = left.min(chunk.len() as u64);
        let bytes = &mut chunk[..len as usize];
        source.fill(&mut random, bytes);
        writer.write(bytes)?;
        wrote(len);
        left -= len;
    }
    if !source.trailer.is_empty() {
        writer.write(&source.trailer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
