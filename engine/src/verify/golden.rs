//! A reference program's outputs for fixed prompts: a JSON file, plain or gzipped, and the tensors
//! that lie beside it under the same name as safetensors.
//!
//! JSON: `model`, `mode` (`f32` is a reference; others are for information) and `prompts`, each with
//! `id`, `ids`, `sum_logprob` (of `ids[1..]`), `greedy_ids` and `greedy_margins` (best logit less
//! second best, by step). Safetensors, F32: `<id>.last_logits` `(vocab)` and `<id>.token_logprobs`
//! `(n - 1)`. Keys and tensors besides are not read.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::format::safetensors::{Safetensors, SafetensorsError};

/// Most bytes of JSON that are read; twenty prompts take 100 kB.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// A reference's outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// The model they are of, by the reference's own name.
    pub model: String,
    /// Arithmetic of the reference: `f32`, `bf16`.
    pub mode: String,
    /// Rows of the logits; None without tensors.
    pub vocab_size: Option<usize>,
    /// What was evaluated.
    pub prompts: Vec<Prompt>,
}

/// A prompt and what the reference made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Its name in the file.
    pub id: String,
    /// Its tokens; at least one.
    pub ids: Vec<u32>,
    /// Sum of `ln p` of `ids[1..]`.
    pub sum_logprob: f64,
    /// The most likely tokens behind it, those that end a text included.
    pub greedy_ids: Vec<u32>,
    /// Best logit less second best, by step.
    pub greedy_margins: Vec<f64>,
    /// Logits of the next token, if the tensors are there.
    pub last_logits: Option<Vec<f32>>,
    /// `ln p` of `ids[1..]`, if the tensors are there.
    pub token_logprobs: Option<Vec<f32>>,
}

/// A reference that cannot be read. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The file system said no, or the file is no gzip.
    #[error("cannot read {}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not JSON of the expected keys.
    #[error("cannot parse {}", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Not a safetensors file.
    #[error("cannot parse {}", path.display())]
    Safetensors {
        /// File.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: SafetensorsError,
    },
    /// Parts that contradict each other.
    #[error("{}: {what}", path.display())]
    Contradiction {
        /// File.
        path: PathBuf,
        /// Which, and how.
        what: String,
    },
}

#[derive(Deserialize)]
struct JsonFile {
    model: String,
    mode: String,
    prompts: Vec<JsonPrompt>,
}

#[derive(Deserialize)]
struct JsonPrompt {
    id: String,
    ids: Vec<u32>,
    sum_logprob: f64,
    greedy_ids: Vec<u32>,
    greedy_margins: Vec<f64>,
}

impl Golden {
    /// Reads `<name>.json` or `<name>.json.gz`, and `<name>.safetensors` beside it if it is there.
    pub fn read(path: &Path) -> Result<Self, GoldenError> {
        let json = read_json(path)?;
        let tensors = tensors_path(path);
        let bytes = match std::fs::read(&tensors) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(GoldenError::Read {
                    path: tensors,
                    source,
                });
            }
        };
        Self::parse(
            path,
            &json,
            bytes.as_deref().map(|bytes| (&*tensors, bytes)),
        )
    }

    /// Reads a reference from bytes; the paths are for errors.
    pub fn parse(
        path: &Path,
        json: &[u8],
        tensors: Option<(&Path, &[u8])>,
    ) -> Result<Self, GoldenError> {
        let JsonFile {
            model,
            mode,
            prompts,
        } = serde_json::from_slice(json).map_err(|source| GoldenError::Json {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |what: String| GoldenError::Contradiction {
            path: path.to_owned(),
            what,
        };
        if prompts.is_empty() {
            return Err(wrong("it has no prompts".to_owned()));
        }
        let mut golden = Self {
            model,
            mode,
            vocab_size: None,
            prompts: Vec::with_capacity(prompts.len()),
        };
        for prompt in prompts {
            let JsonPrompt {
                id,
                ids,
                sum_logprob,
                greedy_ids,
                greedy_margins,
            } = prompt;
            if ids.is_empty() {
                return Err(wrong(format!("prompt `{id}` has no ids")));
            }
            if greedy_ids.len() != greedy_margins.len() {
                return Err(wrong(format!(
                    "prompt `{id}` has {} greedy_ids, but {} greedy_margins",
                    greedy_ids.len(),
                    greedy_margins.len()
                )));
            }
            golden.prompts.push(Prompt {
                id,
                ids,
                sum_logprob,
                greedy_ids,
                greedy_margins,
                last_logits: None,
                token_logprobs: None,
            });
        }
        if let Some((path, bytes)) = tensors {
            golden.add_tensors(path, bytes)?;
        }
        Ok(golden)
    }

    fn add_tensors(&mut self, path: &Path, bytes: &[u8]) -> Result<(), GoldenError> {
        let file = Safetensors::parse(bytes).map_err(|source| GoldenError::Safetensors {
            path: path.to_owned(),
            source,
        })?;
        let get = |name: &str, len: Option<usize>| {
            let wrong = |what: String| GoldenError::Contradiction {
                path: path.to_owned(),
                what,
            };
            let Some(info) = file.tensors.iter().find(|info| info.name == name) else {
                return Ok(None);
            };
            if info.dtype != safetensors::Dtype::F32 {
                return Err(wrong(format!("tensor `{name}` is {}, not F32", info.dtype)));
            }
            // Within the file, whose bytes are in memory.
            let bytes = &bytes[info.offset as usize..][..info.len as usize];
            let (words, _) = bytes.as_chunks();
            if let Some(len) = len.filter(|&len| len != words.len()) {
                return Err(wrong(format!(
                    "tensor `{name}` has {} values, not {len}",
                    words.len()
                )));
            }
            let floats: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
            Ok(Some(floats))
        };
        for prompt in &mut self.prompts {
            prompt.last_logits = get(&format!("{}.last_logits", prompt.id), self.vocab_size)?;
            if let Some(logits) = &prompt.last_logits {
                if logits.is_empty() {
                    return Err(GoldenError::Contradiction {
                        path: path.to_owned(),
                        what: format!("tensor `{}.last_logits` is empty", prompt.id),
                    });
                }
                self.vocab_size = Some(logits.len());
            }
            prompt.token_logprobs = get(
                &format!("{}.token_logprobs", prompt.id),
                Some(prompt.ids.len() - 1),
            )?;
        }
        Ok(())
    }
}

/// Returns where the tensors of a reference lie.
fn tensors_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    path.with_file_name(format!("{stem}.safetensors"))
}

fn read_json(path: &Path) -> Result<Vec<u8>, GoldenError> {
    let read = || {
        let file = File::open(path)?;
        let mut bytes = Vec::new();
        if path.extension().is_some_and(|ending| ending == "gz") {
            let limit = MAX_JSON_BYTES + 1;
            GzDecoder::new(file).take(limit).read_to_end(&mut bytes)?;
        } else {
            file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes)?;
        }
        if bytes.len() as u64 > MAX_JSON_BYTES {
            let what = format!("it has more than {MAX_JSON_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(bytes)
    };
    read().map_err(|source| GoldenError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn valid() -> serde_json::Value {
        json!({"model": "m", "mode": "f32", "prompts": [{
            "id": "p0", "ids": [1, 2], "sum_logprob": -1.5,
            "greedy_ids": [3], "greedy_margins": [0.5],
        }]})
    }

    fn tensors(parts: &[(&str, &[f32])]) -> Vec<u8> {
        let parts: Vec<(String, usize, Vec<u8>)> = parts
            .iter()
            .map(|(name, values)| {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                ((*name).to_owned(), values.len(), bytes)
            })
            .collect();
        let views = parts.iter().map(|(name, len, bytes)| {
            let view = safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                vec![*len],
                bytes.as_slice(),
            );
            (name.clone(), view.expect("bytes of this shape"))
        });
        safetensors::serialize(views, None).expect("tensors to write")
    }

    fn error(json: &serde_json::Value, parts: &[(&str, &[f32])]) -> String {
        let bytes = tensors(parts);
        let tensors = Some((Path::new("g.safetensors"), &bytes[..]));
        let error = Golden::parse(Path::new("g.json"), json.to_string().as_bytes(), tensors)
            .expect_err("a fault");
        format!(
            "{error}: {}",
            error.source().map(ToString::to_string).unwrap_or_default()
        )
    }

    #[test]
    fn a_reference_is_read_with_its_tensors_plain_or_gzipped() {
        use std::io::Write as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.f32.json.gz");
        let mut gzip = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        gzip.write_all(valid().to_string().as_bytes()).unwrap();
        gzip.finish().unwrap();
        let bytes = tensors(&[
            ("p0.last_logits", &[0.0; 4]),
            ("p0.token_logprobs", &[-1.5]),
        ]);
        std::fs::write(folder.path().join("m.f32.safetensors"), bytes).unwrap();
        let golden = Golden::read(&path).unwrap();
        assert_eq!(golden.vocab_size, Some(4));
        assert_eq!(golden.prompts[0].last_logits, Some(vec![0.0; 4]));
        assert_eq!(golden.prompts[0].token_logprobs, Some(vec![-1.5]));

        let plain = folder.path().join("other.json");
        std::fs::write(&plain, valid().to_string()).unwrap();
        let golden = Golden::read(&plain).unwrap();
        assert_eq!((golden.vocab_size, golden.prompts.len()), (None, 1));
        let missing = Golden::read(&folder.path().join("none.json")).unwrap_err();
        assert!(missing.to_string().ends_with("none.json"), "{missing}");
    }

    #[test]
    fn faults_are_named_with_their_file() {
        let mut json = valid();
        json["prompts"][0]["ids"] = json!([]);
        assert!(error(&json, &[]).starts_with("g.json: prompt `p0` has no ids"));
        let mut json = valid();
        json["prompts"][0]["greedy_margins"] = json!([]);
        assert!(error(&json, &[]).contains("has 1 greedy_ids, but 0 greedy_margins"));
        let mut json = valid();
        json["prompts"][0]["ids"] = json!([-1]);
        let said = error(&json, &[]);
        assert!(said.contains("g.json") && said.contains("line 1"), "{said}");
        let said = error(&valid(), &[("p0.token_logprobs", &[0.0; 3])]);
        assert!(
            said.starts_with("g.safetensors: tensor `p0.token_logprobs` has 3 values, not 1"),
            "{said}"
        );
        assert!(
            error(&json!({"model": "m", "mode": "f32", "prompts": []}), &[]).contains("no prompts")
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            at in 0_usize..1000, with: u8, cut in 0_usize..1000, in_tensors: bool,
        ) {
            let mut json = valid().to_string().into_bytes();
            let mut bytes = tensors(&[("p0.last_logits", &[0.5; 4]), ("p0.token_logprobs", &[-1.5])]);
            let changed = if in_tensors { &mut bytes } else { &mut json };
            let len = changed.len();
            changed[at % len] = with;
            changed.truncate(if cut < 500 { len } else { cut % len });
            let tensors = Some((Path::new("g.safetensors"), &bytes[..]));
            if let Ok(golden) = Golden::parse(Path::new("g.json"), &json, tensors) {
                prop_assert!(golden.prompts.iter().all(|prompt| !prompt.ids.is_empty()));
            }
        }
    }
}
