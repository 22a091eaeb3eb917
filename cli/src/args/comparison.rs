//! Two runs beside each other, and runs from and for other harnesses.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Target;

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
    /// none is named. For `bundle`, a run's id at a coordinator, too.
    #[arg(value_name = "RUN[#MODEL]")]
    pub(crate) run: String,
    /// Whose files to write.
    #[arg(long, env = "TRITMARK_FORMAT", value_enum)]
    pub(crate) format: ForeignFormat,
    /// Where to write; each model has a folder of its own. For `bundle`, the file.
    #[arg(short, long, env = "TRITMARK_OUT", value_name = "DIR|FILE")]
    pub(crate) out: PathBuf,
    /// Folder of the data, for questions in full [default: the plan's, if it is here].
    #[arg(long, env = "TRITMARK_DATA_DIR", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Where the run is, if it is not a folder.
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `tritmark import`.
#[derive(Debug, Args)]
pub(crate) struct ImportRun {
    /// What to take in.
    #[command(subcommand)]
    pub(crate) what: Import,
}

/// `tritmark import …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// A run of lm-evaluation-harness, as a bundle: `results_*.json` and `samples_*.jsonl`.
    LmEval(ImportFiles),
    /// A run of EvalPlus, as a bundle: `samples.jsonl` and `eval_results.json`.
    #[command(name = "evalplus")]
    EvalPlus(ImportFiles),
    /// A run that `export --format bundle` wrote; it is checked before anything of it is used.
    Bundle {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The bundle folder to write.
        #[arg(short, long, env = "TRITMARK_OUT", value_name = "BUNDLE")]
        out: PathBuf,
    },
    /// A task of lm-evaluation-harness that needs no Python, as a definition of ours.
    LmEvalTask {
        /// The task's YAML file; what it includes is looked for beside it.
        #[arg(value_name = "FILE.yaml")]
        task: PathBuf,
        /// The TOML file to write [default: print it].
        #[arg(short, long, env = "TRITMARK_OUT", value_name = "FILE.toml")]
        out: Option<PathBuf>,
    },
}

/// Another program's files of one run.
#[derive(Debug, Args)]
pub(crate) struct ImportFiles {
    /// The files, or their folder.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) paths: Vec<PathBuf>,
    /// The bundle folder to write.
    #[arg(short, long, env = "TRITMARK_OUT", value_name = "BUNDLE")]
    pub(crate) out: PathBuf,
}

/// What a run is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ForeignFormat {
    /// lm-evaluation-harness: `results_*.json` and `samples_*.jsonl`.
    LmEval,
    /// EvalPlus: `samples.jsonl` and `eval_results.json`.
    #[value(name = "evalplus")]
    EvalPlus,
    /// One file with everything, for `tritmark import bundle`.
    Bundle,
}
