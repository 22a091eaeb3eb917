//! Models in a Hugging Face folder: `config.json`, safetensors in one file or several, and the
//! tokenizer's files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use safetensors::Dtype;

use super::{
    FolderVocab, LoadError, ModelSource, VocabSource,
    assemble::{Names, Part, Rules, Tensors, add_files},
    open::Open,
    tensor::{Encoding, FromFloats, Tensor},
};
use crate::{
    config::{Architecture, ConfigError},
    format::{
        hf::{self, HfConfig, SpecialIds},
        safetensors::{Safetensors, TensorInfo},
    },
    mmap,
    weights::{Bytes, DenseType},
};

/// Largest JSON file that is read, bytes; an index of a hundred thousand tensors is 10 MB.
const MAX_JSON_BYTES: u64 = 64 << 20;

pub(super) const NAMES: Names = Names {
    embedding: "model.embed_tokens",
    output_norm: "model.norm",
    head: "lm_head",
    part: |layer, part| part_name(layer, part, "attn_sub_norm", "ffn_sub_norm"),
    scales: &[".weight_scale"],
};

/// The names of 1bitLLM's reproductions.
const ONE_BIT_LLM_NAMES: Names = Names {
    part: |layer, part| part_name(layer, part, "inner_attn_ln", "ffn_layernorm"),
    ..NAMES
};

/// The names of Gemma 3, whose second norm is the one behind attention.
const GEMMA3_NAMES: Names = Names {
    part: |layer, part| match part {
        Part::FfnNorm => format!("model.layers.{layer}.pre_feedforward_layernorm"),
        part => part_name(layer, part, "", ""),
    },
    ..NAMES
};

fn part_name(layer: usize, part: Part, attn_sub_norm: &str, ffn_sub_norm: &str) -> String {
    let (module, name) = match part {
        Part::AttnNorm => ("", "input_layernorm"),
        Part::Q => ("self_attn.", "q_proj"),
        Part::K => ("self_attn.", "k_proj"),
        Part::V => ("self_attn.", "v_proj"),
        Part::QNorm => ("self_attn.", "q_norm"),
        Part::KNorm => ("self_attn.", "k_norm"),
        Part::AttnSubNorm => ("self_attn.", attn_sub_norm),
        Part::O => ("self_attn.", "o_proj"),
        // Only Gemma 3 has both.
        Part::AttnPostNorm | Part::FfnNorm => ("", "post_attention_layernorm"),
        Part::Gate => ("mlp.", "gate_proj"),
        Part::Up => ("mlp.", "up_proj"),
        Part::FfnSubNorm => ("mlp.", ffn_sub_norm),
        Part::Down => ("mlp.", "down_proj"),
        Part::FfnPostNorm => ("", "post_feedforward_layernorm"),
    };
    format!("model.layers.{layer}.{module}{name}")
}

pub(super) fn open(folder: &Path) -> Result<Open, LoadError> {
    let config_path = folder.join("config.json");
    let config = read_json(&config_path, hf::parse_config)?;
    let mut paths = vec![config_path];
    let shards = shards(folder, &mut paths)?;
    let vocab = vocab(folder, &config.tokens, &mut paths)?;
    let HfConfig {
        class,
        model,
        tie_word_embeddings,
        ternary,
        tokens: _,
        warnings,
    } = config;
    let mut source = ModelSource {
        architecture: class,
        warnings,
        ..ModelSource::default()
    };
    add_files(&mut source, &paths)?;
    let mut tensors = Tensors {
        path: folder.to_owned(),
        by_name: BTreeMap::new(),
    };
    for shard in &shards {
        shard.add_tensors(&mut tensors.by_name);
    }
    let ternary_or_none = ternary.clone().unwrap_or_default();
    let names = match model.architecture {
        Architecture::Gemma3 => GEMMA3_NAMES,
        _ if ternary_or_none.one_bit_llm_names => ONE_BIT_LLM_NAMES,
        _ => NAMES,
    };
    let rules = Rules {
        from_floats: Box::new(move |linear| {
            let ternary = ternary.as_ref()?;
            ternary.converts(linear).then_some(FromFloats::Absmean)
        }),
        float_scales: false,
        packed_scale_is_inverse: ternary_or_none.scale_is_inverse,
        tied: Some(tie_word_embeddings),
        gain_offset: if model.architecture == Architecture::Gemma3 {
            1.0
        } else {
            0.0
        },
    };
    Ok(Open {
        config: model,
        tensors,
        names,
        rules,
        source,
        vocab,
        gguf: None,
    })
}

/// A safetensors file and which of its tensors belong to the model; all where None is said.
pub(super) struct Shard {
    path: Arc<Path>,
    file: Safetensors,
    map: Arc<memmap2::Mmap>,
    chosen: Option<BTreeSet<String>>,
}

impl Shard {
    pub(super) fn open(path: PathBuf, chosen: Option<BTreeSet<String>>) -> Result<Self, LoadError> {
        let map = mmap::map(&path).map_err(|source| LoadError::Open {
            path: path.clone(),
            source,
        })?;
        let file = Safetensors::parse(&map).map_err(|source| LoadError::Safetensors {
            path: path.clone(),
            source,
        })?;
        let names: BTreeSet<&str> = file.tensors.iter().map(|info| info.name.as_str()).collect();
        let absent = chosen
            .iter()
            .flatten()
            .find(|name| !names.contains(name.as_str()));
        if let Some(tensor) = absent {
            return Err(LoadError::MissingTensor {
                path,
                tensor: tensor.clone(),
            });
        }
        Ok(Self {
            path: path.into(),
            file,
            map,
            chosen,
        })
    }

    /// Returns the tensors that belong to the model.
    pub(super) fn into_tensors(self) -> Vec<TensorInfo> {
        let Self { file, chosen, .. } = self;
        let mut tensors = file.tensors;
        if let Some(chosen) = chosen {
            tensors.retain(|tensor| chosen.contains(&tensor.name));
        }
        tensors
    }

    pub(super) fn add_tensors(&self, by_name: &mut BTreeMap<String, Tensor>) {
        for info in &self.file.tensors {
            if (self.chosen.as_ref()).is_some_and(|chosen| !chosen.contains(&info.name)) {
                continue;
            }
            let tensor = Tensor {
                name: info.name.clone(),
                path: Arc::clone(&self.path),
                dims: info.shape.iter().map(|&dim| dim as usize).collect(),
                encoding: encoding(info.dtype),
                bytes: Bytes::Mapped {
                    map: Arc::clone(&self.map),
                    offset: info.offset as usize,
                    len: info.len as usize,
                },
            };
            by_name.insert(info.name.clone(), tensor);
        }
    }
}

fn encoding(dtype: Dtype) -> Encoding {
    match dtype {
        Dtype::F32 => Encoding::Dense(DenseType::F32),
        Dtype::F16 => Encoding::Dense(DenseType::F16),
        Dtype::BF16 => Encoding::Dense(DenseType::Bf16),
        Dtype::U8 => Encoding::Packed,
        Dtype::F64 => Encoding::Other("f64"),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => Encoding::Other("a signed integer"),
        _ => Encoding::Other("of an element type that is not supported"),
    }
}

/// Opens `model.safetensors`, or the files its index names.
pub(super) fn shards(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<Vec<Shard>, LoadError> {
    let single = folder.join("model.safetensors");
    let index = folder.join("model.safetensors.index.json");
    if single.exists() || !index.exists() {
        paths.push(single.clone());
        return Ok(vec![Shard::open(single, None)?]);
    }
    let weight_map = read_json(&index, hf::parse_index)?;
    paths.push(index);
    let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in weight_map {
        files.entry(file).or_default().insert(tensor);
    }
    let mut shards = Vec::new();
    for (file, chosen) in files {
        let path = folder.join(file);
        paths.push(path.clone());
        shards.push(Shard::open(path, Some(chosen))?);
    }
    Ok(shards)
}

pub(super) fn vocab(
    folder: &Path,
    config_ids: &SpecialIds,
    paths: &mut Vec<PathBuf>,
) -> Result<VocabSource, LoadError> {
    let mut present = |name: &str| {
        let path = folder.join(name);
        path.is_file().then(|| {
            paths.push(path.clone());
            path
        })
    };
    let generation_config = present("generation_config.json");
    let Some(tokenizer_json) = present("tokenizer.json") else {
        return Ok(VocabSource::None);
    };
    let tokenizer_config = present("tokenizer_config.json");
    let chat_template = present("chat_template.jinja");
    let ids = match generation_config {
        Some(path) => read_json(&path, hf::parse_generation_config)?,
        None => SpecialIds::default(),
    };
    Ok(VocabSource::TokenizerJson(FolderVocab {
        tokenizer_json,
        tokenizer_config,
        chat_template,
        bos_id: ids.bos.or(config_ids.bos),
        eos_ids: if ids.eos.is_empty() {
            config_ids.eos.clone()
        } else {
            ids.eos
        },
        padding_id: ids.padding.or(config_ids.padding),
    }))
}

pub(super) fn read_json<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, ConfigError>,
) -> Result<T, LoadError> {
    let map = mmap::map(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    let config_error = |source| LoadError::Config {
        path: path.to_owned(),
        source,
    };
    if map.len() as u64 > MAX_JSON_BYTES {
        return Err(config_error(ConfigError::Value {
            key: "(the document)".into(),
            value: format!("{} bytes", map.len()),
            reason: format!("at most {MAX_JSON_BYTES} are read"),
        }));
    }
    parse(&map).map_err(config_error)
}
