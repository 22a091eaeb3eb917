//! What a model file says of itself, without reading its weights.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::{
    config::{ConfigError, ModelConfig},
    format::gguf::{Array, Gguf, Metadata, Value},
    load::{LoadError, describe},
    mmap,
};

/// Elements of a long array that are shown.
const SHOWN_ELEMENTS: usize = 8;
/// Characters of a long text that are shown.
const SHOWN_CHARS: usize = 200;

/// A model's description.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// `gguf v3` or `safetensors`.
    pub format: String,
    /// The file's own word; empty where it says none.
    pub architecture: String,
    /// Shape and constants, if this engine can run the model.
    pub config: Option<ModelConfig>,
    /// Every tensor, in the files' order.
    pub tensors: Vec<InspectedTensor>,
    /// Tensors by type.
    pub types: BTreeMap<String, TypeSummary>,
    /// Keys and values: GGUF metadata, or `config.json`. Long arrays and texts are shortened.
    pub metadata: Map<String, Json>,
    /// Every file of the model.
    pub files: Vec<InspectedFile>,
    /// Their sizes' sum, bytes.
    pub file_bytes: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Weights of all tensors, separate scales included.
    pub n_weights: u64,
    /// What stands in the way of using the model, or a reader should know.
    pub warnings: Vec<String>,
}

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedFile {
    /// Name without its folder.
    pub name: String,
    /// Size.
    pub bytes: u64,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedTensor {
    /// Name in the file.
    pub name: String,
    /// Type: `i2_s`, `bf16`, `u8`.
    pub kind: String,
    /// Dimensions, the slowest first: `[outputs, inputs]` of a linear.
    pub shape: Vec<u64>,
    /// Size in the file.
    pub bytes: u64,
}

/// The tensors of one type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypeSummary {
    /// Their number.
    pub n_tensors: u64,
    /// Their elements; a packed byte counts as one.
    pub n_elements: u64,
    /// Their bytes in the file.
    pub bytes: u64,
}

/// Describes a GGUF file or a Hugging Face folder. A model that this engine cannot run is described
/// as far as it can be read, with a warning.
pub fn inspect(path: &Path) -> Result<Inspection, LoadError> {
    let metadata = std::fs::metadata(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    if metadata.is_dir() {
        inspect_folder(path)
    } else {
        inspect_gguf(path)
    }
}

fn inspect_gguf(path: &Path) -> Result<Inspection, LoadError> {
    let map = mmap::map(path).map_err(|source| LoadError::Open {
        path: path.to_owned(),
        source,
    })?;
    let gguf = Gguf::parse(&map).map_err(|source| LoadError::Gguf {
        path: path.to_owned(),
        source,
    })?;
    let tensors = gguf.tensors.iter().map(|tensor| InspectedTensor {
        name: tensor.name.clone(),
        kind: tensor.kind.name().to_owned(),
        shape: tensor.dims.iter().rev().copied().collect(),
        bytes: tensor.len,
    });
    let file = InspectedFile {
        name: file_name(path),
        bytes: map.len() as u64,
    };
    let architecture = match gguf.metadata.get("general.architecture") {
        Some(Value::String(name)) => name.clone(),
        _ => String::new(),
    };
    Ok(Inspection::new(
        format!("gguf v{}", gguf.version),
        architecture,
        describe::gguf_config(&gguf),
        tensors.collect(),
        gguf_metadata(&gguf.metadata),
        vec![file],
    ))
}

fn inspect_folder(folder: &Path) -> Result<Inspection, LoadError> {
    let description = describe::folder(folder)?;
    let mut tensors = Vec::new();
    for shard in &description.shards {
        tensors.extend(shard.tensors.iter().map(|tensor| InspectedTensor {
            name: tensor.name.clone(),
            kind: tensor.dtype.to_string().to_lowercase(),
            shape: tensor.shape.clone(),
            bytes: tensor.len,
        }));
    }
    let files = description.files.iter().map(|(path, bytes)| InspectedFile {
        name: file_name(path),
        bytes: *bytes,
    });
    let metadata = match description.config_json {
        Json::Object(map) => map,
        other => Map::from_iter([("config.json".to_owned(), other)]),
    };
    let architecture = metadata
        .get("architectures")
        .and_then(|classes| classes.get(0))
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_owned();
    Ok(Inspection::new(
        "safetensors".to_owned(),
        architecture,
        description.config,
        tensors,
        metadata
            .into_iter()
            .map(|(key, value)| (key, short_json(value)))
            .collect(),
        files.collect(),
    ))
}

impl Inspection {
    fn new(
        format: String,
        architecture: String,
        config: Result<(ModelConfig, Vec<String>), ConfigError>,
        tensors: Vec<InspectedTensor>,
        metadata: Map<String, Json>,
        files: Vec<InspectedFile>,
    ) -> Self {
        let (config, warnings) = match config {
            Ok((config, warnings)) => (Some(config), warnings),
            Err(error) => (None, vec![format!("this engine cannot run it: {error}")]),
        };
        let mut types: BTreeMap<String, TypeSummary> = BTreeMap::new();
        for tensor in &tensors {
            let summary = types.entry(tensor.kind.clone()).or_default();
            summary.n_tensors += 1;
            summary.n_elements += tensor.shape.iter().product::<u64>();
            summary.bytes += tensor.bytes;
        }
        Self {
            format,
            architecture,
            config,
            metadata,
            file_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            tensor_bytes: tensors.iter().map(|tensor| tensor.bytes).sum(),
            n_weights: n_weights(&tensors),
            tensors,
            types,
            warnings,
        }
    }
}

/// A byte of Hugging Face's packed linears holds four weights.
fn n_weights(tensors: &[InspectedTensor]) -> u64 {
    let weights = tensors.iter().map(|tensor| {
        let elements: u64 = tensor.shape.iter().product();
        elements * if tensor.kind == "u8" { 4 } else { 1 }
    });
    weights.sum()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn gguf_metadata(metadata: &Metadata) -> Map<String, Json> {
    let entries = metadata.iter().map(|(key, value)| {
        let value = match value {
            Value::U8(v) => Json::from(*v),
            Value::I8(v) => Json::from(*v),
            Value::U16(v) => Json::from(*v),
            Value::I16(v) => Json::from(*v),
            Value::U32(v) => Json::from(*v),
            Value::I32(v) => Json::from(*v),
            Value::F32(v) => Json::from(*v),
            Value::Bool(v) => Json::from(*v),
            Value::String(v) => short_text(v),
            Value::Array(v) => short_array(v),
            Value::U64(v) => Json::from(*v),
            Value::I64(v) => Json::from(*v),
            Value::F64(v) => Json::from(*v),
        };
        (key.to_owned(), value)
    });
    entries.collect()
}

fn short_array(array: &Array) -> Json {
    fn first<T: Clone>(values: &[T], convert: impl Fn(T) -> Json) -> Vec<Json> {
        values
            .iter()
            .take(SHOWN_ELEMENTS)
            .cloned()
            .map(convert)
            .collect()
    }
    let mut shown = match array {
        Array::U8(v) => first(v, Json::from),
        Array::I8(v) => first(v, Json::from),
        Array::U16(v) => first(v, Json::from),
        Array::I16(v) => first(v, Json::from),
        Array::U32(v) => first(v, Json::from),
        Array::I32(v) => first(v, Json::from),
        Array::F32(v) => first(v, Json::from),
        Array::Bool(v) => first(v, Json::from),
        Array::String(v) => v
            .iter()
            .take(SHOWN_ELEMENTS)
            .map(|text| short_text(text))
            .collect(),
        Array::Array(v) => v.iter().take(SHOWN_ELEMENTS).map(short_array).collect(),
        Array::U64(v) => first(v, Json::from),
        Array::I64(v) => first(v, Json::from),
        Array::F64(v) => first(v, Json::from),
    };
    note_rest(&mut shown, array.len());
    Json::Array(shown)
}

/// Adds how many elements are not shown.
fn note_rest(shown: &mut Vec<Json>, len: usize) {
    if len > shown.len() {
        shown.push(Json::from(format!("… {} more", len - shown.len())));
    }
}

fn short_text(text: &str) -> Json {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => Json::from(text),
        Some((end, _)) => Json::from(format!("{}… ({} bytes)", &text[..end], text.len())),
    }
}

fn short_json(value: Json) -> Json {
    match value {
        Json::String(text) => short_text(&text),
        Json::Array(mut items) => {
            let len = items.len();
            items.truncate(SHOWN_ELEMENTS);
            let mut shown: Vec<Json> = items.into_iter().map(short_json).collect();
            note_rest(&mut shown, len);
            Json::Array(shown)
        }
        Json::Object(map) => {
            let entries = map.into_iter().map(|(key, value)| (key, short_json(value)));
            Json::Object(entries.collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synth::{self, Format};

    #[test]
    fn a_synthetic_file_is_described_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let shape = synth::Shape {
            n_layers: 1,
            vocab_size: 64,
            ..*synth::shape("125m").unwrap()
        };
        synth::write(&shape, Format::I2S, 1, &path, |_, _| {}).unwrap();
        let inspection = inspect(&path).unwrap();
        assert_eq!(inspection.format, "gguf v3");
        assert_eq!(inspection.architecture, "bitnet-b1.58");
        assert_eq!(inspection.config.as_ref().unwrap().hidden_size, 768);
        assert_eq!(inspection.types["i2_s"].n_tensors, 7);
        assert_eq!(inspection.types["i2_s"].n_elements, shape.n_linear_params());
        assert_eq!(inspection.tensors[0].shape, [64, 768]);
        assert_eq!(inspection.metadata["general.file_type"], 40);
        assert_eq!(
            inspection.file_bytes,
            synth::file_bytes(&shape, Format::I2S).unwrap()
        );
        assert!(inspection.warnings.is_empty());
        let json = serde_json::to_value(&inspection).unwrap();
        assert_eq!(json["tensors"][0]["kind"], "f16");
    }

    #[test]
    fn long_arrays_and_texts_are_shortened() {
        let array = Array::I32((0..100).collect());
        let short = short_array(&array);
        assert_eq!(short.as_array().unwrap().len(), SHOWN_ELEMENTS + 1);
        assert_eq!(short[SHOWN_ELEMENTS], "… 92 more");
        let text = short_text(&"é".repeat(300));
        assert!(text.as_str().unwrap().ends_with("é… (600 bytes)"));
        let json = short_json(serde_json::json!({"a": [1, 2, vec![0; 20]]}));
        assert_eq!(json["a"][2][SHOWN_ELEMENTS], "… 12 more");
    }
}
