//! A chat template of any text and turns of any text, cut at the bytes 0xff: written down or
//! refused, within the fuel it is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tritmark_engine::chat::{ChatTemplate, Message, Role};

const ROLES: [Role; 3] = [Role::System, Role::User, Role::Assistant];

fuzz_target!(|bytes: &[u8]| {
    let mut texts = bytes
        .split(|&byte| byte == 0xff)
        .map(|text| String::from_utf8_lossy(text).into_owned());
    let template = texts.next().unwrap_or_default();
    let messages: Vec<Message> = texts
        .zip(ROLES.into_iter().cycle())
        .map(|(text, role)| Message::new(role, text))
        .collect();
    if let Ok(template) = ChatTemplate::new(&template, Some("<s>".to_owned()), None) {
        for add_generation_prompt in [false, true] {
            let _ = template.render(&messages, add_generation_prompt);
        }
    }
});
