//! Model files: what is in them, whether they are right, and other formats.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use tritmark_engine::load::{self, LoadOptions};

use super::{
    Loading, ModelFetch, Print,
    engine::{Kv, Numerics},
};

/// `tritmark model`.
#[derive(Debug, Args)]
pub(crate) struct Model {
    /// What to do with models.
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

/// `tritmark model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Say what a model file holds.
    Inspect {
        /// A GGUF file or a Hugging Face folder.
        #[arg(value_name = "FILE")]
        model: PathBuf,
        /// How its files are read.
        #[command(flatten)]
        loading: Loading,
        /// How to print.
        #[command(flatten)]
        print: Print,
    },
    /// Check a model file's numbers, against a reference program's if there is one.
    Verify(Verify),
    /// Bring a model's files from the Hugging Face hub.
    Fetch(ModelFetch),
    /// Write a model file in another format without loss.
    Convert(Convert),
    /// Write a model file as another program reads it.
    Export(Export),
    /// Write a model of a published shape with random weights.
    Synth {
        /// The shape, e.g. `125m` or `2b4t`; `tritmark ls shapes` names all.
        #[arg(long)]
        shape: String,
        /// Format of the block linears, e.g. `i2_s`, `f16`.
        #[arg(long, default_value = "i2_s")]
        format: String,
        /// Seed of the weights.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A GGUF file whose vocabulary it shall have, for suites that ask questions.
        #[arg(long, value_name = "FILE.gguf")]
        vocabulary: Option<PathBuf>,
        /// The GGUF file to write.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// `tritmark model verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A GGUF file or a Hugging Face folder.
    #[arg(value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// A reference's outputs, `.json` or `.json.gz`, with its tensors in a `.safetensors` beside it.
    #[arg(long, env = "TRITMARK_GOLDEN", value_name = "FILE.json")]
    pub(crate) golden: Option<PathBuf>,
    /// Leave out the reference's prompts of more tokens.
    #[arg(long, value_name = "N")]
    pub(crate) longest: Option<NonZeroUsize>,
    /// Kernel's name, or `auto` for the best this CPU has.
    #[arg(long, env = "TRITMARK_KERNEL", default_value = "auto")]
    pub(crate) kernel: String,
    /// How keys and values of past tokens are kept; the limits are those of the choice.
    #[arg(long, env = "TRITMARK_KV", value_enum, default_value_t)]
    pub(crate) kv: Kv,
    /// How matrices in block formats are multiplied; see `bench`.
    #[arg(long, env = "TRITMARK_NUMERICS", value_enum, default_value_t)]
    pub(crate) numerics: Numerics,
    /// How its files are read.
    #[command(flatten)]
    pub(crate) loading: Loading,
    /// Threads [default: one a core].
    #[arg(short, long, env = "TRITMARK_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `tritmark model convert`.
#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A GGUF file or a Hugging Face folder.
    #[arg(value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// Format of the block linears: `i2_s`, `tq1_0`, `tq2_0`, `f32`, `f16`, `bf16`.
    #[arg(short, long)]
    pub(crate) format: String,
    /// Keep scales that f16 cannot hold in `.scale` tensors beside TQ1_0 or TQ2_0 blocks of scale 1.
    #[arg(long)]
    pub(crate) scale_tensors: bool,
    /// What the file shall call its architecture: `bitnet-b1.58`, `bitnet`, `llama`.
    #[arg(long, value_name = "NAME")]
    pub(crate) arch: Option<String>,
    /// Float type of the embedding and the head [default: the source's].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) head: Option<String>,
    /// Leave the vocabulary of a folder out.
    #[arg(long)]
    pub(crate) without_vocabulary: bool,
    /// Where from, where to, and how to print.
    #[command(flatten)]
    pub(crate) written: Written,
}

/// `tritmark model export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A GGUF file or a Hugging Face folder.
    #[arg(value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// The program that shall read it.
    #[arg(long = "for", value_enum)]
    pub(crate) program: Program,
    /// Where from, where to, and how to print.
    #[command(flatten)]
    pub(crate) written: Written,
}

/// What commands that write a model file share.
#[derive(Debug, Args)]
pub(crate) struct Written {
    /// The GGUF file to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Byte layout of the source's I2_S tensors, which the file does not tell.
    #[arg(long, env = "TRITMARK_I2S_LAYOUT", value_enum, default_value_t)]
    pub(crate) i2s_layout: I2sLayout,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

/// `--for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// TQ2_0, under the architecture it knows.
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// I2_S.
    #[value(name = "bitnet.cpp")]
    BitnetCpp,
}

/// `--i2s-layout`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum I2sLayout {
    /// 128 weights in 32 bytes: the official files.
    #[default]
    #[value(name = "128")]
    Blocks128,
    /// 64 weights in 16 bytes: bitnet.cpp's ARM builds since 112f853.
    #[value(name = "64")]
    Blocks64,
    /// A column of four rows in a byte: x86 builds without `ACT_PARALLEL`.
    #[value(name = "rows4")]
    RowsInFours,
}

impl From<I2sLayout> for LoadOptions {
    fn from(layout: I2sLayout) -> Self {
        Self {
            i2_s_layout: match layout {
                I2sLayout::Blocks128 => load::I2sLayout::Blocks128,
                I2sLayout::Blocks64 => load::I2sLayout::Blocks64,
                I2sLayout::RowsInFours => load::I2sLayout::RowsInFours,
            },
            ..Self::default()
        }
    }
}
