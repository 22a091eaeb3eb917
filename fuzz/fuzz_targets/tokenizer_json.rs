//! A `tokenizer.json` of any bytes, and a text for it after the first byte 0xff: built and used as
//! a model's is, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::{
    load::{FolderVocab, VocabSource},
    tokenizer::Tokenizer,
};

#[path = "../shared/tokens.rs"]
mod tokens;

/// Has a panic of the `tokenizers` library be what the engine makes of it: an error. Any other
/// still ends the fuzzing.
fn let_contained_panics_pass() {
    let end = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let frames = std::backtrace::Backtrace::force_capture().to_string();
        if !frames.contains("library::contained") {
            end(panic);
        }
    }));
}

fuzz_target!(init: let_contained_panics_pass(), |bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&byte| byte == 0xff);
    let json = parts.next().unwrap_or_default();
    let text = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json).expect("a temporary file");
    let vocab = FolderVocab {
        tokenizer_json: path,
        ..FolderVocab::default()
    };
    if let Ok(tokenizer) = Tokenizer::new(&VocabSource::TokenizerJson(vocab)) {
        tokens::use_all(&tokenizer, &text);
    }
});
