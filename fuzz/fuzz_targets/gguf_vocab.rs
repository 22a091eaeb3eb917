//! The vocabulary and the chat template of a GGUF file of any bytes, used on the text in its
//! `general.name`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::{format::gguf::Gguf, load::gguf_vocab, tokenizer::Tokenizer};

#[path = "../shared/tokens.rs"]
mod tokens;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else {
        return;
    };
    let Ok(vocab) = gguf_vocab(&gguf.metadata) else {
        return;
    };
    let text = gguf.metadata.string("general.name");
    if let Ok(tokenizer) = Tokenizer::new(&vocab) {
        tokens::use_all(&tokenizer, text.ok().flatten().unwrap_or("a text"));
    }
});
