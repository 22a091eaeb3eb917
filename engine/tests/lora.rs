//! LoRA adapters in peft's folders: the logits of the merged model, and errors that name the tensor.
#![expect(clippy::unwrap_used, reason = "what helpers cannot do ends the test")]

mod common;

use std::{fs, path::Path};

use common::folder::{
    Tensors, difference, logits, random_tensors, write, write_folder, write_tensors,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tritmark_engine::{
    convert::{Format, Options, convert},
    errors::chain,
    load::{LoadError, LoadOptions, LoadedModel, load},
    testing::TestRng,
};

const TOKENS: [u32; 9] = [1, 5, 2, 30, 7, 7, 0, 19, 4];

fn model_config(class: &str) -> Value {
    json!({
        "architectures": [class], "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 31, "tie_word_embeddings": class == "LlamaForCausalLM",
    })
}

fn adapter_config() -> Value {
    json!({
        "peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none", "use_rslora": false,
        "fan_in_fan_out": false, "modules_to_save": null, "use_dora": false,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"],
        "rank_pattern": {"layers.1.self_attn.k_proj": 5}, "alpha_pattern": {"down_proj": 1.5},
    })
}

/// Returns a module's rank and scale by `adapter_config`.
fn rank_and_scale(module: &str) -> (usize, f32) {
    if module.ends_with("layers.1.self_attn.k_proj") {
        (5, 6.0 / 5.0)
    } else if module.ends_with("down_proj") {
        (3, 0.5)
    } else {
        (3, 2.0)
    }
}

/// Returns an adapter of all linears but `up_proj`, and the base model merged with it.
fn adapter_and_merged(base: &Tensors) -> (Tensors, Tensors) {
    let mut rng = TestRng::new(5);
    let (mut adapter, mut merged) = (Tensors::new(), base.clone());
    for (name, (shape, weights)) in &mut merged {
        let Some(module) = name.strip_suffix("_proj.weight") else {
            continue;
        };
        if module.ends_with("up") {
            continue;
        }
        let module = format!("{module}_proj");
        let (rank, scale) = rank_and_scale(&module);
        let (rows, cols) = (shape[0], shape[1]);
        let a: Vec<f32> = rng.floats(rank * cols).iter().map(|x| 0.2 * x).collect();
        let b: Vec<f32> = rng.floats(rows * rank).iter().map(|x| 0.2 * x).collect();
        for row in 0..rows {
            for col in 0..cols {
                let products = (0..rank).map(|r| b[row * rank + r] * a[r * cols + col]);
                weights[row * cols + col] += scale * products.sum::<f32>();
            }
        }
        let name = |matrix| format!("base_model.model.{module}.{matrix}.weight");
        adapter.insert(name("lora_A"), (vec![rank, cols], a));
        adapter.insert(name("lora_B"), (vec![rows, rank], b));
    }
    (adapter, merged)
}

fn write_adapter(folder: &Path, config: &Value, tensors: &Tensors) {
    fs::create_dir_all(folder).unwrap();
    write(
        &folder.join("adapter_config.json"),
        config.to_string().as_bytes(),
    );
    write_tensors(&folder.join("adapter_model.safetensors"), tensors);
}

fn load_with(model: &Path, adapter: &Path) -> Result<LoadedModel, LoadError> {
    let options = LoadOptions {
        adapter: Some(adapter.to_owned()),
        ..LoadOptions::default()
    };
    load(model, &options)
}

fn loaded(model: &Path) -> LoadedModel {
    load(model, &LoadOptions::default()).unwrap()
}

#[test]
fn an_adapter_gives_the_logits_of_the_merged_model_beside_folders_and_gguf_files() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| temporary.path().join(name);
    for class in ["LlamaForCausalLM", "Qwen2ForCausalLM"] {
        let config = model_config(class);
        let base = random_tensors(&config, 3);
        let (adapter, merged) = adapter_and_merged(&base);
        write_folder(&folder("base"), &config, &base);
        write_folder(&folder("merged"), &config, &merged);
        write_adapter(&folder("adapter"), &adapter_config(), &adapter);
        // Rows of Llama's q and k change places.
        let gguf = folder("base.gguf");
        convert(
            &folder("base"),
            &gguf,
            &Options::new(Format::F32),
            |_, _| {},
        )
        .unwrap();
        let expected = logits(loaded(&folder("merged")), &TOKENS);
        let without = logits(loaded(&folder("base")), &TOKENS);
        assert!(difference(&without, &expected) > 0.1, "{class}");
        for model in [folder("base"), gguf] {
            let model = load_with(&model, &folder("adapter")).unwrap();
            let found = difference(&logits(model, &TOKENS), &expected);
            assert!(found < 1e-5, "{class}: {found:e}");
        }
    }
}

#[test]
fn ternary_linears_take_an_adapter_and_all_of_it_is_recorded() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| temporary.path().join(name);
    let mut config = model_config("BitNetForCausalLM");
    config["quantization_config"] = json!({"quant_method": "bitnet"});
    let base = random_tensors(&config, 4);
    let (adapter, _) = adapter_and_merged(&base);
    write_folder(&folder("base"), &config, &base);
    write_adapter(&folder("adapter"), &adapter_config(), &adapter);
    let plain = loaded(&folder("base")).source;
    let plain_hash = plain.weights_hash().unwrap();
    let model = load_with(&folder("base"), &folder("adapter")).unwrap();
    let with = model.source.clone();
    assert_eq!(with.linear_format, "i2_s");
    let said = "rank 3 to 5 beside 12 linears";
    assert_eq!((plain.adapter, with.adapter.as_deref()), (None, Some(said)));
    let n_params: usize = adapter.values().map(|(_, values)| values.len()).sum();
    assert_eq!(with.n_params - plain.n_params, n_params as u64);
    assert_eq!(with.weight_bytes - plain.weight_bytes, 4 * n_params as u64);
    assert_eq!(with.n_linear_params, plain.n_linear_params);
    assert!(with.bits_per_weight > plain.bits_per_weight);
    assert_eq!(with.files.len(), plain.files.len() + 2);
    assert_ne!(with.weights_hash().unwrap(), plain_hash);

    // B of zeros changes no bit.
    let expected = logits(loaded(&folder("base")), &TOKENS);
    assert!(difference(&logits(model, &TOKENS), &expected) > 1e-3);
    let mut zero = adapter;
    for (name, (_, values)) in &mut zero {
        if name.contains("lora_B") {
            values.fill(0.0);
        }
    }
    write_adapter(&folder("zero"), &adapter_config(), &zero);
    let model = load_with(&folder("base"), &folder("zero")).unwrap();
    assert_eq!(logits(model, &TOKENS), expected);
}

/// Returns what is said of an adapter after a change.
fn refusal(change: impl FnOnce(&mut Value, &mut Tensors)) -> String {
    let temporary = tempfile::tempdir().unwrap();
    let folder = |name: &str| temporary.path().join(name);
    let config = model_config("LlamaForCausalLM");
    let base = random_tensors(&config, 3);
    write_folder(&folder("base"), &config, &base);
    let (mut adapter, _) = adapter_and_merged(&base);
    let mut config = adapter_config();
    change(&mut config, &mut adapter);
    write_adapter(&folder("adapter"), &config, &adapter);
    let error = load_with(&folder("base"), &folder("adapter")).unwrap_err();
    chain(&error)
}

#[test]
fn what_cannot_be_used_is_an_error_that_names_it() {
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let rename = |from: String, to: String| {
        refusal(|_, tensors| {
            let tensor = tensors.remove(&from).unwrap();
            tensors.insert(to, tensor);
        })
    };
    let extra = |name: &str| {
        refusal(|_, tensors| {
            tensors.insert(name.to_owned(), (vec![1], vec![0.0]));
        })
    };
    for (said, expected) in [
        (
            refusal(|config, _| config["r"] = json!(4)),
            format!("`{q}.lora_A.weight` of"),
        ),
        (
            refusal(|config, _| config["r"] = json!(4)),
            "has the shape [3, 32], but the configuration asks for [4, 32]".to_owned(),
        ),
        (
            refusal(|_, tensors| {
                let b = tensors.get_mut(&format!("{q}.lora_B.weight")).unwrap();
                b.0 = vec![3, 32];
            }),
            "has the shape [3, 32], but the configuration asks for [32, 3]".to_owned(),
        ),
        (
            refusal(|_, tensors| {
                tensors.remove(&format!("{q}.lora_B.weight"));
            }),
            format!("adapter_model.safetensors has no tensor `{q}.lora_B.weight`"),
        ),
        (
            refusal(|_, tensors| tensors.clear()),
            format!("has no tensor `{q}.lora_A.weight`"),
        ),
        (
            refusal(|config, _| config["target_modules"] = json!("(.*)k_proj")),
            "is of a module that `target_modules` does not name".to_owned(),
        ),
        (
            rename(
                format!("{q}.lora_A.weight"),
                format!("{q}.lora_A.default.weight"),
            ),
            format!("has no tensor `{q}.lora_A.weight`"),
        ),
        (
            extra("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight"),
            "layers.9.mlp.up_proj.lora_A.weight` of".to_owned(),
        ),
        (
            extra("base_model.model.lm_head.lora_A.weight"),
            "adapts the output head, which is not supported".to_owned(),
        ),
        (
            extra("base_model.model.model.embed_tokens.lora_embedding_A"),
            "adapts the embedding, which is not supported".to_owned(),
        ),
        (
            extra(&format!("{q}.lora_magnitude_vector")),
            "is DoRA's, which is not supported".to_owned(),
        ),
        (
            refusal(|config, _| config["use_dora"] = json!(true)),
            "adapter_config.json: key `use_dora` is `true`".to_owned(),
        ),
    ] {
        assert!(said.contains(&expected), "{said}");
    }
    let temporary = tempfile::tempdir().unwrap();
    let adapter = temporary.path().join("adapter");
    let options = Options {
        load: LoadOptions {
            adapter: Some(adapter),
            ..LoadOptions::default()
        },
        ..Options::new(Format::F32)
    };
    let out = temporary.path().join("out.gguf");
    let error = convert(temporary.path(), &out, &options, |_, _| {}).unwrap_err();
    assert!(chain(&error).contains("a LoRA adapter stays beside its model"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn flipped_bits_and_cuts_never_panic(
        flips in proptest::collection::vec((0_usize..1 << 12, 0_u32..8), 1..4),
        cut in 0_usize..1 << 14,
        in_config: bool,
    ) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = |name: &str| temporary.path().join(name);
        let config = model_config("LlamaForCausalLM");
        let base = random_tensors(&config, 3);
        write_folder(&folder("base"), &config, &base);
        write_adapter(&folder("adapter"), &adapter_config(), &adapter_and_merged(&base).0);
        let name = if in_config { "adapter_config.json" } else { "adapter_model.safetensors" };
        let path = folder("adapter").join(name);
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        for (at, bit) in flips {
            bytes[at % len] ^= 1 << bit;
        }
        bytes.truncate(if cut % 4 == 0 { cut % len } else { len });
        write(&path, &bytes);
        if let Ok(model) = load_with(&folder("base"), &folder("adapter")) {
            let _ = logits(model, &TOKENS[..1]);
        }
    }
}
