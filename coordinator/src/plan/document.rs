//! The plan file as serde sees it: every key, nothing resolved. Spans lead errors back to lines.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

/// A list whose place and whose entries' places are known.
pub(super) type List<T> = Spanned<Vec<Spanned<T>>>;

/// A whole plan file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: Option<Spanned<String>>,
    pub(super) priority: Option<Spanned<i64>>,
    pub(super) expires: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) defaults: Defaults,
    pub(super) models: List<Model>,
    pub(super) suites: Spanned<Suites>,
    pub(super) select: Option<Spanned<Selectors>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
    pub(super) numerics: Option<Spanned<String>>,
    pub(super) kv: Option<Spanned<String>>,
    pub(super) head: Option<Spanned<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub(super) id: Spanned<String>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) synth: Option<Spanned<Synth>>,
    pub(super) lora: Option<Spanned<String>>,
    pub(super) baseline: Option<Spanned<String>>,
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
    pub(super) numerics: Option<Spanned<String>>,
    pub(super) kv: Option<Spanned<String>>,
    pub(super) head: Option<Spanned<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Synth {
    pub(super) shape: Spanned<String>,
    pub(super) format: Spanned<String>,
    pub(super) seed: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Suites {
    pub(super) memory: Option<Spanned<Memory>>,
    pub(super) latency: Option<Spanned<Latency>>,
    pub(super) energy: Option<Spanned<Energy>>,
    pub(super) accuracy: Option<Spanned<Accuracy>>,
    pub(super) agreement: Option<Spanned<Agreement>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    pub(super) n_prompt: Option<List<u32>>,
    pub(super) n_gen: Option<List<u32>>,
    pub(super) n_depth: Option<List<u32>>,
    pub(super) n_batch: Option<List<u32>>,
    pub(super) models: Option<List<String>>,
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Latency {
    pub(super) n_prompt: Option<List<u32>>,
    pub(super) n_gen: Option<List<u32>>,
    pub(super) n_depth: Option<List<u32>>,
    pub(super) n_batch: Option<List<u32>>,
    pub(super) warm_ups: Option<Spanned<u32>>,
    pub(super) repetitions: Option<Spanned<u32>>,
    pub(super) probe: Option<bool>,
    pub(super) models: Option<List<String>>,
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Energy {
    pub(super) n_prompt: Option<List<u32>>,
    pub(super) n_gen: Option<List<u32>>,
    pub(super) n_depth: Option<List<u32>>,
    pub(super) n_batch: Option<List<u32>>,
    pub(super) repetitions: Option<Spanned<u32>>,
    pub(super) idle_seconds: Option<Spanned<f64>>,
    pub(super) window_seconds: Option<Spanned<f64>>,
    pub(super) models: Option<List<String>>,
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accuracy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<List<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task_files: Option<List<String>>,
    pub(super) data: Spanned<String>,
    pub(super) preset: Option<Spanned<String>>,
    pub(super) limit: Option<Spanned<u32>>,
    pub(super) num_fewshot: Option<Spanned<u32>>,
    pub(super) add_bos: Option<bool>,
    pub(super) chat: Option<bool>,
    pub(super) system: Option<String>,
    pub(super) fewshot_as_multiturn: Option<bool>,
    pub(super) max_new: Option<Spanned<u32>>,
    pub(super) batch: Option<Spanned<u32>>,
    pub(super) shards: Option<Spanned<u32>>,
    pub(super) evalplus_compat: Option<bool>,
    pub(super) score_on: Option<Spanned<String>>,
    pub(super) cache: Option<bool>,
    pub(super) models: Option<List<String>>,
    pub(super) threads: Option<List<u32>>,
    pub(super) kernels: Option<List<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agreement {
    pub(super) n_prompts: Option<Spanned<u32>>,
    pub(super) max_len: Option<Spanned<u32>>,
    pub(super) n_gen: Option<Spanned<u32>>,
    pub(super) seed: Option<u64>,
    pub(super) threads: Option<List<u32>>,
    pub(super) n_batch: Option<List<u32>>,
    pub(super) models: Option<List<String>>,
}

/// `[select]` or several `[[select]]`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Selectors(pub(super) Vec<Spanned<Selector>>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selector {
    pub(super) arch: Option<Spanned<String>>,
    pub(super) isa: Option<List<String>>,
    pub(super) memory_min: Option<Spanned<String>>,
    pub(super) machine_id: Option<Spanned<String>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Selectors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Selectors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table or an array of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Selectors, A::Error> {
                let selector = Selector::deserialize(MapAccessDeserializer::new(map))?;
                // No place of its own: the caller knows the place of `select`.
                Ok(Selectors(vec![Spanned::new(0..0, selector)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Selectors, A::Error> {
                let mut selectors = Vec::new();
                while let Some(selector) = seq.next_element()? {
                    selectors.push(selector);
                }
                Ok(Selectors(selectors))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}
