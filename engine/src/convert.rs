//! A model file in another format: ternary linears between I2_S, TQ1_0 and TQ2_0 and plain floats,
//! Hugging Face folders to GGUF files.
//!
//! What is written is read back as the same trits and the same scales, so that the logits are the
//! same to the bit; where a format cannot hold them the conversion is refused and names the tensor.
//! Only Llama's q and k, whose rows GGUF files have in another order, sum in another order.
//! Tensors are read, converted and written one by one: memory does not grow with the file.

mod describe;
mod encode;
mod error;
mod plan;
mod vocabulary;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use serde::Serialize;

use crate::{
    format::gguf::TensorType,
    load::{self, LoadError, LoadOptions},
    whole_file::write_whole,
};

pub use error::ConvertError;

/// Formats of the block linears that can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// bitnet.cpp's 2 bits a weight, one f32 scale a matrix.
    I2S,
    /// ggml's 1.6875 bits a weight, an f16 scale for 256 weights.
    Tq1_0,
    /// ggml's 2.0625 bits a weight, an f16 scale for 256 weights.
    Tq2_0,
    /// Floats; a ternary model's are −s, 0 and s.
    F32,
    /// Floats of 16 bits.
    F16,
    /// Floats of 16 bits with f32's exponent.
    Bf16,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self::I2S,
        Self::Tq1_0,
        Self::Tq2_0,
        Self::F32,
        Self::F16,
        Self::Bf16,
    ];

    /// Returns the format of a name: `i2_s`, `bf16`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Returns the name.
    pub const fn name(self) -> &'static str {
        self.tensor_type().name()
    }

    const fn tensor_type(self) -> TensorType {
        match self {
            Self::I2S => TensorType::I2S,
            Self::Tq1_0 => TensorType::Tq1_0,
            Self::Tq2_0 => TensorType::Tq2_0,
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
        }
    }

    /// Whether blocks of f16 scales hold the trits.
    const fn has_f16_scales(self) -> bool {
        matches!(self, Self::Tq1_0 | Self::Tq2_0)
    }

    /// llama.cpp's and bitnet.cpp's `general.file_type`.
    const fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 32,
            Self::Tq1_0 => 36,
            Self::Tq2_0 => 37,
            Self::I2S => 40,
        }
    }
}

/// How to convert.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the block linears.
    pub format: Format,
    /// Whether a scale that f16 cannot hold may stand in a `.scale` tensor beside TQ1_0 or TQ2_0
    /// blocks of scale 1, as llama.cpp reads it.
    pub scale_tensors: bool,
    /// What the file shall call its architecture, if not as the source does.
    pub architecture: Option<String>,
    /// Type of the embedding and the head, if not as the source has them; what it cannot hold is
    /// refused.
    pub embedding: Option<Format>,
    /// Whether a folder's vocabulary is left out.
    pub without_vocabulary: bool,
    /// How the source is read.
    pub load: LoadOptions,
}

impl Options {
    /// Converts to `format` and changes nothing else.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            scale_tensors: false,
            architecture: None,
            embedding: None,
            without_vocabulary: false,
            load: LoadOptions::default(),
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file's word for its architecture.
    pub architecture: String,
    /// Tensors whose bytes are other ones than the source's.
    pub n_converted: usize,
    /// Tensors whose bytes are the source's.
    pub n_copied: usize,
    /// Linears whose scale stands in a tensor of its own.
    pub n_scale_tensors: usize,
    /// Size of the file.
    pub file_bytes: u64,
    /// What a reader of the file must know.
    pub warnings: Vec<String>,
}

/// Converts a GGUF file or a Hugging Face folder into a GGUF file. The file appears whole or not at
/// all. `progress` is told the bytes of weights written so far and in all.
pub fn convert(
    input: &Path,
    output: &Path,
    options: &Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, ConvertError> {
    let write_error = |source| ConvertError::Write {
        path: output.to_owned(),
        source,
    };
    if fs::canonicalize(input).is_ok_and(|input| fs::canonicalize(output).is_ok_and(|o| o == input))
    {
        return Err(write_error(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is the file to convert",
        )));
    }
    if let Some(adapter) = &options.load.adapter {
        return Err(ConvertError::Unsupported {
            path: adapter.clone(),
            what: "a LoRA adapter stays beside its model".to_owned(),
        });
    }
    let source = load::open::open(input, &options.load)?;
    let plan = plan::Plan::new(input, &source, options)?;
    match write_whole(output, |file| write(&plan, file, &mut progress)) {
        Ok(file_bytes) => Ok(Report {
            file_bytes,
            ..plan.report()
        }),
        Err(WriteError::Io(source)) => Err(write_error(source)),
        Err(WriteError::Load(error)) => Err(error.into()),
    }
}

/// What may go wrong while a file is written.
enum WriteError {
    Io(io::Error),
    Load(LoadError),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<LoadError> for WriteError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

fn write(
    plan: &plan::Plan<'_>,
    file: &File,
    progress: &mut impl FnMut(u64, u64),
) -> Result<u64, WriteError> {
    let out = BufWriter::with_capacity(1 << 20, file);
    let total = plan.layout().data_bytes();
    let mut writer = plan.layout().begin(out)?;
    let mut done = 0;
    progress(0, total);
    for nth in 0..plan.layout().tensors().len() {
        let len = plan.layout().tensors()[nth].len;
        plan.encode(nth, &mut |bytes: &[u8]| writer.write(bytes))?;
        done += len;
        progress(done, total);
    }
    progress(total, total);
    writer.finish().flush()?;
    Ok(file.metadata()?.len())
}
