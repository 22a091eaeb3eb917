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
    let mut builder = Builder::new(tensors, names, rules, source);
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let embedding = builder.dense(names.embedding, vocab, hidden)?;
    let output_norm = builder.norm(&format!("{}.weight", names.output_norm), hidden)?;
    let head_name = format!("{}.weight", names.head);
    let tied = rules
        .tied
        .unwrap_or_else(|| !builder.tensors.by_name.contains_key(&head_name));
    let head = if tied {
        None
    } else {
        Some(builder.dense(names.head, vocab, hidden)?)
    };
    let head_format = head.as_ref().unwrap_or(&embedding).dtype.name();
    let mut layers = Vec::new();
    for nth in 0..config.n_layers {
        layers.push(builder.layer(config, nth)?);
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
    tensors: &'a mut Tensors,
    names: &'a Names,
    rules: &'a Rules,
    source: &'a mut ModelSource,
    stored: BTreeSet<&'static str>,
    run_time: BTreeSet<&'static str>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        tensors: &'a mut Tensors,
        names: &'a Names,
        rules: &'a Rules,
        source: &'a mut ModelSource,
    ) -> Self {
        Self {
            tensors,
            names,
            rules,
            source,
            stored: BTreeSet::new(),
            run_time: BTreeSet::new(),
        }
    }

    fn layer(&mut self, config: &ModelConfig, nth: usize) -> Result<Layer, LoadError> {
        let (hidden, ffn) = (config.hidden_size, config.ffn_size);
        let (q_size, kv_size) = (
            config.n_heads * config.head_dim,
            config.n_kv_heads * config.head_dim,
        );
        let names = self.names;
        let name = |part| (names.part)(nth, part);
        let norm = |part| format!("{}.weight", name(part));
        let sub_norms = config.architecture == Architecture::Bitnet;
        let gemma = config.architecture == Architecture::Gemma3;
        // Qwen2 has these always; elsewhere a file may or may not have them.
        let bias = config.architecture == Architecture::Qwen2;
        let [q, k, v, o, gate, up, down] = [
            Part::Q,
            Part::K,
            Part::V,
            Part::O,
            Part::Gate,
            Part::Up,
            Part::Down,
        ]
        .map(name);
        let head_dim = config.head_dim;
        Ok(Layer {
            attn_norm: self.norm(&norm(Part::AttnNorm), hidden)?,
            q: self.linear(&q, q_size, hidden, bias)?,
            k: self.linear(&k, kv_size, hidden, bias)?,
            v: self.linear(&v, kv_size, hidden, bias)?,
            q_norm: self.norm_if(gemma, &norm(Part::QNorm), head_dim)?,
            k_norm: self.norm_if(gemma, &norm(Part::KNorm), head_dim)?,
            attn_sub_norm: self.norm_if(sub_norms, &norm(Part::AttnSubNorm), q_size)?,
            o: self.linear(&o, hidden, q_size, false)?,
            attn_post_norm: self.norm_if(gemma, &norm(Part::AttnPostNorm), hidden)?,
            ffn_norm: self.norm(&norm(Part::FfnNorm), hidden)?,
            gate: self.linear(&gate, ffn, hidden, false)?,
            up: self.linear(&up, ffn, hidden, false)?,
            ffn_sub_norm: self.norm_if(sub_norms, &norm(Part::FfnSubNorm), ffn)?,
            down: self.linear(&down, hidden, ffn, false)?,
            ffn_post_norm: self.norm_if(gemma, &norm(Part::FfnPostNorm), hidden)?,
        })
    }

    fn norm_if(
        &mut self,
        present: bool,
        name: &str,
        len: usize,
    ) -> Result<Option<Vec<f32>>, LoadError> {
        present.then(|| self.norm(name, len)).transpose()
    }

    pub(super) fn norm(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let mut gain = self.vector(name, len)?;
        for x in &mut gain {
            *x += self.rules.gain_offset;
        }
        Ok(gain)
    }

    pub(super) fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let values = self.tensors.vector(name, len)?;
        self.source.n_params += len as u64;
        self.source.weight_bytes += 4 * len as u64;
        Ok(values)
    }

    /// The embedding or the head.
    pub(super) fn dense(
        &mut self,
        stem: &str,
        rows: usize,
        cols: usize,
    ) -> Result<DenseMatrix, LoadError> {
        let matrix = self
            .tensors
            .need(&format!("{stem}.weight"))?
            .dense(rows, cols)?;
        self.source.n_params += (rows * cols) as u64;
        self.source.weight_bytes += matrix.data.len() as u64;
        Ok(matrix)
    }

    fn linear(
        &mut self,
        stem: &str,
        rows: usize,
        cols: usize,
        needs_bias: bool,
    ) -> Result<Linear, LoadError> {
        let matrix = self.matrix(stem, rows, cols)?;
        let bias_name = format!("{stem}.bias");
        let bias = if needs_bias || self.tensors.by_name.contains_key(&bias_name) {
            Some(self.vector(&bias_name, rows)?)
        } else {
            None
        };
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

    pub(super) fn matrix(
        &mut self,
        stem: &str,
        rows: usize,
        cols: usize,
    ) -> Result<Matrix, LoadError> {
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
