//! MiniCPM from folders and GGUF files, held to a forward pass written from its paper and its
//! published code (arXiv 2404.06395, `modeling_minicpm.py`).
#![expect(clippy::unwrap_used, reason = "what helpers cannot do ends the test")]

mod common;

use std::{fs, path::Path};

use common::folder::{Tensors, difference, logits, random_tensors, write, write_folder};
use serde_json::{Value, json};
use tritmark_engine::{
    config::ModelConfig,
    convert::{Format, Options, convert},
    engine::EngineOptions,
    errors::chain,
    format::gguf::{self, Gguf, Layout, Metadata},
    load::{LoadOptions, LoadedModel, load},
    verify::{Options as VerifyOptions, Verdict, verify},
};

const TOKENS: [u32; 9] = [1, 5, 2, 30, 7, 7, 0, 19, 4];

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = HIDDEN / HEADS;
const LAYERS: usize = 3;
const EPS: f64 = 1e-5;

fn model_config(dim_model_base: usize, tied: bool) -> Value {
    json!({
        "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm",
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": 31,
        "rms_norm_eps": EPS, "hidden_act": "silu", "max_position_embeddings": 64,
        "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": dim_model_base,
        "tie_word_embeddings": tied,
    })
}

/// The forward pass in f64 and plain loops.
struct Reference<'a> {
    tensors: &'a Tensors,
    dim_model_base: f64,
}

impl Reference<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        let (_, values) = &self.tensors[name];
        values.iter().copied().map(f64::from).collect()
    }

    fn product(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weights = self.values(name);
        let rows = weights.chunks(x.len());
        rows.map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
            .collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let gains = self.values(name);
        x.iter()
            .zip(gains)
            .map(|(x, gain)| gain * x / (mean + EPS).sqrt())
            .collect()
    }

    /// Turns `(i, i + DIM / 2)` of each head.
    fn rotated(position: usize, mut x: Vec<f64>) -> Vec<f64> {
        for head in x.chunks_mut(DIM) {
            for i in 0..DIM / 2 {
                let angle = position as f64 * 10_000_f64.powf(-(2.0 * i as f64) / DIM as f64);
                let (a, b) = (head[i], head[i + DIM / 2]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + DIM / 2] = b * angle.cos() + a * angle.sin();
            }
        }
        x
    }

    fn logits(&self) -> Vec<f32> {
        let embedding = self.values("model.embed_tokens.weight");
        let mut stream: Vec<Vec<f64>> = TOKENS
            .iter()
            .map(|&token| embedding[token as usize * HIDDEN..][..HIDDEN].to_vec())
            .collect();
        stream.iter_mut().flatten().for_each(|x| *x *= 12.0);
        let residual = 1.4 / (LAYERS as f64).sqrt();
        for layer in 0..LAYERS {
            let name = |module: &str| format!("model.layers.{layer}.{module}.weight");
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for (position, x) in stream.iter_mut().enumerate() {
                let normed = self.norm(&name("input_layernorm"), x);
                let project = |module: &str| self.product(&name(module), &normed);
                let queries = Self::rotated(position, project("self_attn.q_proj"));
                keys.push(Self::rotated(position, project("self_attn.k_proj")));
                values.push(project("self_attn.v_proj"));
                let mut attended = vec![0.0; HIDDEN];
                for head in 0..HEADS {
                    let group = head / (HEADS / KV_HEADS) * DIM;
                    let query = &queries[head * DIM..][..DIM];
                    let scores = keys.iter().map(|key| {
                        let dot = query.iter().zip(&key[group..]).map(|(q, k)| q * k);
                        (dot.sum::<f64>() / (DIM as f64).sqrt()).exp()
                    });
                    let scores: Vec<f64> = scores.collect();
                    let total = scores.iter().sum::<f64>();
                    for (score, value) in scores.iter().zip(&values) {
                        for i in 0..DIM {
                            attended[head * DIM + i] += score / total * value[group + i];
                        }
                    }
                }
                let block = self.product(&name("self_attn.o_proj"), &attended);
                x.iter_mut()
                    .zip(block)
                    .for_each(|(x, block)| *x += residual * block);
                let normed = self.norm(&name("post_attention_layernorm"), x);
                let gate = self.product(&name("mlp.gate_proj"), &normed);
                let up = self.product(&name("mlp.up_proj"), &normed);
                let inner: Vec<f64> = gate
                    .iter()
                    .zip(up)
                    .map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up)
                    .collect();
                let block = self.product(&name("mlp.down_proj"), &inner);
                x.iter_mut()
                    .zip(block)
                    .for_each(|(x, block)| *x += residual * block);
            }
        }
        let head = if self.tensors.contains_key("lm_head.weight") {
            "lm_head.weight"
        } else {
            "model.embed_tokens.weight"
        };
        let all = stream.iter().flat_map(|x| {
            let mut normed = self.norm("model.norm.weight", x);
            for x in &mut normed {
                *x /= HIDDEN as f64 / self.dim_model_base;
            }
            self.product(head, &normed)
        });
        all.map(|logit| logit as f32).collect()
    }
}

fn loaded(path: &Path) -> LoadedModel {
    load(path, &LoadOptions::default()).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// Rewrites a GGUF file with other keys.
fn with_keys(path: &Path, change: impl Fn(&str) -> Option<gguf::Value>, keep: &[&str]) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let file = Gguf::parse(&bytes).unwrap();
    let mut metadata = Metadata::default();
    for (key, value) in file.metadata.iter() {
        let scale = key.starts_with("minicpm.") && key.ends_with("_scale");
        if !scale || keep.contains(&key) {
            metadata.set(key, change(key).unwrap_or_else(|| value.clone()));
        }
    }
    let mut layout = Layout::new(metadata);
    for tensor in &file.tensors {
        layout.add(&tensor.name, &tensor.dims, tensor.kind).unwrap();
    }
    let mut writer = layout.begin(Vec::new()).unwrap();
    for tensor in &file.tensors {
        let bytes = &bytes[tensor.offset as usize..][..tensor.len as usize];
        writer.write(bytes).unwrap();
    }
    writer.finish()
}

#[test]
fn folders_and_gguf_files_give_the_logits_of_the_published_code() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("minicpm");
    let file = temporary.path().join("minicpm.gguf");
    for (dim_model_base, tied) in [(8, true), (13, false)] {
        let config = model_config(dim_model_base, tied);
        let tensors = random_tensors(&config, 6);
        write_folder(&folder, &config, &tensors);
        let expected = Reference {
            tensors: &tensors,
            dim_model_base: dim_model_base as f64,
        }
        .logits();
        let report = convert(&folder, &file, &Options::new(Format::F32), |_, _| {}).unwrap();
        assert_eq!(report.architecture, "minicpm");
        for path in [&folder, &file] {
            let model = loaded(path);
            assert_eq!(model.source.warnings, Vec::<String>::new());
            assert_eq!(model.weights.head.is_none(), tied);
            let options = VerifyOptions {
                engine: EngineOptions::default(),
                longest_prompt: None,
            };
            let report = verify(&model, None, &options, |_, _| {}).unwrap();
            assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.checks);
            let found = difference(&logits(model, &TOKENS), &expected);
            assert!(found < 1e-5, "{}: {found:e}", path.display());
        }
        let (folder, file) = (loaded(&folder).config, loaded(&file).config);
        let scales = |config: ModelConfig| {
            (
                config.embedding_scale,
                config.residual_scale,
                config.logit_scale,
            )
        };
        assert_eq!(scales(folder), scales(file));
    }
}

#[test]
fn files_without_scales_are_of_minicpm_2bs_kind_and_none_may_be_zero() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("minicpm");
    let file = temporary.path().join("minicpm.gguf");
    let config = model_config(256, true);
    write_folder(&folder, &config, &random_tensors(&config, 6));
    convert(&folder, &file, &Options::new(Format::F32), |_, _| {}).unwrap();
    let expected = loaded(&file).config;
    write(&file, &with_keys(&file, |_| None, &[]));
    assert_eq!(loaded(&file).config, expected);

    convert(&folder, &file, &Options::new(Format::F32), |_, _| {}).unwrap();
    for key in ["embedding_scale", "residual_scale", "logit_scale"] {
        let key = format!("minicpm.{key}");
        let zero = |_: &str| Some(gguf::Value::F32(0.0));
        let only_scales = |name: &str| (name == key).then(|| zero(name)).flatten();
        let bytes = with_keys(&file, only_scales, &[&key]);
        let path = temporary.path().join("zero.gguf");
        write(&path, &bytes);
        let error = load(&path, &LoadOptions::default()).unwrap_err();
        let said = chain(&error);
        let expected = format!("key `{key}` is 0: must be finite and positive");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn experts_and_other_positions_are_refused() {
    let temporary = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("num_experts", json!(8)),
        ("rope_scaling", json!({"type": "longrope"})),
        ("scale_depth", json!(0)),
        ("dim_model_base", json!(0)),
    ] {
        let mut config = model_config(8, true);
        config[key] = value;
        let tensors = random_tensors(&config, 6);
        write_folder(temporary.path(), &config, &tensors);
        let error = load(temporary.path(), &LoadOptions::default()).unwrap_err();
        let said = chain(&error);
        assert!(said.contains(&format!("key `{key}")), "{said}");
    }
}
