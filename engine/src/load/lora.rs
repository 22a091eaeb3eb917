//! LoRA adapters beside the linears of a model, from a folder as peft writes it:
//! `adapter_config.json` and `adapter_model.safetensors`.
//!
//! Their modules are named as in the Hugging Face model they were trained on, whatever the base
//! model's file calls them.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    LoadError, LoadedModel,
    assemble::{Part, Tensors, add_files},
    hf::{self, Shard},
    open::LINEARS,
    tensor::Tensor,
};
use crate::{
    config::{ConfigError, RopePairs},
    format::hf::{AdapterConfig, parse_adapter_config},
    weights::{Adapter, AlignedBytes, Bytes, DenseMatrix, Layer},
};

/// What peft puts before the base model's names.
const PREFIX: &str = "base_model.model.";

/// Puts the adapter of a folder beside the linears it is for.
///
/// A tensor that cannot be put there is an error, since without it the model would be another one.
pub(super) fn apply(model: &mut LoadedModel, folder: &Path) -> Result<(), LoadError> {
    let config_path = folder.join("adapter_config.json");
    let config = hf::read_json(&config_path, parse_adapter_config)?;
    let config_error = |source| LoadError::Config {
        path: config_path.clone(),
        source,
    };
    let path = folder.join("adapter_model.safetensors");
    let mut tensors = Tensors {
        path: path.clone(),
        by_name: BTreeMap::new(),
    };
    Shard::open(path.clone(), None)?.add_tensors(&mut tensors.by_name);
    let LoadedModel {
        config: model_config,
        weights,
        source,
        ..
    } = model;
    let mut ranks = Vec::new();
    let layers = weights.layers.iter_mut().enumerate();
    for (layer, linears) in layers.map(|(nth, layer)| (nth, Layer::linears_mut(layer))) {
        for (part, linear) in LINEARS.into_iter().zip(linears) {
            let module = (hf::NAMES.part)(layer, part);
            let Some((a, b)) = pair(&mut tensors, &module)? else {
                continue;
            };
            if !config.targets(&module).map_err(config_error)? {
                return Err(a.fault("is of a module that `target_modules` does not name"));
            }
            // Converters of GGUF files permute the rows of these two.
            let permuted = matches!(part, Part::Q | Part::K)
                && model_config.rope_pairs == RopePairs::Neighbours;
            let shape = (linear.matrix.rows(), linear.matrix.cols());
            let mut adapter = adapter(&config, &module, &a, &b, shape, config_error)?;
            if permuted {
                adapter.b = interleaved(&adapter.b, model_config.head_dim);
            }
            source.n_params += adapter.n_params() as u64;
            source.weight_bytes += adapter.bytes();
            source.linear_weight_bytes += adapter.bytes();
            ranks.push(adapter.rank());
            linear.adapter = Some(adapter);
        }
    }
    if let Some(tensor) = tensors.by_name.values().next() {
        return Err(tensor.fault(unused(&tensor.name)));
    }
    let (Some(least), Some(most)) = (ranks.iter().min(), ranks.iter().max()) else {
        return Err(LoadError::MissingTensor {
            path,
            tensor: name_of(&(hf::NAMES.part)(0, Part::Q), "lora_A"),
        });
    };
    source.bits_per_weight =
        source.linear_weight_bytes as f64 * 8.0 / source.n_linear_params as f64;
    let rank = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    source.adapter = Some(format!("rank {rank} beside {} linears", ranks.len()));
    add_files(source, &[config_path, path])
}

fn name_of(module: &str, matrix: &str) -> String {
    format!("{PREFIX}{module}.{matrix}.weight")
}

/// Takes the two matrices of a module, if the adapter has any.
fn pair(tensors: &mut Tensors, module: &str) -> Result<Option<(Tensor, Tensor)>, LoadError> {
    let names = ["lora_A", "lora_B"].map(|matrix| name_of(module, matrix));
    if !names.iter().any(|name| tensors.by_name.contains_key(name)) {
        return Ok(None);
    }
    let [a, b] = names.map(|name| tensors.need(&name));
    Ok(Some((a?, b?)))
}

fn adapter(
    config: &AdapterConfig,
    module: &str,
    a: &Tensor,
    b: &Tensor,
    (rows, cols): (usize, usize),
    config_error: impl Fn(ConfigError) -> LoadError,
) -> Result<Adapter, LoadError> {
    let rank = config.rank(module).map_err(&config_error)?;
    Ok(Adapter {
        a: a.dense(rank, cols)?,
        b: b.dense(rows, rank)?,
        scale: config.scale(module).map_err(&config_error)?,
    })
}

/// Returns a matrix with the halves of each head's rows interleaved.
fn interleaved(matrix: &DenseMatrix, head_dim: usize) -> DenseMatrix {
    let row_bytes = matrix.dtype.row_bytes(matrix.cols);
    let mut data = AlignedBytes::zeroed(matrix.data.len());
    for (row, out) in data.as_mut_slice().chunks_exact_mut(row_bytes).enumerate() {
        out.copy_from_slice(matrix.row(RopePairs::interleaved_row(row, head_dim)));
    }
    DenseMatrix {
        data: Bytes::Owned(Arc::new(data)),
        ..*matrix
    }
}

/// Says why nothing took a tensor.
fn unused(name: &str) -> String {
    let what = if name.contains("lora_magnitude_vector") {
        "is DoRA's, which is not supported"
    } else if name.contains("lora_embedding") || name.contains("embed_tokens") {
        "adapts the embedding, which is not supported"
    } else if name.contains("lm_head") {
        "adapts the output head, which is not supported"
    } else {
        "belongs to no linear of the model's layers"
    };
    what.to_owned()
}
