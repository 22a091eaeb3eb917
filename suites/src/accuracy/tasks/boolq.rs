//! BoolQ (Clark et al. 2019): is it so, according to this passage?
//!
//! The passage stands in the prompt as the data has it: `SuperGLUE` puts the
//! article's title into `passage`, the plain form keeps it apart in `title`, which the reference
//! harness does not read.

use serde_json::Value;

use crate::accuracy::{
    dataset::{FieldError, text, value},
    task::{Question, Task, multiple_choice},
};

/// BoolQ.
pub(crate) const BOOLQ: Task = Task {
    name: "boolq",
    version: 1,
    items: &["validation"],
    examples: &["train", "train_fewglue32"],
    has_acc_norm: false,
    question,
};

fn question(item: &Value) -> Result<Question, FieldError> {
    let passage = text(item, "passage")?;
    let asked = text(item, "question")?;
    let context = format!("{passage}\nQuestion: {asked}?\nAnswer:");
    Ok(multiple_choice(
        &context,
        &["no", "yes"],
        usize::from(answer(item)?),
    ))
}

/// Returns the answer: `answer` of the plain form, `label` of `SuperGLUE`'s.
fn answer(item: &Value) -> Result<bool, FieldError> {
    if let Some(label) = item.get("label") {
        return match label.as_u64() {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(FieldError::new("label", "is neither 0 nor 1")),
        };
    }
    value(item, "answer")?
        .as_bool()
        .ok_or_else(|| FieldError::new("answer", "is neither true nor false"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_of_the_set_ask_the_same() {
        let plain = json!({"question": "is tin a metal", "passage": "Tin melts.", "title": "Tin",
                           "answer": true});
        let superglue = json!({"question": "is tin a metal", "passage": "Tin melts.", "label": 1,
                               "idx": 7});
        let asked = question(&plain).unwrap();
        assert_eq!(asked, question(&superglue).unwrap());
        assert_eq!(asked.gold, 1);
        let requests = asked.requests;
        assert_eq!(
            requests[0].context,
            "Tin melts.\nQuestion: is tin a metal?\nAnswer:"
        );
        assert_eq!(requests[0].continuation, " no");
        assert_eq!(requests[1].continuation, " yes");
    }

    #[test]
    fn an_answer_in_words_is_refused() {
        let item = json!({"question": "q", "passage": "p", "answer": "yes"});
        let error = question(&item).unwrap_err();
        assert_eq!(error.to_string(), "key `answer` is neither true nor false");
        let item = json!({"question": "q", "passage": "p", "label": -1});
        let error = question(&item).unwrap_err();
        assert_eq!(error.to_string(), "key `label` is neither 0 nor 1");
    }
}
