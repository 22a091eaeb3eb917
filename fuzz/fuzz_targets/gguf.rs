//! A GGUF file of any bytes: parsed, described, loaded; never a panic or a huge allocation.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::{
    format::gguf::Gguf,
    inspect::inspect,
    load::{LoadOptions, load},
};

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else {
        return;
    };
    for tensor in &gguf.tensors {
        assert!(tensor.offset + tensor.len <= bytes.len() as u64);
    }
    // What can be parsed goes the whole way, through a file as a model does.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).expect("a temporary file");
    inspect(&path).expect("what can be parsed can be described");
    let _ = load(&path, &LoadOptions::default());
});
