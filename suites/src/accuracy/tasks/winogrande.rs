//! WinoGrande (Sakaguchi et al. 2020): which of two names fits the gap?
//!
//! Partial evaluation (Trinh and Le 2018): the options go into the context, and the same rest of
//! the sentence is scored after each.

use serde_json::Value;

use crate::accuracy::{
    dataset::{FieldError, text},
    task::{Question, Request, Task},
};

/// WinoGrande.
pub(crate) const WINOGRANDE: Task = Task {
    name: "winogrande",
    version: 1,
    items: &["validation"],
    examples: &["train_xl", "train", "train_l"],
    has_acc_norm: false,
    question,
};

fn question(item: &Value) -> Result<Question, FieldError> {
    let sentence = text(item, "sentence")?;
    let options = [text(item, "option1")?, text(item, "option2")?];
    let gold = match text(item, "answer")? {
        "1" => 0,
        "2" => 1,
        _ => return Err(FieldError::new("answer", "is neither `1` nor `2`")),
    };
    let (before, after) = sentence
        .split_once('_')
        .ok_or_else(|| FieldError::new("sentence", "has no gap `_`"))?;
    let rest = after.trim_matches(is_python_space);
    let contexts = options.map(|option| format!("{before}{option}"));
    let solved = format!("{} {rest}", contexts[gold]);
    Ok(Question {
        requests: contexts
            .into_iter()
            .map(|context| Request {
                context,
                continuation: format!(" {rest}"),
                n_chars: rest.chars().count() as u32,
            })
            .collect(),
        gold: gold as u32,
        solved,
    })
}

/// Tells whether Python's `str.strip` removes a character: Unicode's blanks and four separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_options_go_into_the_context_and_the_rest_is_scored() {
        let item = json!({"sentence": "Ann gave Bea a pen, so _  wrote_ it. ", "option1": "Ann",
                          "option2": "Bea", "answer": "2"});
        let asked = question(&item).unwrap();
        assert_eq!(asked.gold, 1);
        assert_eq!(asked.requests[0].context, "Ann gave Bea a pen, so Ann");
        assert_eq!(asked.requests[1].context, "Ann gave Bea a pen, so Bea");
        for request in &asked.requests {
            assert_eq!(request.continuation, " wrote_ it.");
            assert_eq!(request.n_chars, 10);
        }
        assert_eq!(asked.solved, "Ann gave Bea a pen, so Bea wrote_ it.");
    }

    #[test]
    fn a_sentence_without_a_gap_is_refused() {
        let item = json!({"sentence": "Ann wrote.", "option1": "a", "option2": "b", "answer": "1"});
        let error = question(&item).unwrap_err();
        assert_eq!(error.to_string(), "key `sentence` has no gap `_`");
    }
}
