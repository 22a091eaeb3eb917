//! What is done with a tokenizer, whatever file it came from.

use tritmark_engine::{
    chat::{ChatTemplate, Message, Role},
    tokenizer::{Special, Tokenizer},
};

/// Encodes, decodes, streams, and renders the template that came along.
pub fn use_all(tokenizer: &Tokenizer, text: &str) {
    let _ = tokenizer.content_hash();
    for special in [Special::None, Special::Default, Special::Bos] {
        for parse_special in [false, true] {
            let Ok(ids) = tokenizer.encode(text, special, parse_special) else {
                continue;
            };
            for skip_special in [false, true] {
                let _ = tokenizer.decode(&ids, skip_special);
                let mut stream = tokenizer.stream(skip_special);
                for &id in &ids {
                    stream.push(id);
                }
                stream.finish();
            }
        }
    }
    let _ = tokenizer.pair(text, text, true);
    if let Ok(Some(template)) = ChatTemplate::of(tokenizer) {
        let _ = template.render(&[Message::new(Role::User, text)], true);
    }
}
