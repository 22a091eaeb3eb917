//! What other programs read otherwise, or not at all, in a model's vocabulary.

use super::{Check, Group, Outcome};
use crate::{
    chat::{ChatTemplate, Message, Role},
    config::{Activation, Architecture},
    errors::chain,
    load::{LoadedModel, VocabSource},
    tokenizer::Tokenizer,
};

/// What ends a turn of BitNet b1.58 2B4T.
const END_OF_TURN: &str = "<|eot_id|>";

pub(super) fn checks(model: &LoadedModel) -> Vec<Check> {
    let check =
        |name: &str, outcome, found: String| Check::new(Group::Vocabulary, name, outcome, found);
    let tokenizer = match Tokenizer::new(&model.vocab) {
        Ok(tokenizer) => tokenizer,
        Err(_) if model.vocab == VocabSource::None => {
            let found = "the model has none: texts cannot be tokenized".to_owned();
            return vec![check("tokenizer", Outcome::Warn, found)];
        }
        Err(error) => return vec![check("tokenizer", Outcome::Fail, chain(&error))],
    };
    let mut checks = Vec::new();
    if let VocabSource::Gguf(vocab) = &model.vocab
        && vocab.model == "gpt2"
    {
        checks.push(match vocab.pre.as_deref() {
            None | Some("" | "default") => check(
                "tokenizer.ggml.pre",
                Outcome::Warn,
                "missing: llama-bpe is used here; bitnet.cpp splits digits otherwise".to_owned(),
            ),
            Some(name) => check("tokenizer.ggml.pre", Outcome::Pass, name.to_owned()),
        });
    }
    checks.push(chat_template(model, &tokenizer));
    checks
}

fn chat_template(model: &LoadedModel, tokenizer: &Tokenizer) -> Check {
    let check =
        |outcome, found: String| Check::new(Group::Vocabulary, "chat template", outcome, found);
    let template = match ChatTemplate::of(tokenizer) {
        Ok(Some(template)) => template,
        Ok(None) => return check(Outcome::Info, "none".to_owned()),
        Err(error) => return check(Outcome::Warn, chain(&error)),
    };
    let question = "What is a trit?";
    let rendered = match template.render(&[Message::new(Role::User, question)], true) {
        Ok(rendered) => rendered,
        Err(error) => return check(Outcome::Warn, chain(&error)),
    };
    let Some((_, after)) = rendered.split_once(question) else {
        let found = format!("loses the user's message: {rendered:?}");
        return check(Outcome::Warn, found);
    };
    // The official file's template is older than the model (microsoft/BitNet #602): its turns do
    // not end with the token that the model was trained to end them with.
    let b1_58 = model.config.architecture == Architecture::Bitnet
        && model.config.activation == Activation::ReluSquared;
    if b1_58 && tokenizer.special_id(END_OF_TURN).is_some() && !after.contains(END_OF_TURN) {
        let found = format!(
            "outdated: a user's turn does not end with {END_OF_TURN}, but becomes {rendered:?}"
        );
        return check(Outcome::Warn, found);
    }
    check(Outcome::Pass, "renders a user's message".to_owned())
}
