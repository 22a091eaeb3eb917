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

pub(crate) use super::assemble::Part;

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

/// The linears of a layer.
pub(crate) const LINEARS: [Part; 7] = [
    Part::Q,
    Part::K,
    Part::V,
    Part::O,
    Part::Gate,
    Part::Up,
    Part::Down,
];

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

    /// Returns outputs and inputs of a linear of every layer.
    pub(crate) fn linear_shape(&self, part: Part) -> (usize, usize) {
        let config = &self.config;
        let (hidden, ffn) = (config.hidden_size, config.ffn_size);
        let q_size = config.n_heads * config.head_dim;
        let kv_size = config.n_kv_heads * config.head_dim;
        match part {
            Part::Q => (q_size, hidden),
            Part::K | Part::V => (kv_size, hidden),
            Part::O => (hidden, q_size),
            Part::Gate | Part::Up => (ffn, hidden),
            Part::Down => (hidden, ffn),
            _ => unreachable!("the linears are seven"),
        }
    }

    /// Returns the file's own name of a part of a layer.
    pub(crate) fn name(&self, layer: usize, part: Part) -> String {
        (self.names.part)(layer, part)
    }

    /// Returns a linear as the forward pass would have it.
    pub(crate) fn linear(&self, layer: usize, part: Part) -> Result<Matrix, LoadError> {
        let (rows, cols) = self.linear_shape(part);
        self.take(|builder| builder.matrix(&self.name(layer, part), rows, cols))
    }

    /// Returns the bias of a linear, if it has one.
    pub(crate) fn bias(&self, layer: usize, part: Part) -> Result<Option<Vec<f32>>, LoadError> {
        let name = format!("{}.bias", self.name(layer, part));
        if !self.tensors.by_name.contains_key(&name) {
            return Ok(None);
        }
        let (rows, _) = self.linear_shape(part);
        self.take(|builder| builder.vector(&name, rows)).map(Some)
    }

    /// Returns a norm's gain.
    pub(crate) fn norm(&self, layer: usize, part: Part, len: usize) -> Result<Vec<f32>, LoadError> {
        let name = format!("{}.weight", self.name(layer, part));
        self.take(|builder| builder.norm(&name, len))
    }

    /// Returns the gain of the last norm.
    pub(crate) fn output_norm(&self) -> Result<Vec<f32>, LoadError> {
        let name = format!("{}.weight", self.names.output_norm);
        self.take(|builder| builder.norm(&name, self.config.hidden_size))
    }

    /// Returns the embedding.
    pub(crate) fn embedding(&self) -> Result<DenseMatrix, LoadError> {
        let config = &self.config;
        self.take(|builder| {
            builder.dense(self.names.embedding, config.vocab_size, config.hidden_size)
        })
    }

    /// Returns the head, where it is not the embedding.
    pub(crate) fn head(&self) -> Result<Option<DenseMatrix>, LoadError> {
        let config = &self.config;
        let name = format!("{}.weight", self.names.head);
        let tied = self.rules.tied;
        if tied.unwrap_or_else(|| !self.tensors.by_name.contains_key(&name)) {
            return Ok(None);
        }
        let head = self
            .take(|builder| builder.dense(self.names.head, config.vocab_size, config.hidden_size));
        head.map(Some)
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
        take: impl FnOnce(&mut Builder<'_>) -> Result<T, LoadError>,
    ) -> Result<T, LoadError> {
        let mut tensors = self.tensors.clone();
        let mut source = ModelSource::default();
        take(&mut Builder::new(
            &mut tensors,
            &self.names,
            &self.rules,
            &mut source,
        ))
    }
}
