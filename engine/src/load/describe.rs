//! Descriptions of models without their weights, for [`inspect`](crate::inspect).

use std::path::{Path, PathBuf};

use super::{LoadError, gguf, hf};
use crate::{
    config::{ConfigError, ModelConfig},
    format::{self, gguf::Gguf, safetensors::TensorInfo},
};

/// The configuration of a GGUF file and what is to be said of it.
pub(crate) fn gguf_config(gguf: &Gguf) -> Result<(ModelConfig, Vec<String>), ConfigError> {
    gguf::config(gguf).map(|config| (config, Vec::new()))
}

/// A Hugging Face folder.
pub(crate) struct FolderDescription {
    pub(crate) config: Result<(ModelConfig, Vec<String>), ConfigError>,
    pub(crate) config_json: serde_json::Value,
    pub(crate) shards: Vec<ShardDescription>,
    /// Paths and sizes, bytes.
    pub(crate) files: Vec<(PathBuf, u64)>,
}

/// A safetensors file's tensors.
pub(crate) struct ShardDescription {
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Describes a folder even where its configuration cannot be run.
pub(crate) fn folder(folder: &Path) -> Result<FolderDescription, LoadError> {
    let config_path = folder.join("config.json");
    let (config_json, config) = hf::read_json(&config_path, |bytes| {
        let json = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        let config = format::hf::parse_config(bytes);
        Ok((json, config.map(|config| (config.model, config.warnings))))
    })?;
    let mut paths = vec![config_path];
    let shards = hf::shards(folder, &mut paths)?;
    hf::vocab(folder, &format::hf::SpecialIds::default(), &mut paths)?;
    let mut files = Vec::new();
    for path in paths {
        match std::fs::metadata(&path) {
            Ok(metadata) => files.push((path, metadata.len())),
            Err(source) => return Err(LoadError::Open { path, source }),
        }
    }
    Ok(FolderDescription {
        config,
        config_json,
        shards: shards
            .into_iter()
            .map(|shard| ShardDescription {
                tensors: shard.into_tensors(),
            })
            .collect(),
        files,
    })
}
