//! The golden models, what they are compared with, and engines of them.

use std::{num::NonZeroUsize, path::Path};

use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits},
    kernels::{self, KernelChoice},
    kv_cache::KvType,
    load::{LoadOptions, load},
    tokenizer::Tokenizer,
};

use crate::{
    common,
    statistics::{AGAINST_BITNET_CPP_I2_S, AGAINST_BITNET_CPP_TQ2_0, Limits, PUBLISHED_TERNARY},
};

/// A model file, and the outputs it is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    /// Under `golden/models`.
    pub(crate) file: &'static str,
    /// Under `golden/outputs`, without its ending.
    pub(crate) reference: &'static str,
    pub(crate) limits: Limits,
}

const FULL_PRECISION: Limits = Limits::dense(KvType::F32);

/// Every model whose outputs a public program printed.
pub(crate) const MODELS: [Model; 9] = [
    Model {
        file: "bitnet-tiny-packed",
        reference: "bitnet-tiny-packed.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "bitnet-tiny-bf16",
        reference: "bitnet-tiny-bf16.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "llama158-tiny",
        reference: "llama158-tiny.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "bitnet-tiny.i2_s.gguf",
        reference: "bitnet-tiny-packed.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "bitnet-tiny.tq2_0.gguf",
        reference: "bitnet-tiny-packed.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "bitnet-tiny.tq1_0.gguf",
        reference: "bitnet-tiny-packed.f32",
        limits: PUBLISHED_TERNARY,
    },
    Model {
        file: "llama-tiny",
        reference: "llama-tiny.f32",
        limits: FULL_PRECISION,
    },
    Model {
        file: "qwen2-tiny",
        reference: "qwen2-tiny.f32",
        limits: FULL_PRECISION,
    },
    Model {
        file: "gemma3-tiny",
        reference: "gemma3-tiny.f32",
        limits: FULL_PRECISION,
    },
];

/// bitnet.cpp's own outputs, made with a key/value cache in f16.
pub(crate) const BITNET_CPP: [Model; 2] = [
    Model {
        file: "bitnet-tiny.i2_s.gguf",
        reference: "bitnet-tiny.i2_s.bitnetcpp",
        limits: AGAINST_BITNET_CPP_I2_S,
    },
    Model {
        file: "bitnet-tiny.tq2_0.gguf",
        reference: "bitnet-tiny.tq2_0.bitnetcpp",
        limits: AGAINST_BITNET_CPP_TQ2_0,
    },
];

/// Returns the names of this machine's kernels, best first.
pub(crate) fn kernel_names() -> Vec<&'static str> {
    kernels::available()
        .iter()
        .map(|kernel| kernel.name())
        .collect()
}

/// Returns how a kernel is run here: the tests themselves run side by side.
pub(crate) fn options(kernel: &'static str) -> EngineOptions {
    EngineOptions {
        threads: NonZeroUsize::MIN,
        kernel: KernelChoice::Named(kernel),
        ..EngineOptions::default()
    }
}

/// Loads a model for a kernel.
pub(crate) fn engine(path: &Path, kernel: &'static str) -> Engine {
    engine_with(path, &options(kernel))
}

/// Loads a model.
pub(crate) fn engine_with(path: &Path, options: &EngineOptions) -> Engine {
    let model = load(path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    Engine::new(model.config, model.weights, options).unwrap()
}

/// Builds a model's tokenizer as the loader finds it.
pub(crate) fn tokenizer(path: &Path) -> Tokenizer {
    let model = load(path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    Tokenizer::new(&model.vocab).unwrap()
}

/// Evaluates a prompt; returns the logits of every position, `(n, vocab_size)`.
pub(crate) fn all_logits(engine: &mut Engine, ids: &[u32]) -> Vec<f32> {
    let mut cache = engine.new_cache(ids.len());
    let mut logits = Vec::new();
    engine
        .forward(&mut cache, ids, Logits::All, &mut logits)
        .unwrap();
    logits
}

/// A prompt of a reference file.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// `p00` to `p19`.
    pub(crate) name: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) greedy_ids: Vec<u32>,
    /// Best logit minus second best, by step.
    pub(crate) greedy_margins: Vec<f64>,
    /// Sum of `ln p` of `ids[1..]`.
    pub(crate) sum_logprob: f64,
}

/// Reads the prompts of `golden/outputs/{reference}.json.gz`.
pub(crate) fn prompts(data: &Path, reference: &str) -> Vec<Prompt> {
    let path = data.join(format!("golden/outputs/{reference}.json.gz"));
    let prompts: Vec<_> = common::json(&path)["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|prompt| Prompt {
            name: prompt["id"].as_str().unwrap().to_owned(),
            ids: common::ids(&prompt["ids"]),
            greedy_ids: common::ids(&prompt["greedy_ids"]),
            greedy_margins: serde_json::from_value(prompt["greedy_margins"].clone()).unwrap(),
            sum_logprob: prompt["sum_logprob"].as_f64().unwrap(),
        })
        .collect();
    assert_eq!(prompts.len(), 20, "{}", path.display());
    prompts
}

/// Tensors of a reference file.
#[derive(Debug)]
pub(crate) struct Outputs(Vec<u8>);

impl Outputs {
    /// Reads `golden/outputs/{reference}.safetensors`.
    pub(crate) fn read(data: &Path, reference: &str) -> Self {
        let path = data.join(format!("golden/outputs/{reference}.safetensors"));
        Self(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Returns a tensor's values, if it is there.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<f32>> {
        let tensors = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        let (words, _) = tensor.data().as_chunks();
        Some(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }
}
