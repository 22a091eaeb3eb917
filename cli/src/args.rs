//! What can be typed, and nothing about what it does.
//!
//! Every flag has an environment mirror where a script would set it: `TRITMARK_` and its name.

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use tritmark_engine::{
    engine::{HeadChoice, Numerics as EngineNumerics},
    kv_cache::KvType,
    load::{self, LoadOptions},
};

/// The coordinator that clients and agents look for when none is named.
pub(crate) const DEFAULT_COORDINATOR: &str = "http://127.0.0.1:7701";

/// Measures ternary language models: speed, memory, energy and accuracy, beside their
/// full-precision baselines.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 a check failed, 2 usage or a refused plan, \
    4 nothing to show, 5 finished with jobs missing, 70 internal, 75 try again."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log filter for stderr, e.g. `debug` or `tritmark_agent=trace`.
    #[arg(long, global = true, env = "TRITMARK_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure a plan on this machine and write its report.
    Run(Run),
    /// Serve plans to agents.
    Coordinator(Coordinator),
    /// Measure on this machine for a coordinator.
    Agent(Agent),
    /// Hand a plan to a coordinator.
    Submit(Submit),
    /// Follow a run until it has ended.
    Watch(Watch),
    /// List runs, agents, jobs, or what this build knows.
    Ls(Ls),
    /// Cancel a run; what is measured stays.
    Cancel(Cancel),
    /// Write the report of a run or of a bundle folder.
    Report(Report),
    /// Set one model's answers against another's, item by item, with a verdict.
    Compare(Compare),
    /// Write a run's items as lm-evaluation-harness or EvalPlus would.
    Export(ExportRun),
    /// Make a bundle of another program's results.
    Import(ImportRun),
    /// Say what this machine can measure, and how to make it measure more.
    Doctor(Doctor),
    /// Look into model files, or make one.
    Model(Model),
    /// Continue a text.
    Generate(Generate),
    /// Time a model file directly, in llama-bench's words.
    Bench(Bench),
    /// Prove that every lossless kernel computes what the scalar reference does, bit for bit.
    Agree(Agree),
    /// Print a plan to start from.
    Plan(Plan),
    /// Print a completion script.
    Completions(Completions),
    /// One job in a fresh process; started by an agent.
    #[command(hide = true)]
    Worker,
}

/// `tritmark run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The plan file.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Go on with the run that was interrupted; what it stored is not measured again.
    #[arg(long, env = "TRITMARK_RESUME", value_parser = FalseyValueParser::new(), conflicts_with = "fresh")]
    pub(crate) resume: bool,
    /// Leave an interrupted run as it is and begin a new one.
    #[arg(long, env = "TRITMARK_FRESH", value_parser = FalseyValueParser::new())]
    pub(crate) fresh: bool,
    /// Where to write [default: out/<plan's name>].
    #[arg(long, env = "TRITMARK_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the run's summary as JSON instead of a table.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// `tritmark coordinator`.
#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    /// What the coordinator shall do.
    #[command(subcommand)]
    pub(crate) command: CoordinatorCommand,
}

/// `tritmark coordinator …`.
#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorCommand {
    /// Serve until interrupted.
    Up {
        /// Address to listen on; port 0 takes a free one.
        #[arg(
            long,
            env = "TRITMARK_LISTEN",
            default_value = "127.0.0.1:7701",
            value_name = "ADDR"
        )]
        listen: SocketAddr,
        /// Folder of the store.
        #[arg(
            long,
            env = "TRITMARK_STATE",
            default_value = "tritmark-coordinator",
            value_name = "DIR"
        )]
        state: PathBuf,
        /// Serve other machines in plain text.
        #[arg(long, env = "TRITMARK_INSECURE", value_parser = FalseyValueParser::new())]
        insecure: bool,
        /// The agents see this machine's files: refuse a plan that names a missing one.
        #[arg(long, env = "TRITMARK_LOCAL_FILES", value_parser = FalseyValueParser::new())]
        local_files: bool,
    },
}

/// `tritmark agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// What the agent shall do.
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// `tritmark agent …`.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Take jobs until interrupted.
    Up(AgentUp),
}

/// `tritmark agent up`.
#[derive(Debug, Args)]
pub(crate) struct AgentUp {
    /// The coordinator, e.g. `https://bench.example:7701`.
    #[arg(long, env = "TRITMARK_COORDINATOR", value_name = "URL")]
    pub(crate) coordinator: String,
    /// Folder for what is measured and not yet handed over, and for made models.
    #[arg(
        long,
        env = "TRITMARK_STATE",
        default_value = "tritmark-agent",
        value_name = "DIR"
    )]
    pub(crate) state: PathBuf,
    /// A label for selectors; may be given more than once.
    #[arg(
        long = "label",
        env = "TRITMARK_LABELS",
        value_delimiter = ',',
        value_parser = label,
        value_name = "KEY=VALUE"
    )]
    pub(crate) labels: Vec<(String, String)>,
    /// Whom to trust.
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// Which coordinators may be spoken to.
#[derive(Debug, Default, Args)]
pub(crate) struct Trust {
    /// Certificates to trust instead of the system's, PEM.
    #[arg(long, env = "TRITMARK_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Allow plain text to another machine.
    #[arg(long, env = "TRITMARK_INSECURE", value_parser = FalseyValueParser::new())]
    pub(crate) insecure: bool,
}

/// Where the coordinator is.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The coordinator.
    #[arg(
        long,
        env = "TRITMARK_COORDINATOR",
        default_value = DEFAULT_COORDINATOR,
        value_name = "URL"
    )]
    pub(crate) coordinator: String,
    /// Whom to trust.
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// How a command prints what it found.
#[derive(Debug, Args)]
pub(crate) struct Print {
    /// Print JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// `tritmark submit`.
#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// The plan file.
    #[arg(value_name = "PLAN")]
    pub(crate) plan: PathBuf,
    /// Stay and follow the run.
    #[arg(long)]
    pub(crate) watch: bool,
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Where to.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Print every event as a line of JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Where it runs.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// What to list.
    #[command(subcommand)]
    pub(crate) what: LsWhat,
}

/// `tritmark ls …`.
#[derive(Debug, Subcommand)]
pub(crate) enum LsWhat {
    /// Runs of a coordinator.
    Runs(LsRemote),
    /// Agents of a coordinator.
    Agents(LsRemote),
    /// Jobs of a run.
    Jobs(LsJobs),
    /// Suites and accuracy tasks of this build.
    Suites(Print),
    /// Kernels this CPU can run, the best of each instruction set's first.
    Kernels(Print),
    /// Published shapes that `model synth` can make.
    Shapes(Print),
}

/// A list that a coordinator gives.
#[derive(Debug, Args)]
pub(crate) struct LsRemote {
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
    /// Whom to ask.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// The jobs of a run.
#[derive(Debug, Args)]
pub(crate) struct LsJobs {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// As for the other lists.
    #[command(flatten)]
    pub(crate) list: LsRemote,
}

/// `tritmark cancel`.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run's id.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Whom to tell.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// A run's id, a bundle folder, or the output folder of `tritmark run`.
    #[arg(value_name = "RUN|DIR")]
    pub(crate) source: String,
    /// Where to write [default: out/<run's name>-<run's id>, or the folder the bundle lies in].
    #[arg(long, env = "TRITMARK_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where the run is, if it is not a folder.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark compare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 B is not worse in any figure, 1 it is in one, 3 the items do not \
    tell or there is no task in common, 4 nothing selected, 5 not worse, but items are missing. \
    What each number means: docs/compare.md."
)]
pub(crate) struct Compare {
    /// What is compared with: a bundle folder or the output folder of `tritmark run`, and a model
    /// of it where it has several.
    #[arg(value_name = "RUN_A[#MODEL]")]
    pub(crate) a: String,
    /// What is compared.
    #[arg(value_name = "RUN_B[#MODEL]")]
    pub(crate) b: String,
    /// Largest difference that is taken for none, in points; for perplexities, in per cent.
    #[arg(
        long,
        env = "TRITMARK_MARGIN",
        default_value_t = 1.0,
        value_name = "POINTS",
        value_parser = points
    )]
    pub(crate) margin: f64,
    /// Only these tasks.
    #[arg(long = "task", value_delimiter = ',', value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// How to print.
    #[arg(long, env = "TRITMARK_FORMAT", value_enum, default_value_t = ComparisonFormat::Text)]
    pub(crate) format: ComparisonFormat,
    /// Also write a page of the items whose scores differ.
    #[arg(long, env = "TRITMARK_HTML", value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComparisonFormat {
    /// Lines for a terminal.
    Text,
    /// A GitHub table.
    Md,
    /// Everything, every digit.
    Json,
    /// A line a figure, every digit.
    Csv,
}

fn points(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(points) if points > 0.0 && points <= 100.0 => Ok(points),
        _ => Err("a margin is above 0 and at most 100 points".to_owned()),
    }
}

/// `tritmark export`.
#[derive(Debug, Args)]
pub(crate) struct ExportRun {
    /// A bundle folder or the output folder of `tritmark run`, and a model of it; every model where
    /// none is named.
    #[arg(value_name = "RUN[#MODEL]")]
    pub(crate) run: String,
    /// Whose files to write.
    #[arg(long, env = "TRITMARK_FORMAT", value_enum)]
    pub(crate) format: ForeignFormat,
    /// Where to write; each model has a folder of its own.
    #[arg(short, long, env = "TRITMARK_OUT", value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// `tritmark import`.
#[derive(Debug, Args)]
pub(crate) struct ImportRun {
    /// Whose files they are.
    #[arg(value_enum, value_name = "PROGRAM")]
    pub(crate) format: ForeignFormat,
    /// The files of one run, or its folder.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// The bundle folder to write.
    #[arg(short, long, env = "TRITMARK_OUT", value_name = "BUNDLE")]
    pub(crate) out: PathBuf,
}

/// Programs whose files are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForeignFormat {
    /// lm-evaluation-harness: `results_*.json` and `samples_*.jsonl`.
    LmEval,
    /// EvalPlus: `samples.jsonl` and `eval_results.json`.
    #[value(name = "evalplus")]
    EvalPlus,
}

/// `tritmark doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to print.
    #[command(flatten)]
    pub(crate) print: Print,
}

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
}

/// `tritmark plan`.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Print the commented example, which is the reference of every key.
    #[arg(long, required_unless_present = "check", conflicts_with = "check")]
    pub(crate) example: bool,
    /// Check a plan and list its jobs without running it.
    #[arg(long, value_name = "PLAN")]
    pub(crate) check: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, env = "TRITMARK_JSON", value_parser = FalseyValueParser::new(), requires = "check")]
    pub(crate) json: bool,
}

/// `tritmark completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_label_needs_a_key_and_an_equals_sign() {
        assert_eq!(label("rack=7"), Ok(("rack".to_owned(), "7".to_owned())));
        assert_eq!(label("note=a=b"), Ok(("note".to_owned(), "a=b".to_owned())));
        assert!(label("rack").is_err());
        assert!(label("=7").is_err());
    }

    #[test]
    fn every_public_command_and_flag_says_what_it_does() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                assert!(sub.get_about().is_some(), "{}", sub.get_name());
                check(sub);
            }
        }
        check(&Cli::command());
    }
}
