//! Real files: every model of `golden/models` and `models` under `TRITMARK_DATA` loads, and the
//! same weights in five formats become the same trits.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use half::bf16;
use tritmark_engine::{
    config::{Activation, Architecture, RopePairs, RopeScaling},
    engine::{Engine, EngineOptions},
    format::gguf::{Layout, Metadata, TensorType, Value},
    inspect::inspect,
    load::{LoadOptions, LoadedModel, VocabSource, load},
    quant::i2_s,
    weights::{Bytes, DenseType, Matrix, TernaryMatrix, TernaryScale},
};

/// Returns the data folder, or None after saying that the test did not run.
fn data(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TRITMARK_DATA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("NOT RUN: {test} needs TRITMARK_DATA");
    }
    folder
}

fn loaded(path: &Path) -> LoadedModel {
    load(path, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

/// The ternary matrices of a model under Hugging Face's names.
fn ternary(model: &LoadedModel) -> BTreeMap<String, &TernaryMatrix> {
    let mut matrices = BTreeMap::new();
    for (nth, layer) in model.weights.layers.iter().enumerate() {
        for (name, linear) in [
            ("self_attn.q_proj", &layer.q),
            ("self_attn.k_proj", &layer.k),
            ("self_attn.v_proj", &layer.v),
            ("self_attn.o_proj", &layer.o),
            ("mlp.gate_proj", &layer.gate),
            ("mlp.up_proj", &layer.up),
            ("mlp.down_proj", &layer.down),
        ] {
            if let Matrix::Ternary(matrix) = &linear.matrix {
                matrices.insert(format!("model.layers.{nth}.{name}.weight"), matrix);
            }
        }
    }
    matrices
}

fn trits(matrix: &TernaryMatrix) -> Vec<i8> {
    let mut trits = vec![0; matrix.rows * matrix.cols];
    for (row, codes) in trits.chunks_mut(matrix.cols).zip(
        matrix
            .i2_s_rows()
            .chunks(TernaryMatrix::row_bytes(matrix.cols)),
    ) {
        i2_s::unpack_row(codes, row);
    }
    trits
}

fn scale(matrix: &TernaryMatrix) -> f32 {
    match matrix.scale {
        TernaryScale::Tensor(scale) => scale,
        TernaryScale::Blocks(_) => panic!("one scale"),
    }
}

/// The tiny BitNet in each of its formats.
fn bitnet_tiny(data: &Path) -> [(&'static str, LoadedModel); 5] {
    [
        ("i2_s", "bitnet-tiny.i2_s.gguf"),
        ("tq1_0", "bitnet-tiny.tq1_0.gguf"),
        ("tq2_0", "bitnet-tiny.tq2_0.gguf"),
        ("packed", "bitnet-tiny-packed"),
        ("bf16", "bitnet-tiny-bf16"),
    ]
    .map(|(format, name)| (format, loaded(&data.join("golden/models").join(name))))
}

#[test]
fn five_formats_of_one_model_hold_the_same_trits_and_statistics() {
    let Some(data) = data("five formats of one model") else {
        return;
    };
    let stats = std::fs::read(data.join("golden/models/bitnet-tiny.ternary_stats.json")).unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    let stats = stats.as_object().unwrap();
    let models = bitnet_tiny(&data);
    let reference: BTreeMap<String, Vec<i8>> = ternary(&models[0].1)
        .into_iter()
        .map(|(name, matrix)| (name, trits(matrix)))
        .collect();
    assert_eq!(reference.len(), 28);
    assert_eq!(stats.len(), 28);
    for (format, model) in &models {
        assert_eq!(model.source.stored_linear_format, *format);
        assert_eq!(model.source.linear_format, "i2_s");
        assert_eq!(model.source.warnings, Vec::<String>::new(), "{format}");
        let config = &model.config;
        assert_eq!(config.architecture, Architecture::Bitnet);
        assert_eq!(config.activation, Activation::ReluSquared);
        assert_eq!(config.rope_pairs, RopePairs::Halves);
        assert_eq!(
            (config.n_heads, config.n_kv_heads, config.head_dim),
            (8, 2, 32)
        );
        assert_eq!((config.vocab_size, config.context_length), (2048, 2048));
        assert!((config.rms_norm_eps - 1e-5).abs() < 1e-10);
        assert!(model.weights.head.is_none());
        for (name, matrix) in ternary(model) {
            let trits = trits(matrix);
            assert!(trits == reference[&name], "{format} {name}");
            let stats = &stats[&name];
            assert_eq!(stats["rows_cols"][0], matrix.rows);
            assert_eq!(stats["rows_cols"][1], matrix.cols);
            let zeros = trits.iter().filter(|&&trit| trit == 0).count();
            // A fraction rounded to f32, which still tells every count.
            let frac_zero = stats["frac_zero"].as_f64().unwrap();
            let off = zeros as f64 - frac_zero * trits.len() as f64;
            assert!(off.abs() < 0.1, "{format} {name}: {off}");
            // Stored as f32, f16 or bf16: up to 2^-9 off.
            let mean = stats["mean_abs"].as_f64().unwrap();
            let tolerance = if *format == "bf16" {
                1e-6
            } else {
                2.0_f64.powi(-8)
            };
            let off = (f64::from(scale(matrix)) / mean - 1.0).abs();
            assert!(off <= tolerance, "{format} {name}: {off}");
        }
    }
}

#[test]
fn trits_are_brought_into_run_time_order_and_the_head_stays_mapped() {
    let Some(data) = data("a mapped i2_s file") else {
        return;
    };
    let model = loaded(&data.join("golden/models/bitnet-tiny.i2_s.gguf"));
    for (name, matrix) in ternary(&model) {
        assert!(matches!(matrix.codes, Bytes::Owned(_)), "{name}");
    }
    assert!(matches!(model.weights.embedding.data, Bytes::Mapped { .. }));
    assert_eq!(model.source.head_format, "f16");
    // 2 bits, and 4 bytes of scale a matrix.
    assert!((2.0..2.01).contains(&model.source.bits_per_weight));
    let VocabSource::Gguf(vocab) = &model.vocab else {
        panic!("the file has a vocabulary");
    };
    assert_eq!((vocab.tokens.len(), vocab.merges.len()), (2048, 1534));
    assert_eq!(vocab.pre.as_deref(), Some("llama-bpe"));
    assert_eq!(
        (vocab.bos_id, vocab.eos_id, vocab.add_bos),
        (Some(1792), Some(1793), Some(true))
    );
}

#[test]
fn the_small_trained_models_load() {
    let Some(data) = data("the small trained models") else {
        return;
    };
    let models = data.join("models");
    let bit_3m = loaded(&models.join("bitllama/bitllama-tinystories-3m-tq2_0.gguf"));
    assert_eq!(bit_3m.source.stored_linear_format, "tq2_0");
    assert_eq!(bit_3m.config.activation, Activation::Silu);
    assert_eq!(bit_3m.config.rope_scaling, RopeScaling::None);
    assert_eq!(ternary(&bit_3m).len(), 56);
    let bit_1m = loaded(&models.join("bitllama/bitllama-tinystories-1m-f32.gguf"));
    assert_eq!(bit_1m.source.stored_linear_format, "f32");
    assert_eq!(bit_1m.source.linear_format, "i2_s");
    for model in [&bit_1m, &bit_3m] {
        assert_eq!(model.source.warnings, Vec::<String>::new());
        assert_eq!(model.config.rope_pairs, RopePairs::Halves);
        for matrix in ternary(model).values() {
            assert!(scale(matrix) > 0.0);
            let zeros = trits(matrix).iter().filter(|&&trit| trit == 0).count();
            assert!(zeros * 10 > matrix.rows * matrix.cols, "a tenth are zeros");
        }
    }
    let dense = loaded(&models.join("stories260K/stories260K-f32.gguf"));
    assert_eq!(dense.config.rope_pairs, RopePairs::Neighbours);
    assert_eq!(dense.source.linear_format, "f32");
    assert_eq!(dense.weights.head.as_ref().unwrap().dtype, DenseType::F32);
    assert_eq!(dense.source.warnings, Vec::<String>::new());
}

#[test]
fn the_full_precision_folders_load() {
    let Some(data) = data("the full-precision folders") else {
        return;
    };
    let models = data.join("golden/models");
    let llama = loaded(&models.join("llama-tiny"));
    assert_eq!(llama.source.architecture, "LlamaForCausalLM");
    assert_eq!(llama.source.linear_format, "bf16");
    assert_eq!(llama.config.rope_pairs, RopePairs::Halves);
    assert_eq!(
        llama.config.rope_scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 256
        }
    );
    let qwen2 = loaded(&models.join("qwen2-tiny"));
    assert_eq!(qwen2.config.vocab_size, 1600);
    assert!(qwen2.weights.layers.iter().all(|layer| {
        let biases = [&layer.q, &layer.k, &layer.v].map(|linear| linear.bias.as_ref());
        biases.iter().all(Option::is_some) && layer.o.bias.is_none()
    }));
    let gemma3 = loaded(&models.join("gemma3-tiny"));
    assert_eq!(gemma3.config.activation, Activation::Gelu);
    assert!(gemma3.weights.head.is_none());
    let local: Vec<_> = (0..6)
        .map(|layer| gemma3.config.local_attention(layer).is_some())
        .collect();
    assert_eq!(local, [true, true, true, true, true, false]);
    for (model, n_ends) in [(&llama, 1), (&qwen2, 1), (&gemma3, 2)] {
        assert_eq!(model.source.warnings, Vec::<String>::new());
        let VocabSource::TokenizerJson(vocab) = &model.vocab else {
            panic!("the folder has a tokenizer");
        };
        assert!(vocab.tokenizer_json.is_file());
        assert_eq!(vocab.eos_ids.len(), n_ends);
    }
}

/// Writes a folder of Gemma 3 as the converter of llama.cpp does: norms with their 1 added, in f32.
fn gemma3_gguf(folder: &Path) -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.set("general.architecture", Value::String("gemma3".into()));
    for (key, value) in [
        ("context_length", 2048),
        ("embedding_length", 128),
        ("block_count", 6),
        ("feed_forward_length", 256),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 32),
        ("attention.value_length", 32),
        ("attention.sliding_window", 64),
    ] {
        metadata.set(format!("gemma3.{key}"), Value::U32(value));
    }
    let eps = "gemma3.attention.layer_norm_rms_epsilon";
    metadata.set(eps, Value::F32(1e-6));
    metadata.set("gemma3.rope.freq_base", Value::F32(1e6));

    let file = std::fs::read(folder.join("model.safetensors"))
        .expect("the golden model is as its README says");
    let tensors = safetensors::SafeTensors::deserialize(&file)
        .expect("the golden model is as its README says");
    let mut layout = Layout::new(metadata);
    let mut parts = Vec::new();
    for (name, tensor) in tensors.tensors() {
        let is_norm = name.contains("norm");
        let mut name = name.replace("model.layers.", "blk.");
        for (from, to) in [
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "post_attention_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ] {
            name = name.replace(from, to);
        }
        let dims: Vec<u64> = tensor.shape().iter().rev().map(|&dim| dim as u64).collect();
        let (words, _) = tensor.data().as_chunks();
        let plus_one = |&word| (bf16::from_le_bytes(word).to_f32() + 1.0).to_le_bytes();
        let (kind, bytes) = if is_norm {
            (TensorType::F32, words.iter().flat_map(plus_one).collect())
        } else {
            (TensorType::Bf16, tensor.data().to_vec())
        };
        layout
            .add(name, &dims, kind)
            .expect("the golden model is as its README says");
        parts.push(bytes);
    }
    let mut writer = layout
        .begin(Vec::new())
        .expect("the golden model is as its README says");
    for bytes in parts {
        writer
            .write(&bytes)
            .expect("the golden model is as its README says");
    }
    writer.finish()
}

#[test]
fn a_gemma3_is_the_same_model_in_either_kind_of_file() {
    let Some(data) = data("Gemma 3 in a GGUF file") else {
        return;
    };
    let folder = data.join("golden/models/gemma3-tiny");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), gemma3_gguf(&folder)).unwrap();
    let models = [loaded(file.path()), loaded(&folder)];
    assert_eq!(models[0].config, models[1].config);
    assert_eq!(models[0].source.warnings, Vec::<String>::new());
    let [ours, folders] = models.map(|model| {
        let options = EngineOptions::default();
        let mut engine = Engine::new(model.config, model.weights, &options).unwrap();
        engine.fingerprint()
    });
    assert_eq!(ours, folders);
}

#[test]
fn the_ternary_llamas_scale_is_inverted() {
    let Some(data) = data("the ternary Llama") else {
        return;
    };
    let model = loaded(&data.join("golden/models/llama158-tiny"));
    assert_eq!(model.source.stored_linear_format, "packed");
    assert_eq!(model.config.activation, Activation::Silu);
    assert!(model.weights.layers[0].attn_sub_norm.is_none());
    let matrices = ternary(&model);
    assert_eq!(matrices.len(), 28);
    for matrix in matrices.values() {
        // Mean magnitudes of trained weights, not their inverses.
        assert!((0.005..0.5).contains(&scale(matrix)), "{}", scale(matrix));
    }
}

#[test]
fn an_architecture_that_is_not_supported_is_named() {
    let Some(data) = data("an architecture that is not supported") else {
        return;
    };
    let folder = of_another_class(&data);
    let error = load(folder.path(), &LoadOptions::default()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("key `architectures` is `Gemma9ForCausalLM`, which is not supported"),
        "{source}"
    );
}

/// Copies a folder and gives it a class that nobody knows.
fn of_another_class(data: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder to write to");
    let model = data.join("golden/models/gemma3-tiny");
    let config = std::fs::read_to_string(model.join("config.json")).expect("a folder to write to");
    let config = config.replace("Gemma3ForCausalLM", "Gemma9ForCausalLM");
    std::fs::write(folder.path().join("config.json"), config).expect("a folder to write to");
    let weights = "model.safetensors";
    std::fs::copy(model.join(weights), folder.path().join(weights)).expect("a folder to write to");
    folder
}

#[test]
fn the_hash_of_a_model_is_stable_and_its_own() {
    let Some(data) = data("the hash of a model") else {
        return;
    };
    let hashes: Vec<String> = bitnet_tiny(&data)
        .iter()
        .map(|(_, model)| model.source.weights_hash().unwrap())
        .collect();
    let again = bitnet_tiny(&data).map(|(_, model)| model.source.weights_hash().unwrap());
    assert_eq!(hashes, again);
    let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
    assert_eq!(distinct.len(), 5);
}

#[test]
fn every_model_is_described_even_one_that_cannot_run() {
    let Some(data) = data("descriptions of models") else {
        return;
    };
    let models = data.join("golden/models");
    let packed = inspect(&models.join("bitnet-tiny-packed")).unwrap();
    let mapped = inspect(&models.join("bitnet-tiny.i2_s.gguf")).unwrap();
    assert_eq!(
        (packed.format.as_str(), mapped.format.as_str()),
        ("safetensors", "gguf v3")
    );
    assert_eq!(packed.types["u8"].n_tensors, 28);
    assert_eq!(mapped.types["i2_s"].n_tensors, 28);
    // The folder has 28 separate scales besides.
    assert_eq!(packed.n_weights, mapped.n_weights + 28);
    let (packed_config, mapped_config) = (packed.config.unwrap(), mapped.config.unwrap());
    assert_eq!(packed_config, mapped_config);
    assert_eq!(mapped.metadata["tokenizer.ggml.tokens"][8], "… 2040 more");
    assert_eq!(packed.files.len(), 5);

    let other = inspect(of_another_class(&data).path()).unwrap();
    assert!(other.config.is_none());
    assert!(
        other.warnings[0].contains("Gemma9ForCausalLM"),
        "{:?}",
        other.warnings
    );
    assert_eq!(other.metadata["vocab_size"], 1536);
}
