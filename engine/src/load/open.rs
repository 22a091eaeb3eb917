//! A model whose files are read as far as their descriptions: its tensors are taken all at once
//! ([`Open::load`]), or one by one by who writes them into another file.

use std::path::Path;

use super::{
    LoadError, LoadOptions, LoadedModel, ModelSource, VocabSource,
    assemble::{Builder, Names, Rules, Tensors, assemble},
    gguf, hf,
    tensor::Encoding,
};
use crate::{
    config::ModelConfig,
    format::gguf::Gguf,
    weights::{Bytes, DenseMatrix, DenseType, Matrix},
};

pub(crate) use super::assemble::{LINEARS, NORMS, Part};

/// Reads the description of a GGUF file or a Hugging Face folder.
pub(crate) fn open(path: &Path, options: &LoadOptions) -> Result<Open, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    if metadata.is_dir() {
        hf::open(path)
    } else {
        gguf::open(path, options)
    }
}

/// A model's description, and where its tensors are.
pub(crate) struct Open {
    pub(crate) config: ModelConfig,
    pub(super) tensors: Tensors,
    pub(super) names: Names,
    pub(super) rules: Rules,
    pub(crate) source: ModelSource,
    pub(crate) vocab: VocabSource,
    /// The description of a GGUF file.
    pub(crate) gguf: Option<Gguf>,
}

/// Returns what GGUF files call a part of a layer.
pub(crate) fn gguf_part(layer: usize, part: Part) -> String {
    (gguf::NAMES.part)(layer, part)
}

/// Returns the names under which GGUF files store a separate scale of a linear.
pub(crate) fn gguf_scales(stem: &str) -> impl Iterator<Item = String> {
    gguf::NAMES
        .scales
        .iter()
        .map(move |ending| format!("{stem}{ending}"))
}

/// GGUF's name of the rotary frequencies' divisors.
pub(crate) const ROPE_FREQS: &str = gguf::ROPE_FREQS;

impl Open {
    /// Takes all tensors.
    pub(crate) fn load(mut self) -> Result<LoadedModel, LoadError> {
        let weights = assemble(
            &self.config,
            &mut self.tensors,
            &self.names,
            &self.rules,
            &mut self.source,
        )?;
        let Self {
            config,
            source,
            vocab,
            ..
        } = self;
        Ok(LoadedModel {
            config,
            weights,
            source,
            vocab,
        })
    }

    /// Returns the file's own name of a part of a layer.
    pub(crate) fn name(&self, layer: usize, part: Part) -> String {
        (self.names.part)(layer, part)
    }

    /// Returns a linear as the forward pass would have it.
    pub(crate) fn linear(&self, layer: usize, part: Part) -> Result<Matrix, LoadError> {
        self.take(|mut builder| builder.matrix(layer, part))
    }

    /// Returns the bias of a linear, if it has one.
    pub(crate) fn bias(&self, layer: usize, part: Part) -> Result<Option<Vec<f32>>, LoadError> {
        self.take(|mut builder| builder.bias(layer, part))
    }

    /// Returns a norm's gain, where the family has it.
    pub(crate) fn norm(&self, layer: usize, part: Part) -> Result<Option<Vec<f32>>, LoadError> {
        self.take(|mut builder| builder.norm(layer, part))
    }

    /// Returns the gain of the last norm.
    pub(crate) fn output_norm(&self) -> Result<Vec<f32>, LoadError> {
        self.take(|mut builder| builder.output_norm())
    }

    /// Returns the embedding.
    pub(crate) fn embedding(&self) -> Result<DenseMatrix, LoadError> {
        self.take(|mut builder| builder.embedding())
    }

    /// Returns the head, where it is not the embedding.
    pub(crate) fn head(&self) -> Result<Option<DenseMatrix>, LoadError> {
        self.take(|mut builder| builder.head())
    }

    /// Returns the bytes of a linear as they are stored, and their type where it is a dense one.
    pub(crate) fn stored(&self, layer: usize, part: Part) -> Option<(Bytes, Option<DenseType>)> {
        let name = format!("{}.weight", self.name(layer, part));
        let tensor = self.tensors.by_name.get(&name)?;
        let dtype = match tensor.encoding {
            Encoding::Dense(dtype) => Some(dtype),
            _ => None,
        };
        Some((tensor.bytes.clone(), dtype))
    }

    /// Returns the bytes of any tensor of the model.
    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        Some(self.tensors.by_name.get(name)?.bytes.clone())
    }

    /// Takes tensors from a copy of the list, so that they can be taken again.
    fn take<T>(
        &self,
        take: impl FnOnce(Builder<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let mut tensors = self.tensors.clone();
        let mut source = ModelSource::default();
        take(Builder::new(
            &self.config,
            &mut tensors,
            &self.names,
            &self.rules,
            &mut source,
        ))
    }
}
