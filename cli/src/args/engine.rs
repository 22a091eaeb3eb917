//! The engine in this process: how a model is loaded, and what is done with it at once.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use clap::{Args, ValueEnum, builder::FalseyValueParser};
use tritmark_engine::{
    engine::{HeadChoice, Numerics as EngineNumerics},
    kv_cache::KvType,
    load::LoadOptions,
};

use super::I2sLayout;

/// How a model's files are read.
#[derive(Debug, Args)]
pub(crate) struct Loading {
    /// Folder of a LoRA adapter, as peft writes it, to run the model with.
    #[arg(long, env = "TRITMARK_LORA", value_name = "DIR")]
    pub(crate) lora: Option<PathBuf>,
    /// Byte layout of I2_S tensors, which the file does not tell.
    #[arg(long, env = "TRITMARK_I2S_LAYOUT", value_enum, default_value_t)]
    pub(crate) i2s_layout: I2sLayout,
}

impl From<&Loading> for LoadOptions {
    fn from(loading: &Loading) -> Self {
        let Loading { lora, i2s_layout } = loading;
        Self {
            adapter: lora.clone(),
            ..(*i2s_layout).into()
        }
    }
}

/// How a model is run outside a plan.
#[derive(Debug, Args)]
pub(crate) struct Engine {
    /// A GGUF file or a Hugging Face folder.
    #[arg(short, long, env = "TRITMARK_MODEL", value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// How its files are read.
    #[command(flatten)]
    pub(crate) loading: Loading,
    /// Kernel's name, or `auto` for the best this CPU has.
    #[arg(long, env = "TRITMARK_KERNEL", default_value = "auto")]
    pub(crate) kernel: String,
    /// How the most likely tokens are found: `screened` reads an int8 copy of the output head and
    /// few of its rows, `full` all of it. The tokens and their logits are the same.
    #[arg(long, env = "TRITMARK_HEAD", value_enum, default_value_t)]
    pub(crate) head: Head,
    /// How keys and values of past tokens are kept: `f16` takes half of the memory, and rounds.
    #[arg(long, env = "TRITMARK_KV", value_enum, default_value_t)]
    pub(crate) kv: Kv,
    /// How matrices in block formats (Q8_0, Q4_0, k-quants and the like) are multiplied: `exact` by
    /// inputs in f32, `fast` by inputs rounded to int8 in blocks of 32. Nothing else changes.
    #[arg(long, env = "TRITMARK_NUMERICS", value_enum, default_value_t)]
    pub(crate) numerics: Numerics,
}

/// `--numerics`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Numerics {
    /// Inputs as they are.
    #[default]
    Exact,
    /// Inputs rounded, as llama.cpp has them.
    Fast,
}

impl From<Numerics> for EngineNumerics {
    fn from(numerics: Numerics) -> Self {
        match numerics {
            Numerics::Exact => Self::Exact,
            Numerics::Fast => Self::Fast,
        }
    }
}

/// `--kv`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Kv {
    /// As they were computed.
    #[default]
    F32,
    /// As llama.cpp keeps them.
    F16,
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
        }
    }
}

/// `--head`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Head {
    /// By an int8 copy.
    #[default]
    Screened,
    /// Among all logits.
    Full,
}

impl From<Head> for HeadChoice {
    fn from(head: Head) -> Self {
        match head {
            Head::Screened => Self::Screened,
            Head::Full => Self::Full,
        }
    }
}

/// `tritmark generate`.
#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// The model.
    #[command(flatten)]
    pub(crate) engine: Engine,
    /// The text to continue.
    #[arg(short, long)]
    pub(crate) prompt: String,
    /// Tokens to generate at most.
    #[arg(short, long = "n-gen", default_value = "128", value_name = "N")]
    pub(crate) n_gen: NonZeroUsize,
    /// Temperature; 0 takes the most likely token.
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub(crate) temp: f32,
    /// Draw from the K most likely tokens only; 0 takes all.
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub(crate) top_k: u32,
    /// Draw from the fewest tokens that hold this probability together.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    pub(crate) top_p: f32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// End where this text appears; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Put the prompt into the model's chat template, as a user's message.
    #[arg(long)]
    pub(crate) chat: bool,
    /// System message of the chat.
    #[arg(long, requires = "chat", value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Threads [default: one a core].
    #[arg(short, long, env = "TRITMARK_THREADS", value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// `tritmark agree`.
#[derive(Debug, Args)]
pub(crate) struct Agree {
    /// A GGUF file or a Hugging Face folder.
    #[arg(short, long, env = "TRITMARK_MODEL", value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// Prompts; the papers' own test has 1000.
    #[arg(long, default_value = "100", value_name = "N")]
    pub(crate) n_prompts: NonZeroU32,
    /// Tokens of the longest prompt.
    #[arg(long, default_value = "64", value_name = "N")]
    pub(crate) max_len: NonZeroU32,
    /// Tokens to generate behind each.
    #[arg(short, long = "n-gen", default_value_t = 16, value_name = "N")]
    pub(crate) n_gen: u32,
    /// Threads, comma-separated.
    #[arg(
        short,
        long,
        env = "TRITMARK_THREADS",
        value_delimiter = ',',
        default_value = "1,2,3",
        value_name = "N,…"
    )]
    pub(crate) threads: Vec<NonZeroUsize>,
    /// Tokens submitted at once, comma-separated.
    #[arg(
        short = 'b',
        long = "batch-size",
        value_delimiter = ',',
        default_value = "1,7,32,512",
        value_name = "N,…"
    )]
    pub(crate) n_batch: Vec<NonZeroUsize>,
    /// How its files are read.
    #[command(flatten)]
    pub(crate) loading: Loading,
    /// How keys and values of past tokens are kept.
    #[arg(long, env = "TRITMARK_KV", value_enum, default_value_t)]
    pub(crate) kv: Kv,
    /// How matrices in block formats are multiplied; see `bench`.
    #[arg(long, env = "TRITMARK_NUMERICS", value_enum, default_value_t)]
    pub(crate) numerics: Numerics,
    /// Seed of the prompts.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the result as JSON instead of a table.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// `tritmark bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The model.
    #[command(flatten)]
    pub(crate) engine: Engine,
    /// Prompt lengths, comma-separated; 0 leaves prefill out.
    #[arg(
        short = 'p',
        long = "n-prompt",
        value_delimiter = ',',
        default_value = "512",
        value_name = "N,…"
    )]
    pub(crate) n_prompt: Vec<u32>,
    /// Tokens to generate, comma-separated; 0 leaves decode out.
    #[arg(
        short = 'n',
        long = "n-gen",
        value_delimiter = ',',
        default_value = "128",
        value_name = "N,…"
    )]
    pub(crate) n_gen: Vec<u32>,
    /// Tokens already in the KV cache.
    #[arg(
        short = 'd',
        long = "n-depth",
        value_delimiter = ',',
        default_value = "0",
        value_name = "N,…"
    )]
    pub(crate) n_depth: Vec<u32>,
    /// Tokens submitted at once.
    #[arg(
        short = 'b',
        long = "batch-size",
        default_value = "512",
        value_name = "N"
    )]
    pub(crate) n_batch: NonZeroU32,
    /// Threads, comma-separated.
    #[arg(
        short,
        long,
        env = "TRITMARK_THREADS",
        value_delimiter = ',',
        value_name = "N,…"
    )]
    pub(crate) threads: Vec<NonZeroUsize>,
    /// Repetitions.
    #[arg(short, long, default_value = "5", value_name = "N")]
    pub(crate) repetitions: NonZeroU32,
    /// Leave the warm-up out.
    #[arg(long)]
    pub(crate) no_warmup: bool,
    /// Do not measure the machine's own bounds beside each test.
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t = BenchFormat::Md)]
    pub(crate) output: BenchFormat,
}

/// How `tritmark bench` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// A Markdown table.
    Md,
    /// Comma-separated values.
    Csv,
    /// One JSON array.
    Json,
    /// One JSON object a line.
    Jsonl,
    /// SQL that fills the table `tritmark_bench`.
    Sql,
}
