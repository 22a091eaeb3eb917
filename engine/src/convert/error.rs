//! What keeps a model from being converted.

use std::{io, path::PathBuf};

use crate::{format::gguf::GgufError, load::LoadError, tokenizer::TokenizerError};

/// A model that cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The format cannot hold what a tensor holds.
    #[error("tensor `{tensor}` of {} cannot be {format} without loss: {reason}", path.display())]
    Loss {
        /// Source.
        path: PathBuf,
        /// Tensor, by the source's name.
        tensor: String,
        /// What it was to become.
        format: &'static str,
        /// What would be lost.
        reason: String,
    },
    /// The shape of a tensor does not fit the format's blocks.
    #[error("{} cannot be written as {format}", path.display())]
    Layout {
        /// Source.
        path: PathBuf,
        /// What it was to become.
        format: &'static str,
        /// Which tensor, and why.
        #[source]
        source: GgufError,
    },
    /// A part of the model that a GGUF file has no words for.
    #[error("{} cannot be a GGUF file: {what}", path.display())]
    Unsupported {
        /// Source.
        path: PathBuf,
        /// Which.
        what: String,
    },
    /// A folder's vocabulary cannot be read.
    #[error("the vocabulary of {} cannot be converted", path.display())]
    Vocabulary {
        /// Source.
        path: PathBuf,
        /// Why.
        #[source]
        source: TokenizerError,
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
