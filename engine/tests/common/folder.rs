//! Small Hugging Face folders with random weights.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use tritmark_engine::{
    engine::{Engine, EngineOptions, Logits},
    load::LoadedModel,
    testing::TestRng,
};

/// Shapes and values by name.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Returns random weights of the shapes that a `config.json` asks for; gains are near 1.
pub(crate) fn random_tensors(config: &Value, seed: u64) -> Tensors {
    let size = |key: &str| {
        let size = config[key].as_u64();
        size.unwrap_or_else(|| panic!("no `{key}`")) as usize
    };
    let class = config["architectures"][0].as_str().unwrap_or_default();
    let (hidden, ffn, vocab) = (
        size("hidden_size"),
        size("intermediate_size"),
        size("vocab_size"),
    );
    let head_dim = hidden / size("num_attention_heads");
    let kv = size("num_key_value_heads") * head_dim;
    let mut rng = TestRng::new(seed);
    let mut tensors = Tensors::new();
    let mut matrix = |name: String, rows: usize, cols: usize| {
        let unit = 1.7 / (cols as f32).sqrt();
        let values = rng.floats(rows * cols).into_iter().map(|x| unit * x);
        tensors.insert(name, (vec![rows, cols], values.collect()));
    };
    matrix("model.embed_tokens.weight".into(), vocab, hidden);
    if config["tie_word_embeddings"] == false {
        matrix("lm_head.weight".into(), vocab, hidden);
    }
    let layers = 0..size("num_hidden_layers");
    for nth in layers.clone() {
        for (module, rows, cols) in [
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ] {
            matrix(format!("model.layers.{nth}.{module}.weight"), rows, cols);
        }
    }
    let mut gain = |name: String, len: usize| {
        let values = rng.floats(len).into_iter().map(|x| 1.0 + 0.3 * x);
        tensors.insert(name, (vec![len], values.collect()));
    };
    gain("model.norm.weight".into(), hidden);
    for nth in layers {
        let name = |module: &str| format!("model.layers.{nth}.{module}");
        gain(name("input_layernorm.weight"), hidden);
        gain(name("post_attention_layernorm.weight"), hidden);
        if class == "BitNetForCausalLM" {
            gain(name("self_attn.attn_sub_norm.weight"), hidden);
            gain(name("mlp.ffn_sub_norm.weight"), ffn);
        }
        if class == "Qwen2ForCausalLM" {
            gain(name("self_attn.q_proj.bias"), hidden);
            gain(name("self_attn.k_proj.bias"), kv);
            gain(name("self_attn.v_proj.bias"), kv);
        }
    }
    tensors
}

/// Writes tensors in f32.
pub(crate) fn write_tensors(path: &Path, tensors: &Tensors) {
    let bytes: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes);
        (*name, view.expect("as many bytes as the shape asks for"))
    });
    let file = safetensors::serialize(views, None).expect("views of f32");
    write(path, &file);
}

/// Writes a model's folder.
pub(crate) fn write_folder(folder: &Path, config: &Value, tensors: &Tensors) {
    fs::create_dir_all(folder).expect("a folder to write to");
    write(&folder.join("config.json"), config.to_string().as_bytes());
    write_tensors(&folder.join("model.safetensors"), tensors);
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Returns the logits of all of `tokens`.
pub(crate) fn logits(model: LoadedModel, tokens: &[u32]) -> Vec<f32> {
    let mut engine =
        Engine::from_loaded(model, &EngineOptions::default()).expect("a model that fits itself");
    let mut cache = engine.new_cache(tokens.len());
    let mut out = Vec::new();
    engine
        .forward(&mut cache, tokens, Logits::All, &mut out)
        .expect("tokens of the vocabulary");
    out
}

/// Returns the greatest difference as a share of the greatest value.
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    let greatest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max) / greatest
}
