//! The JSON files of a Hugging Face folder and of an adapter, of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::format::hf;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = hf::parse_config(bytes) {
        let model = config.model;
        assert!(model.n_heads.is_multiple_of(model.n_kv_heads));
        assert!(model.head_dim.is_multiple_of(2));
    }
    let _ = hf::parse_generation_config(bytes);
    if let Ok(adapter) = hf::parse_adapter_config(bytes) {
        let module = "model.layers.0.self_attn.q_proj";
        let _ = (adapter.targets(module), adapter.scale(module));
        assert!(!matches!(adapter.rank(module), Ok(0)));
    }
    if let Ok(files) = hf::parse_index(bytes) {
        assert!(
            files
                .values()
                .all(|file| !file.contains('/') && file != "..")
        );
    }
});
