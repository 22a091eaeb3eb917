//! What can be wrong with a model.

use std::{io, path::PathBuf};

use crate::{
    config::ConfigError,
    format::{gguf::GgufError, safetensors::SafetensorsError},
};

/// A model that cannot be loaded. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file system said no.
    #[error("cannot open {}", path.display())]
    Open {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A GGUF file's structure or metadata.
    #[error("cannot read {}", path.display())]
    Gguf {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: GgufError,
    },
    /// A safetensors file's structure.
    #[error("cannot read {}", path.display())]
    Safetensors {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: SafetensorsError,
    },
    /// A configuration, JSON or GGUF keys, that describes no model this engine runs.
    #[error("cannot use {}", path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A tensor the graph needs.
    #[error("{} has no tensor `{tensor}`", path.display())]
    MissingTensor {
        /// File or folder.
        path: PathBuf,
        /// Tensor.
        tensor: String,
    },
    /// A tensor of another shape than the configuration asks for.
    #[error(
        "tensor `{tensor}` of {} has the shape {found:?}, but the configuration asks for \
         {expected:?} (slowest dimension first)",
        path.display()
    )]
    Shape {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Its dimensions.
        found: Vec<usize>,
        /// What they should be.
        expected: Vec<usize>,
    },
    /// A tensor of a type that cannot be used in its place.
    #[error("tensor `{tensor}` of {} is {found}, which cannot be used as {role}", path.display())]
    TensorType {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// Its type.
        found: String,
        /// What it is for.
        role: &'static str,
    },
    /// A tensor's bytes that have no meaning.
    #[error("tensor `{tensor}` of {} {fault}", path.display())]
    Value {
        /// File.
        path: PathBuf,
        /// Tensor.
        tensor: String,
        /// What is wrong.
        fault: String,
    },
}
