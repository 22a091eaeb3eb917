//! Chat templates against what the Python library rendered.

mod common;

use tritmark_engine::{
    chat::{ChatTemplate, Message, Role},
    tokenizer::Special,
};

#[test]
fn conversations_are_written_down_as_the_python_library_does() {
    let Some(data) = common::data("the test of chat templates") else {
        return;
    };
    for (model, vectors) in [
        ("bitnet-tiny-packed", "bitnet-llama3-2048"),
        ("qwen2-tiny", "qwen2-1536"),
        ("gemma3-tiny", "gemma-1536"),
    ] {
        let tokenizer = common::folder_tokenizer(&data.join("golden/models").join(model));
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id));
        let golden = common::json(&data.join(format!("golden/tokenizers/{vectors}.json.gz")));
        let chats = golden["chat"].as_array().unwrap();
        assert!(chats.len() >= 8, "{} conversations", chats.len());
        for chat in chats {
            let name = chat["template"].as_str().unwrap();
            let template = golden["templates"][name].as_str().unwrap();
            let template =
                ChatTemplate::new(template, text(tokenizer.bos()), text(tokenizer.eos())).unwrap();
            let messages: Vec<_> = chat["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| {
                    let role = match message["role"].as_str().unwrap() {
                        "system" => Role::System,
                        "user" => Role::User,
                        "assistant" => Role::Assistant,
                        other => panic!("role {other}"),
                    };
                    Message::new(role, message["content"].as_str().unwrap())
                })
                .collect();
            let prompt = chat["add_generation_prompt"].as_bool().unwrap();
            let rendered = template.render(&messages, prompt).unwrap();
            assert_eq!(chat["rendered"], *rendered, "{name}");
            for (special, ids) in [
                (Special::None, "ids_no_special"),
                (Special::Default, "ids_with_special"),
            ] {
                let expected = common::ids(&chat[ids]);
                assert_eq!(
                    tokenizer.encode(&rendered, special, true).unwrap(),
                    expected
                );
            }
        }
        // The template that came with the model is one of them.
        let own = ChatTemplate::of(&tokenizer).unwrap().unwrap();
        let hello = own
            .render(&[Message::new(Role::User, "Hello")], true)
            .unwrap();
        assert_eq!(chats[0]["rendered"], *hello);
    }
}
