//! Takes the tensors of a file and makes the graph's weights of them, whatever the file calls
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    LoadError, ModelSource,
    tensor::{Encoding, FromFloats, Tensor},
};
use crate::{
    config::{Architecture, ModelConfig},
    weights::{DenseMatrix, Layer, Linear, Matrix, TernaryScale, Weights},
};

/// A tensor's place within a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    AttnNorm,
    Q,
    K,
    V,
    QNorm,
    KNorm,
    AttnSubNorm,
    O,
    AttnPostNorm,
    FfnNorm,
    Gate,
    Up,
    FfnSubNorm,
    Down,
    FfnPostNorm,
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

/// The norms of a layer; a family has some of them.
pub(crate) const NORMS: [Part; 8] = [
    Part::AttnNorm,
    Part::QNorm,
    Part::KNorm,
    Part::AttnSubNorm,
    Part::AttnPostNorm,
    Part::FfnNorm,
    Part::FfnSubNorm,
    Part::FfnPostNorm,
];

impl Part {
    /// Returns outputs and inputs of a linear, None of a norm.
    fn linear_shape(self, config: &ModelConfig) -> Option<(usize, usize)> {
        let (hidden, ffn) = (config.hidden_size, config.ffn_size);
        let q_size = config.n_heads * config.head_dim;
        let kv_size = config.n_kv_heads * config.head_dim;
        Some(match self {
            Self::Q => (q_size, hidden),
            Self::K | Self::V => (kv_size, hidden),
            Self::O => (hidden, q_size),
            Self::Gate | Self::Up => (ffn, hidden),
            Self::Down => (hidden, ffn),
            _ => return None,
        })
    }

    /// Returns the length of a norm's gain, None where the family has no such norm.
    fn norm_len(self, config: &ModelConfig) -> Option<usize> {
        let (family, len) = match self {
            Self::AttnNorm | Self::FfnNorm => return Some(config.hidden_size),
            Self::AttnSubNorm => (Architecture::Bitnet, config.n_heads * config.head_dim),
            Self::FfnSubNorm => (Architecture::Bitnet, config.ffn_size),
            Self::QNorm | Self::KNorm => (Architecture::Gemma3, config.head_dim),
            Self::AttnPostNorm | Self::FfnPostNorm => (Architecture::Gemma3, config.hidden_size),
            Self::Q | Self::K | Self::V | Self::O | Self::Gate | Self::Up | Self::Down => {
                return None;
            }
        };
        (config.architecture == family).then_some(len)
    }

    /// Returns whether the family's linear always has a bias; elsewhere a file may or may not have
    /// one.
    fn needs_bias(self, config: &ModelConfig) -> bool {
        config.architecture == Architecture::Qwen2 && matches!(self, Self::Q | Self::K | Self::V)
    }
}

/// What a kind of file calls its tensors; `.weight` and `.bias` are added to a linear's and a
/// norm's name.
pub(super) struct Names {
    pub(super) embedding: &'static str,
    pub(super) output_norm: &'static str,
    pub(super) head: &'static str,
    pub(super) part: fn(layer: usize, part: Part) -> String,
    /// Endings of a separate scale of one value.
    pub(super) scales: &'static [&'static str],
}

/// What becomes of the floats of a linear of this name.
type FloatRule = dyn Fn(&str) -> Option<FromFloats>;

/// What becomes of a linear, by how it is stored.
pub(super) struct Rules {
    /// Whether this linear's floats become trits, and how.
    pub(super) from_floats: Box<FloatRule>,
    /// Whether separate scales also belong to floats; packed trits always have one.
    pub(super) float_scales: bool,
    /// Whether the separate scale of packed trits is the inverse of what a trit is worth.
    pub(super) packed_scale_is_inverse: bool,
    /// Whether the head is the embedding; None: where there is no head tensor.
    pub(super) tied: Option<bool>,
    /// What a norm's gain is more than the file says: 1 in Gemma's folders.
    pub(super) gain_offset: f32,
}

/// The tensors of a model's files, each to be taken once.
#[derive(Clone)]
pub(super) struct Tensors {
    /// The file or folder, for errors.
    pub(super) path: PathBuf,
    pub(super) by_name: BTreeMap<String, Tensor>,
}

impl Tensors {
    pub(super) fn take(&mut self, name: &str) -> Option<Tensor> {
        self.by_name.remove(name)
    }

    pub(super) fn need(&mut self, name: &str) -> Result<Tensor, LoadError> {
        self.take(name).ok_or_else(|| LoadError::MissingTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        self.need(name)?.vector(len)
    }
}

/// Builds the weights of a model and adds to `source` what they are.
pub(super) fn assemble(
    config: &ModelConfig,
    tensors: &mut Tensors,
    names: &Names,
    rules: &Rules,
    source: &mut ModelSource,
) -> Result<Weights, LoadError> {
    let mut builder = Builder::new(config, tensors, names, rules, source);
    let embedding = builder.embedding()?;
    let output_norm = builder.output_norm()?;
    let head = builder.head()?;
    let head_format = head.as_ref().unwrap_or(&embedding).dtype.name();
    let mut layers = Vec::new();
    for nth in 0..config.n_layers {
        layers.push(builder.layer(nth)?);
    }
    let Builder {
        stored, run_time, ..
    } = builder;
    head_format.clone_into(&mut source.head_format);
    source.stored_linear_format = joined(stored);
    source.linear_format = joined(run_time);
    source.bits_per_weight =
        source.linear_weight_bytes as f64 * 8.0 / source.n_linear_params as f64;
    warn_of_the_rest(tensors, source);
    Ok(Weights {
        embedding,
        layers,
        output_norm,
        head,
    })
}

fn joined(names: BTreeSet<&'static str>) -> String {
    names.into_iter().collect::<Vec<_>>().join("+")
}

/// A tensor that nothing took may mean a graph other than ours.
fn warn_of_the_rest(tensors: &Tensors, source: &mut ModelSource) {
    let unused: Vec<&str> = tensors
        .by_name
        .keys()
        .map(String::as_str)
        // Computed from theta; old folders store them.
        .filter(|name| !name.ends_with("rotary_emb.inv_freq"))
        .collect();
    if let [first, ..] = unused[..] {
        source.warnings.push(format!(
            "{} tensors of the file are not used, among them `{first}`",
            unused.len()
        ));
    }
}

/// Takes tensors one by one.
pub(super) struct Builder<'a> {
    config: &'a ModelConfig,
    tensors: &'a mut Tensors,
    names: &'a Names,
    rules: &'a Rules,
    source: &'a mut ModelSource,
    stored: BTreeSet<&'static str>,
    run_time: BTreeSet<&'static str>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        config: &'a ModelConfig,
        tensors: &'a mut Tensors,
        names: &'a Names,
        rules: &'a Rules,
        source: &'a mut ModelSource,
    ) -> Self {
        Self {
            config,
            tensors,
            names,
            rules,
            source,
            stored: BTreeSet::new(),
            run_time: BTreeSet::new(),
        }
    }

    fn layer(&mut self, nth: usize) -> Result<Layer, LoadError> {
        const HAS: &str = "layers of every family have this norm";
        Ok(Layer {
            attn_norm: self.norm(nth, Part::AttnNorm)?.expect(HAS),
            q: self.linear(nth, Part::Q)?,
            k: self.linear(nth, Part::K)?,
            v: self.linear(nth, Part::V)?,
            q_norm: self.norm(nth, Part::QNorm)?,
            k_norm: self.norm(nth, Part::KNorm)?,
            attn_sub_norm: self.norm(nth, Part::AttnSubNorm)?,
            o: self.linear(nth, Part::O)?,
            attn_post_norm: self.norm(nth, Part::AttnPostNorm)?,
            ffn_norm: self.norm(nth, Part::FfnNorm)?.expect(HAS),
            gate: self.linear(nth, Part::Gate)?,
            up: self.linear(nth, Part::Up)?,
            ffn_sub_norm: self.norm(nth, Part::FfnSubNorm)?,
            down: self.linear(nth, Part::Down)?,
            ffn_post_norm: self.norm(nth, Part::FfnPostNorm)?,
        })
    }

    /// The embedding.
    pub(super) fn embedding(&mut self) -> Result<DenseMatrix, LoadError> {
        self.dense(self.names.embedding)
    }

    /// The gain of the last norm.
    pub(super) fn output_norm(&mut self) -> Result<Vec<f32>, LoadError> {
        self.gain(self.names.output_norm, self.config.hidden_size)
    }

    /// The head, where it is not the embedding.
    pub(super) fn head(&mut self) -> Result<Option<DenseMatrix>, LoadError> {
        let stem = self.names.head;
        let name = format!("{stem}.weight");
        let tied = self.rules.tied;
        let tied = tied.unwrap_or_else(|| !self.tensors.by_name.contains_key(&name));
        (!tied).then(|| self.dense(stem)).transpose()
    }

    /// The gain of a norm, where the family has it.
    pub(super) fn norm(&mut self, nth: usize, part: Part) -> Result<Option<Vec<f32>>, LoadError> {
        let Some(len) = part.norm_len(self.config) else {
            return Ok(None);
        };
        self.gain(&(self.names.part)(nth, part), len).map(Some)
    }

    /// The bias of a linear, if it has one.
    pub(super) fn bias(&mut self, nth: usize, part: Part) -> Result<Option<Vec<f32>>, LoadError> {
        let name = format!("{}.bias", (self.names.part)(nth, part));
        if !part.needs_bias(self.config) && !self.tensors.by_name.contains_key(&name) {
            return Ok(None);
        }
        let (rows, _) = self.linear_shape(part);
        self.vector(&name, rows).map(Some)
    }

    fn linear_shape(&self, part: Part) -> (usize, usize) {
        let shape = part.linear_shape(self.config);
        shape.expect("only linears are asked for as such")
    }

    fn gain(&mut self, stem: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let mut gain = self.vector(&format!("{stem}.weight"), len)?;
        for x in &mut gain {
            *x += self.rules.gain_offset;
        }
        Ok(gain)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let values = self.tensors.vector(name, len)?;
        self.source.n_params += len as u64;
        self.source.weight_bytes += 4 * len as u64;
        Ok(values)
    }

    /// The embedding or the head.
    fn dense(&mut self, stem: &str) -> Result<DenseMatrix, LoadError> {
        let (rows, cols) = (self.config.vocab_size, self.config.hidden_size);
        let matrix = self
            .tensors
            .need(&format!("{stem}.weight"))?
            .dense(rows, cols)?;
        self.source.n_params += (rows * cols) as u64;
        self.source.weight_bytes += matrix.data.len() as u64;
        Ok(matrix)
    }

    fn linear(&mut self, nth: usize, part: Part) -> Result<Linear, LoadError> {
        let matrix = self.matrix(nth, part)?;
        let bias = self.bias(nth, part)?;
        let (rows, cols) = self.linear_shape(part);
        let bytes = matrix.bytes();
        self.run_time.insert(matrix.format());
        self.source.n_params += (rows * cols) as u64;
        self.source.n_linear_params += (rows * cols) as u64;
        self.source.weight_bytes += bytes;
        self.source.linear_weight_bytes += bytes;
        Ok(Linear {
            matrix,
            bias,
            adapter: None,
        })
    }

    /// A linear's weights as the forward pass has them.
    pub(super) fn matrix(&mut self, nth: usize, part: Part) -> Result<Matrix, LoadError> {
        let stem = &(self.names.part)(nth, part);
        let (rows, cols) = self.linear_shape(part);
        let tensor = self.tensors.need(&format!("{stem}.weight"))?;
        self.stored.insert(tensor.encoding.name());
        let from_floats = (self.rules.from_floats)(stem);
        let dense = match tensor.encoding {
            Encoding::Dense(_) => !tensor.encoding.is_float() || from_floats.is_none(),
            _ => false,
        };
        if dense {
            if from_floats.is_some() {
                self.source.warnings.push(format!(
                    "tensor `{}` of a ternary model is {}: its input is not quantised",
                    tensor.name,
                    tensor.encoding.name()
                ));
            }
            return tensor.dense(rows, cols).map(Matrix::Dense);
        }
        let factor = if tensor.encoding.is_float() && !self.rules.float_scales {
            1.0
        } else {
            self.separate_scale(stem, tensor.encoding == Encoding::Packed)?
        };
        let from_floats = from_floats.unwrap_or(FromFloats::Absmean);
        let matrix = tensor.ternary(rows, cols, factor, from_floats)?;
        if matrix.is_all_zero() || matrix.scale == TernaryScale::Tensor(0.0) {
            self.source
                .warnings
                .push(format!("tensor `{}` is all zeros", tensor.name));
        }
        Ok(Matrix::Ternary(matrix))
    }

    /// Returns the product of the scales stored beside a linear. Packed trits have no other scale.
    fn separate_scale(&mut self, stem: &str, packed: bool) -> Result<f32, LoadError> {
        let mut factor = 1.0;
        let mut found = false;
        for ending in self.names.scales {
            if let Some(tensor) = self.tensors.take(&format!("{stem}{ending}")) {
                let scale = tensor.scalar()?;
                if packed && self.rules.packed_scale_is_inverse {
                    if scale == 0.0 {
                        return Err(tensor.fault("is an inverse scale of 0"));
                    }
                    factor /= scale;
                } else {
                    factor *= scale;
                }
                found = true;
            }
        }
        if packed && !found {
            return Err(LoadError::MissingTensor {
                path: self.tensors.path.clone(),
                tensor: format!("{stem}{}", self.names.scales[0]),
            });
        }
        Ok(factor)
    }
}

/// Records the files of a model and their sizes.
pub(super) fn add_files(source: &mut ModelSource, files: &[PathBuf]) -> Result<(), LoadError> {
    for path in files {
        let metadata = std::fs::metadata(path).map_err(|error| LoadError::Open {
            path: path.clone(),
            source: error,
        })?;
        source.files.push(path.clone());
        source.file_bytes += metadata.len();
    }
    Ok(())
}
