//! A safetensors file of any bytes: parsed, and loaded beside a small configuration; never a panic
//! or a huge allocation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::{
    format::safetensors::Safetensors,
    load::{LoadOptions, load},
};

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "hidden_size": 4, "intermediate_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 2,
    "quantization_config": {"quant_method": "bitnet"}, "tie_word_embeddings": true
}"#;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Safetensors::parse(bytes) else {
        return;
    };
    for tensor in &file.tensors {
        assert!(tensor.offset + tensor.len <= bytes.len() as u64);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name, bytes| std::fs::write(folder.path().join(name), bytes);
    write("config.json", CONFIG.as_bytes()).expect("a temporary file");
    write("model.safetensors", bytes).expect("a temporary file");
    let _ = load(folder.path(), &LoadOptions::default());
});
