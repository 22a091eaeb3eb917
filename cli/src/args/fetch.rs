//! What is brought here from the hub: models and data sets.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `tritmark model fetch`.
#[derive(Debug, Args)]
pub(crate) struct ModelFetch {
    /// The repository.
    #[arg(value_name = "OWNER/NAME")]
    pub(crate) repo: String,
    /// A file of it, may be given more than once; a `*` stands for anything but slashes [default:
    /// the files of a model in Safetensors].
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Vec<String>,
    /// Branch, tag or commit; the commit it is gets recorded.
    #[arg(long, default_value = "main", value_name = "REVISION")]
    pub(crate) revision: String,
    /// Folder to write to.
    #[arg(long, env = "TRITMARK_INTO", value_name = "DIR")]
    pub(crate) into: PathBuf,
}

/// `tritmark data`.
#[derive(Debug, Args)]
pub(crate) struct Data {
    /// What to do with the data.
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

/// `tritmark data …`.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Bring tasks' data from the hub, or from files, into a data folder.
    #[command(
        after_help = "HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME and HF_HUB_OFFLINE mean what \
        they mean to the hub's own client."
    )]
    Fetch(DataFetch),
}

/// `tritmark data fetch`.
#[derive(Debug, Args)]
pub(crate) struct DataFetch {
    /// Names of tasks, or files with their definitions.
    #[arg(value_name = "TASK", required = true)]
    pub(crate) tasks: Vec<String>,
    /// Data folder; each task's data get a folder in it.
    #[arg(long, env = "TRITMARK_INTO", value_name = "DIR")]
    pub(crate) into: PathBuf,
    /// A Parquet or JSON Lines file to take instead, of the split that is asked about if none is
    /// named; may be given more than once.
    #[arg(long, value_name = "[SPLIT=]FILE")]
    pub(crate) from: Vec<String>,
    /// Branch, tag or commit, instead of the definition's.
    #[arg(long, value_name = "REVISION", conflicts_with = "from")]
    pub(crate) revision: Option<String>,
}
