//! Why a job could not be done.

use std::{io, path::PathBuf};

use thiserror::Error;

use tritmark_engine::{
    chat::ChatError,
    engine::{EngineError, ForwardError},
    generate::GenerateError,
    kernels::KernelError,
    load::LoadError,
    score::ScoreError,
    synth::{self, Format, SynthError},
    tokenizer::TokenizerError,
};
use tritmark_proto::bundle::FailureClass;

use crate::{
    accuracy::{DataError, DefinitionError, UnknownTask},
    agreement::AgreementError,
    evalplus::EvalPlusError,
    sandbox::SandboxError,
};

/// Why a job could not be done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// The model's files cannot be loaded.
    #[error("cannot load the model {}", path.display())]
    Load {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LoadError>,
    },
    /// The model's files could be loaded and then not be read again for their hash.
    #[error("cannot hash the model {}", path.display())]
    Hash {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The model's files are named by their contents, which is for an agent to see to.
    #[error("the files of {0} were not fetched before the job began")]
    NotFetched(String),
    /// There is no shape of this name.
    #[error(
        "no synthetic model has the shape `{name}` (there are {})",
        shape_names()
    )]
    SynthShape {
        /// The plan's name.
        name: String,
    },
    /// There is no format of this name.
    #[error(
        "no synthetic model has the format `{name}` (there are {})",
        format_names()
    )]
    SynthFormat {
        /// The plan's name.
        name: String,
    },
    /// A synthetic model cannot be made.
    #[error("cannot make the synthetic model")]
    Synth(#[source] SynthError),
    /// The folder of synthetic models cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no kernel of this name for this CPU.
    #[error("cannot use the kernel `{name}`")]
    Kernel {
        /// The plan's name.
        name: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// No engine could be made of the model.
    #[error("cannot start the engine")]
    Engine(#[source] EngineError),
    /// The model's vocabulary cannot be used.
    #[error("cannot use the model's tokenizer")]
    Tokenizer(#[source] TokenizerError),
    /// Tokens could not be evaluated.
    #[error("cannot evaluate the model")]
    Forward(#[source] ForwardError),
    /// The task is not known.
    #[error(transparent)]
    Task(#[from] UnknownTask),
    /// The task's own definition cannot be used.
    #[error("cannot use the task")]
    Definition(#[source] DefinitionError),
    /// The model's chat template cannot be used.
    #[error("cannot use the model's chat template")]
    Chat(#[source] ChatError),
    /// A chat is asked for and the model has no template.
    #[error("the model has no chat template, and the suite asks for one")]
    NoChat,
    /// An answer could not be generated.
    #[error("cannot generate the answer to item {index} of `{task}`")]
    ItemGenerate {
        /// The task.
        task: String,
        /// Position of the item.
        index: u32,
        /// Why.
        #[source]
        source: Box<GenerateError>,
    },
    /// The answer alone would fill the model's context.
    #[error(
        "`{task}` generates up to {max_new} tokens, and the model takes {context_length} in all"
    )]
    NoRoom {
        /// The task.
        task: String,
        /// Tokens of an answer.
        max_new: usize,
        /// Positions of the model.
        context_length: usize,
    },
    /// Programs cannot be run.
    #[error("no program is run without a sandbox")]
    NoSandbox,
    /// The sandbox does not hold here.
    #[error("no program is run without a sandbox, and there is none")]
    Sandbox(#[source] SandboxError),
    /// A program could not be tested, through no fault of its own.
    #[error("cannot test the program for item {index} of `{task}`")]
    ItemProgram {
        /// The task.
        task: String,
        /// Position of the item.
        index: u32,
        /// Why.
        #[source]
        source: Box<EvalPlusError>,
    },
    /// Answers cannot be scored here.
    #[error("cannot score the answers to `{task}`: {problem}")]
    NotScored {
        /// The task.
        task: String,
        /// What is wrong.
        problem: String,
    },
    /// The data set cannot be used.
    #[error("cannot use the data of `{task}`")]
    Data {
        /// The task.
        task: String,
        /// Which file, line and key.
        #[source]
        source: DataError,
    },
    /// An item could not be tokenized.
    #[error("cannot tokenize item {index} of `{task}`")]
    ItemTokens {
        /// The task.
        task: String,
        /// Position of the item.
        index: u32,
        /// Why.
        #[source]
        source: TokenizerError,
    },
    /// An item could not be scored.
    #[error("cannot score item {index} of `{task}`")]
    ItemScore {
        /// The task.
        task: String,
        /// Position of the item.
        index: u32,
        /// Why.
        #[source]
        source: ScoreError,
    },
    /// The model's arithmetic gives no numbers.
    #[error("the model gives no finite log-likelihood for item {index} of `{task}`")]
    NotFinite {
        /// The task.
        task: String,
        /// Position of the item.
        index: u32,
    },
    /// Ways of computing could not be compared.
    #[error("cannot compare kernels")]
    Agreement(#[source] AgreementError),
    /// Nobody takes the records.
    #[error("cannot hand on a record")]
    Sink(#[source] io::Error),
}

impl SuiteError {
    /// Returns what may help.
    pub fn class(&self) -> FailureClass {
        match self {
            // Threads may be had when others have ended.
            Self::Engine(EngineError::Threads { .. }) | Self::Hash { .. } => {
                FailureClass::Transient
            }
            Self::NotFetched(_)
            | Self::Cache { .. }
            | Self::Sink(_)
            | Self::Synth(SynthError::Write { .. }) => FailureClass::Infrastructure,
            Self::Load { .. }
            | Self::SynthShape { .. }
            | Self::SynthFormat { .. }
            | Self::Synth(_)
            | Self::Kernel { .. }
            | Self::Engine(_)
            | Self::Tokenizer(_)
            | Self::Forward(_)
            | Self::Task(_)
            | Self::Definition(_)
            | Self::Chat(_)
            | Self::NoChat
            | Self::ItemGenerate { .. }
            | Self::NoRoom { .. }
            | Self::NoSandbox
            | Self::Sandbox(_)
            | Self::ItemProgram { .. }
            | Self::NotScored { .. }
            | Self::Data { .. }
            | Self::ItemTokens { .. }
            | Self::ItemScore { .. }
            | Self::NotFinite { .. } => FailureClass::Permanent,
            Self::Agreement(error) => error.class(),
        }
    }
}

fn shape_names() -> String {
    let names: Vec<&str> = synth::shapes().iter().map(|shape| shape.name).collect();
    names.join(", ")
}

fn format_names() -> String {
    Format::ALL.map(Format::name).join(", ")
}
